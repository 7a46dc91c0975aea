// Panels: sub-volumes by class, and the error of the reconstruction, tomogram by tomogram.

import { chart } from "../charts.js";
import { INK } from "../colours.js";
import { el, fmt, panel, rows, setText } from "../dom.js";
import { rem } from "../picks/units.js";
import { median } from "../picks/yields.js";
import { drift } from "./glance.js";
import { UNMARKED, colour } from "./words.js";

export function found(session) {
  const { root, body, note } = panel("Sub-volumes by class", { area: "found" });
  const none = el("p", { class: "quiet", text: "No group yet: mark clusters that show the same, and they are counted here." });
  const list = el("ul", { class: "mine-classes" });
  body.append(none, list);
  session.on("snapshot", () => {
    const { totals, mining } = session.snapshot;
    if (!totals || !mining) return;
    const inks = new Map(mining.groups.map((group) => [group.name, group]));
    none.hidden = mining.groups.length > 0;
    setText(note, totals.subvolumes ? `${fmt.count(totals.subvolumes)} in all` : "");
    rows(list, totals.by_class.length, () => line()).forEach((node, i) => dress(node, totals.by_class[i], inks, totals.subvolumes));
  });
  return { root };
}

function line() {
  return el("li", {}, el("span", { class: "swatch" }), el("span", { class: "name" }), el("span", { class: "quiet" }), el("b"), el("span", { class: "bar", "aria-hidden": "true" }, el("span")));
}

function dress(node, { name, count }, inks, all) {
  const [swatch, word, note, number, bar] = node.children;
  const group = inks.get(name);
  const ink = colour(group?.colour);
  swatch.style.setProperty("background", ink);
  setText(word, name || UNMARKED);
  const share = all ? fmt.percent(count / all) : "–";
  setText(note, group ? `${group.kind}, ${fmt.count(group.clusters.length)} ${group.clusters.length === 1 ? "cluster" : "clusters"}, ${share}` : share);
  setText(number, fmt.count(count));
  bar.firstElementChild.style.setProperty("background", ink);
  bar.firstElementChild.style.setProperty("width", `${all ? (100 * count) / all : 0}%`);
}

export function trend(session) {
  const { root, body } = panel("Error of the reconstruction", { area: "error" });
  const state = el("p", { class: "compared", "aria-live": "polite" });
  const holder = el("div");
  body.append(state, holder);
  const curve = chart(holder, {
    label: "Mean squared error of the reconstruction, tomogram by tomogram, with the session's median",
    time: false,
    height: Math.round(11 * rem()),
    xLabel: "tomogram",
    xText: fmt.count,
    axes: { left: { label: "mean squared error", text: (x) => fmt.number(x, 2) } },
    series: [
      { label: "error", colour: INK.accepted, dots: 6, text: (x) => fmt.number(x, 3) },
      { label: "session's median", colour: INK.axis, width: 1.5, dash: [6, 4], text: (x) => fmt.number(x, 3) },
    ],
  });
  session.on("snapshot", () => {
    const [word, , text] = drift(session.snapshot.totals?.error);
    setText(state, `${word}. ${text}`);
  });
  session.on("rows", () => curve.set(columns(session.rows)));
  return { root };
}

/** Number, error and the median of all that the same network made; of another network there is another median. */
export function columns(rows) {
  const known = rows.map(({ error, network }, i) => ({ at: i + 1, error, network })).filter(({ error }) => typeof error === "number");
  const medians = new Map();
  for (const { network } of known) if (!medians.has(network)) medians.set(network, median(known.filter((one) => one.network === network).map(({ error }) => error)));
  return [known.map(({ at }) => at), known.map(({ error }) => error), known.map(({ network }) => medians.get(network))];
}
