// The cluster that is looked at, large: its projection and three slices, and its numbers.

import { el, fmt, rows, setText } from "../dom.js";
import { paintClass } from "../picks/class_pictures.js";
import { colour } from "./words.js";

const PICTURES = [["projection", "summed along z"], ["xy", "central slice, seen along z"], ["xz", "central slice, seen along y"], ["yz", "central slice, seen along x"]];

export class Peek {
  constructor() {
    this.title = el("h3", { text: "Cluster" });
    this.group = el("p", { class: "mine-in" });
    this.figures = PICTURES.map(([name, text]) => el("figure", { title: text }, el("canvas", { width: "32", height: "32", role: "img" }), el("figcaption", { text: name })));
    this.facts = el("dl", { class: "facts" });
    this.hint = el("p", { class: "quiet", text: "Point at a cluster to see it here." });
    this.seen = el("div", { class: "mine-seen" }, el("div", {}, this.title, this.group, this.facts), el("div", { class: "mine-four" }, this.figures));
    this.root = el("aside", { class: "mine-peek", "aria-label": "The cluster that is looked at" }, this.hint, this.seen);
    this.update(null);
  }

  /** `item`: of the snapshot, null for none; `ink`: its group's colour; `picture`: as fetched; `pixelA`: Å, of it. */
  update(item, ink, picture, pixelA) {
    this.hint.hidden = item !== null;
    this.seen.hidden = item === null;
    if (item === null) return;
    setText(this.title, `Cluster ${item.id}`);
    setText(this.group, item.mark || "in no group");
    this.root.style.setProperty("--ink", item.mark ? colour(ink) : "transparent");
    const edge = picture?.shape ? (picture.shape[1] * pixelA) / 10 : 0;
    const lines = [["sub-volumes", fmt.count(item.count)], ["of all", fmt.percent(item.share)], ["error", fmt.number(item.error, 2)], ["edge", edge ? `${fmt.number(edge, 2)}\u202fnm` : "–"]];
    rows(this.facts, lines.length, () => el("div", {}, el("dt"), el("dd"))).forEach((node, i) => lines[i].forEach((text, j) => setText(node.children[j], text)));
    this.figures.forEach((figure, i) => {
      const [canvas] = figure.children;
      canvas.style.visibility = paintClass(canvas, picture, i) ? "" : "hidden";
      canvas.setAttribute("aria-label", `Cluster ${item.id}, ${PICTURES[i].join(": ")}`);
    });
  }
}
