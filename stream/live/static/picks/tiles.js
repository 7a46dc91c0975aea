// Full-resolution tiles of one micrograph at a time: only those that are seen, a few at once, kept up to a bound.

import { grey } from "./grey.js";

export const SIZE = 512;
const AT_ONCE = 3;
const KEPT = 48;
const MOST_SEEN = 24;

/**
 * `load(id, x, y, size)` promises {data, shape}, or is refused with an error; `changed()` is called when a tile came.
 */
export class Tiles {
  #kept = new Map(); // "id/x/y" -> canvas, or null for one that failed; oldest use first
  #coming = new Set();

  constructor(load, changed) {
    this.load = load;
    this.changed = changed;
    this.missing = new Set(); // micrographs whose full resolution is no longer kept
  }

  /** Tiles of `view`'s part of micrograph `id` that are here: [{canvas, x, y}]; the others begin to be loaded. */
  seen(id, view) {
    const here = [];
    for (const [x, y] of this.missing.has(id) ? [] : places(view)) {
      const key = `${id}/${x}/${y}`;
      const canvas = this.#kept.get(key);
      if (canvas) {
        this.#kept.delete(key);
        this.#kept.set(key, canvas); // used last
        here.push({ canvas, x, y });
      } else if (canvas === undefined && !this.#coming.has(key) && this.#coming.size < AT_ONCE) {
        this.#fetch(key, id, x, y);
      }
    }
    return here;
  }

  /** How many tiles are on their way. */
  get loading() {
    return this.#coming.size;
  }

  async #fetch(key, id, x, y) {
    this.#coming.add(key);
    try {
      const { data, shape } = await this.load(id, x, y, SIZE);
      this.#keep(key, grey(data, shape[1], shape[0]));
    } catch (error) {
      if (error.status === 404) this.missing.add(id);
      // A tile that failed is not asked for again until it is out of the bound.
      this.#keep(key, null);
    } finally {
      this.#coming.delete(key);
      this.changed();
    }
  }

  #keep(key, canvas) {
    this.#kept.set(key, canvas);
    while (this.#kept.size > KEPT) this.#kept.delete(this.#kept.keys().next().value);
  }
}

/** Corners of the tiles that the view needs, those nearest to its middle first; none where they would be too many. */
function places(view) {
  const [left, top, right, bottom] = view.seen;
  const columns = [Math.floor(left / SIZE), Math.ceil(right / SIZE)];
  const rows = [Math.floor(top / SIZE), Math.ceil(bottom / SIZE)];
  if ((columns[1] - columns[0]) * (rows[1] - rows[0]) > MOST_SEEN) return [];
  const found = [];
  for (let j = rows[0]; j < rows[1]; j++) for (let i = columns[0]; i < columns[1]; i++) found.push([i * SIZE, j * SIZE]);
  const away = ([x, y]) => Math.hypot(x + SIZE / 2 - (left + right) / 2, y + SIZE / 2 - (top + bottom) / 2);
  return found.sort((a, b) => away(a) - away(b));
}
