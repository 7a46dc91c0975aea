// Panel: the clusters of sub-volumes as a contact sheet, where groups of them are named, and how they come about.
//
// Reads `mining` of the snapshot. Posts act/group {clusters, group, kind}. In the DOM: #panel-clusters, .mine-tile[data-id]
// [data-mark][aria-selected], button.into, button.unmark, button.undo, input[name=group], select[name=kind], button.make,
// select[name=show], select[name=order], .mine-mode, .mine-work, .mine-events.

import { el, fmt, panel, rows, setText } from "../dom.js";
import { ClassPictures } from "../picks/class_pictures.js";
import { keys } from "../picks/class_tile.js";
import { Marking } from "./marking.js";
import { Peek } from "./peek.js";
import { Sheet } from "./sheet.js";
import { mode, network, work } from "./words.js";

const SHOWN = ["projection", "xy", "xz", "yz"];
const ORDERS = { count: "largest first", mark: "by group", id: "by number", error: "worst reconstructed first" };
const ALL = "all";
const NONE = "none";

class ClusterPanel {
  constructor(net, say) {
    this.net = net;
    this.say = say;
    this.found = null;
    this.which = 0;
    this.looked = null; // id
    this.pictures = new ClassPictures(net, { wanted: () => this.wanted(), came: (_, id) => this.came(id), atOnce: 120 });
    this.marking = new Marking(net, {
      selected: () => this.sheet.selected,
      item: (id) => this.item(id),
      clear: () => this.sheet.choose([]),
      changed: () => this.update(),
      answered: (mining) => mining && this.take(mining),
      said: say,
    });
    this.sheet = new Sheet({ looked: (id) => this.look(id), selected: () => this.found && this.marking.update(this.found.groups), key: (key) => this.marking.key(key), seen: () => this.pictures.ask() });
    this.peek = new Peek();
    this.build();
    net.on("me", () => this.found && this.marking.update(this.found.groups));
    net.on("connection", () => this.found && this.marking.update(this.found.groups));
    document.addEventListener("keydown", (event) => this.summon(event));
  }

  build() {
    const { root, head, body, note } = panel("Clusters of sub-volumes", { area: "clusters" });
    Object.assign(this, { root, note });
    this.buttons = SHOWN.map((text, i) => el("button", { type: "button", class: "small which", text, onclick: () => this.choose(i) }));
    this.show = el("select", { name: "show", "aria-label": "Which clusters are shown", onchange: () => this.update() });
    this.order = el("select", { name: "order", "aria-label": "In which order", onchange: () => this.reorder() }, Object.entries(ORDERS).map(([value, text]) => el("option", { value, text })));
    this.tools = el("span", { class: "tools" }, el("span", { class: "buttons", role: "group", "aria-label": "What is shown of each cluster" }, this.buttons), this.show, this.order);
    head.append(this.tools);
    this.failed = el("p", { class: "warn mine-failed", role: "status", hidden: true });
    this.mode = el("p", { class: "mine-mode", "aria-live": "polite" }, el("b"), " ", el("span"));
    this.work = el("ul", { class: "class-work mine-work" });
    this.facts = el("p", { class: "class-line" });
    this.events = el("ol", { class: "class-events mine-events", "aria-label": "What happened to the clusters, newest first", tabindex: "0" });
    const status = el("div", { class: "class-status" }, el("div", {}, this.mode, this.work, this.facts), this.events);
    this.empty = el("div", { class: "mine-empty" }, el("p", { class: "mine-need" }), el("progress", { max: "1", "aria-label": "Sub-volumes until the first clusters" }), el("p", { class: "quiet" }));
    this.nothing = el("p", { class: "quiet", text: "No cluster is shown: choose another group above." });
    const marking = [["1–9", "into that group"], ["n", "new group"], ["u", "no group"], ["z", "undo"]].map(([key, text]) => keys([key], text));
    const hint = el("p", { class: "hint class-keys", id: "mine-keys" }, keys(["c"], "to the clusters"), keys(["←", "→", "↑", "↓"], "look"), keys(["Space"], "or a click: select"), keys(["Shift"], "a stretch"), keys(["Ctrl+A"], "all shown"), marking);
    this.full = el("div", { class: "mine-full" }, this.marking.root, el("div", { class: "mine-sheet" }, el("div", { class: "mine-left" }, this.nothing, this.sheet.root), this.peek.root), hint);
    body.append(this.failed, status, this.empty, this.full);
    this.choose(0);
  }

  // "c" leads here, as "r" leads to the review.
  summon(event) {
    const busy = event.target.closest?.("input, select, textarea, dialog") || event.ctrlKey || event.metaKey || event.altKey;
    if (event.key !== "c" || busy || this.full.hidden) return;
    event.preventDefault();
    this.root.scrollIntoView({ block: "start" });
    this.sheet.focus();
  }

  choose(which) {
    this.which = which;
    this.buttons.forEach((button, i) => button.setAttribute("aria-pressed", String(i === which)));
    this.paint();
  }

  reorder() {
    this.sheet.choose([]);
    this.sheet.anew();
    this.update();
  }

  look(id) {
    if (id === this.looked) return;
    this.looked = id;
    this.tellLooked();
    this.pictures.ask();
  }

  /** Show this cluster, selected, as the picture of a tomogram asks for. */
  goTo(id) {
    if (!this.item(id)) return this.say(`Cluster ${id} is no longer there.`);
    if (!this.sheet.tile(id)) {
      this.show.value = ALL;
      this.update();
    }
    this.sheet.choose([id]);
    this.root.scrollIntoView({ block: "start" });
    return this.sheet.focus(id);
  }

  item(id) {
    const item = this.found?.list.find((one) => one.id === id);
    return item && this.marking.shown(item);
  }

  ink(item) {
    return this.found.groups.find(({ name }) => name === item?.mark)?.colour;
  }

  /** The field of a snapshot, or of an answer; one that was made before what is shown is left out. */
  take(found) {
    if (!found || (this.found && found.life === this.found.life && found.version < this.found.version)) return;
    this.found = found;
    this.update();
  }

  update() {
    if (!this.found) return;
    const { list, groups, life, state } = this.found;
    this.pictures.keep(list.map(({ id }) => id), life);
    this.offer(groups);
    const items = sorted(list.map(({ id }) => this.item(id)).filter((item) => this.isShown(item)), this.order.value, groups);
    this.sheet.update(items, (item) => this.ink(item), (id) => this.marking.waiting.has(id));
    this.nothing.hidden = items.length > 0;
    this.marking.update(groups);
    this.full.hidden = this.tools.hidden = list.length === 0;
    this.empty.hidden = list.length > 0 || state === "failed";
    setText(this.note, list.length ? `${fmt.count(items.length)}${items.length < list.length ? ` of ${fmt.count(list.length)}` : ""} shown` : "none yet");
    this.paint();
    this.tell();
    this.pictures.ask();
  }

  isShown({ mark }) {
    const wanted = this.show.value;
    return wanted === ALL || (wanted === NONE ? !mark : mark === wanted.slice(1));
  }

  offer(groups) {
    const options = [[ALL, "all clusters"], [NONE, "in no group"], ...groups.map(({ name }) => [`=${name}`, name])];
    const wanted = JSON.stringify(options);
    if (this.offered === wanted) return;
    this.offered = wanted;
    const before = this.show.value;
    this.show.replaceChildren(...options.map(([value, text]) => el("option", { value, text })));
    this.show.value = options.some(([value]) => value === before) ? before : ALL;
  }

  paint() {
    for (const tile of this.sheet.tiles) tile.paint(this.pictures.get("cluster", tile.id), this.which);
    this.tellLooked();
  }

  tellLooked() {
    const item = this.item(this.looked) ?? null;
    this.peek.update(item, this.found && this.ink(item), this.pictures.get("cluster", this.looked), this.found?.pixel_a ?? 0);
  }

  tell() {
    const { state, error, events, have, need } = this.found;
    this.failed.hidden = state !== "failed" && !error;
    setText(this.failed, state === "failed" ? `▲ No clusters are made: ${error || "the daemon's log says why"}` : `▲ ${error}`);
    const [word, , meaning] = mode(this.found);
    setText(this.mode.children[0], `${word}.`);
    setText(this.mode.children[1], meaning);
    this.progress(work(this.found));
    setText(this.facts, network(this.found));
    const [wanted, bar, text] = this.empty.children;
    const missing = Math.max(0, need - have);
    setText(wanted, missing ? `${fmt.count(missing)} more sub-volumes until the first clusters` : "The first clusters are being made");
    bar.value = need > 0 ? Math.min(1, have / need) : 0;
    setText(text, `${fmt.count(have)} of ${fmt.count(need)} are there. They come with the next tomograms (clusters.first_at).`);
    const newest = [...events].reverse();
    rows(this.events, newest.length, () => el("li", {}, el("time"), " ", el("span"))).forEach((node, i) => {
      setText(node.children[0], fmt.clock(newest[i].time));
      setText(node.children[1], newest[i].text);
    });
  }

  progress(lines) {
    rows(this.work, lines.length, () => el("li", {}, el("progress", { max: "1" }), el("span"))).forEach((node, i) => {
      const { share, text } = lines[i];
      const [bar, words] = node.children;
      bar.hidden = share === null;
      if (share !== null) bar.value = share;
      if (bar.getAttribute("aria-label") !== text) bar.setAttribute("aria-label", text);
      setText(words, text);
    });
  }

  wanted() {
    const first = this.item(this.looked);
    const seen = this.sheet.seen.map(({ id, item }) => ({ kind: "cluster", id, version: item.version }));
    return first ? [{ kind: "cluster", id: first.id, version: first.version }, ...seen] : seen;
  }

  came(id) {
    this.sheet.tile(id)?.paint(this.pictures.get("cluster", id), this.which);
    if (id === this.looked) this.tellLooked();
  }
}

/** A sorted copy of items of the snapshot, which has the largest first. */
export function sorted(items, order, groups) {
  const rank = new Map(groups.map(({ name }, i) => [name, i]));
  const key = { count: () => 0, mark: ({ mark }) => rank.get(mark) ?? rank.size, id: ({ id }) => id, error: ({ error }) => -(error ?? -1) }[order];
  return items.map((item, i) => [key(item), i, item]).sort(([a, i], [b, j]) => a - b || i - j).map(([, , item]) => item);
}

/** `say(text)` tells a person in passing. Gives {root, take(mining), goTo(id)}. */
export function clusters(net, say) {
  return new ClusterPanel(net, say);
}
