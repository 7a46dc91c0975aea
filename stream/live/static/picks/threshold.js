// Panel: the candidates' scores with the threshold, with what another one would give; and how far what is stored follows a new one.

import { INK } from "../colours.js";
import { el, fmt, setText } from "../dom.js";
import { histogram } from "../histogram.js";

/** `proposed(value)`: the threshold that is being dragged, or null. `applied()`: a new one holds. */
export function threshold(session, net, { proposed, applied }) {
  const histo = histogram(net, {
    title: "Candidates' scores",
    hint: "Drag the line: the circles follow. Nothing is stored anew before “Apply”.",
    unit: "candidates",
    stacks: [{ key: "counts", label: "candidates", colour: INK.accepted }],
    rows: [
      { key: "picks", label: "picks in all", text: fmt.count },
      { key: "median", label: "median per micrograph", text: fmt.count },
      { key: "purity", label: "purity", text: (found) => fmt.estimate(found, "review picks first") },
      { key: "recall", label: "recall", text: (found) => fmt.estimate(found, "review misses first") },
    ],
    applied,
  });
  const bar = el("progress", { max: "1", "aria-label": "Stored micrographs picked again" });
  const text = el("span");
  const again = el("p", { class: "again", role: "status", hidden: true }, bar, text);
  histo.panel.body.append(again);

  // The slider tells what is proposed: the circles on the micrograph follow while it is dragged.
  new MutationObserver(() => proposed(histo.proposed)).observe(histo.handle, { attributes: true, attributeFilter: ["aria-valuenow"] });

  session.on("snapshot", () => {
    histo.update(session.snapshot);
    const found = session.snapshot.rethreshold;
    again.hidden = !found;
    if (!found) return;
    bar.value = found.of ? found.done / found.of : 0;
    setText(text, `Stored picks follow the new threshold: ${fmt.count(found.done)} of ${fmt.count(found.of)} micrographs`);
  });
  return { root: histo.root };
}
