// A dialog that shows one array as large as the window allows, with a list of facts beside it.
//
//   openArray({
//     title,                       text
//     data, shape,                 typed array and [h, w] or [modules, h, w], row by row
//     origin: "upper",             "lower" shows row 0 at the bottom;  factor: 1   pixels of the detector to one of the array
//     facts: [[name, text], …],    the list beside it; or an object {name: text}
//     map: "inferno", log: true,   to begin with; the last choice of the person is kept while the page is open
//     quantile: 0.999,             the top of the scale is this quantile of the values
//     unit: "photons",             unit of a pixel's value
//     overlay(context, view),      draws over the picture (optional): view.x(col), view.y(row) give CSS pixels of a pixel's
//                                  upper left corner, view.zoom CSS pixels for each pixel
//     onpick(row, col, event),     a click or tap without a drag, in pixels (fractions), optional
//   })                             returns {close(), redraw(), dialog}
//   openBlob(net, {kind, name, query, title, facts(head), …})    fetches the array first, says so, and says why not
//
// Keys: + and − zoom, arrows move, 0 whole picture, 1 one pixel to one, l log, c next colour map, Escape closes.

import { el, fmt, setText } from "./dom.js";
import { MAPS, paint, range, scaleBar } from "./colours.js";

const chosen = { map: null, log: null }; // what the person chose last

class View {
  constructor(given) {
    this.given = given;
    this.w = given.shape[given.shape.length - 1];
    this.h = given.shape.slice(0, -1).reduce((a, b) => a * b, 1); // modules stand below each other
    this.map = chosen.map ?? given.map ?? "inferno";
    this.flip = given.origin === "lower";
    this.log = chosen.log ?? given.log ?? true;
    [this.low, this.high] = range(given.data, given.quantile ?? 0.999);
    this.source = document.createElement("canvas");
    this.pointers = new Map();
    this.build();
    this.recolour();
    document.body.append(this.dialog);
    this.dialog.showModal();
    this.whole();
  }

  build() {
    const { title, facts = [] } = this.given;
    const pairs = Array.isArray(facts) ? facts : Object.entries(facts);
    this.canvas = el("canvas", { class: "stage", tabindex: "0", role: "img", "aria-label": `${title}, ${this.w} by ${this.h} pixels` });
    this.under = el("output", { class: "under" });
    this.maps = el("select", { "aria-label": "Colour map" }, MAPS.map((name) => el("option", { value: name, text: name })));
    this.maps.value = this.map;
    this.logs = el("input", { type: "checkbox" });
    this.logs.checked = this.log;
    this.top = el("input", { type: "range", min: "0", max: "100", value: "0", "aria-label": "Brightness" });
    this.bar = el("canvas", { class: "scale-bar", "aria-hidden": "true" });
    this.ends = el("div", { class: "ends" }, el("span"), el("span"));
    const button = (text, label, act) => el("button", { type: "button", class: "small", "aria-label": label, title: label, text, onclick: act });
    const tools = el("div", { class: "tools" },
      el("label", {}, "colours ", this.maps), el("label", {}, this.logs, " log"), el("label", {}, "brightness ", this.top),
      button("+", "Zoom in", () => this.zoomBy(1.4)), button("−", "Zoom out", () => this.zoomBy(1 / 1.4)), button("whole", "Whole picture", () => this.whole()),
      button("1:1", "One pixel to one", () => this.oneToOne()));
    const list = el("dl", { class: "facts" }, pairs.map(([name, text]) => [el("dt", { text: name }), el("dd", { text })]));
    const close = el("button", { type: "button", class: "close", text: "Close", onclick: () => this.close() });
    this.dialog = el("dialog", { class: "viewer", "aria-label": title },
      el("header", {}, el("h2", { text: title }), close),
      el("div", { class: "viewer-body" }, el("div", { class: "picture" }, this.canvas, tools), el("aside", {}, this.under, this.bar, this.ends, list)));
    this.wire();
  }

  wire() {
    const { canvas } = this;
    this.maps.addEventListener("change", () => this.choose({ map: this.maps.value }));
    this.logs.addEventListener("change", () => this.choose({ log: this.logs.checked }));
    this.top.addEventListener("input", () => this.recolour() || this.redraw());
    canvas.addEventListener("wheel", (event) => this.wheel(event), { passive: false });
    canvas.addEventListener("pointerdown", (event) => this.down(event));
    canvas.addEventListener("pointermove", (event) => this.move(event));
    for (const name of ["pointerup", "pointercancel"]) canvas.addEventListener(name, (event) => this.release(event));
    this.dialog.addEventListener("keydown", (event) => this.key(event));
    this.dialog.addEventListener("close", () => this.gone());
    this.sized = new ResizeObserver(() => (this.fitted ? this.whole() : this.redraw()));
    this.sized.observe(canvas);
  }

  gone() {
    this.sized.disconnect();
    this.dialog.remove();
  }

  close() {
    this.dialog.close();
  }

  choose({ map = this.map, log = this.log }) {
    chosen.map = this.map = this.maps.value = map;
    chosen.log = this.log = this.logs.checked = log;
    this.recolour();
    this.redraw();
  }

  recolour() {
    const top = this.low + (this.high - this.low) * 2 ** (-Number(this.top.value) / 12);
    paint(this.source, this.given.data, this.w, this.h, { map: this.map, low: this.low, high: top, log: this.log, flip: this.flip });
    scaleBar(this.bar, this.map);
    setText(this.ends.children[0], fmt.number(this.low));
    setText(this.ends.children[1], `${fmt.number(top)} ${this.given.unit ?? ""}${this.log ? " (log)" : ""}`);
  }

  box() {
    return [this.canvas.clientWidth, this.canvas.clientHeight];
  }

  whole() {
    const [w, h] = this.box();
    this.zoom = Math.min(w / this.w, h / this.h) || 1;
    this.left = (w - this.w * this.zoom) / 2;
    this.up = (h - this.h * this.zoom) / 2;
    this.fitted = true;
    this.redraw();
  }

  oneToOne() {
    this.zoomBy(1 / (window.devicePixelRatio || 1) / this.zoom);
  }

  zoomBy(factor, at = this.box().map((x) => x / 2)) {
    const zoom = Math.min(Math.max(this.zoom * factor, 0.02), 80);
    this.left = at[0] - ((at[0] - this.left) * zoom) / this.zoom;
    this.up = at[1] - ((at[1] - this.up) * zoom) / this.zoom;
    this.zoom = zoom;
    this.fitted = false;
    this.redraw();
  }

  moveBy(x, y) {
    const [w, h] = this.box();
    const kept = (at, size, room) => Math.min(Math.max(at, 40 - size), room - 40); // some of the picture stays in view
    this.left = kept(this.left + x, this.w * this.zoom, w);
    this.up = kept(this.up + y, this.h * this.zoom, h);
    this.fitted = false;
    this.redraw();
  }

  redraw() {
    const ratio = window.devicePixelRatio || 1;
    const [w, h] = this.box();
    if (!w || !h) return;
    if (this.canvas.width !== Math.round(w * ratio)) this.canvas.width = Math.round(w * ratio);
    if (this.canvas.height !== Math.round(h * ratio)) this.canvas.height = Math.round(h * ratio);
    const context = this.canvas.getContext("2d");
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, w, h);
    context.imageSmoothingEnabled = this.zoom < 1;
    context.drawImage(this.source, this.left, this.up, this.w * this.zoom, this.h * this.zoom);
    const view = { zoom: this.zoom, x: (col) => this.left + col * this.zoom, y: (row) => this.up + row * this.zoom };
    this.given.overlay?.(context, view);
  }

  place(event) {
    const box = this.canvas.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  }

  wheel(event) {
    event.preventDefault();
    this.zoomBy(1.0018 ** -event.deltaY, this.place(event));
  }

  down(event) {
    this.canvas.setPointerCapture(event.pointerId);
    this.pointers.set(event.pointerId, this.place(event));
    this.dragged = this.pointers.size > 1;
  }

  move(event) {
    const at = this.place(event);
    this.tell(at);
    const before = this.pointers.get(event.pointerId);
    if (!before) return;
    const others = [...this.pointers].filter(([id]) => id !== event.pointerId);
    if (Math.hypot(at[0] - before[0], at[1] - before[1]) > 3) this.dragged = true;
    if (!this.dragged) return;
    this.pointers.set(event.pointerId, at);
    if (others.length === 0) return this.moveBy(at[0] - before[0], at[1] - before[1]);
    const other = others[0][1]; // two fingers: zoom about their middle
    const apart = (from) => Math.hypot(from[0] - other[0], from[1] - other[1]) || 1;
    this.zoomBy(apart(at) / apart(before), [(at[0] + other[0]) / 2, (at[1] + other[1]) / 2]);
  }

  release(event) {
    const had = this.pointers.delete(event.pointerId);
    if (!had || this.dragged || event.type !== "pointerup") return;
    const [x, y] = this.place(event);
    this.given.onpick?.((y - this.up) / this.zoom, (x - this.left) / this.zoom, event);
  }

  tell([x, y]) {
    const [col, row] = [Math.floor((x - this.left) / this.zoom), Math.floor((y - this.up) / this.zoom)];
    const inside = col >= 0 && row >= 0 && col < this.w && row < this.h;
    if (!inside) return setText(this.under, " ");
    const stored = this.flip ? this.h - 1 - row : row;
    const value = this.given.data[stored * this.w + col];
    const factor = this.given.factor ?? 1;
    const text = Number.isNaN(value) ? "masked" : `${Number.isInteger(value) ? fmt.count(value) : fmt.number(value, 4)} ${this.given.unit ?? ""}`;
    const block = factor > 1 ? ` (mean of ${factor} × ${factor})` : "";
    return setText(this.under, `row ${stored * factor}, column ${col * factor}: ${text}${block}`);
  }

  key(event) {
    if (event.target instanceof HTMLInputElement || event.target instanceof HTMLSelectElement || event.ctrlKey || event.metaKey) return;
    const act = {
      "+": () => this.zoomBy(1.4), "=": () => this.zoomBy(1.4), "-": () => this.zoomBy(1 / 1.4), 0: () => this.whole(), 1: () => this.oneToOne(),
      ArrowLeft: () => this.moveBy(40, 0), ArrowRight: () => this.moveBy(-40, 0), ArrowUp: () => this.moveBy(0, 40), ArrowDown: () => this.moveBy(0, -40),
      l: () => this.choose({ log: !this.log }), c: () => this.choose({ map: MAPS[(MAPS.indexOf(this.map) + 1) % MAPS.length] }),
    }[event.key];
    if (!act) return;
    event.preventDefault();
    act();
  }
}

export function openArray(given) {
  return new View(given);
}

export async function openBlob(net, given) {
  const note = el("dialog", { class: "viewer wait", "aria-label": given.title }, el("p", { text: "Fetching…" }), el("button", { type: "button", text: "Close", onclick: () => note.close() }));
  note.addEventListener("close", () => note.remove());
  document.body.append(note);
  note.showModal();
  try {
    const { head, shape, data } = await net.array(given.kind, given.name, given.query);
    if (!note.open) return null; // closed while it was fetched
    note.close();
    return openArray({ ...given, origin: head.origin, factor: head.factor, data, shape, facts: given.facts?.(head) ?? [] });
  } catch (error) {
    setText(note.firstElementChild, `Not shown: ${error.message}.`);
    return null;
  }
}
