// What the session gives: tiles to read across the room, and a panel with picks per micrograph as a trend.

import { chart } from "../charts.js";
import { INK } from "../colours.js";
import { el, fmt, panel, setText } from "../dom.js";
import { rem } from "./units.js";

const LAST = 10;
const MOST = 1500; // points that are drawn: a trend of more is thinned by medians of neighbours
const POOR = 0.5;
const LOW = 0.8;

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

/** How the last ten compare with the session: [word, tone, sentence]. */
export function compared(found) {
  if (!found || !found.micrographs) return ["no micrograph yet", "", "The first one is awaited."];
  const { ratio, recent, median: session } = found;
  if (ratio === null || ratio === undefined) return ["▲ no picks", "warn", "The session's median is 0: check threshold, pixel size and diameter."];
  const words = `The last ${LAST} give ${fmt.count(recent)} picks each, the session ${fmt.count(session)}`;
  if (ratio < POOR) return ["▲ poor", "warn", `${words}: less than half. Ice, carbon, or another grid square?`];
  if (ratio < LOW) return ["▼ below usual", "", `${words}.`];
  return ["● good", "good", `${words}.`];
}

/** The tiles of a snapshot, as `tools.glance` takes them. */
export function tiles({ yield: found, waiting }) {
  if (!found) return [];
  const [word, tone] = compared(found);
  const { last, recent, median: session, particles, per_hour: hourly, micrographs, ratio } = found;
  const files = Object.values(waiting?.reasons ?? {}).reduce((sum, n) => sum + n, 0);
  const share = typeof ratio === "number" ? `${fmt.percent(ratio)} of the session's median` : "";
  return [
    { key: "recent", label: `Median picks, last ${LAST}`, value: fmt.count(recent), big: true, tone, note: `${word}${share ? `, ${share}` : ""}` },
    { key: "last", label: "Picks, last", value: fmt.count(last), note: "of the newest micrograph" },
    { key: "median", label: "Median, session", value: fmt.count(session), note: `of ${fmt.count(micrographs)} micrographs` },
    { key: "particles", label: "Particles", value: fmt.count(particles), note: "picked in this session" },
    { key: "speed", label: "Micrographs per hour", value: fmt.count(hourly), note: files ? `${fmt.count(files)} ${files === 1 ? "file waits" : "files wait"}` : "no file waits" },
  ];
}

export function yields(session) {
  const { root, body } = panel("Picks per micrograph", { area: "yield" });
  const state = el("p", { class: "compared", "aria-live": "polite" });
  const holder = el("div");
  body.append(state, holder);
  const trend = chart(holder, {
    label: "Picks per micrograph, in order, with the median of the last ten and of the session",
    time: false,
    height: Math.round(12 * rem()),
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
    const [word, , text] = compared(session.snapshot.yield);
    setText(state, `${word}. ${text}`);
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
