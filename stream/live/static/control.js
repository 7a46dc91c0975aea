// Control: writing, runs, the model and its candidate; and the log of changes. The threshold is set in histogram.js.
//
//   const c = control(net, {what: "frames"})      what is judged, as a word. A candidate's rate is a share of frames, and
//                                                 of micrographs the number of picks in each
//   parent.append(c.root, c.log.root)             two panels, data-area="control" and "changes"
//   c.update(snapshot)                            reads writing, run, model, models, candidate, changes
//
// Posts act/pause {"paused"}, act/run {"title"}, act/candidate {"bundle"}, act/promote {}, act/dismiss {}. Pausing and
// promoting ask once more in place (".sure": "Yes, …" and "No"). Everything is disabled with the reason where nothing may be
// changed. In the DOM: button.pause, input.run-title, button.run, select.candidate, button.shadow, button.promote,
// button.dismiss, button.yes, button.no, .said.

import { el, fmt, panel, rows, setText } from "./dom.js";
import { lock } from "./net.js";

const STATES = { loading: "loading", shadow: "in shadow: judges a part of what comes, decides nothing", failed: "failed" };
const FIELDS = { threshold: "threshold", pause: "writing", run: "run", model: "model", candidate: "candidate" };
const TEXTS = {
  class: (old, to) => `class ${to?.id ?? "?"}: ${old?.mark || "unmarked"} → ${to?.mark || "unmarked"}`,
  clusters: (old, to) => `clusters: ${grouped(old)} → ${grouped(to)}`,
  group: (old, to) => (to ? `new group: ${to.name} (${to.kind})` : `group taken back: ${old?.name ?? "?"}`),
};

// Clusters by group, as {name: [ids]}.
const grouped = (found) => Object.entries(found ?? {}).map(([name, ids]) => `${[ids].flat().join(", ")} ${name || "unmarked"}`).join("; ");

const words = (value) => (value === null || value === undefined || value === "" ? "–" : typeof value === "object" ? JSON.stringify(value) : String(value));

const each = (x) => (x ? `${fmt.number(x.value)} picks each (${fmt.number(x.low)} – ${fmt.number(x.high)})` : "–");

class Control {
  constructor(net, { what = "frames" } = {}) {
    this.net = net;
    this.what = what;
    this.snapshot = null;
    this.busy = "";
    this.build();
  }

  button(name, text, act) {
    const made = el("button", { type: "button", class: name, text, onclick: act });
    this.buttons.push(made);
    return made;
  }

  build() {
    this.buttons = [];
    this.panel = panel("Control", { area: "control" });
    this.root = this.panel.root;
    this.said = el("p", { class: "said", role: "status" });
    this.why = el("p", { class: "why" });
    this.panel.body.append(this.why, this.writing(), this.running(), this.model(), this.said);
    const fields = [this.title, this.choice];
    this.unlock = lock(this.net, [...this.buttons, ...fields], this.why, () => this.busy);
    this.log = panel("Changes", { area: "changes" });
    this.list = el("ol", { class: "changes", "aria-label": "Log of changes, newest first" });
    this.log.body.append(this.list);
  }

  group(title, ...children) {
    return el("fieldset", {}, el("legend", { text: title }), ...children);
  }

  writing() {
    this.writes = el("p", { class: "state" });
    this.pause = this.button("pause", "Pause writing", () => this.pausing());
    return this.group("Writing", this.writes, el("div", { class: "actions" }, this.pause));
  }

  running() {
    this.run = el("p", { class: "state" });
    this.title = el("input", { class: "run-title", type: "text", maxlength: "80", placeholder: "title of the new run", "aria-label": "Title of the new run" });
    const start = this.button("run", "Start new run", () => this.begin());
    this.title.addEventListener("keydown", (event) => event.key === "Enter" && this.begin());
    return this.group("Run", this.run, el("div", { class: "actions" }, this.title, start));
  }

  model() {
    this.current = el("p", { class: "state" });
    this.choice = el("select", { class: "candidate", "aria-label": "Bundle to try" });
    this.shadow = this.button("shadow", "Try in shadow", () => this.choice.value && this.send("candidate", { bundle: this.choice.value }, `${this.choice.value} is being loaded.`));
    this.trial = el("div", { class: "actions" }, this.choice, this.shadow);
    this.promote = this.button("promote primary", "Promote", () => this.promoting());
    this.dismiss = this.button("dismiss", "Dismiss", () => this.send("dismiss", {}, "The candidate is gone."));
    this.facts = el("dl", { class: "facts" });
    this.candidate = el("div", { class: "candidate-state" }, this.facts, el("div", { class: "actions" }, this.promote, this.dismiss));
    return this.group("Model", this.current, this.trial, this.candidate);
  }

  // Asks once more, in the place of the button that was pressed.
  sure(button, question, act) {
    const done = () => {
      asked.remove();
      button.hidden = false;
      button.focus();
    };
    const yes = el("button", { type: "button", class: "yes primary", text: question, onclick: () => done() || act() });
    const no = el("button", { type: "button", class: "no", text: "No", onclick: done });
    const asked = el("span", { class: "sure", role: "group", "aria-label": question, onkeydown: (event) => event.key === "Escape" && done() }, yes, no);
    button.hidden = true;
    button.after(asked);
    no.focus();
  }

  pausing() {
    const paused = !this.snapshot?.writing?.paused;
    if (!paused) return this.send("pause", { paused }, "Writing goes on.");
    return this.sure(this.pause, "Yes, stop writing", () => this.send("pause", { paused }, `Writing is paused: ${this.what} are judged and counted, and not kept.`));
  }

  begin() {
    const title = this.title.value.trim();
    if (this.title.disabled) return;
    this.send("run", { title }, `A new run has begun${title ? `: ${title}` : ""}.`).then((done) => done && (this.title.value = ""));
  }

  promoting() {
    const name = this.snapshot?.candidate?.bundle ?? "the candidate";
    this.sure(this.promote, `Yes, ${name} decides from now on`, () => this.send("promote", {}, `${name} decides now.`));
  }

  async send(action, body, done) {
    this.busy = "Waiting for the daemon…";
    this.unlock();
    try {
      await this.net.act(action, body);
      setText(this.said, done);
      return true;
    } catch (error) {
      setText(this.said, `Nothing was changed: ${error.message}`);
      return false;
    } finally {
      this.busy = "";
      this.dress();
    }
  }

  update(snapshot) {
    this.snapshot = snapshot;
    const { writing, run, model, models = [], candidate, changes = [] } = snapshot;
    setText(this.writes, !writing ? "–" : writing.paused ? "❚❚ paused: nothing is kept" : `● on${writing.file ? `: ${writing.file}` : ""}`);
    this.writes.classList.toggle("warn", Boolean(writing?.paused));
    setText(this.pause, writing?.paused ? "Resume writing" : "Pause writing");
    setText(this.run, run?.name ? `${run.name}${run.title ? ` “${run.title}”` : ""}, since ${fmt.clock(run.since)}` : "none yet: it begins with the first data");
    setText(this.current, model?.name ? `${model.name} ${model.version ?? ""} on ${model.device}, ${model.dtype}, ${String(model.hash).slice(0, 12)}` : "no model: lit pixels decide");
    this.offer(models);
    this.judge(candidate);
    this.tell(changes);
    this.dress();
  }

  dress() {
    this.unlock();
    const candidate = this.snapshot?.candidate;
    this.candidate.hidden = !candidate;
    this.trial.hidden = Boolean(candidate);
    if (candidate?.state !== "shadow") this.promote.disabled = true;
    if (!this.snapshot?.models?.length) this.shadow.disabled = true;
  }

  offer(models) {
    const names = models.join("\n");
    if (this.offered === names) return;
    this.offered = names;
    const none = el("option", { value: "", text: models.length ? "choose a bundle…" : "no other bundle here" });
    this.choice.replaceChildren(none, ...models.map((name) => el("option", { value: name, text: name })));
  }

  judge(candidate) {
    if (!candidate) return;
    const table = candidate.table;
    const rate = this.what === "frames" ? fmt.estimate : each;
    const lines = [
      ["candidate", candidate.bundle], ["state", candidate.error || STATES[candidate.state] || candidate.state],
      ["judged so far", `${fmt.count(candidate.frames)} ${this.what} (${fmt.percent(candidate.share)} of all)`], ["its threshold", fmt.number(candidate.threshold)],
      ["both agree on", fmt.estimate(candidate.agree)], ["its rate", rate(candidate.rate)], ["rate now", rate(candidate.current_rate)],
      ["both · only now · only it · neither", table ? table.flat().map(fmt.count).join(" · ") : "–"],
    ];
    const kept = rows(this.facts, lines.length, () => el("div", {}, el("dt"), el("dd")));
    lines.forEach(([name, text], i) => {
      setText(kept[i].children[0], name);
      setText(kept[i].children[1], text);
    });
  }

  tell(changes) {
    const newest = [...changes].reverse();
    const kept = rows(this.list, newest.length || 1, () => el("li", {}, el("time"), el("span", { class: "by" }), el("span", { class: "what" })));
    if (!newest.length) return setText(kept[0].lastElementChild, "Nothing has been changed yet.");
    return newest.forEach(({ time, by, what, old, new: to }, i) => {
      const [at, who, text] = kept[i].children;
      setText(at, fmt.clock(time));
      at.title = new Date(1000 * time).toLocaleString();
      setText(who, by);
      setText(text, TEXTS[what]?.(old, to) ?? `${FIELDS[what] ?? what}: ${words(old)} → ${words(to)}`);
    });
  }
}

export function control(net, given) {
  return new Control(net, given);
}
