// The contact sheet of clusters: one is looked at, many are selected, by mouse and keys; the order holds meanwhile.
//
// A click selects or leaves, shift and a click a stretch. Arrows lead on, with shift they select; space or Enter selects
// or leaves; Ctrl+A selects all shown, Escape none.

import { el } from "../dom.js";
import { Tile } from "./tile.js";

const LEFT_MS = 60000; // a mouse that lies still for longer was left there

export class Sheet {
  #tiles = new Map(); // id -> Tile
  #moved = -Infinity; // when the mouse moved over them
  #wanted = [];
  #anchor = null; // where a stretch begins
  #current = null; // the tile that Tab comes to

  /** `given`: {looked(id), selected(), key(key, event) -> whether it was one, seen()}. */
  constructor(given) {
    this.given = given;
    this.selection = new Set();
    this.root = el("ul", { class: "mine-grid", role: "listbox", "aria-multiselectable": "true", "aria-label": "Clusters", "aria-describedby": "mine-keys" });
    this.watch = new IntersectionObserver((entries) => {
      for (const { target, isIntersecting } of entries) target.tile.seen = isIntersecting;
      given.seen();
    });
    this.root.addEventListener("pointermove", (event) => this.#point(event));
    this.root.addEventListener("pointerleave", () => {
      this.#moved = -Infinity;
      this.#arrange();
    });
    this.root.addEventListener("mousedown", (event) => event.shiftKey && event.preventDefault()); // no text is selected
    this.root.addEventListener("click", (event) => this.#click(event));
    this.root.addEventListener("focusin", (event) => this.#come(event.target.closest(".mine-tile")?.tile));
    this.root.addEventListener("keydown", (event) => this.#key(event));
  }

  /** Tiles in the order in which they stand. */
  get tiles() {
    return [...this.root.children].map((node) => node.tile);
  }

  get seen() {
    return this.tiles.filter((tile) => tile.seen);
  }

  /** Selected clusters, in the order in which they stand. */
  get selected() {
    return this.tiles.map(({ id }) => id).filter((id) => this.selection.has(id));
  }

  tile(id) {
    return this.#tiles.get(id);
  }

  /** The clusters to show, in this order: items of the snapshot; `ink(item)`: colour; `waiting(id)`: for the daemon. */
  update(items, ink, waiting) {
    this.#wanted = items.map(({ id }) => id);
    const here = new Set(this.#wanted);
    for (const item of items) {
      if (!this.#tiles.has(item.id)) this.#add(item.id);
      this.#tiles.get(item.id).update(item, ink(item), waiting(item.id));
    }
    for (const [id, tile] of this.#tiles) if (!here.has(id)) this.#drop(id, tile);
    this.#arrange();
    if (!here.has(this.#current)) this.#come(this.tiles[0], false);
  }

  /** Select exactly these, as far as they are shown. */
  choose(ids) {
    this.selection = new Set(ids.filter((id) => this.#tiles.has(id)));
    for (const [id, tile] of this.#tiles) tile.select(this.selection.has(id));
    this.given.selected();
  }

  /** The tile that was looked at last, or the first. */
  focus(id = this.#current) {
    this.#tiles.get(id)?.root.focus();
  }

  /** The next `update` stands in its own order, whoever is at the tiles: a person asked for another one. */
  anew() {
    this.#moved = -Infinity;
    this.root.replaceChildren();
  }

  // Not "pointerover": a mouse that lies still would speak for the tile that an arrow key scrolls below it.
  #point(event) {
    if (event.pointerType === "touch") return;
    this.#moved = performance.now();
    const tile = event.target.closest(".mine-tile")?.tile;
    if (tile) this.given.looked(tile.id);
  }

  #add(id) {
    const tile = new Tile(id);
    this.#tiles.set(id, tile);
    this.watch.observe(tile.root);
  }

  #drop(id, tile) {
    this.watch.unobserve(tile.root);
    tile.root.remove();
    this.#tiles.delete(id);
    if (this.selection.delete(id)) this.given.selected();
  }

  // Nothing moves under the hand of a person: what is new stands last until they leave.
  #arrange() {
    const held = performance.now() - this.#moved < LEFT_MS || this.root.contains(document.activeElement) || this.selection.size > 0;
    const standing = this.tiles.map(({ id }) => id);
    const order = held ? [...standing, ...this.#wanted.filter((id) => !standing.includes(id))] : this.#wanted;
    order.forEach((id, i) => {
      const { root } = this.#tiles.get(id);
      if (this.root.children[i] !== root) this.root.insertBefore(root, this.root.children[i] ?? null);
    });
  }

  #come(tile, look = true) {
    if (!tile) return;
    this.#tiles.get(this.#current)?.reach(false);
    tile.reach(true);
    this.#current = tile.id;
    if (look) this.given.looked(tile.id);
  }

  #click(event) {
    const tile = event.target.closest(".mine-tile")?.tile;
    if (!tile) return;
    if (event.shiftKey && this.#anchor !== null) this.#stretch(tile.id);
    else this.#toggle(tile.id);
    tile.root.focus({ preventScroll: true });
  }

  #toggle(id) {
    this.#anchor = id;
    const on = new Set(this.selection);
    if (!on.delete(id)) on.add(id);
    this.choose([...on]);
  }

  // All from where the last one was selected to here, beside what is selected.
  #stretch(id) {
    const ids = this.tiles.map((tile) => tile.id);
    const [a, b] = [ids.indexOf(this.#anchor), ids.indexOf(id)].sort((x, y) => x - y);
    this.choose([...this.selection, ...ids.slice(Math.max(0, a), b + 1)]);
  }

  #key(event) {
    const tile = event.target.closest(".mine-tile")?.tile;
    if (!tile || event.altKey) return;
    if (!this.#own(tile, event) && (event.ctrlKey || event.metaKey || !this.given.key(event.key))) return;
    event.preventDefault();
  }

  #own(tile, { key, shiftKey, ctrlKey, metaKey }) {
    const { tiles } = this;
    if (ctrlKey || metaKey) return key.toLowerCase() === "a" && (this.choose(tiles.map(({ id }) => id)) ?? true);
    if (key === " " || key === "Enter") return this.#toggle(tile.id) ?? true;
    if (key === "Escape") return this.choose([]) ?? true;
    const at = tiles.indexOf(tile);
    const across = Math.max(1, tiles.findIndex(({ root }) => root.offsetTop > tiles[0].root.offsetTop));
    const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -across, ArrowDown: across, Home: -at, End: tiles.length - 1 - at }[key];
    if (step === undefined) return false;
    const to = tiles[at + step] ?? tile;
    if (shiftKey) {
      if (this.#anchor === null || !this.selection.has(this.#anchor)) this.#anchor = tile.id;
      this.#stretch(to.id);
    }
    to.root.focus();
    return true;
  }
}
