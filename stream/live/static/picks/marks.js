// What people of this browser have marked: picks right or wrong, and particles that were missed.

const MOST = 2000;

/** Marks by id, as the daemon has taken them. A mark that the daemon refuses is not kept, and its reason is told. */
export class Marks {
  /** `changed()`: a mark was taken. `failed(text)`: it was not. */
  constructor(net, changed, failed) {
    this.net = net;
    this.changed = changed;
    this.failed = failed;
    this.taken = new Map(); // id -> {row, index, verdict, x, y}
  }

  /** A verdict on candidate `index` of micrograph `row`: "right" (a particle), "wrong", or "none" (withdrawn). */
  pick(row, index, verdict, { x, y }) {
    return this.#send({ id: `${row}/${index}`, verdict }, { row, index, verdict, x, y });
  }

  /** A particle at (x, y), pixels of the micrograph, that is no candidate. */
  missed(row, x, y) {
    return this.#send({ id: String(row), verdict: "right", x, y }, { row, index: null, verdict: "right", x, y });
  }

  async #send(mark, kept) {
    try {
      await this.net.act("mark", { marks: [mark] });
    } catch (error) {
      this.failed(`Not marked: ${error.message}`);
      return false;
    }
    const id = kept.index === null ? `${mark.id}@${mark.x},${mark.y}` : mark.id;
    if (kept.verdict === "none") this.taken.delete(id);
    else this.taken.set(id, kept);
    if (this.taken.size > MOST) this.taken.delete(this.taken.keys().next().value);
    this.changed();
    return true;
  }

  /** Of micrograph `row`: candidates' verdicts by index, and the places of missed particles. */
  of(row) {
    const verdicts = new Map();
    const missed = [];
    for (const mark of this.taken.values()) {
      if (mark.row !== row) continue;
      if (mark.index === null) missed.push([mark.x, mark.y]);
      else verdicts.set(mark.index, mark.verdict);
    }
    return { verdicts, missed };
  }
}
