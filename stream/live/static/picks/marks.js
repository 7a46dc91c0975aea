// What a person says of picks: right, wrong, missed. The daemon keeps it; the blob `picks/<row>` tells what is marked.

/** Sends marks. `changed()`: one was taken. `failed(text)`: one was not, and why. */
export class Marks {
  constructor(net, changed, failed) {
    this.net = net;
    this.changed = changed;
    this.failed = failed;
  }

  /** A verdict on candidate `index` of micrograph `row`: "right" (a particle), "wrong", or "none" (withdrawn). */
  pick(row, index, verdict) {
    return this.#send({ id: `${row}/${index}`, verdict });
  }

  /** The same on what lies at (x, y), pixels of the micrograph; the daemon knows whether a candidate is there. */
  place(row, x, y, verdict) {
    return this.#send({ id: row, verdict, x, y });
  }

  async #send(mark) {
    try {
      await this.net.act("mark", { marks: [mark] });
    } catch (error) {
      this.failed(`Not marked: ${error.message}`);
      return false;
    }
    this.changed();
    return true;
  }
}

/** What is marked, of a blob `picks/<row>`: verdicts by candidate, and places [{x, y, verdict}] that are none. */
export function marked({ truth = [], marked: places = [] }) {
  const word = (true_) => (true_ ? "right" : "wrong");
  const verdicts = new Map();
  truth.forEach((one, i) => typeof one === "boolean" && verdicts.set(i, word(one)));
  return { verdicts, places: places.map(({ x, y, truth: one }) => ({ x, y, verdict: word(one) })) };
}
