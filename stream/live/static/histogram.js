// The score histogram with its threshold: dragged, looked at ("what if"), then applied.
//
//   const h = histogram(net, {
//     title: "Scores",
//     stacks: [{key: "rejected", label, colour}, …]   keys of snapshot.scores; the first is at the bottom
//     rows:   [{key: "kept_per_s", label, text(value)}, …]   keys of snapshot.what_if, one line each of the comparison;
//             an entry of what_if may be a number, null, or [value, low, high] (text gets it as it is)
//     unit: "frames"                     what the bars count
//     hint: "…"                          a sentence below the title, or ""
//     none: "…"                          why there is no threshold, where threshold.value is null (optional)
//     applied(answer)                    called after the daemon has taken the new threshold (optional)
//   })
//   parent.append(h.root)       a panel, data-area="scores"
//   h.update(snapshot)          once per snapshot
//
// It reads snapshot.scores {edges, …}, snapshot.what_if, snapshot.threshold {value, configured, card, floor}, and posts
// act/threshold {"value"}. Nothing changes before "Apply". Ways to move the line: mouse, finger, the number's field, and on
// the line itself: arrow keys 1 % of the axis (with Shift 0.1 %), PageUp and PageDown 10 %, Home, End; Enter applies, Escape
// cancels. In the DOM: .threshold-handle (role slider), input.threshold-value, button.apply, button.cancel, table.what-if.

import { draw, positionOf, valueAt } from "./bars.js";
import { INK } from "./colours.js";
import { el, fmt, onScreen, panel, rows, setText } from "./dom.js";
import { lock } from "./net.js";
import { difference, interpolated, plain } from "./whatif.js";

const NONE = "There is no threshold to change here.";

class Threshold {
  constructor(net, given) {
    this.net = net;
    this.given = given;
    this.snapshot = null;
    this.proposed = null; // null: nothing is proposed, the line stands where the daemon has it
    this.log = true;
    this.sending = false;
    this.build();
    this.wire();
    this.shown = onScreen(this.root);
  }

  build() {
    const { title = "Scores", hint = "", stacks } = this.given;
    this.panel = panel(title, { area: "scores", hint });
    this.root = this.panel.root;
    this.sentence = this.root.querySelector(".hint");
    this.canvas = el("canvas", { class: "bars", role: "img" });
    this.handle = el("div", { class: "threshold-handle", role: "slider", tabindex: "0", "aria-label": "Threshold", "aria-orientation": "horizontal" }, el("span", { class: "grip", "aria-hidden": "true", text: "◂ ▸" }));
    this.plot = el("div", { class: "plot" }, this.canvas, this.handle);
    const key = stacks.map(({ label, colour }) => el("li", {}, el("span", { class: "swatch", style: { background: colour } }), label));
    this.counts = el("button", { type: "button", class: "small", "aria-pressed": "true", text: "log counts" });
    this.value = el("input", { class: "threshold-value", type: "number", step: "any", "aria-label": "Threshold as a number" });
    this.apply = el("button", { type: "button", class: "apply primary", text: "Apply" });
    this.cancel = el("button", { type: "button", class: "cancel", text: "Cancel" });
    this.why = el("p", { class: "why" });
    this.said = el("p", { class: "said", role: "status" });
    this.heads = [el("th", { scope: "col" }), el("th", { scope: "col", text: "now" }), el("th", { scope: "col", text: "what if" }), el("th", { scope: "col", text: "change" })];
    this.table = el("tbody");
    this.compared = el("table", { class: "what-if" }, el("thead", {}, el("tr", {}, this.heads)), this.table);
    this.form = el("div", { class: "actions" }, el("label", {}, "threshold ", this.value), this.apply, this.cancel);
    this.panel.body.append(el("div", { class: "legend" }, el("ul", {}, key), this.counts), this.plot, this.form, this.why, this.compared, this.said);
  }

  wire() {
    this.unlock = lock(this.net, [this.apply], this.why, () => this.hindrance());
    this.handle.addEventListener("pointerdown", (event) => this.grab(event));
    this.handle.addEventListener("keydown", (event) => this.key(event));
    this.plot.addEventListener("pointerdown", (event) => event.target === this.canvas && event.pointerType === "mouse" && this.grab(event));
    this.value.addEventListener("input", () => this.typed());
    this.value.addEventListener("blur", () => this.rest());
    this.value.addEventListener("keydown", (event) => this.entered(event));
    this.apply.addEventListener("click", () => this.send());
    this.cancel.addEventListener("click", () => this.drop());
    this.counts.addEventListener("click", () => {
      this.log = !this.log;
      this.counts.setAttribute("aria-pressed", String(this.log));
      this.render();
    });
    new ResizeObserver(() => this.render()).observe(this.plot);
  }

  // Where no model answers there are scores, and no threshold to move.
  none() {
    return typeof this.snapshot?.threshold?.value !== "number" || !this.snapshot.scores?.edges?.length;
  }

  limits() {
    const { edges } = this.snapshot.scores;
    const floor = this.snapshot.threshold?.floor;
    return [Math.max(edges[0], floor ?? edges[0]), edges[edges.length - 1]];
  }

  hindrance() {
    if (this.snapshot && this.none()) return this.given.none ?? NONE;
    return this.sending ? "Applying…" : "";
  }

  // While a person types, the field is theirs: a snapshot would put the old number back under their fingers.
  typed() {
    this.typing = true;
    if (this.value.value !== "") this.propose(Number(this.value.value));
  }

  rest() {
    this.typing = false;
    this.render();
  }

  propose(value) {
    if (this.none()) return;
    if (value !== null) {
      const [low, high] = this.limits();
      value = Number(Math.min(Math.max(value, low), high).toPrecision(4));
      if (Number.isNaN(value)) return;
      if (value === Number(this.snapshot.threshold.value.toPrecision(4))) value = null;
    }
    this.proposed = value;
    setText(this.said, "");
    this.render();
  }

  grab(event) {
    if (this.none() || event.button > 0) return;
    event.preventDefault();
    this.handle.focus();
    const { edges } = this.snapshot.scores;
    const move = (at) => this.propose(valueAt(this.canvas, edges, at.clientX - this.canvas.getBoundingClientRect().left));
    const stop = () => ["pointermove", "pointerup", "pointercancel"].forEach((name, i) => this.handle.removeEventListener(name, i ? stop : move));
    this.handle.setPointerCapture(event.pointerId);
    this.handle.addEventListener("pointermove", move);
    this.handle.addEventListener("pointerup", stop);
    this.handle.addEventListener("pointercancel", stop);
    if (event.target === this.canvas) move(event);
  }

  key(event) {
    if (this.none()) return;
    const [low, high] = this.limits();
    const { edges } = this.snapshot.scores;
    const step = (edges[edges.length - 1] - edges[0]) / (event.shiftKey ? 1000 : 100);
    const at = this.proposed ?? this.snapshot.threshold.value;
    const to = {
      ArrowLeft: at - step, ArrowDown: at - step, ArrowRight: at + step, ArrowUp: at + step,
      PageDown: at - 10 * step, PageUp: at + 10 * step, Home: low, End: high,
    }[event.key];
    if (to !== undefined) this.propose(to);
    else if (!this.entered(event)) return;
    event.preventDefault();
  }

  entered(event) {
    if (event.key === "Enter" && this.proposed !== null && !this.apply.disabled) this.send();
    else if (event.key === "Escape") this.drop();
    else return false;
    return true;
  }

  drop() {
    this.typing = false;
    this.propose(null);
  }

  async send() {
    const value = this.proposed;
    if (value === null || this.sending) return;
    this.sending = true;
    this.typing = false;
    this.unlock();
    try {
      const answer = await this.net.act("threshold", { value });
      this.snapshot.threshold = { ...this.snapshot.threshold, value }; // the next snapshot says the same
      this.proposed = null;
      setText(this.said, `Applied: the threshold is ${value}.`);
      this.given.applied?.(answer);
    } catch (error) {
      setText(this.said, `Not applied: ${error.message}`);
    } finally {
      this.sending = false;
      this.unlock();
      this.render();
    }
  }

  update(snapshot) {
    const was = this.none();
    this.snapshot = snapshot;
    if (was !== this.none()) this.unlock();
    this.handle.hidden = this.value.disabled = this.none();
    const blind = snapshot.threshold?.value === null;
    this.form.hidden = this.compared.hidden = blind;
    if (this.sentence) this.sentence.hidden = blind;
    if (blind) setText(this.why, this.given.none ?? NONE); // signing in would not help
    if (this.shown()) this.render();
  }

  lines() {
    if (this.none()) return [];
    const { value, configured, card } = this.snapshot.threshold;
    const faint = (at, text) => (typeof at === "number" && at !== value ? [{ at, colour: INK.axis, dash: [2, 4], text, below: true }] : []);
    const beside = this.proposed === null ? [...faint(card, "model's"), ...(configured === card ? [] : faint(configured, "configured"))] : [];
    return [...beside, { at: value, colour: INK.threshold, dash: this.proposed === null ? [] : [6, 4], text: `now ${plain(value)}` }];
  }

  render() {
    const shot = this.snapshot;
    if (!shot?.scores?.edges?.length || !this.canvas.clientWidth) return;
    const stacks = this.given.stacks.map(({ key, colour }) => ({ counts: shot.scores[key] ?? [], colour }));
    draw(this.canvas, { edges: shot.scores.edges, stacks, log: this.log, lines: this.lines(), from: this.proposed });
    if (this.none()) return;
    const at = this.proposed ?? shot.threshold.value;
    this.handle.style.left = `${positionOf(this.canvas, shot.scores.edges, at)}px`;
    this.handle.classList.toggle("moved", this.proposed !== null);
    const [low, high] = this.limits();
    const said = { "aria-valuemin": low, "aria-valuemax": high, "aria-valuenow": at, "aria-valuetext": this.spoken(at) };
    for (const [name, value] of Object.entries(said)) this.handle.setAttribute(name, String(value));
    if (!this.typing) this.value.value = plain(at);
    const none = this.proposed === null;
    this.cancel.disabled = none;
    this.root.classList.toggle("proposing", !none);
    this.apply.classList.toggle("idle", none);
    this.say(at, none);
  }

  spoken(at) {
    const parts = this.given.rows.map(({ key, label, text }) => `${label} ${text(interpolated(this.snapshot.what_if, key, at))}`);
    return `${plain(at)}: ${parts.join(", ")}`;
  }

  say(at, none) {
    const shot = this.snapshot;
    const now = shot.threshold.value;
    setText(this.heads[1], `now, at ${plain(now)}`);
    setText(this.heads[2], none ? "what if …" : `what if ${plain(at)}`);
    const lines = rows(this.table, this.given.rows.length, (i) => el("tr", {}, el("th", { scope: "row", text: this.given.rows[i].label }), el("td"), el("td"), el("td", { class: "change" })));
    this.given.rows.forEach(({ key, text }, i) => {
      const [before, after] = [interpolated(shot.what_if, key, now), interpolated(shot.what_if, key, at)];
      const cells = lines[i].children;
      setText(cells[1], text(before));
      setText(cells[2], none ? "" : text(after));
      setText(cells[3], none ? "" : difference(before, after));
    });
    const seconds = shot.scores.seconds ? ` of the last ${fmt.seconds(shot.scores.seconds)}` : "";
    this.canvas.setAttribute("aria-label", `Histogram of the scores${seconds}: number of ${this.given.unit ?? "items"} by score; threshold ${plain(now)}`);
    setText(this.panel.note, seconds.trim());
  }
}

export function histogram(net, given) {
  return new Threshold(net, given);
}
