// What is done with the selected clusters: put into a group that is there, into a new one, into none; and undone.

import { el, fmt, rows, setText } from "../dom.js";
import { lock } from "../net.js";
import { KINDS, UNMARKED, colour, listed } from "./words.js";

const KEYED = 9; // groups that have a key of their own
const LONGEST = 40;
const MOST_UNDO = 20;

export class Marking {
  /** `given`: {selected() -> ids, item(id), clear(), changed(), answered(mining), said(text)}. */
  constructor(net, given) {
    this.net = net;
    this.given = given;
    this.groups = [];
    this.undone = []; // what undoes the last marks: [{text, steps: [[group, ids], …]}]
    this.waiting = new Map(); // id -> group: said here, and on its way
    this.queue = Promise.resolve();
    this.build();
    this.unlock = lock(net, this.locked, this.why, () => "");
  }

  build() {
    this.told = el("p", { class: "mine-selected", role: "status" });
    this.existing = el("div", { class: "actions mine-groups", role: "group", "aria-label": "Put the selected clusters into a group" });
    this.name = el("input", { type: "text", name: "group", maxlength: String(LONGEST), placeholder: "name of a new group", "aria-label": "Name of a new group" });
    this.kind = el("select", { name: "kind", "aria-label": "Kind of the new group" }, Object.entries(KINDS).map(([value, text]) => el("option", { value, text })));
    this.make = el("button", { type: "submit", class: "make primary", text: "Make and mark" });
    this.form = el("form", { class: "actions mine-new" }, this.name, this.kind, this.make);
    this.form.addEventListener("submit", (event) => event.preventDefault() || this.fresh());
    this.none = el("button", { type: "button", class: "unmark", onclick: () => this.mark("") }, el("kbd", { text: "u" }), " no group");
    this.undo = el("button", { type: "button", class: "undo", onclick: () => this.back() }, el("kbd", { text: "z" }), " Undo");
    this.clear = el("button", { type: "button", class: "clear", onclick: () => this.given.clear() }, el("kbd", { text: "Esc" }), " Select none");
    this.why = el("p", { class: "why" });
    this.locked = [this.name, this.kind];
    const line = el("div", { class: "actions mine-marks" }, this.existing, this.none, el("span", { class: "mine-rest" }, this.clear, this.undo));
    this.root = el("div", { class: "mine-marking" }, this.told, this.why, line, this.form);
  }

  /** The groups of a snapshot, and what is selected, may be others. */
  update(groups) {
    this.groups = groups;
    const ids = this.given.selected();
    const count = ids.reduce((sum, id) => sum + (this.given.item(id)?.count ?? 0), 0);
    setText(this.told, ids.length ? `${fmt.count(ids.length)} selected (${listed(ids)}): ${fmt.count(count)} sub-volumes. They are…` : "Select clusters that show the same: click them, or with the keyboard.");
    rows(this.existing, groups.length, (i) => this.button(i)).forEach((node, i) => this.dress(node, i));
    this.lockUp(ids.length);
  }

  button(i) {
    const key = i < KEYED ? el("kbd", { text: i + 1 }) : null;
    return el("button", { type: "button", class: "into", onclick: () => this.mark(this.groups[i].name) }, el("span", { class: "swatch" }), key, el("span", { class: "word" }));
  }

  dress(node, i) {
    const { name, colour: ink } = this.groups[i];
    setText(node.lastElementChild, ` ${name}`);
    node.firstElementChild.style.setProperty("background", colour(ink));
  }

  lockUp(selected) {
    const locked = this.net.whyLocked();
    this.unlock();
    const off = (button, no, why) => {
      button.disabled = Boolean(locked) || no;
      button.title = locked || (no ? why : "");
    };
    for (const button of [...this.existing.children, this.none, this.make]) off(button, !selected, "Select clusters first.");
    off(this.undo, !this.undone.length, "Nothing to undo.");
    if (this.undone.length && !locked) this.undo.title = this.undone.at(-1).text;
    this.clear.disabled = !selected;
    this.form.hidden = !selected;
    this.none.hidden = !this.given.selected().some((id) => this.given.item(id)?.mark);
    this.existing.hidden = !selected || !this.groups.length;
  }

  /** Whether this key is one of ours; then it is done. */
  key(name) {
    if (name === "u") return this.mark("") ?? true;
    if (name === "z") return this.back() ?? true;
    if (name === "n" && !this.form.hidden) return this.name.focus() ?? true;
    const at = /^[1-9]$/.test(name) ? Number(name) - 1 : -1;
    if (at < 0 || at >= this.groups.length) return false;
    return this.mark(this.groups[at].name) ?? true;
  }

  /** The group that is to be shown of a cluster: what was said here, until the daemon's answer has come. */
  shown(item) {
    return this.waiting.has(item.id) ? { ...item, mark: this.waiting.get(item.id) } : item;
  }

  fresh() {
    const name = this.name.value.trim().replace(/\s+/g, " ");
    if (!name) return void this.name.focus();
    const known = this.groups.some((group) => group.name === name);
    return this.mark(name, known ? undefined : this.kind.value).then((done) => done && (this.name.value = ""));
  }

  /** Put what is selected into `group`; gives whether the daemon has done so. */
  mark(group, kind) {
    const ids = this.given.selected();
    const why = this.net.whyLocked() || (ids.length ? "" : "Select clusters first.");
    if (why) return void this.given.said(why) ?? Promise.resolve(false);
    const before = new Map();
    for (const id of ids) {
      const { mark } = this.shown(this.given.item(id));
      if (mark !== group) before.set(mark, [...(before.get(mark) ?? []), id]);
    }
    this.given.clear();
    if (!before.size) return void this.given.said(`Nothing to do: in ${group || "no group"} already.`) ?? Promise.resolve(false);
    const text = `Undo: ${listed(ids)} as ${group || UNMARKED}`;
    return this.steps([[group, ids, kind]], () => this.undone.push({ text, steps: [...before] }));
  }

  back() {
    const why = this.net.whyLocked() || (this.undone.length ? "" : "Nothing to undo.");
    if (why) return void this.given.said(why) ?? Promise.resolve(false);
    const { steps } = this.undone.pop();
    return this.steps(steps, () => this.given.said("Undone."));
  }

  // One after the other, or a quick hand would overtake itself.
  steps(steps, done) {
    for (const [group, ids] of steps) for (const id of ids) this.waiting.set(id, group);
    this.given.changed();
    const all = this.queue.then(() => this.send(steps, done));
    this.queue = all;
    return all;
  }

  async send(steps, done) {
    try {
      for (const [group, ids, kind] of steps) {
        const answer = await this.net.act("group", kind === undefined ? { clusters: ids, group } : { clusters: ids, group, kind });
        this.given.answered(answer.mining);
      }
      done();
      this.undone.splice(0, this.undone.length - MOST_UNDO);
      return true;
    } catch (error) {
      this.given.said(`Nothing was marked: ${error.message}`);
      return false;
    } finally {
      for (const [, ids] of steps) for (const id of ids) this.waiting.delete(id);
      this.given.changed();
    }
  }
}
