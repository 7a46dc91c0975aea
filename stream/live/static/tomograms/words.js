// How a session on tomograms stands, in words.

import { fmt } from "../dom.js";

/** The words of groups' kinds, and what they mean. */
export const KINDS = { surface: "surface: membrane, edge", globule: "globule: particle", other: "other, or not known" };
/** Sub-volumes whose cluster is in no group. */
export const UNMARKED = "unmarked";

const WORK = {
  clustering: "clustering",
  training: "training the autoencoder on this session",
  segments: "training the segmentation",
};

/** What is under way: [{text, share}], share 0..1 or null where there is none. */
export function work({ mode, state, have, need, job }) {
  const found = [];
  if (job) found.push(line(job));
  if (state === "ready" && !job) found.push({ text: mode === "annotate" ? "● new sub-volumes get the class of their cluster" : "● new sub-volumes join the clusters", share: null });
  if (state === "ready" && need > have) found.push({ text: `clusters anew at ${fmt.count(need)} sub-volumes, ${fmt.count(have)} now`, share: null });
  return found;
}

function line({ what, done, of, text }) {
  const share = of > 0 ? part(done, of) : null;
  const words = WORK[what] ?? String(what).replaceAll("_", " ");
  return { text: [share === null ? words : `${words}: ${Math.floor(100 * share)}\u202f%`, text].filter(Boolean).join(", "), share };
}

/** The mode as a word, in short, and what it means: [word, note, sentence]. */
export function mode({ mode: name, state, groups, list }) {
  if (state === "failed") return [name === "annotate" ? "Annotating" : "Exploring", "no clusters are made", ""];
  if (state === "waiting") return ["Exploring", "no clusters yet", "Sub-volumes are collected; there are no clusters yet."];
  const marked = `${fmt.count(list.filter(({ mark }) => mark).length)} of ${fmt.count(list.length)} clusters`;
  const into = `${fmt.count(groups.length)} ${groups.length === 1 ? "group" : "groups"}`;
  if (name === "annotate") return ["Annotating", `${marked} in ${into}`, `${marked} are in ${into}; every further tomogram is labelled by them.`];
  return ["Exploring", "no cluster in a group", "No cluster is in a group yet: mark some, and every further tomogram is labelled by them."];
}

/** The autoencoder, on one line. */
export function network({ network: { name, sha256, trained } }) {
  return name ? `network ${name} ${String(sha256).slice(0, 8)}, ${trained ? "trained on this session" : "as it was shipped"}` : "no network";
}

/** What a cluster is, in words. */
export function described({ id, count, share, mark }) {
  return `Cluster ${id}: ${fmt.count(count)} sub-volumes, ${fmt.percent(share)}, ${mark ? `in group ${mark}` : "in no group"}`;
}

/** Numbers as a short list: "3, 7, 12 and 4 more". */
export function listed(ids, most = 6) {
  const first = ids.slice(0, most).join(", ");
  return ids.length > most ? `${first} and ${ids.length - most} more` : first;
}

/** A colour of the daemon's, or grey where it is none. */
export function colour(text) {
  return /^#[0-9a-f]{6}$/i.test(text ?? "") ? text : "#8894a6";
}

const part = (done, of) => (of > 0 ? Math.min(Math.max(done / of, 0), 1) : 0);
