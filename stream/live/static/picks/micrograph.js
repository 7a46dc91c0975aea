// One micrograph large: overview and full-resolution tiles on a canvas, its picks as circles, a scale bar.
//
// Knows nothing of panels and buttons: `viewer.js` in this folder has those. Pictures are kept for the last few
// micrographs, so that going back and forth costs nothing.

import { onScreen } from "../dom.js";
import { Circles } from "./circles.js";
import { gestures } from "./gestures.js";
import { grey } from "./grey.js";
import { marked } from "./marks.js";
import { Tiles } from "./tiles.js";
import { font, rem } from "./units.js";
import { View, roundLength } from "./view.js";

const KEPT = 4;
const BAR_REM = 9;
const SHARPER = 1.15; // tiles are loaded when a pixel of the overview is larger than this many of the screen's

export class Micrograph {
  #kept = new Map(); // id -> {canvas, factor, head}, oldest first
  #asked = "";
  #drawing = false;

  /**
   * `canvas`: the element. `net`: for blobs. `colour(score)`: CSS colour. `told`: {changed, picked(index), added(x, y),
   * hover(x, y)}; `keys`: further keys. A click gives `picked`, with shift (or while `adding`) `added`.
   */
  constructor(canvas, net, colour, told, keys) {
    this.canvas = canvas;
    this.net = net;
    this.told = told;
    this.view = new View();
    this.circles = new Circles(colour);
    this.tiles = new Tiles((id, x, y, size) => net.array("tile", id, { x, y, size }), () => this.draw());
    this.id = null;
    this.selected = -1;
    this.adding = false;
    this.asked = 0;
    this.verdicts = new Map();
    this.places = [];
    this.error = "";
    this.pixelA = null;
    this.visible = onScreen(canvas);
    this.gestures = gestures(canvas, this.view, {
      changed: () => this.draw(),
      click: (sx, sy, event) => this.#click(sx, sy, event.shiftKey),
      hover: (sx, sy) => told.hover(...this.view.toPick(sx, sy)),
      anchor: () => this.#anchor(),
      keys,
    });
    new ResizeObserver(() => this.#resize()).observe(canvas);
    document.addEventListener("visibilitychange", () => this.draw());
  }

  /** Show micrograph `id`; `preview` (a canvas of the whole, or null) until its overview is here. */
  async show(id, preview, size) {
    this.id = id;
    this.selected = -1;
    this.error = "";
    this.circles.set(null);
    Object.assign(this, marked({}));
    this.preview = preview;
    if (size) this.view.picture(...size);
    this.draw();
    await Promise.all([this.#overview(id), this.reload(id)]);
  }

  async #overview(id) {
    if (this.#kept.has(id) || this.#asked === id) return;
    this.#asked = id;
    try {
      const { data, shape, head } = await this.net.array("micrograph", id);
      this.#kept.set(id, { canvas: grey(data, shape[1], shape[0]), factor: head.factor ?? 1, head });
      while (this.#kept.size > KEPT) this.#kept.delete(this.#kept.keys().next().value);
    } catch (error) {
      if (id === this.id) this.error = `This micrograph cannot be shown: ${error.message}.`;
    } finally {
      if (this.#asked === id) this.#asked = "";
    }
    if (id === this.id) this.draw();
  }

  /** Its picks, again: a new threshold has others. */
  async reload(id = this.id) {
    const asked = ++this.asked;
    try {
      const picks = await this.net.json("picks", id);
      if (id !== this.id || asked !== this.asked) return; // an older answer may come last
      this.circles.set(picks);
      Object.assign(this, marked(picks));
      if (picks.nx && picks.ny) this.view.picture(picks.nx, picks.ny);
      this.pixelA = picks.pixel_a ?? this.pixelA;
    } catch (error) {
      if (id === this.id) this.error = `Its picks are not known: ${error.message}.`;
    }
    this.draw();
    this.told.changed();
  }

  /** Select circle `index` (-1: none) and bring it into view. */
  select(index) {
    this.selected = index;
    const { picks } = this.circles;
    if (index >= 0 && picks) {
      const [sx, sy] = this.view.ofPick(picks.x[index], picks.y[index]);
      const outside = sx < 0 || sy < 0 || sx > this.view.width || sy > this.view.height;
      if (outside) this.view.centre(picks.x[index] + 0.5, picks.y[index] + 0.5);
    }
    this.draw();
    this.told.picked(index);
  }

  /** Bring a pick's place into the middle, so large that the particle is well seen. */
  lookAt(x, y) {
    const across = 5 * (this.circles.picks?.diameter_px ?? 100);
    const scale = Math.min(this.view.width, this.view.height) / across;
    if (scale > this.view.scale) this.view.zoom(scale / this.view.scale);
    this.view.centre(x + 0.5, y + 0.5);
    this.draw();
  }

  /** Select the next (or, with -1, the previous) circle in order of score. */
  step(by) {
    const shown = [];
    for (let i = 0; i < this.circles.count; i++) if (this.circles.isShown(i)) shown.push(i);
    if (!shown.length) return;
    const { score } = this.circles.picks;
    shown.sort((a, b) => score[b] - score[a]);
    const at = shown.indexOf(this.selected);
    this.select(shown[at < 0 ? 0 : (at + by + shown.length) % shown.length]);
  }

  /** Where the selected pick is on the screen, if it is seen. */
  #anchor() {
    const { picks } = this.circles;
    if (this.selected < 0 || !picks) return [];
    const [sx, sy] = this.view.ofPick(picks.x[this.selected], picks.y[this.selected]);
    return sx >= 0 && sy >= 0 && sx <= this.view.width && sy <= this.view.height ? [sx, sy] : [];
  }

  #click(sx, sy, shift) {
    if (!shift && !this.adding) return this.select(this.circles.near(this.view, sx, sy));
    const [x, y] = this.view.toPick(sx, sy);
    const inside = x >= -0.5 && y >= -0.5 && x < this.view.nx - 0.5 && y < this.view.ny - 0.5;
    return inside && this.told.added(x, y);
  }

  #resize() {
    const { clientWidth, clientHeight } = this.canvas;
    if (!clientWidth || !clientHeight) return;
    const dense = Math.min(3, window.devicePixelRatio || 1);
    this.canvas.width = Math.round(clientWidth * dense);
    this.canvas.height = Math.round(clientHeight * dense);
    this.view.resize(clientWidth, clientHeight);
    this.#paint(); // at once: a canvas whose size was set is blank
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

  #paint() {
    const context = this.canvas.getContext("2d");
    const { view } = this;
    const dense = this.canvas.width / view.width;
    context.setTransform(dense, 0, 0, dense, 0, 0);
    context.clearRect(0, 0, view.width, view.height);
    if (this.id === null) return;
    this.#picture(context, dense);
    this.circles.draw(context, view, this);
    this.#bar(context);
  }

  #picture(context, dense) {
    const { view } = this;
    const overview = this.#kept.get(this.id);
    // The overview lacks the last rows and columns where the factor does not divide them: it is placed by its factor.
    const factor = overview?.factor ?? 1;
    const [left, top] = view.toScreen(0, 0);
    context.imageSmoothingEnabled = view.scale * factor * dense < 3;
    if (overview) {
      const { canvas } = overview;
      const by = factor * view.scale;
      context.drawImage(canvas, left, top, canvas.width * by, canvas.height * by);
    } else if (this.preview) {
      context.drawImage(this.preview, left, top, view.nx * view.scale, view.ny * view.scale);
    }
    if (!overview || factor <= 1 || view.scale * dense * factor < SHARPER || !this.visible()) return;
    context.imageSmoothingEnabled = view.scale * dense < 3;
    for (const tile of this.tiles.seen(this.id, view)) {
      const [x, y] = view.toScreen(tile.x, tile.y);
      // Half a pixel more: a seam of the background would show between two tiles at broken zooms.
      const [w, h] = [tile.canvas.width * view.scale + 0.5, tile.canvas.height * view.scale + 0.5];
      context.drawImage(tile.canvas, x, y, w, h);
    }
  }

  #bar(context) {
    const { view } = this;
    const letter = rem();
    const widest = Math.min(BAR_REM * letter, view.width / 3);
    const [length, width] = roundLength(view.scale / (this.pixelA ?? 1), widest);
    const text = this.pixelA === null ? `${length} px` : length >= 100 ? `${length / 10} nm` : `${length} Å`;
    const [x, y] = [0.9 * letter, view.height - letter];
    context.fillStyle = "rgba(0, 0, 0, 0.72)";
    context.fillRect(x - 0.5 * letter, y - 1.5 * letter, width + letter, 2.1 * letter);
    context.fillStyle = "#ffffff";
    context.fillRect(x, y, width, 0.2 * letter);
    context.font = font(0.82);
    context.textAlign = "center";
    context.textBaseline = "bottom";
    context.fillText(text, x + width / 2, y - 3);
  }
}
