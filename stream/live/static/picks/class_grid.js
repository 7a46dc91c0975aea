// The tiles of the 2-D classes: the largest first, in an order that holds while somebody is at them; mouse and keys.

import { el } from "../dom.js";
import { Tile } from "./class_tile.js";

const KEYED_MS = 5000; // after a key, for so long tiles stay where they are
const LEFT_MS = 60000; // a mouse that lies still for longer was left there
const KEYS = { g: "good", b: "bad", u: "none" };

export class ClassGrid {
  #tiles = new Map(); // id -> Tile
  #here = new Set(); // ids that the daemon has
  #moved = -Infinity; // when the mouse moved over them; -Infinity: it is elsewhere
  #keyed = -Infinity;
  #selected = null;

  /** See `Tile`; `busy()`: whether tiles must stay for another reason; `seen()`: others came into sight. */
  constructor({ marked, opened, busy, seen }) {
    this.given = { marked, opened };
    this.busy = busy;
    this.root = el("ul", { class: "classes-grid", "aria-label": "2-D classes, the largest first", "aria-describedby": "classes-keys" });
    this.watch = new IntersectionObserver((entries) => {
      for (const { target, isIntersecting } of entries) target.tile.seen = isIntersecting;
      seen();
    });
    for (const kind of ["pointerenter", "pointermove"]) this.root.addEventListener(kind, (event) => event.pointerType !== "touch" && (this.#moved = performance.now()));
    this.root.addEventListener("pointerleave", () => {
      this.#moved = -Infinity;
      this.#arrange();
    });
    this.root.addEventListener("focusin", (event) => this.#select(event.target.closest(".class-tile")?.tile));
    this.root.addEventListener("keydown", (event) => this.#key(event));
  }

  /** Tiles in the order in which they stand. */
  get tiles() {
    return [...this.root.children].map((node) => node.tile);
  }

  /** Classes that are in sight. */
  get seen() {
    return this.live.filter((tile) => tile.seen);
  }

  /** Tiles of classes that are there. */
  get live() {
    return this.tiles.filter((tile) => this.#here.has(tile.id));
  }

  tile(id) {
    return this.#tiles.get(id);
  }

  /** The classes as they are: items of the snapshot, the largest first. `waiting(id)`: a mark is on its way. */
  update(items, waiting) {
    this.wanted = items.map(({ id }) => id);
    this.#here = new Set(this.wanted);
    for (const item of items) {
      if (!this.#tiles.has(item.id)) this.#add(item.id);
      this.#tiles.get(item.id).update(item, { gone: false, waiting: waiting(item.id) });
    }
    for (const [id, tile] of this.#tiles) if (!this.#here.has(id)) tile.update(tile.item, { gone: true, waiting: false });
    this.#arrange();
  }

  /** Whether somebody is at the tiles: nothing may move under their hand. */
  get held() {
    const now = performance.now();
    const keys = this.root.contains(document.activeElement) && now - this.#keyed < KEYED_MS;
    return now - this.#moved < LEFT_MS || keys || this.busy();
  }

  /** The class before or after one, in the order shown; null at the ends. */
  beside(id, step) {
    const ids = this.live.map((tile) => tile.id);
    return ids[ids.indexOf(id) + step] ?? null;
  }

  /** The tile that was chosen last, or the first. */
  focus() {
    this.#tiles.get(this.#selected)?.open.focus({ preventScroll: true });
  }

  #add(id) {
    const tile = new Tile(id, this.given);
    this.#tiles.set(id, tile);
    this.watch.observe(tile.root);
  }

  #arrange() {
    if (!this.wanted) return;
    const standing = this.tiles.map((tile) => tile.id);
    const order = this.held && this.wanted.length ? [...standing, ...this.wanted.filter((id) => !standing.includes(id))] : this.wanted;
    for (const id of [...this.#tiles.keys()]) if (!order.includes(id)) this.#drop(id);
    const focus = this.root.contains(document.activeElement) ? document.activeElement : null;
    order.forEach((id, i) => {
      const { root } = this.#tiles.get(id);
      if (this.root.children[i] !== root) this.root.insertBefore(root, this.root.children[i] ?? null);
    });
    if (focus?.isConnected && focus !== document.activeElement) focus.focus({ preventScroll: true }); // a move takes it
    if (!this.#tiles.has(this.#selected)) this.#select(this.tiles[0]);
  }

  #drop(id) {
    const { root } = this.#tiles.get(id);
    this.watch.unobserve(root);
    root.remove();
    this.#tiles.delete(id);
  }

  #select(tile) {
    if (!tile || tile.id === this.#selected) return;
    this.#tiles.get(this.#selected)?.reach(false);
    tile.reach(true);
    this.#selected = tile.id;
  }

  #key(event) {
    const tile = event.target.closest(".class-tile")?.tile;
    if (!tile || event.ctrlKey || event.metaKey || event.altKey) return;
    const word = KEYS[event.key];
    const to = this.#target(event.key, this.tiles.indexOf(tile));
    if (!word && !to) return;
    event.preventDefault();
    this.#keyed = performance.now();
    if (to) to.open.focus();
    else if (this.#here.has(tile.id)) this.given.marked(tile.id, word);
  }

  /** The tile that a key leads to from tile `at`; undefined for other keys. */
  #target(key, at) {
    const { tiles } = this;
    const across = Math.max(1, tiles.findIndex(({ root }) => root.offsetTop > tiles[0].root.offsetTop));
    const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -across, ArrowDown: across, Home: -at, End: tiles.length - 1 - at }[key];
    return step === undefined ? undefined : (tiles[at + step] ?? tiles[at]);
  }
}
