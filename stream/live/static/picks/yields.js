// Panel: what the session gives: numbers to read across the room, and picks per micrograph as a trend.

import { chart } from "../charts.js";
import { INK } from "../colours.js";
import { el, fmt, panel, setText } from "../dom.js";

const LAST = 10;
const MOST = 1500; // points that are drawn: a trend of more is thinned by medians of neighbours
const POOR = 0.5;

/** Running medians of the last ten, of numbers in order of time. */
export function recentMedians(values, last = LAST) {
  return values.map((_, i) => median(values.slice(Math.max(0, i + 1 - last), i + 1)));
}

export function median(values) {
  if (!values.length) return null;
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

/** The state in one glance: [word, class, sentence]. */
export function glance(found) {
  if (!found || !found.micrographs) return ["no micrograph yet", "unknown", "The first one is awaited."];
  const { ratio, recent, median: session } = found;
  if (ratio === null || ratio === undefined) return ["no picks", "bad", "The session's median is 0: check threshold, pixel size and diameter."];
  const words = `The last ${LAST} give ${fmt.count(recent)} picks each, the session ${fmt.count(session)}`;
  if (ratio < POOR) return ["poor", "bad", `${words}: less than half. Ice, carbon, or another grid square?`];
  if (ratio < 0.8) return ["below usual", "warn", `${words}.`];
  return ["good", "good", `${words}.`];
}

export function yields(session) {
  const { root, body, note } = panel("Yield", { area: "yield" });
  const [state, sentence] = [el("strong", { class: "state" }), el("span")];
  const numbers = ["last", "last 10", "session", "particles", "per hour", "micrographs"].map(figure);
  const holder = el("div");
  body.append(el("p", { class: "glance", "aria-live": "polite" }, state, sentence), el("div", { class: "figures" }, numbers.map(({ root: one }) => one)), holder);
  const trend = chart(holder, {
    label: "Picks per micrograph, in order, with the median of the last ten and of the session",
    time: false,
    height: 190,
    xLabel: "micrograph",
    xText: fmt.count,
    axes: { left: { label: "picks", text: fmt.count } },
    series: [
      { label: "picks", colour: INK.accepted, dots: 4, text: fmt.count },
      { label: "last 10", colour: INK.threshold, width: 2.5, text: fmt.count },
      { label: "session", colour: INK.axis, width: 1.5, dash: [6, 4], text: fmt.count },
    ],
  });

  session.on("snapshot", () => {
    const found = session.snapshot.yield;
    const [word, kind, text] = glance(found);
    setText(state, word);
    state.dataset.kind = kind;
    setText(sentence, text);
    setText(note, found ? "picks per micrograph" : "");
    const values = found ? [found.last, found.recent, found.median, found.particles, found.per_hour, found.micrographs] : [];
    values.forEach((value, i) => setText(numbers[i].value, fmt.count(value)));
  });
  session.on("rows", () => trend.set(columns(session.rows)));
  return { root };
}

function columns(rows) {
  const picks = rows.map((row) => row.picks ?? 0);
  const by = Math.max(1, Math.ceil(picks.length / MOST));
  const recent = recentMedians(picks);
  const all = median(picks);
  const at = [];
  for (let i = 0; i < picks.length; i += by) at.push(i);
  return [
    at.map((i) => i + 1),
    at.map((i) => median(picks.slice(i, i + by))),
    at.map((i) => recent[Math.min(i + by - 1, recent.length - 1)]),
    at.map(() => all),
  ];
}

function figure(name) {
  const value = el("b", { text: "–" });
  return { root: el("div", { class: "figure" }, value, el("span", { text: name })), value };
}
