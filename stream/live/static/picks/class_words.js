// How 2-D classes come about, in words.

import { fmt } from "../dom.js";

// The words of flow/classed.py.
const PASSES = {
  first: "first classes",
  growth: "re-clustering",
  model: "all particles once more, with the new model",
  restart: "classifying what is stored",
  changed: "classifying what was picked again",
  box: "all particles once more, in another box",
};

/** What is under way: [{text, share}], share 0..1 or null where there is none. */
export function work({ state, have, need, pass, tuning }) {
  const found = [];
  if (state === "waiting" && !pass) found.push({ text: `waiting: ${fmt.count(have)} of ${fmt.count(need)} particles`, share: part(have, need) });
  if (pass) found.push(line(PASSES[pass.why] ?? pass.why, pass));
  if (tuning) {
    const training = tuning.state === "training";
    const { text, share } = training ? line("fine-tuning", tuning) : { text: "fine-tuning", share: null };
    found.push({ text: tuning.text ? `${text}: ${tuning.text}` : text, share });
  }
  if (!found.length && state === "ready") found.push({ text: "● classes follow the particles", share: null });
  return found;
}

/** What holds, on one line: the model, what waits, what is rejected. */
export function facts({ model, unlabelled, rejected }) {
  const name = model.name ? `model ${model.name} ${String(model.sha256).slice(0, 8)}, ${model.tuned ? "tuned on this session" : "as it was trained"}` : "no model";
  const waiting = `${fmt.count(unlabelled)} ${unlabelled === 1 ? "particle waits" : "particles wait"} for a class`;
  return [name, waiting, `${fmt.count(rejected)} rejected`].join(" · ");
}

function line(word, { done, of }) {
  const share = of > 0 ? part(done, of) : null;
  return { text: share === null ? word : `${word}: ${Math.floor(100 * share)}\u202f%`, share };
}

const part = (done, of) => (of > 0 ? Math.min(Math.max(done / of, 0), 1) : 0);
