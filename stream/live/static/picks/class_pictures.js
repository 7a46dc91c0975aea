// Pictures of 2-D classes: fetched when a class has a new one and somebody sees it, a few a second, and kept.

import { paint } from "../colours.js";

const AT_ONCE = 48; // a gallery that comes into sight is filled at once
const PER_S = 5; // and then follows, the oldest picture first
const AGAIN_MS = 2000;

/**
 * Fetches what `wanted()` names: [{kind, id, version}], what matters most first. `came(kind, id)`: a picture is new.
 * `atOnce`: so many are fetched without a pause.
 */
export class ClassPictures {
  #kept = new Map(); // "kind/id" -> {asked, version, at, data, shape}; data null: there is none
  #room;
  #counted = performance.now();
  #busy = false;
  #timer = 0;

  constructor(net, { wanted, came, atOnce = AT_ONCE }) {
    this.net = net;
    this.atOnce = this.#room = atOnce;
    this.wanted = wanted;
    this.came = came;
    this.life = "";
  }

  /** {data, shape} of the newest picture that is here; data null where the daemon has none; or undefined. */
  get(kind, id) {
    return this.#kept.get(`${kind}/${id}`);
  }

  /** These classes are there; pictures of others go. `life`: of another one, all go: its numbers mean other classes. */
  keep(ids, life) {
    const there = life === this.life ? new Set(ids.map(String)) : new Set();
    this.life = life;
    for (const key of this.#kept.keys()) if (!there.has(key.split("/")[1])) this.#kept.delete(key);
  }

  /** Fetch what is wanted and new, one after the other. */
  async ask() {
    if (this.#busy || this.#timer || document.hidden) return;
    const next = this.#next();
    if (!next) return;
    const wait = this.#wait();
    if (wait > 0) return void this.#later(wait);
    this.#busy = true;
    const failed = !(await this.#fetch(next));
    this.#busy = false;
    if (failed) this.#later(AGAIN_MS);
    else this.ask();
  }

  #later(wait) {
    this.#timer = setTimeout(() => {
      this.#timer = 0;
      this.ask();
    }, wait);
  }

  #next() {
    const age = ({ kind, id, first }) => (first ? -1 : (this.get(kind, id)?.at ?? 0));
    const stale = this.wanted().filter(({ kind, id, version }) => {
      const had = this.get(kind, id);
      return !had || (had.asked !== version && had.version !== version);
    });
    return stale.reduce((best, one) => (best === null || age(one) < age(best) ? one : best), null);
  }

  #wait() {
    const now = performance.now();
    this.#room = Math.min(this.atOnce, this.#room + ((now - this.#counted) * PER_S) / 1000);
    this.#counted = now;
    if (this.#room < 1) return Math.ceil(((1 - this.#room) * 1000) / PER_S);
    this.#room -= 1;
    return 0;
  }

  async #fetch({ kind, id, version }) {
    const { life } = this;
    let found = null;
    try {
      found = await this.net.array(kind, id, { v: version, life });
    } catch (error) {
      // Not there: another version may be. All else is tried again.
      if (error.status !== 404) return false;
    }
    if (life !== this.life) return true;
    const picture = { data: found?.data ?? null, shape: found?.shape ?? null };
    this.#kept.set(`${kind}/${id}`, { asked: version, version: found?.head.version, at: performance.now(), ...picture });
    this.came(kind, id);
    return true;
  }
}

/** Paint picture `i` of those in `picture` (the last two of its shape are rows and columns); false where there is none. */
export function paintClass(canvas, picture, i = 0) {
  if (!picture?.data) return false;
  const [h, w] = picture.shape.slice(-2);
  paint(canvas, picture.data.subarray(i * h * w, (i + 1) * h * w), w, h, { map: "grey", low: 0, high: 255 });
  return true;
}
