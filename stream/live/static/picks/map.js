// A map of items on a canvas, coloured by a number: hover and arrow keys tell values, click and Enter choose.

import { INK } from "../colours.js";
import { el, onScreen } from "../dom.js";
import { onCanvas } from "./places.js";
import { font, rem } from "./units.js";

export class GridMap {
  /** `told(item)`: hovered or focused, null when it is left. `chose(item)`: clicked, or Enter. `round`: circles. */
  constructor(label, { told, chose, round }) {
    this.canvas = el("canvas", { class: "map", tabindex: "0", role: "img", "aria-label": label });
    this.told = told;
    this.round = round;
    this.items = [];
    this.spots = [];
    this.focus = -1;
    this.look = { colour: () => null, text: () => "", ringed: () => false };
    this.visible = onScreen(this.canvas);
    const { canvas } = this;
    canvas.addEventListener("pointermove", (event) => this.#at(event));
    canvas.addEventListener("pointerleave", () => document.activeElement !== canvas && this.#focusOn(-1));
    canvas.addEventListener("click", (event) => this.#at(event) >= 0 && chose(this.spots[this.focus]));
    canvas.addEventListener("blur", () => this.#focusOn(-1));
    canvas.addEventListener("keydown", (event) => {
      const way = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
      if (way) this.#step(way);
      else if ((event.key === "Enter" || event.key === " ") && this.focus >= 0) chose(this.spots[this.focus]);
      else return;
      event.preventDefault();
    });
    new ResizeObserver(() => this.#layout()).observe(canvas);
    new IntersectionObserver(() => this.draw()).observe(canvas);
  }

  /** Show these items. `look`: {colour(item) -> CSS colour or null, text(item), ringed(item)}. */
  set(items, look) {
    const key = this.focus >= 0 ? this.spots[this.focus]?.name : null;
    this.items = items;
    this.look = look;
    this.#layout();
    if (key) this.focus = this.spots.findIndex((spot) => spot.name === key);
    this.draw();
  }

  #layout() {
    const { clientWidth: width, clientHeight: height } = this.canvas;
    if (!width || !height) return;
    const dense = Math.min(3, window.devicePixelRatio || 1);
    this.canvas.width = Math.round(width * dense);
    this.canvas.height = Math.round(height * dense);
    Object.assign(this, onCanvas(this.items, width, height, 1.5 * rem()));
    this.draw();
  }

  draw() {
    if (!this.canvas.clientWidth || document.hidden) return;
    const context = this.canvas.getContext("2d");
    const dense = this.canvas.width / this.canvas.clientWidth;
    context.setTransform(dense, 0, 0, dense, 0, 0);
    context.clearRect(0, 0, this.canvas.clientWidth, this.canvas.clientHeight);
    this.spots.forEach((spot, i) => this.#spot(context, spot, i));
  }

  #spot(context, spot, i) {
    const { colour, text, ringed } = this.look;
    const filled = colour(spot);
    this.#shape(context, spot, this.half);
    context.fillStyle = filled ?? "transparent";
    context.fill();
    if (!filled) outline(context, INK.rejected, 1);
    const words = this.half >= 0.95 * rem() && filled ? text(spot) : "";
    if (words) write(context, spot, words, filled);
    if (ringed(spot)) {
      this.#shape(context, spot, this.half + 2);
      outline(context, "#ffffff", 2);
    }
    if (i === this.focus) {
      this.#shape(context, spot, this.half + 4);
      outline(context, INK.threshold, 2);
    }
  }

  #shape(context, { sx, sy }, half) {
    context.beginPath();
    if (this.round) context.arc(sx, sy, half, 0, 2 * Math.PI);
    else context.rect(sx - half, sy - half, 2 * half, 2 * half);
  }

  #at(event) {
    const box = this.canvas.getBoundingClientRect();
    const [x, y] = [event.clientX - box.left, event.clientY - box.top];
    let [best, least] = [-1, Math.max(10, this.half * 1.4)];
    this.spots.forEach(({ sx, sy }, i) => {
      const away = Math.hypot(sx - x, sy - y);
      if (away < least) [best, least] = [i, away];
    });
    this.#focusOn(best);
    return best;
  }

  #step([dx, dy]) {
    if (!this.spots.length) return;
    const from = this.spots[this.focus];
    if (!from) return this.#focusOn(0);
    let [best, least] = [this.focus, Infinity];
    this.spots.forEach(({ sx, sy }, i) => {
      const [ahead, aside] = [(sx - from.sx) * dx + (sy - from.sy) * dy, Math.abs((sx - from.sx) * dy) + Math.abs((sy - from.sy) * dx)];
      if (ahead > 0.5 && ahead + 2 * aside < least) [best, least] = [i, ahead + 2 * aside];
    });
    return this.#focusOn(best);
  }

  #focusOn(index) {
    if (index === this.focus) return;
    this.focus = index;
    this.told(index < 0 ? null : this.spots[index]);
    this.draw();
  }
}

function outline(context, colour, width) {
  context.strokeStyle = colour;
  context.lineWidth = width;
  context.stroke();
}

function write(context, { sx, sy }, words, filled) {
  const [r, g, b] = filled.match(/\d+/g).map(Number);
  context.font = font(0.75);
  context.textAlign = "center";
  context.textBaseline = "middle";
  context.fillStyle = 0.299 * r + 0.587 * g + 0.114 * b > 110 ? "#000000" : "#ffffff";
  context.fillText(words, sx, sy);
}
