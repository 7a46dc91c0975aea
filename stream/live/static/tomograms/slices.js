// Three central slices of a tomogram side by side on one canvas, with labels and sub-volumes in their groups' colours.
//
//   xy  yz      x to the right, y down, z to the right in yz and down in xz: all three in one scale, so that a line
//   xz          through one goes on in its neighbour

import { onScreen } from "../dom.js";
import { grey } from "../picks/grey.js";
import { font, rem } from "../picks/units.js";
import { roundLength } from "../picks/view.js";
import { colour } from "./words.js";

const AXES = ["xy", "xz", "yz"];
const KEPT = 4;
const GAP_REM = 0.5;
const NEAR_PX = 10;
const HIGHEST = 0.86; // of the window

export class Slices {
  #kept = new Map(); // "id/revision" -> {grey: {axis: canvas}, labels: {axis: data}, picks, error}
  #overlays = new Map(); // axis -> canvas
  #drawing = false;

  /** `told`: {changed(), hover(what or null), click(cluster)}. */
  constructor(canvas, net, told) {
    this.canvas = canvas;
    this.net = net;
    this.told = told;
    this.row = null;
    this.look = { labels: true, picks: true, all: false, opacity: 0.45, hidden: new Set(), ink: () => "", group: () => "" };
    this.visible = onScreen(canvas);
    new ResizeObserver(() => this.draw()).observe(canvas.parentElement);
    canvas.addEventListener("pointermove", (event) => told.hover(this.#under(event)));
    canvas.addEventListener("pointerleave", () => told.hover(null));
    canvas.addEventListener("click", (event) => this.#click(event));
    document.addEventListener("visibilitychange", () => this.draw());
  }

  /** What is known of the tomogram that is shown; undefined until it is here. */
  get found() {
    return this.row ? this.#kept.get(`${this.row.id}/${this.row.revision}`) : undefined;
  }

  /** Show the tomogram of this row. */
  show(row) {
    const changed = this.row?.id !== row?.id || this.row?.revision !== row?.revision;
    this.row = row;
    if (changed && row && !this.found) this.#fetch(row);
    this.#recolour();
  }

  /** Groups, toggles or colours are others. */
  set(look) {
    Object.assign(this.look, look);
    this.#recolour();
  }

  async #fetch(row) {
    const key = `${row.id}/${row.revision}`;
    const found = { grey: {}, labels: {}, picks: null, error: "" };
    this.#kept.set(key, found);
    while (this.#kept.size > KEPT) this.#kept.delete(this.#kept.keys().next().value);
    const ask = async (what, work) => {
      try {
        await work();
      } catch (error) {
        found.error ||= `The ${what} cannot be shown: ${error.message}.`;
      }
      if (this.row && key === `${this.row.id}/${this.row.revision}`) {
        this.#recolour();
        this.told.changed();
      }
    };
    for (const axis of AXES) {
      await ask("slices", async () => {
        const { data, shape } = await this.net.array("slice", row.id, { axis, v: row.revision });
        found.grey[axis] = grey(data, shape[1], shape[0]);
      });
    }
    await ask("sub-volumes", async () => (found.picks = await this.net.json("picks", row.id, { v: row.revision })));
    if (!row.labels) return;
    for (const axis of AXES) await ask("labels", async () => (found.labels[axis] = await this.net.array("labels", row.id, { axis, v: row.revision })));
  }

  #recolour() {
    this.#overlays.clear();
    this.draw();
  }

  /** Draw with the next frame, once. */
  draw() {
    if (this.#drawing || document.hidden) return;
    this.#drawing = true;
    requestAnimationFrame(() => {
      this.#drawing = false;
      this.#paint();
    });
  }

  /** Where each slice lies, in CSS pixels: {xy: {left, top, width, height}, …, scale}. */
  #places(width) {
    const [nz, ny, nx] = this.row.shape;
    const gap = GAP_REM * rem();
    const room = Math.max(200, HIGHEST * window.innerHeight);
    const scale = Math.max(Math.min((width - gap) / (nx + nz), (room - gap) / (ny + nz)), 1e-6);
    const left = Math.max(0, (width - gap - (nx + nz) * scale) / 2);
    const box = (x, y, w, h) => ({ left: left + x, top: y, width: w * scale, height: h * scale });
    const [right, below] = [nx * scale + gap, ny * scale + gap];
    return { scale, left, height: (ny + nz) * scale + gap, xy: box(0, 0, nx, ny), xz: box(0, below, nx, nz), yz: box(right, 0, nz, ny) };
  }

  #paint() {
    const width = this.canvas.parentElement.clientWidth;
    if (!width) return;
    const dense = Math.min(3, window.devicePixelRatio || 1);
    const places = this.row ? this.#places(width) : { height: 12 * rem() };
    this.canvas.width = Math.round(width * dense);
    this.canvas.height = Math.round(places.height * dense);
    this.canvas.style.setProperty("height", `${places.height}px`);
    if (!this.row) return;
    const context = this.canvas.getContext("2d");
    context.setTransform(dense, 0, 0, dense, 0, 0);
    this.places = places;
    for (const axis of AXES) this.#slice(context, axis, places[axis]);
    this.#bar(context, places);
  }

  #slice(context, axis, place) {
    context.fillStyle = "#070a0e";
    context.fillRect(place.left, place.top, place.width, place.height);
    const picture = this.found?.grey[axis];
    context.save();
    context.beginPath();
    context.rect(place.left, place.top, place.width, place.height);
    context.clip();
    if (picture) laid(context, picture, place, axis === "yz");
    const overlay = this.look.labels ? this.#overlay(axis) : null;
    if (overlay) {
      context.globalAlpha = this.look.opacity;
      laid(context, overlay, place, axis === "yz");
      context.globalAlpha = 1;
    }
    if (this.look.picks) for (const dot of this.#dots(axis)) this.#dot(context, dot);
    context.restore();
    context.font = font(0.82);
    context.textBaseline = "top";
    context.textAlign = "left";
    lettered(context, { xy: "xy  x→ y↓", xz: "xz  x→ z↓", yz: "yz  z→ y↓" }[axis], place.left + 6, place.top + 5);
  }

  #overlay(axis) {
    const known = this.#overlays.get(axis);
    const found = this.found?.labels[axis];
    if (known || !found) return known;
    const [h, w] = found.shape;
    const canvas = new OffscreenCanvas(w, h);
    const context = canvas.getContext("2d");
    const image = context.createImageData(w, h);
    const words = new Uint32Array(image.data.buffer);
    const table = this.#table(found.head.classes ?? this.found.picks?.classes ?? []);
    for (let i = 0; i < found.data.length; i++) words[i] = table[found.data[i]] ?? 0;
    context.putImageData(image, 0, 0);
    this.#overlays.set(axis, canvas);
    return canvas;
  }

  // Colours by label value, as words of an ImageData; 0 where nothing is drawn.
  #table(classes) {
    return Uint32Array.from({ length: 256 }, (_, value) => {
      const name = classes[value];
      if (value === 0 || name === undefined || this.look.hidden.has(name)) return 0;
      const hex = colour(this.look.ink(name));
      const bytes = new Uint8ClampedArray([1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16)).concat(255));
      return new Uint32Array(bytes.buffer)[0];
    });
  }

  // Sub-volumes to be drawn on a slice: [{x, y (CSS pixels), cluster, name}].
  *#dots(axis) {
    const picks = this.found?.picks;
    if (!picks || !this.places) return;
    const place = this.places[axis];
    const [nz, ny, nx] = this.row.shape;
    const near = this.look.all ? Infinity : picks.box / 2;
    const [across, down, through, middle] = { xy: ["x", "y", "z", nz], xz: ["x", "z", "y", ny], yz: ["z", "y", "x", nx] }[axis];
    for (let i = 0; i < picks.x.length; i++) {
      if (Math.abs(picks[through][i] - (middle >> 1)) > near) continue;
      const name = this.look.group(picks.cluster[i]);
      if (this.look.hidden.has(name)) continue;
      const [x, y] = [picks[across][i], picks[down][i]].map((at) => (at + 0.5) * this.places.scale);
      yield { x: place.left + x, y: place.top + y, i, cluster: picks.cluster[i], name };
    }
  }

  #dot(context, { x, y, name }) {
    const radius = 0.26 * rem();
    context.beginPath();
    context.arc(x, y, radius, 0, 2 * Math.PI);
    context.lineWidth = 2.5;
    context.strokeStyle = "rgba(0, 0, 0, 0.75)";
    context.stroke();
    if (name) {
      context.fillStyle = colour(this.look.ink(name));
      context.fill();
    }
    context.lineWidth = 1.2;
    context.strokeStyle = name ? "#ffffff" : "#c6d0dc";
    context.stroke();
  }

  #bar(context, { scale, yz, xz }) {
    const letter = rem();
    const perUnit = scale / (this.row.voxel_a || 1) * 10;
    const [length, width] = roundLength(perUnit, Math.max(40, yz.width - letter));
    const [x, y] = [yz.left, xz.top + 2.2 * letter];
    context.fillStyle = "#e4e9f0";
    context.fillRect(x, y, width, 0.2 * letter);
    context.font = font(0.82);
    context.textAlign = "left";
    context.textBaseline = "bottom";
    context.fillText(length >= 1000 ? `${length / 1000} µm` : `${length} nm`, x, y - 3);
  }

  /** What is below the pointer: {axis, x, y, z, label, cluster, name}, null outside. */
  #under(event) {
    const box = this.canvas.getBoundingClientRect();
    const [px, py] = [event.clientX - box.left, event.clientY - box.top];
    const inside = ({ left, top, width, height }) => px >= left && py >= top && px < left + width && py < top + height;
    const axis = this.row && this.places ? AXES.find((one) => inside(this.places[one])) : undefined;
    if (!axis) return null;
    const place = this.places[axis];
    const [a, b] = [px - place.left, py - place.top].map((at) => Math.floor(at / this.places.scale));
    const [nz, ny, nx] = this.row.shape;
    const at = { xy: { x: a, y: b, z: nz >> 1 }, xz: { x: a, z: b, y: ny >> 1 }, yz: { z: a, y: b, x: nx >> 1 } }[axis];
    return { axis, ...at, label: this.#label(axis, a / { xy: nx, xz: nx, yz: nz }[axis], b / { xy: ny, xz: nz, yz: ny }[axis]), ...this.#nearest(axis, px, py) };
  }

  #label(axis, across, down) {
    const found = this.found?.labels[axis];
    if (!found) return "";
    const [h, w] = found.shape;
    const [row, col] = axis === "yz" ? [across * h, down * w] : [down * h, across * w];
    const value = found.data[Math.min(h - 1, Math.floor(row)) * w + Math.min(w - 1, Math.floor(col))];
    return value ? ((found.head.classes ?? this.found.picks?.classes ?? [])[value] ?? "") : "";
  }

  #nearest(axis, px, py) {
    let [best, least] = [null, NEAR_PX];
    if (this.look.picks) for (const dot of this.#dots(axis)) {
      const far = Math.hypot(dot.x - px, dot.y - py);
      if (far < least) [best, least] = [dot, far];
    }
    return best ? { cluster: best.cluster, name: best.name } : { cluster: null, name: "" };
  }

  #click(event) {
    const found = this.#under(event);
    if (found?.cluster) this.told.click(found.cluster);
  }
}

// A picture of its rows, or turned over its diagonal, into a place.
function laid(context, picture, { left, top, width, height }, turned) {
  context.imageSmoothingEnabled = true;
  if (!turned) return context.drawImage(picture, left, top, width, height);
  context.save();
  context.translate(left, top);
  context.transform(0, 1, 1, 0, 0, 0);
  context.drawImage(picture, 0, 0, height, width);
  return context.restore();
}

function lettered(context, text, x, y) {
  const letter = rem();
  context.fillStyle = "rgba(7, 10, 14, 0.78)";
  context.fillRect(x - 0.3 * letter, y - 0.25 * letter, context.measureText(text).width + 0.6 * letter, 1.3 * letter);
  context.fillStyle = "#ffffff";
  context.fillText(text, x, y);
}
