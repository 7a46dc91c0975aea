// A dialog with the last particles of one class, as recorded and denoised, side by side.

import { el, fmt, rows, setText } from "../dom.js";
import { paintClass } from "./class_pictures.js";
import { angstrom, keys, markButtons, rate } from "./class_tile.js";

const KEYS = { g: "good", b: "bad", u: "none" };
const KINDS = ["class", "class-denoised"];

export class ClassMembers {
  #painted = null;

  /**
   * `picture(kind, id)`: of ClassPictures. `beside(id, step)`: the class before or after. `marked(id, word)`: a person
   * says good, bad or none. `opened(id)`: they go to another class. `changed()`: it was opened, or closed.
   */
  constructor({ picture, beside, marked, opened, changed }) {
    this.given = { picture, beside, marked, opened, changed };
    this.id = null;
    this.item = null;
    this.heading = el("h2");
    this.facts = el("p", { class: "class-line" });
    this.buttons = markButtons(() => this.item?.mark, (word) => marked(this.id, word));
    const button = (text, label, step) => el("button", { type: "button", class: "small", title: label, "aria-label": label, text, onclick: () => this.go(step) });
    this.ways = [button("←", "The class before", -1), button("→", "The next class", 1)];
    // The focus begins here: Enter pressed once more must mark nothing.
    const close = el("button", { type: "button", class: "small close", autofocus: true, text: "Close", onclick: () => this.dialog.close() });
    this.averages = ["average of the particles as recorded", "average of the denoised particles"].map((text) => {
      const canvas = el("canvas", { width: "64", height: "64", role: "img", "aria-label": text });
      return el("figure", {}, canvas, el("figcaption", { text }));
    });
    this.list = el("ul", { class: "class-members" });
    this.note = el("p", { class: "note" });
    this.dialog = el("dialog", { class: "class-dialog", "aria-label": "Members of a class" },
      el("header", {}, this.heading, this.facts, el("div", { class: "actions" }, this.buttons.root, this.ways, close)),
      el("div", { class: "class-averages" }, this.averages),
      this.note, this.list,
      el("p", { class: "hint class-keys" }, keys(["←", "→"], "other classes"), keys(["g"], "good", "marking"), keys(["b"], "bad", "marking"), keys(["u"], "unmarked", "marking"), keys(["Esc"], "closes")));
    this.dialog.addEventListener("keydown", (event) => this.#key(event));
    this.dialog.addEventListener("click", (event) => event.target === this.dialog && this.dialog.close());
    this.dialog.addEventListener("close", () => changed());
  }

  get isOpen() {
    return this.dialog.open;
  }

  /** Pictures that it shows, of a class that is there. */
  get wanted() {
    if (!this.isOpen || !this.item || this.gone) return [];
    return ["class-members", ...KINDS].map((kind) => ({ kind, id: this.id, version: this.item.version, first: true }));
  }

  /** Show class `item` of the snapshot. */
  show(item) {
    this.id = item.id;
    this.update(item);
    if (!this.isOpen) this.dialog.showModal();
    this.given.changed();
  }

  /** The class as it is now; undefined: it is gone, and what is known of it stays. */
  update(item) {
    this.gone = !item;
    this.item = item ?? this.item;
    const { count, share, growth_per_min: growth, resolution_a: resolution, spread, since, mark } = this.item;
    setText(this.heading, `Class ${this.id}${this.gone ? " (no longer there)" : mark ? `: ${mark}` : ""}`);
    this.dialog.dataset.mark = mark;
    setText(this.facts, [`${fmt.count(count)} particles (${fmt.percent(share)})`, `${rate(growth)}/min`, angstrom(resolution), `spread ${fmt.number(spread, 2)}`, `since ${fmt.clock(since)}`].join(" · "));
    this.buttons.update(this.id, this.gone);
    this.ways.forEach((way, i) => (way.disabled = this.given.beside(this.id, 2 * i - 1) === null));
    this.draw();
  }

  /** Paint what has come. */
  draw() {
    if (this.id === null) return;
    KINDS.forEach((kind, i) => {
      const [canvas] = this.averages[i].children;
      this.averages[i].classList.toggle("empty", !paintClass(canvas, this.given.picture(kind, this.id)));
    });
    const members = this.given.picture("class-members", this.id);
    if (members && members === this.#painted) return;
    this.#painted = members;
    const n = members?.data ? members.shape[0] : 0;
    setText(this.note, n ? `The last ${n} particles, newest first: left as recorded, right denoised.` : members ? "None of its particles is at hand." : "…");
    rows(this.list, n, pair).forEach((node, at) => {
      const i = n - 1 - at;
      [0, 1].forEach((which) => paintClass(node.children[which], members, 2 * i + which));
    });
  }

  go(step) {
    const id = this.given.beside(this.id, step);
    if (id !== null) this.given.opened(id);
  }

  #key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (step) this.go(step);
    else if (KEYS[event.key] && !this.gone) this.given.marked(this.id, KEYS[event.key]);
    else return;
    event.preventDefault();
  }
}

function pair() {
  const canvas = (text) => el("canvas", { width: "64", height: "64", role: "img", "aria-label": text });
  return el("li", {}, canvas("as recorded"), canvas("denoised"));
}
