// Review: a person says of what is shown whether it is right. Marks feed purity and recall, and later trainings.
//
//   const r = review(net, {
//     question(picture)        what is asked, as text: "Taken for a hit (score 0.83). Right?"
//     words: {right, wrong}    words on the two buttons
//     markOf(picture, verdict) the body of one mark; by default {id, verdict}
//     draw(canvas, picture)    by default paintPicture
//     open(picture)            a larger view, by key Enter or by a click (optional)
//     hint                     a sentence below the title
//   })
//   parent.append(r.root)      a panel, data-area="review"
//   r.offer(picture)           puts a picture into the queue; those known by id are passed over. Pictures of the event
//                              "picture" with review: true are offered by themselves.
//   r.update(snapshot)         once per snapshot: counts, purity, recall of snapshot.review
//
// Keys, while the panel has the focus ("r" anywhere on the page gives it): y right, n wrong, u withdraws the mark of what is
// shown, j or → next, k or ← the one before, Enter larger. Works signed in only, and says so. Marks that fail to arrive stay
// unmarked and say why. In the DOM: #panel-review, button.right, button.wrong, button.undo, .review-state.

import { el, fmt, panel, setText } from "./dom.js";
import { paintPicture } from "./colours.js";
import { lock } from "./net.js";

const KEPT = 60; // pictures at hand; the oldest without a mark goes first
const KNOWN = 2000; // ids remembered, so that nothing is asked twice
const SAID = { right: "marked right", wrong: "marked wrong", none: "not marked" };

class Review {
  constructor(net, given) {
    this.net = net;
    this.given = given;
    this.items = []; // {picture, verdict: right|wrong|none, sent: bool}
    this.at = 0;
    this.known = new Set();
    this.pending = new Map();
    this.sending = false;
    this.build();
    net.on("picture", (picture) => picture.review && this.offer(picture));
  }

  build() {
    const { words = { right: "Right", wrong: "Wrong" }, hint = "" } = this.given;
    this.panel = panel("Review", { area: "review", hint });
    this.root = this.panel.root;
    this.root.tabIndex = -1;
    this.canvas = el("canvas", { class: "pixels" });
    this.frame = el("button", { type: "button", class: "frame", "aria-label": "Larger", onclick: () => this.larger() }, this.canvas);
    this.question = el("p", { class: "question" });
    this.state = el("p", { class: "review-state", role: "status" });
    const button = (name, text, key, act) => el("button", { type: "button", class: name, "aria-keyshortcuts": key, onclick: act }, text, " ", el("kbd", { text: key }));
    this.right = button("right", words.right, "y", () => this.mark("right"));
    this.wrong = button("wrong", words.wrong, "n", () => this.mark("wrong"));
    this.undo = button("undo", "Withdraw", "u", () => this.mark("none"));
    this.before = button("before small", "Back", "k", () => this.go(-1));
    this.after = button("after small", "Next", "j", () => this.go(1));
    this.why = el("p", { class: "why" });
    this.lines = ["marked", "purity", "recall"].map((name) => el("div", {}, el("dt", { text: name }), el("dd", { text: "–" })));
    const side = el("div", { class: "review-side" }, this.question, el("div", { class: "verdicts" }, this.right, this.wrong), el("div", { class: "actions" }, this.before, this.after, this.undo), this.state, this.why);
    this.panel.body.append(el("div", { class: "review-grid" }, this.frame, side), el("dl", { class: "facts" }, this.lines));
    this.root.addEventListener("keydown", (event) => this.key(event));
    document.addEventListener("keydown", (event) => this.summon(event));
    this.unlock = lock(this.net, [this.right, this.wrong, this.undo], this.why, () => (this.items.length ? "" : "Nothing is waiting for review."));
    this.render();
  }

  summon(event) {
    const busy = event.target.closest?.("input, select, textarea, dialog") || event.ctrlKey || event.metaKey || event.altKey;
    if (event.key !== "r" || busy) return;
    event.preventDefault();
    this.root.scrollIntoView({ block: "nearest" });
    this.root.focus();
  }

  key(event) {
    if (event.target.closest("input, select, textarea") || event.ctrlKey || event.metaKey || event.altKey) return;
    const press = (button, act) => !button.disabled && act();
    const act = {
      y: () => press(this.right, () => this.mark("right")), n: () => press(this.wrong, () => this.mark("wrong")), u: () => press(this.undo, () => this.mark("none")),
      j: () => this.go(1), k: () => this.go(-1), ArrowRight: () => this.go(1), ArrowLeft: () => this.go(-1),
    }[event.key];
    if (event.key === "Enter" && event.target === this.root) this.larger();
    else if (act) act();
    else return;
    event.preventDefault();
  }

  offer(picture) {
    if (this.known.has(picture.id)) return;
    this.known.add(picture.id);
    if (this.known.size > KNOWN) this.known.delete(this.known.values().next().value);
    this.items.push({ picture, verdict: "none" });
    if (this.items.length > KEPT) this.forget();
    this.render();
  }

  // The one that goes is never the one a person looks at.
  forget() {
    const away = this.items.findIndex((item, i) => i !== this.at && (i < this.at - 10 || item.verdict === "none"));
    const index = away < 0 ? (this.at === 0 ? 1 : 0) : away;
    this.items.splice(index, 1);
    if (index < this.at) this.at -= 1;
  }

  go(step) {
    this.at = Math.min(Math.max(this.at + step, 0), Math.max(this.items.length - 1, 0));
    setText(this.state, "");
    this.render();
  }

  larger() {
    const item = this.items[this.at];
    if (item) this.given.open?.(item.picture);
  }

  mark(verdict) {
    const item = this.items[this.at];
    if (!item) return;
    const was = item.verdict;
    item.verdict = verdict;
    this.pending.set(item.picture.id, { item, verdict, was });
    if (verdict !== "none" && this.at < this.items.length - 1) this.at += 1;
    this.render();
    this.send();
  }

  // One request at a time, with all marks made meanwhile: a quick reviewer must not run into the daemon's rate limit.
  async send() {
    if (this.sending || this.pending.size === 0) return;
    const batch = [...this.pending.values()].slice(0, 50);
    batch.forEach(({ item }) => this.pending.delete(item.picture.id));
    this.sending = true;
    try {
      const markOf = this.given.markOf ?? ((picture, verdict) => ({ id: picture.id, verdict }));
      const answer = await this.net.act("mark", { marks: batch.map(({ item, verdict }) => markOf(item.picture, verdict)) });
      if (answer?.review) this.count(answer.review);
      setText(this.state, `${batch.map(({ verdict }) => SAID[verdict]).pop()}, kept`);
    } catch (error) {
      batch.forEach(({ item, was }) => (item.verdict = was));
      setText(this.state, `Not kept: ${error.message}`);
    } finally {
      this.sending = false;
      this.render();
    }
    this.send();
  }

  update(snapshot) {
    if (snapshot.review) this.count(snapshot.review);
  }

  count({ right = 0, wrong = 0, purity = null, recall = null }) {
    const of = (x) => (x ? `${fmt.estimate(x)}, n = ${fmt.count(x.n)}` : "not known yet: more marks are needed");
    [`${fmt.count(right)} right, ${fmt.count(wrong)} wrong`, of(purity), of(recall)].forEach((text, i) => setText(this.lines[i].children[1], text));
  }

  render() {
    const item = this.items[this.at];
    const waiting = this.items.filter((one) => one.verdict === "none").length;
    setText(this.panel.note, `${waiting} waiting`);
    setText(this.question, item ? `${this.given.question(item.picture)}${item.verdict === "none" ? "" : ` (${SAID[item.verdict]})`}` : "Nothing is waiting.");
    this.frame.hidden = !item;
    this.before.disabled = this.at === 0;
    this.after.disabled = this.at >= this.items.length - 1;
    if (item && this.drawn !== item) (this.given.draw ?? paintPicture)(this.canvas, item.picture);
    this.drawn = item;
    this.unlock();
  }
}

export function review(net, given) {
  return new Review(net, given);
}
