// Panels that every beamline has: the ledger with its losses, and the stages with their queues.
//
//   const f = flow({what: "frames"});  parent.append(f.ledger, f.stages);  f.update(snapshot)
//     f.ledger   data-area="ledger": counts, balance, losses by cause, latency, speed
//     f.stages   data-area="stages": busy, starved and blocked of each stage, the bottleneck by name, queues
//   bar(kinds)   a horizontal bar: {root, set(shares)}; kinds are class names (busy, starved, blocked, depth, …)
//   isBottleneck(snapshot)   whether the stage named there really holds the others up

import { el, fmt, panel, rows, setText } from "./dom.js";

const BUSY = 0.6;
const SIGNS = [["read", ""], ["accepted", "="], ["rejected", "+"], ["failed", "+"], ["dropped", "+"], ["in_flight", "+"]];

// The busiest stage holds the others up only when it has little rest itself.
export function isBottleneck({ stages: all = [], bottleneck }) {
  return all.some(({ name, busy }) => name === bottleneck && busy >= BUSY);
}

export function bar(kinds) {
  const parts = kinds.map((kind) => el("span", { class: kind }));
  const root = el("span", { class: "bar", "aria-hidden": "true" }, parts);
  const set = (shares) => shares.forEach((share, i) => (parts[i].style.width = `${(100 * Math.min(Math.max(share ?? 0, 0), 1)).toFixed(1)}%`));
  return { root, set };
}

function ledger(what) {
  const made = panel("Ledger", { area: "ledger" });
  const cells = SIGNS.map(([name, sign]) => el("div", { dataset: { name } }, el("dt", {}, sign ? el("span", { class: "sign", text: sign }) : null, name.replace("in_flight", "in work")), el("dd", { text: "–" })));
  const balance = el("p", { class: "balance" });
  const losses = el("tbody");
  const head = ["lost", "cause", what, "of those read"].map((text, i) => el("th", { scope: "col", class: i > 1 ? "n" : "", text }));
  const table = el("table", { class: "losses" }, el("thead", {}, el("tr", {}, head)), losses);
  const facts = ["latency, median", "latency, 99 of 100", "speed", "data"].map((name) => el("div", {}, el("dt", { text: name }), el("dd", { text: "–" })));
  made.body.append(el("dl", { class: "ledger" }, cells), balance, table, el("dl", { class: "facts across" }, facts));
  const update = (shot) => {
    const counts = shot.counts ?? {};
    SIGNS.forEach(([name], i) => setText(cells[i].lastElementChild, fmt.count(counts[name])));
    const off = SIGNS.slice(1).reduce((left, [name]) => left - (counts[name] ?? 0), counts.read ?? 0);
    setText(balance, off === 0 ? `✓ every one of the ${what} read is accounted for` : `✕ ${fmt.count(Math.abs(off))} ${what} ${off > 0 ? "missing" : "too many"} in this count`);
    balance.classList.toggle("warn", off !== 0);
    tellLosses(losses, shot.losses ?? [], counts.read, what);
    const { latency_s: latency = {}, speed = {} } = shot;
    [fmt.seconds(latency.median), fmt.seconds(latency.p99), `${fmt.number(speed.frames_per_s)} ${what}/s`, `${fmt.bytes(speed.bytes_per_s)}/s`].forEach((text, i) => setText(facts[i].lastElementChild, text));
  };
  return { root: made.root, update };
}

function tellLosses(body, losses, read, what) {
  const sorted = [...losses].filter(({ count }) => count > 0).sort((a, b) => b.count - a.count);
  const lines = rows(body, Math.max(1, sorted.length), () => el("tr", {}, el("td"), el("td"), el("td", { class: "n" }), el("td", { class: "n" })));
  const texts = sorted.length ? sorted.map(({ kind, reason, count }) => [kind, reason, fmt.count(count), read ? fmt.percent(count / read) : "–"]) : [["none", `no ${what} lost so far`, "0", "0\u202f%"]];
  texts.forEach((line, i) => line.forEach((text, j) => setText(lines[i].children[j], text)));
}

function stages() {
  const made = panel("Stages", { area: "stages" });
  const kinds = ["busy", "blocked", "starved"];
  const words = ["busy: works", "blocked: waits for the next stage", "starved: waits for the stage before"];
  const key = el("ul", { class: "legend" }, kinds.map((kind, i) => el("li", {}, el("span", { class: `swatch ${kind}` }), words[i])));
  const named = el("p", { class: "bottleneck" });
  const list = el("ul", { class: "stages" });
  const queues = el("ul", { class: "queues" });
  made.body.append(named, list, key, el("h3", { text: "Queues" }), queues);
  const stage = () => {
    const shares = bar(kinds);
    return Object.assign(el("li", {}, el("span", { class: "name" }), shares.root, el("span", { class: "text" })), { shares });
  };
  const queue = () => {
    const depth = bar(["depth"]);
    return Object.assign(el("li", {}, el("span", { class: "name" }), depth.root, el("span", { class: "text" })), { depth });
  };
  const update = (shot) => {
    const all = shot.stages ?? [];
    const slow = all.find(({ name }) => name === shot.bottleneck);
    const share = slow ? `${Math.round(100 * slow.busy)}\u202f% of the time` : "";
    const text = isBottleneck(shot) ? `Bottleneck: ${slow.name}, busy ${share}` : `No bottleneck${slow ? `: the busiest stage, ${slow.name}, works ${share}` : ""}`;
    setText(named, text);
    rows(list, all.length, stage).forEach((line, i) => {
      const { name, busy, starved, blocked } = all[i];
      setText(line.children[0], name);
      line.shares.set([busy, blocked, starved]);
      setText(line.children[2], `${Math.round(100 * busy)} % busy${blocked >= 0.01 ? `, ${Math.round(100 * blocked)} % blocked` : ""}`);
      line.classList.toggle("slow", name === shot.bottleneck && isBottleneck(shot));
    });
    const waiting = shot.queues ?? [];
    rows(queues, waiting.length, queue).forEach((line, i) => {
      const { name, depth, size } = waiting[i];
      setText(line.children[0], name);
      line.depth.set([size ? depth / size : 0]);
      setText(line.children[2], `${depth} of ${size}`);
    });
  };
  return { root: made.root, update };
}

export function flow({ what = "frames" } = {}) {
  const [first, second] = [ledger(what), stages()];
  const update = (shot) => [first, second].forEach((one) => one.update(shot));
  return { ledger: first.root, stages: second.root, update };
}
