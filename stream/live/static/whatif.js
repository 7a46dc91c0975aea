// What another threshold would give: numbers between those that the daemon has worked out, and how two of them differ.
//
//   interpolated(what_if, key, value)   the entry of snapshot.what_if[key] at a threshold between the given ones: a number,
//                                       [value, low, high], or null where it is not known
//   difference(before, after)           "+12.0 %", "same", "+3.1 points" (shares with intervals), or "" where it cannot be said
//   plain(threshold)                    a threshold as text, without needless zeros

import { fmt } from "./dom.js";

function between(a, b, share) {
  if (Array.isArray(a) && Array.isArray(b)) return a.map((x, i) => between(x, b[i], share));
  if (typeof a === "number" && typeof b === "number") return a + (b - a) * share;
  return share < 0.5 ? a ?? null : b ?? null;
}

export function interpolated(whatIf, key, value) {
  const at = whatIf?.threshold ?? [];
  const entries = whatIf?.[key] ?? [];
  if (!at.length || !entries.length) return null;
  const right = at.findIndex((t) => t >= value);
  if (right < 0) return entries[entries.length - 1] ?? null;
  if (right === 0 || at[right] === value) return entries[right] ?? null;
  return between(entries[right - 1], entries[right], (value - at[right - 1]) / (at[right] - at[right - 1]));
}

export const plain = (x) => String(Number(x.toPrecision(4)));
const middle = (entry) => (Array.isArray(entry) ? entry[0] : entry);

// "half", "+12 %": how the second differs from the first, where that can be said.
export function difference(before, after) {
  const [a, b] = [middle(before), middle(after)];
  if (typeof a !== "number" || typeof b !== "number") return "";
  if (Array.isArray(before)) return `${b >= a ? "+" : "−"}${Math.abs(100 * (b - a)).toFixed(1)} points`;
  if (a === 0) return b === 0 ? "same" : "";
  const change = b / a - 1;
  if (Math.abs(change) < 0.0005) return "same";
  return `${change > 0 ? "+" : "−"}${fmt.percent(Math.abs(change))}`;
}
