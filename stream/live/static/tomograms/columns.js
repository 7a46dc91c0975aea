// The columns of the table of tomograms: sub-volumes by class, error, size, work.

import { fmt } from "../dom.js";
import { UNMARKED } from "./words.js";

const CLASS = "class:"; // before a group's name, which may be any word

const TITLES = {
  time: ["time", "when it was mined"],
  name: ["tomogram", "file"],
  picks: ["sub-volumes", "picked in it"],
  error: ["error", "mean squared error of the reconstruction of its sub-volumes"],
  voxel_a: ["voxel (Å)", "of the file"],
  seconds: ["work (s)", "seconds of work"],
};

/** What `table` of ../picks asks of its columns. */
export function columns(session) {
  const groups = () => (session.snapshot?.mining?.groups ?? []).map(({ name }) => name);
  const named = (name) => (name.startsWith(CLASS) ? name.slice(CLASS.length) : null);
  return {
    title: "Tomograms",
    what: "tomogram",
    filter: "name",
    names: () => ["picks", ...[...groups(), ""].map((name) => CLASS + name), "error", "voxel_a", "seconds"],
    word: (name) => TITLES[name]?.[0] ?? (named(name) || UNMARKED),
    meaning: (name) => TITLES[name]?.[1] ?? `sub-volumes whose cluster is ${named(name) ? `in the group ${named(name)}` : "in no group"}`,
    value: (row, name) => (named(name) === null ? row[name] : (row.by_class?.[named(name)] ?? 0)),
    text: (name, value) => (name === "picks" || named(name) !== null ? fmt.count(value) : fmt.number(value, 3)),
    warned: (row) => row.warnings?.length > 0,
  };
}
