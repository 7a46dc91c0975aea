// The tiles at the top: how many tomograms, what is in them, in which mode, and whether they still look the same.

import { fmt } from "../dom.js";
import { mode } from "./words.js";

const DRIFT = 1.5;
const NAMED = 3; // groups with a tile of their own, the first ones

/** How the last tomogram's error stands to the session's: [word, tone, sentence]. */
export function drift({ last, median, ratio } = {}) {
  if (typeof ratio !== "number") return ["no tomogram yet", "", "The error of the reconstruction comes with the first tomogram."];
  const words = `The last tomogram's error is ${fmt.number(last, 2)}, the session's median ${fmt.number(median, 2)}`;
  if (ratio >= DRIFT) return ["▲ drifted", "warn", `${words}: the network sees what it did not learn. Another sample, defocus, thickness or voxel size?`];
  return ["● as usual", "good", `${words}.`];
}

/** The tiles of a snapshot, as `tools.glance` takes them. */
export function tiles({ counts, totals, mining, waiting }) {
  if (!totals || !mining) return [];
  const files = Object.values(waiting?.reasons ?? {}).reduce((sum, n) => sum + n, 0);
  const [word, said] = mode(mining);
  const [state, tone] = drift(totals.error);
  const failed = counts.failed ? `, ${fmt.count(counts.failed)} failed` : "";
  const named = totals.by_class.filter(({ name }) => name);
  const share = (n) => (totals.subvolumes ? fmt.percent(n / totals.subvolumes) : "–");
  const each = named.slice(0, NAMED).map(({ name, count }, i) => ({ key: `class-${i}`, label: name, value: fmt.count(count), note: `${share(count)} of all sub-volumes` }));
  return [
    { key: "tomograms", label: "Tomograms", value: fmt.count(totals.tomograms), big: true, tone: counts.failed ? "warn" : "", note: `${fmt.count(counts.accepted)} since the start${failed}; ${files ? `${fmt.count(files)} ${files === 1 ? "file waits" : "files wait"}` : "no file waits"}` },
    { key: "mode", label: "Mode", value: word, tone: mining.state === "failed" ? "warn" : "", note: said },
    { key: "subvolumes", label: "Sub-volumes", value: fmt.count(totals.subvolumes), note: totals.tomograms ? `${fmt.count(totals.subvolumes / totals.tomograms)} in each tomogram` : "none yet" },
    ...each,
    { key: "error", label: "Error of the last", value: fmt.number(totals.error.last, 2), tone, note: `${state}${typeof totals.error.ratio === "number" ? `, ${fmt.number(totals.error.ratio, 2)} × the session's` : ""}` },
    { key: "speed", label: "Per hour", value: fmt.number(totals.per_hour, 2), note: "tomograms, in the last hour" },
  ];
}
