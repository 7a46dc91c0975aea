// The panels of the XFEL beamline: hit rate, curve, classes, frames, powder, scores, review, control, ledger, stages.
//
//   mount(root, net, tools)    see main.js

import { chart, History } from "./charts.js";
import { INK } from "./colours.js";
import { control } from "./control.js";
import { el, fmt, panel, rows, setText } from "./dom.js";
import { bar, flow } from "./flow.js";
import { histogram } from "./histogram.js";
import { powder } from "./powder.js";
import { review } from "./review.js";
import { strips } from "./strips.js";
import { openBlob } from "./viewer.js";

const HOUR = 3600;
const SPANS = [["1 min", 60], ["10 min", 600], ["1 h", HOUR]];
const GROUPS = { accepted: "accepted", rejected: "rejected", random_miss: "random miss" };

// A probability keeps three decimals, so that the captions stay as wide as they are; a number of lit pixels is whole.
const written = ({ score, by }) => (typeof score !== "number" ? "–" : by === "prescreen" ? fmt.count(score) : score.toFixed(3));

function plain(value) {
  if (typeof value === "number") return Number.isInteger(value) ? String(value) : fmt.number(value, 4); // an identifier stays whole
  return typeof value === "object" && value !== null ? JSON.stringify(value) : String(value ?? "–");
}

const LEFT_OUT = new Set(["shape", "dtype", "probabilities", "origin", "factor", "time", "info", "id"]);
const PARTS = { whole: "", view: "what the model saw; the whole frame is no longer kept" };

// What a frame's head says, as lines of the viewer: the verdict, probabilities by class, identifiers, and what it is.
export function frameFacts(head, labels = []) {
  const lines = Object.entries(head).filter(([name]) => !LEFT_OUT.has(name) && name !== "part");
  const shares = Array.isArray(head.probabilities) ? head.probabilities.map((p, i) => [labels[i] ?? i, p]) : Object.entries(head.probabilities ?? {});
  const size = `${head.shape.join(" × ")} ${head.dtype}${head.factor > 1 ? `, means of ${head.factor} × ${head.factor}` : ""}`;
  return [
    ...lines.map(([name, value]) => [name, plain(value)]),
    ...shares.map(([label, p]) => [`probability of ${label}`, p?.toFixed(4) ?? "–"]),
    ["time", head.time ? new Date(1000 * head.time).toLocaleString() : "–"],
    ...Object.entries(head.info ?? {}).map(([name, value]) => [name, plain(value)]),
    ["size", size],
    ...(PARTS[head.part] ? [["shown", PARTS[head.part]]] : []),
  ];
}

function opener(net) {
  return (picture) =>
    openBlob(net, {
      kind: "frame", name: picture.id, title: `Shot ${picture.key}, ${GROUPS[picture.group] ?? picture.group}`, unit: "photons", log: true,
      facts: (head) => frameFacts(head, net.facts?.labels),
    });
}

function rateTiles(snapshot) {
  return (snapshot.hits?.windows ?? []).map(({ name, rate, low, high, hits: n, shots }) => ({
    key: `rate ${name}`, label: `Hit rate, ${name}`, value: fmt.share(rate), unit: rate === null ? "" : "%", big: true,
    note: rate === null ? (snapshot.counts?.read ? "no shot in this time" : "no shot yet") : `${fmt.share(low)} – ${fmt.share(high)} % (95 %), ${fmt.count(n)} of ${fmt.count(shots)}`,
  }));
}

// Losses of hours ago stay in the number; only new ones change the colour, or it would be on for the rest of the night.
class Lost {
  constructor() {
    this.seen = []; // [time, lost] of the last minute
  }

  tiles({ time, speed, counts = {}, latency_s: latency = {} }) {
    const lost = (counts.dropped ?? 0) + (counts.failed ?? 0);
    this.seen.push([time, lost]);
    while (this.seen[0][0] < time - 60) this.seen.shift();
    const fresh = lost - this.seen[0][1];
    const all = `${fmt.count(counts.dropped)} dropped, ${fmt.count(counts.failed)} failed`;
    const note = fresh > 0 ? `▲ ${fmt.count(fresh)} in the last minute; ${all}` : lost ? `none in the last minute; ${all}` : "✓ no frame lost";
    return [
      { key: "speed", label: "Frames/s", value: fmt.number(speed?.frames_per_s), note: `${fmt.bytes(speed?.bytes_per_s)}/s, ${fmt.seconds(latency.median)} to a verdict` },
      { key: "lost", label: "Lost", value: fmt.share(counts.read ? lost / counts.read : 0), unit: "%", tone: fresh > 0 ? "warn" : lost ? "" : "good", note },
    ];
  }
}

class Curve {
  constructor(net) {
    this.net = net;
    this.history = new History(HOUR);
    this.span = 600;
    this.panel = panel("Hit rate and speed", { area: "curve", wide: true });
    this.root = this.panel.root;
    this.buttons = SPANS.map(([text, seconds]) => el("button", { type: "button", class: "small", text, onclick: () => this.show(seconds), dataset: { seconds } }));
    setText(this.panel.note, "dotted orange: something was changed");
    this.panel.head.append(el("span", { class: "tools", role: "group", "aria-label": "Span of the curve" }, this.buttons));
    this.curve = chart(this.panel.body, {
      label: "Hit rate with its 95 % interval, and frames per second, over time", height: "fill",
      axes: { left: { text: (x) => `${Number((100 * x).toPrecision(3))} %` }, right: {} },
      series: [
        { label: "high", colour: "transparent", width: 0, legend: false }, { label: "low", colour: "transparent", width: 0, legend: false },
        { label: "hit rate (left)", colour: INK.accepted, width: 2.5, whole: (i, [, high, low, rate]) => fmt.estimate([rate[i], low[i], high[i]]) },
        { label: "frames/s (right)", colour: INK.speed, axis: "right", dash: [6, 4], width: 1.5 },
      ],
      bands: [[0, 1, INK.band]],
      marks: () => (net.snapshot?.changes ?? []).map(({ time, what }) => ({ x: time, text: what })),
    });
    net.on("facts", (facts) => this.history.reset(facts.points ?? []));
    this.show(this.span);
  }

  show(seconds) {
    this.span = seconds;
    this.buttons.forEach((button) => button.setAttribute("aria-pressed", String(Number(button.dataset.seconds) === seconds)));
    this.draw();
  }

  draw() {
    this.curve.set(["t", "high", "low", "rate", "frames_per_s"].map((name) => this.history.column(name, this.span)));
  }

  update(snapshot) {
    this.history.add(snapshot.points);
    this.draw();
  }
}

function classes() {
  const made = panel("Classes", { area: "classes", hint: "Particles in the beam, as the model sees them." });
  const body = el("tbody");
  const heads = ["particles", "", "a second", "so far"].map((text, i) => el("th", { scope: "col", class: i > 1 ? "n" : "", text }));
  const table = el("table", { class: "classes" }, el("thead", {}, el("tr", {}, heads)), body);
  const none = el("p", { class: "why", hidden: true, text: "No model answers: lit pixels do not tell one particle from several." });
  const hint = made.root.querySelector(".hint");
  made.body.append(table, none);
  const line = () => {
    const share = bar(["depth"]);
    return Object.assign(el("tr", {}, el("th", { scope: "row" }), el("td", { class: "wide" }, share.root), el("td", { class: "n" }), el("td", { class: "n" })), { share });
  };
  const update = ({ classes: all = [], threshold }) => {
    const blind = threshold?.value === null; // zeros would look as if no particle came
    table.hidden = blind;
    none.hidden = !blind;
    hint.hidden = blind;
    if (blind) return;
    const most = Math.max(1e-9, ...all.map(({ per_s: n }) => n ?? 0));
    rows(body, all.length, line).forEach((row, i) => {
      const { label, count, per_s: rate } = all[i];
      setText(row.children[0], label);
      row.share.set([(rate ?? 0) / most]);
      setText(row.children[2], fmt.number(rate));
      setText(row.children[3], fmt.count(count));
    });
  };
  return { root: made.root, update };
}

function scores(net) {
  return histogram(net, {
    title: "Scores and threshold", unit: "frames",
    none: "There is no threshold to change here: lit pixels decide, by screen.hitscore_threshold of the configuration.",
    hint: "Drag the line, use its arrow keys or type a number. Nothing changes before “Apply”.",
    stacks: [{ key: "rejected", label: "rejected", colour: INK.rejected }, { key: "accepted", label: "accepted", colour: INK.accepted }],
    rows: [
      { key: "kept_per_s", label: "kept frames/s", text: (x) => fmt.number(x) },
      { key: "bytes_per_s", label: "kept data/s", text: (x) => fmt.bytes(x) },
      { key: "purity", label: "purity", text: (x) => fmt.estimate(x, "needs review") },
      { key: "recall", label: "recall", text: (x) => fmt.estimate(x, "needs review") },
    ],
  });
}

function questions(net, open) {
  return review(net, {
    hint: "Frames of every kind, and random misses, so that recall is measured and not guessed.",
    words: { right: "Right", wrong: "Wrong" }, open,
    question: ({ group, label, key, ...judged }) =>
      group === "accepted" ? `Taken for a hit${label ? ` (${label})` : ""}, score ${written(judged)}, shot ${key}. Right?` : `Taken for a miss, score ${written(judged)}, shot ${key}. Right?`,
  });
}

function frames(net, open) {
  return strips(net, {
    open, note: "below each: score · class",
    groups: [
      { key: "accepted", title: "Last accepted", hint: "hits, kept" }, { key: "rejected", title: "Last rejected", hint: "misses, not kept" },
      { key: "random_miss", title: "Random misses", hint: "kept at random, to measure recall" },
    ],
    caption: ({ label, key, group, ...judged }) => ({
      text: `${written(judged)} · ${label ?? "–"}`, spoken: `${GROUPS[group]}, score ${written(judged)}, class ${label ?? "unknown"}, shot ${key}: larger`,
    }),
  });
}

export function mount(root, net, tools) {
  const open = opener(net);
  const curve = new Curve(net);
  const parts = { curve, scores: scores(net), classes: classes(), frames: frames(net, open), powder: powder(net), review: questions(net, open), control: control(net, { what: "frames" }) };
  const streams = flow({ what: "frames" });
  const lost = new Lost();
  const last = el("div", { class: "column" }, parts.classes.root, parts.control.log.root);
  root.append(curve.root, parts.scores.root, parts.frames.root, parts.review.root, parts.powder.root, last, streams.ledger, streams.stages, parts.control.root);
  net.on("snapshot", (snapshot) => {
    const minute = snapshot.hits?.windows?.find(({ name }) => name === "1 min");
    tools.title(minute ? fmt.percent(minute.rate) : "");
    if (!tools.shown()) return;
    tools.glance([...rateTiles(snapshot), ...lost.tiles(snapshot)]);
    for (const part of [curve, parts.scores, parts.classes, parts.powder, parts.review, parts.control, streams]) part.update(snapshot);
  });
}
