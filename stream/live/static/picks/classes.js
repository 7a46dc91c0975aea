// Panel: the 2-D classes of the particles, the largest first, with marks by mouse and keyboard, and how they come about.
//
// Reads `classes` of the snapshot, and is hidden where that is null. Posts act/class {id, mark: "good" | "bad" | "none"}.
// In the DOM: #panel-classes, .class-tile[data-id][data-mark], button.class-open, button.mark-good, button.mark-bad,
// button.kind, .class-state, .class-events, dialog.class-dialog.

import { el, fmt, panel, rows, setText } from "../dom.js";
import { ClassGrid } from "./class_grid.js";
import { ClassMembers } from "./class_members.js";
import { ClassPictures } from "./class_pictures.js";
import { keys } from "./class_tile.js";
import { facts, work } from "./class_words.js";

const KINDS = { class: ["As recorded", "Averages of the particles as they were recorded"], "class-denoised": ["Denoised", "Averages of the denoised particles"] };
const SHOWN_EVENTS = 20;
const HELD_MS = 3000; // a mark that was taken is shown for so long, whatever snapshots were under way

class ClassPanel {
  constructor(net, say) {
    this.net = net;
    this.say = say;
    this.found = null; // of the snapshot
    this.kind = "class";
    this.marks = new Map(); // id -> {mark, until}: said here; until: when the daemon's own word holds again
    this.queue = Promise.resolve();
    this.pictures = new ClassPictures(net, { wanted: () => this.wanted(), came: (kind, id) => this.came(kind, id) });
    const marked = (id, word) => this.mark(id, word);
    const opened = (id) => this.item(id) && this.members.show(this.item(id));
    const busy = () => this.members.isOpen || [...this.marks.values()].some(({ until }) => until === Infinity);
    this.grid = new ClassGrid({ marked, opened, busy, seen: () => this.pictures.ask() });
    const changed = () => this.update();
    this.members = new ClassMembers({ picture: (kind, id) => this.pictures.get(kind, id), beside: (id, step) => this.grid.beside(id, step), marked, opened, changed });
    this.build();
    net.on("me", () => this.unlock());
    document.addEventListener("keydown", (event) => this.summon(event));
  }

  build() {
    const { root, head, body, note } = panel("2-D classes", { area: "classes" });
    Object.assign(this, { root, note });
    this.kinds = Object.entries(KINDS).map(([kind, [text, title]]) => el("button", { type: "button", class: "small kind", text, title, dataset: { kind }, onclick: () => this.choose(kind) }));
    head.append(el("span", { class: "tools", role: "group", "aria-label": "What the averages are of" }, this.kinds));
    this.failed = el("p", { class: "warn class-failed", role: "status", hidden: true });
    this.work = el("ul", { class: "class-work" });
    this.facts = el("p", { class: "class-line class-state" });
    this.events = el("ol", { class: "class-events", "aria-label": "What happened to the classes, newest first", tabindex: "0" });
    this.why = el("p", { class: "why" });
    const marking = [["g", "good"], ["b", "bad"], ["u", "unmarked"]].map(([one, text]) => keys([one], text, "marking"));
    this.keys = el("p", { class: "hint class-keys", id: "classes-keys" }, keys(["c"], "to the classes"), keys(["←", "→", "↑", "↓"], "choose"), marking, keys(["Enter"], "or a click: its particles"), el("span", { text: "The order holds while the mouse is here." }));
    // Of one height whatever goes on, or the tiles below would jump.
    const status = el("div", { class: "class-status" }, el("div", {}, this.work, this.facts), this.events);
    body.append(this.failed, status, this.why, this.grid.root, this.keys);
    document.body.append(this.members.dialog);
    root.hidden = true;
    this.choose(this.kind);
    this.unlock();
  }

  // "c" leads here, as "r" leads to the review.
  summon(event) {
    const busy = event.target.closest?.("input, select, textarea, dialog") || event.ctrlKey || event.metaKey || event.altKey;
    if (event.key !== "c" || busy || this.root.hidden || !this.grid.live.length) return;
    event.preventDefault();
    this.root.scrollIntoView({ block: "start" });
    this.grid.focus();
  }

  choose(kind) {
    this.kind = kind;
    for (const button of this.kinds) button.setAttribute("aria-pressed", String(button.dataset.kind === kind));
    for (const tile of this.grid.live) tile.paint(this.pictures.get(kind, tile.id));
    this.pictures.ask();
  }

  unlock() {
    const signedOut = !this.net.me?.signed_in;
    for (const node of [this.root, this.members.dialog]) node.classList.toggle("looking", signedOut);
    setText(this.why, signedOut ? "Sign in to mark classes good or bad." : "");
  }

  /** The field of a snapshot. */
  take(found) {
    this.found = found ?? null;
    this.root.hidden = !found;
    if (!found && this.members.isOpen) this.members.dialog.close();
    this.update();
  }

  item(id) {
    const item = this.found?.list.find((one) => one.id === id);
    const said = this.marks.get(id);
    return item && said ? { ...item, mark: said.mark } : item;
  }

  update() {
    if (!this.found) return;
    const { list, particles, life } = this.found;
    const now = performance.now();
    for (const [id, { until }] of this.marks) if (until < now) this.marks.delete(id);
    const items = list.map(({ id }) => this.item(id));
    this.pictures.keep(items.map(({ id }) => id), life);
    this.grid.update(items, (id) => this.marks.get(id)?.until === Infinity);
    for (const tile of this.grid.live) tile.paint(this.pictures.get(this.kind, tile.id));
    if (this.members.isOpen) this.members.update(this.item(this.members.id));
    setText(this.note, list.length ? `${fmt.count(list.length)} classes of ${fmt.count(particles)} particles, the largest first` : "none yet");
    this.keys.hidden = list.length === 0;
    this.tell();
    this.pictures.ask();
  }

  tell() {
    const { state, error, events } = this.found;
    // One that is no failure: something that cannot be written, say, and is tried again.
    this.failed.hidden = state !== "failed" && !error;
    setText(this.failed, state === "failed" ? `▲ No classes are made: ${error || "the daemon's log says why"}` : `▲ ${error}`);
    const lines = work(this.found);
    rows(this.work, lines.length, () => el("li", {}, el("progress", { max: "1" }), el("span"))).forEach((node, i) => {
      const { share, text } = lines[i];
      const [bar, words] = node.children;
      bar.hidden = share === null;
      if (share !== null) bar.value = share;
      if (bar.getAttribute("aria-label") !== text) bar.setAttribute("aria-label", text);
      setText(words, text);
    });
    setText(this.facts, facts(this.found));
    const newest = [...events].reverse().slice(0, SHOWN_EVENTS);
    rows(this.events, newest.length, () => el("li", {}, el("time"), " ", el("span"))).forEach((node, i) => {
      setText(node.children[0], fmt.clock(newest[i].time));
      setText(node.children[1], newest[i].text);
    });
  }

  wanted() {
    if (this.root.hidden) return [];
    const tiles = this.grid.seen.map(({ id, item }) => ({ kind: this.kind, id, version: item.version }));
    return [...this.members.wanted, ...tiles];
  }

  came(kind, id) {
    if (kind === this.kind) this.grid.tile(id)?.paint(this.pictures.get(kind, id));
    if (this.members.isOpen && this.members.id === id) this.members.draw();
  }

  mark(id, word) {
    const why = this.net.whyLocked();
    if (why) return void this.say(why);
    const said = { mark: word === "none" ? "" : word, until: Infinity };
    this.marks.set(id, said);
    this.update();
    // One after the other, or a quick hand would overtake itself.
    this.queue = this.queue.then(() => this.send(id, word, said));
    return undefined;
  }

  async send(id, word, said) {
    try {
      const answer = await this.net.act("class", { id, mark: word });
      said.until = performance.now() + HELD_MS;
      if (answer?.classes) this.found = answer.classes;
    } catch (error) {
      if (this.marks.get(id) === said) this.marks.delete(id);
      this.say(`Class ${id} was not marked: ${error.message}`);
    }
    this.update();
  }
}

/** `say(text)` tells a person in passing. Gives {root, take(classes)}. */
export function classes(net, say) {
  return new ClassPanel(net, say);
}
