// One 2-D class as a tile: its average, its numbers, and the buttons that mark it; and its numbers in words.

import { el, fmt, setClass, setText } from "../dom.js";
import { paintClass } from "./class_pictures.js";

const LINES = {
  "class-count": "particles of this class",
  "class-share": "share of all that have a class",
  "class-growth": "particles that came of late, per minute",
  "class-resolution": "resolution: Fourier ring correlation of half sets",
  "class-spread": "spread within the class: 0, all alike, to 1",
};
const SIGNS = { good: "✓", bad: "✗" };

/** `marked(id, word)`: a person says good, bad or none. `opened(id)`: they want to see its members. */
export class Tile {
  constructor(id, { marked, opened }) {
    this.id = id;
    this.seen = false; // whether it is in sight
    this.item = null;
    this.painted = null;
    this.canvas = el("canvas", { width: "64", height: "64", "aria-hidden": "true" });
    this.none = el("span", { class: "class-none", text: "…" });
    this.sign = el("span", { class: "class-sign", "aria-hidden": "true" });
    this.open = el("button", { type: "button", class: "class-open", tabindex: "-1", onclick: () => opened(id) }, this.canvas, this.none, this.sign);
    this.lines = Object.entries(LINES).map(([name, title]) => el("span", { class: name, title }));
    this.buttons = markButtons(() => this.item?.mark, (word) => marked(id, word));
    for (const button of this.buttons.all) button.tabIndex = -1;
    const facts = el("div", { class: "class-facts" }, el("b", { class: "class-number", text: id }), this.lines);
    this.root = el("li", { class: "class-tile", dataset: { id: String(id) } }, this.open, facts, this.buttons.root);
    this.root.tile = this;
  }

  /** `item`: of the snapshot, with the mark that is to be shown. `gone`: the class is no longer there. */
  update(item, { gone, waiting }) {
    this.item = item;
    const { count, share, growth_per_min: growth, resolution_a: resolution, spread } = item;
    const texts = [fmt.count(count), fmt.percent(share), `${rate(growth)}/min`, angstrom(resolution), `spread ${fmt.number(spread, 2)}`];
    this.lines.forEach((line, i) => setText(line, texts[i]));
    if (this.root.dataset.mark !== item.mark) this.root.dataset.mark = item.mark;
    setText(this.sign, gone ? "gone" : item.mark ? `${SIGNS[item.mark]} ${item.mark}` : "");
    setClass(this.root, "gone", gone);
    setClass(this.root, "waiting", waiting);
    this.open.disabled = gone;
    const label = `${described(item)}. ${gone ? "No longer there" : "Show its particles"}`;
    if (this.open.getAttribute("aria-label") !== label) this.open.setAttribute("aria-label", label);
    this.buttons.update(this.id, gone);
  }

  /** Show this picture (of ClassPictures); nothing is painted twice. */
  paint(picture) {
    if (picture === this.painted) return;
    this.painted = picture;
    const shown = paintClass(this.canvas, picture);
    setClass(this.root, "empty", !shown);
    setText(this.none, shown ? "" : picture ? "none yet" : "…");
  }

  /** Whether Tab comes to it: to one tile of all. */
  reach(on) {
    for (const node of [this.open, ...this.buttons.all]) node.tabIndex = on ? 0 : -1;
  }
}

/** Two buttons, Good and Bad; the one that is pressed withdraws. `mark()` gives the mark that is shown. */
export function markButtons(mark, marked) {
  const button = (word, text) => el("button", { type: "button", class: `mark-${word}`, text: `${SIGNS[word]} ${text}`, onclick: () => marked(mark() === word ? "none" : word) });
  const all = [button("good", "Good"), button("bad", "Bad")];
  const root = el("div", { class: "class-marks", role: "group" }, all);
  const update = (id, off) => {
    ["good", "bad"].forEach((word, i) => {
      const [pressed, label] = [String(mark() === word), `Class ${id}: ${word}`];
      if (all[i].getAttribute("aria-pressed") !== pressed) all[i].setAttribute("aria-pressed", pressed);
      if (all[i].getAttribute("aria-label") !== label) all[i].setAttribute("aria-label", label);
      all[i].disabled = off;
    });
  };
  return { root, all, update };
}

/** Keys and what they do, for a hint. */
export function keys(names, text, name = "") {
  return el("span", { class: name }, names.map((one) => [el("kbd", { text: one }), " "]), text);
}

/** What a class is, in words. */
export function described({ id, count, share, resolution_a: resolution, mark }) {
  const words = [`Class ${id}: ${fmt.count(count)} particles`, fmt.percent(share)];
  if (typeof resolution === "number") words.push(angstrom(resolution));
  if (mark) words.push(`marked ${mark}`);
  return words.join(", ");
}

export const angstrom = (value) => `${fmt.number(value, 3)}\u202fÅ`;

export function rate(value) {
  if (typeof value !== "number") return fmt.number(value);
  const text = fmt.number(Math.abs(value), 2);
  return Number(text) === 0 ? "0" : `${value < 0 ? "−" : "+"}${text}`;
}
