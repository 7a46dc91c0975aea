// The virtual powder: sum and maximum of hits and of misses, fetched when they have changed and somebody can see them.
//
//   const p = powder(net);  parent.append(p.root);  p.update(snapshot)     data-area="powder"
//
// One fetch at a time, at most every two seconds, and no more than a sixth of the time is spent fetching: over a slow line
// the pictures come less often, and the rest of the page stays quick.

import { el, fmt, onScreen, panel, setText } from "./dom.js";
import { MAPS, paint, range } from "./colours.js";
import { openArray } from "./viewer.js";

const PICTURES = [["hits-sum", "hits, sum", "of_hits"], ["hits-max", "hits, maximum", "of_hits"], ["misses-sum", "misses, sum", "of_misses"], ["misses-max", "misses, maximum", "of_misses"]];
const EVERY_S = 2;

class Powder {
  constructor(net) {
    this.net = net;
    this.shown = -1; // the version that is shown
    this.next = 0;
    this.busy = false;
    this.look = { map: "inferno", log: true };
    this.build();
    this.visible = onScreen(this.root);
  }

  build() {
    this.panel = panel("Virtual powder", { area: "powder" });
    this.root = this.panel.root;
    this.maps = el("select", { "aria-label": "Colour map of the powder" }, MAPS.map((name) => el("option", { value: name, text: name })));
    this.maps.value = this.look.map;
    this.logs = el("input", { type: "checkbox" });
    this.logs.checked = true;
    for (const field of [this.maps, this.logs]) field.addEventListener("change", () => this.relook());
    this.panel.head.append(el("span", { class: "tools" }, el("label", {}, "colours ", this.maps), el("label", {}, this.logs, " log")));
    this.parts = PICTURES.map(([name, text, of]) => {
      const canvas = el("canvas", { class: "pixels", width: "2", height: "2" });
      const caption = el("figcaption", {}, el("strong", { text }), el("span", { text: "nothing yet" }));
      const button = el("button", { type: "button", class: "frame", disabled: true, "aria-label": `Larger: ${text}` }, canvas);
      const part = { name, text, of, canvas, caption, button, array: null, root: el("figure", {}, button, caption) };
      button.addEventListener("click", () => this.open(part));
      return part;
    });
    this.said = el("p", { class: "why" });
    this.panel.body.append(el("div", { class: "powder" }, this.parts.map(({ root }) => root)), this.said);
  }

  open({ text, array }) {
    const facts = [["frames", fmt.count(array.head.frames)], ["fetched at", fmt.clock(array.time)]];
    openArray({ title: `Virtual powder: ${text}`, data: array.data, shape: array.shape, facts, unit: "photons", origin: array.head.origin, factor: array.head.factor, ...this.look });
  }

  relook() {
    Object.assign(this.look, { map: this.maps.value, log: this.logs.checked });
    this.parts.forEach((part) => part.array && this.draw(part));
  }

  draw({ canvas, array, button }) {
    const w = array.shape[array.shape.length - 1];
    const [low, high] = range(array.data, 0.999);
    paint(canvas, array.data, w, array.data.length / w, { ...this.look, low, high, flip: array.head.origin === "lower" });
    button.disabled = false;
  }

  clear(part) {
    if (!part.array) return;
    part.array = null;
    part.canvas.width = part.canvas.height = 2;
    part.button.disabled = true;
  }

  update({ powder, time }) {
    if (!powder) return;
    setText(this.panel.note, `${fmt.count(powder.hits)} hits, ${fmt.count(powder.misses)} misses summed`);
    for (const { caption, of } of this.parts) {
      const summed = of === "of_hits" ? powder.hits : powder.misses;
      setText(caption.lastElementChild, `${fmt.count(summed)} of ${fmt.count(powder[of])}`);
    }
    if (powder.version !== this.shown && !this.busy && this.visible() && performance.now() >= this.next) this.fetch(powder, time);
  }

  async fetch(powder, time) {
    this.busy = true;
    const began = performance.now();
    try {
      for (const part of this.parts) {
        const summed = part.of === "of_hits" ? powder.hits : powder.misses;
        if (!summed) {
          this.clear(part); // a new run: what is there is another run's
          continue;
        }
        part.array = { ...(await this.net.array("powder", part.name)), time };
        this.draw(part);
      }
      this.shown = powder.version;
      setText(this.said, "");
    } catch (error) {
      setText(this.said, `The powder was not fetched: ${error.message}`);
    } finally {
      this.busy = false;
      this.next = performance.now() + Math.max(1000 * EVERY_S - 100, 5 * (performance.now() - began));
    }
  }
}

export function powder(net) {
  return new Powder(net);
}
