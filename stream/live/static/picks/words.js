// Words and numbers as operators read them: names of a row's numbers, why files wait, and how values are written.

import { fmt } from "../dom.js";

/** Why a file waits: [in words, what ends it]. The words are those of the folder source. */
const WAITS = {
  settling: ["being written", "taken once it stays the same for settle_s"],
  changing: ["still growing", "taken once it stays the same for settle_s"],
  companion: ["its XML or mdoc is missing", "copy it; after companion_timeout_s the file is taken without"],
  truncated: ["shorter than its header promises", "copy it again; it is set aside after incomplete_s"],
  zero_tail: ["ends in zeros: allocated, not written?", "taken with a flag after doubt_s"],
  longer: ["longer than its header says", "taken with a flag after doubt_s"],
  frames: ["frames are missing", "copy it again, or set source.frames; the rest ends after doubt_s"],
  empty: ["no byte was written yet", "copy it again; it is set aside after incomplete_s"],
  unreadable: ["the daemon may not read it", "let the daemon's user read the file (chmod, group)"],
  unusable: ["its name is not readable text", "rename the file"],
  retry: ["it failed, and is tried again", "wait for retry_s; the log says why it failed"],
  queued: ["complete, waiting for its turn", "nothing to do: others are in work"],
  in_work: ["it changed while it is in work", "nothing to do: its new content follows"],
  gone: ["it is no longer there", "nothing to do, unless it was moved by mistake"],
  header: ["its header cannot be read", "copy it again; it may still be written"],
  pages: ["its pages cannot be read", "copy it again; it may still be written"],
};

/** [why, remedy] of a word that the folder source uses. */
export function waits(reason) {
  return WAITS[reason] ?? [String(reason).replaceAll("_", " "), "beamsieve status tells more"];
}

const NAMES = {
  picks: "picks",
  candidates: "candidates",
  seconds: "work",
  mean: "mean",
  sd: "s.d.",
  saturated_fraction: "saturated",
  missing_fraction: "missing",
  gradient: "gradient",
  carbon_fraction: "carbon",
  ice_fraction: "ice",
  contrast: "contrast",
  falloff: "falloff",
};
const COUNTS = new Set(["picks", "candidates"]);
const FRACTIONS = /_fraction$/;

/** What a column is called: short, with its unit. `numbers`: of the facts, {name: {text, unit}}. */
export function title(name, numbers = {}) {
  const unit = FRACTIONS.test(name) ? "%" : (numbers[name]?.unit ?? (name === "seconds" ? "s" : ""));
  const text = NAMES[name] ?? name.replaceAll("_", " ");
  return unit ? `${text} (${unit})` : text;
}

/** The longer text of a number, for titles of columns. */
export function meaning(name, numbers = {}) {
  return numbers[name]?.text ?? title(name, numbers);
}

/** A row's number by name, or null: its own fields first, then its quality numbers. */
export function number(row, name) {
  const value = row[name] ?? row.quality?.[name];
  return typeof value === "number" && Number.isFinite(value) ? value : null;
}

/** A number of a row as text; a dash where it is unknown. */
export function written(name, value) {
  if (COUNTS.has(name)) return fmt.count(value);
  return FRACTIONS.test(name) ? fmt.share(value) : fmt.number(value, 3);
}

/** The end of a path: what tells files apart. */
export function short(name) {
  return String(name).split("/").at(-1).replace(/\.[^.]+$/, "");
}
