// One cluster in the contact sheet: its picture, number and count, and the group it is in, or its share.

import { el, fmt, setClass, setText } from "../dom.js";
import { paintClass } from "../picks/class_pictures.js";
import { colour, described } from "./words.js";

export class Tile {
  constructor(id) {
    this.id = id;
    this.seen = false; // whether it is in sight
    this.item = null;
    this.painted = null;
    this.canvas = el("canvas", { width: "32", height: "32", "aria-hidden": "true" });
    this.group = el("span", { class: "mine-group" });
    this.count = el("span", { class: "mine-count" });
    const facts = el("span", { class: "mine-facts" }, el("b", { text: id }), this.count, this.group);
    const tick = el("span", { class: "mine-tick", "aria-hidden": "true", text: "✓" });
    this.root = el("li", { class: "mine-tile", role: "option", tabindex: "-1", "aria-selected": "false", dataset: { id: String(id) } }, this.canvas, tick, facts);
    this.root.tile = this;
  }

  /** `item`: of the snapshot, with the group that is to be shown; `ink`: the group's colour; `waiting`: for the daemon. */
  update(item, ink, waiting) {
    this.item = item;
    setText(this.count, fmt.count(item.count));
    setText(this.group, item.mark || fmt.percent(item.share));
    this.group.title = item.mark;
    if (this.root.dataset.mark !== item.mark) this.root.dataset.mark = item.mark;
    this.root.style.setProperty("--ink", item.mark ? colour(ink) : "transparent");
    setClass(this.root, "waiting", waiting);
    const label = described(item);
    if (this.root.getAttribute("aria-label") !== label) this.root.setAttribute("aria-label", label);
  }

  select(on) {
    if (this.root.getAttribute("aria-selected") !== String(on)) this.root.setAttribute("aria-selected", String(on));
  }

  /** Show picture `which` (0 the projection, then slices) of those fetched; nothing is painted twice. */
  paint(picture, which) {
    if (this.painted === picture && this.which === which) return;
    [this.painted, this.which] = [picture, which];
    setClass(this.root, "empty", !paintClass(this.canvas, picture, which));
  }

  /** Whether Tab comes to it: to one tile of all. */
  reach(on) {
    this.root.tabIndex = on ? 0 : -1;
  }
}
