// Strips of small pictures: the newest at the left, one strip for each group, and their full frames on a click.
//
//   const s = strips(net, {groups: [{key, title, hint}], note, caption(picture), open(picture)})
//   s.root    a panel, data-area="strips";  it takes the event "picture" by itself
//
// Calm on purpose: a strip moves at most once a second, and not while the mouse or the keyboard is in it, so that nobody
// clicks what has just moved away. The number of pictures is what fits; their canvases are used again.

import { el, onScreen, panel, rows, setText } from "./dom.js";
import { MAPS, paintPicture } from "./colours.js";

const KEPT = 40; // pictures at hand for each strip: more than ever fits

class Strip {
  constructor(given, group, look) {
    this.given = given;
    this.group = group;
    this.look = look;
    this.pictures = [];
    this.changed = false;
    this.row = el("div", { class: "strip", role: "group", "aria-label": group.title });
    this.note = el("span", { class: "note" });
    this.root = el("div", { class: "strip-block", dataset: { group: group.key } }, el("header", {}, el("h3", { text: group.title }), this.note), this.row);
    this.shown = onScreen(this.root);
    new ResizeObserver(() => this.fit()).observe(this.row);
    this.pointed = false; // by a mouse: where a finger has tapped, the browser says "hovered" until the next tap
    this.row.addEventListener("pointerenter", (event) => (this.pointed = event.pointerType === "mouse"));
    this.row.addEventListener("pointerleave", () => (this.pointed = false));
  }

  held() {
    return this.pointed || this.row.querySelector(":focus-visible") !== null;
  }

  take(picture) {
    if (this.pictures.some(({ id }) => id === picture.id)) return;
    this.pictures.unshift(picture);
    this.pictures.length = Math.min(this.pictures.length, KEPT);
    this.changed = true;
  }

  fit() {
    const size = 6.8 * parseFloat(getComputedStyle(document.documentElement).fontSize);
    const across = Math.max(3, Math.floor(this.row.clientWidth / size));
    this.row.style.setProperty("--across", across);
    this.count = across < 6 ? 2 * across : across;
    this.draw();
  }

  tick() {
    if (!this.shown()) return;
    const held = this.held();
    setText(this.note, held && this.changed ? "held while you look" : this.group.hint ?? "");
    if (this.changed && !held) this.draw();
  }

  thumb() {
    const canvas = el("canvas", { class: "pixels" });
    const button = el("button", { type: "button", class: "thumb" }, canvas, el("span", { class: "caption" }));
    button.addEventListener("click", () => button.picture && this.given.open(button.picture));
    return button;
  }

  draw() {
    const count = this.count ?? 0;
    const nodes = rows(this.row, count, () => this.thumb());
    nodes.forEach((node, i) => {
      const picture = this.pictures[i];
      node.classList.toggle("empty", !picture);
      node.disabled = !picture;
      const look = `${this.look.map} ${this.look.log}`;
      if (!picture || (node.picture === picture && node.look === look)) return;
      paintPicture(node.firstElementChild, picture, this.look);
      Object.assign(node, { picture, look });
      const { text, spoken } = this.given.caption(picture);
      setText(node.lastElementChild, text);
      node.setAttribute("aria-label", spoken);
    });
    this.changed = false;
  }
}

export function strips(net, given) {
  const made = panel("Last frames", { area: "strips", wide: true });
  setText(made.note, given.note ?? "");
  const look = { map: "inferno", log: true };
  const all = given.groups.map((group) => new Strip(given, group, look));
  const maps = el("select", { "aria-label": "Colour map of the frames" }, MAPS.map((name) => el("option", { value: name, text: name })));
  maps.value = look.map;
  const logs = el("input", { type: "checkbox" });
  logs.checked = look.log;
  const again = () => {
    Object.assign(look, { map: maps.value, log: logs.checked });
    all.forEach((strip) => strip.draw());
  };
  maps.addEventListener("change", again);
  logs.addEventListener("change", again);
  made.head.append(el("span", { class: "tools" }, el("label", {}, "colours ", maps), el("label", {}, logs, " log")));
  made.body.append(...all.map((strip) => strip.root));
  net.on("picture", (picture) => all.find(({ group }) => group.key === picture.group)?.take(picture));
  setInterval(() => all.forEach((strip) => strip.tick()), 1000);
  return { root: made.root };
}
