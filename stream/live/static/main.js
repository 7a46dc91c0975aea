// The page's entry: header, banners, sign-in, and the panels of the beamline that the daemon runs.
//
// A beamline's module exports mount(root, net, tools) and is loaded by the `beamline` of live/me:
//   root   the grid; panels are appended to it (dom.js: panel). style.css knows their places by data-area:
//          xfel_hits below; another beamline gives its own in its own style sheet under body[data-beamline="…"]
//   net    net.js
//   tools  {glance(tiles), title(text), shown()}
//     glance([{key, label, value, unit, note, tone, big}])   the tiles at the top, after the daemon's state, at each snapshot:
//            `value` and `note` are text; tone "" | "good" | "warn"
//     title(text)     the figure in the tab's title
//     shown()         whether the tab is shown; expensive work waits while it is not
// Everything else is imported: dom.js, charts.js, colours.js, histogram.js, viewer.js, review.js, control.js, flow.js.

import { el, fmt, rows, setClass, setText } from "./dom.js";
import { isBottleneck } from "./flow.js";
import { Net } from "./net.js";
import { enter, signIn, tokenOfAddress } from "./signin.js";

const BEAMLINES = {
  xfel_hits: { module: "./hits.js", name: "XFEL hits", paused: "frames are judged and counted, and not kept" },
  cryoem_picks: { module: "./picks/picks.js", styles: ["static/picks.css"], name: "Cryo-EM picks", paused: "micrographs wait in their folder" },
  cryoet_mining: { module: "./tomograms/tomograms.js", styles: ["static/picks.css", "static/tomograms/tomograms.css"], name: "Cryo-ET mining", paused: "tomograms wait in their folder" },
};

const net = new Net();
const ask = signIn(net);
const place = (id) => document.getElementById(id);
let figure = "";

function top() {
  const name = el("span", { class: "instrument" });
  const run = el("span", { class: "run-name" });
  const clock = el("span", { class: "clock" });
  const who = el("span", { class: "who" });
  const button = el("button", { type: "button", class: "small account" });
  button.addEventListener("click", () => (net.me?.signed_in ? net.signOut().catch(console.warn) : ask()));
  place("top").append(el("h1", {}, el("span", { class: "brand", text: "beamsieve" }), name), run, el("span", { class: "right" }, clock, who, button));
  net.on("me", (me) => {
    setText(who, me.signed_in ? me.name : me.needs_sign_in ? "not signed in" : "looking only");
    setText(button, me.signed_in ? "Sign out" : "Sign in");
  });
  net.on("facts", (facts) => setText(name, [BEAMLINES[facts.beamline]?.name ?? facts.beamline, facts.instrument].filter(Boolean).join(" · ")));
  net.on("snapshot", ({ run: now, time }) => {
    setText(run, now?.name ? `run ${now.name}${now.title ? ` “${now.title}”` : ""}` : "");
    setText(clock, fmt.clock(time));
  });
}

// Banners: one line each, only where there is something to say.
function banners() {
  const lost = el("p", { class: "banner warn", role: "status", hidden: true });
  const problems = el("ul", { class: "banner warn problems", role: "status", hidden: true });
  const paused = el("p", { class: "banner", role: "status", hidden: true });
  const reload = el("button", { type: "button", class: "small", text: "Reload", onclick: () => location.reload() });
  const newer = el("p", { class: "banner", role: "status", hidden: true }, "The daemon runs another version than this page. ", reload);
  const again = el("button", { type: "button", class: "small", text: "Sign in again", onclick: () => ask() });
  const ended = el("p", { class: "banner ended", role: "status", hidden: true }, "You are signed out: the session has ended, in another tab or because the daemon was started anew. ", again);
  place("banners").append(lost, problems, paused, ended, newer);
  net.on("me", () => (ended.hidden = !net.ended));
  let version = null;
  const tell = () => {
    lost.hidden = net.up || net.me === null || (net.me.needs_sign_in && !net.me.signed_in);
    if (!lost.hidden) setText(lost, `▲ Connection lost since ${fmt.clock(net.since)} (${fmt.seconds(Math.floor(Date.now() / 1000 - net.since))}). Trying again; what is shown is old.`);
  };
  setInterval(tell, 1000);
  net.on("connection", ({ up }) => {
    setClass(document.body, "stale", !up);
    if (up) lost.hidden = true;
  });
  let own = [];
  net.on("trouble", ({ problems: list }) => (own = list));
  net.on("snapshot", ({ problems: given = [], ready, writing, beamline }) => {
    const list = [...given, ...own];
    problems.hidden = list.length === 0;
    rows(problems, list.length, () => el("li")).forEach((line, i) => setText(line, `▲ ${list[i]}`));
    paused.hidden = !writing?.paused;
    if (!paused.hidden) setText(paused, `❚❚ Writing is paused: ${BEAMLINES[beamline]?.paused ?? "nothing is kept"}.`);
    title(ready);
  });
  net.on("facts", (facts) => {
    version ??= facts.version;
    newer.hidden = facts.version === version;
  });
}

function title(ready) {
  const text = `${ready ? "" : "▲ "}${figure ? `${figure} · ` : ""}beamsieve`;
  if (document.title !== text) document.title = text;
}

function tile({ key, label, big }) {
  const number = el("p", { class: "figure" }, el("span", { class: "value" }), el("span", { class: "unit" }));
  return el("div", { class: big ? "tile big" : "tile", dataset: { key } }, el("h2", { text: label }), number, el("p", { class: "note" }));
}

function dress(node, { key, label, big, value, unit = "", note = "", tone = "" }) {
  const [name, number, line] = node.children;
  if (node.dataset.key !== key) {
    node.dataset.key = key; // tiles that come later move those after them
    setClass(node, "big", big);
  }
  setText(name, label);
  setText(number.children[0], value);
  setText(number.children[1], unit);
  setText(line, note);
  if (node.dataset.tone !== tone) node.dataset.tone = tone;
}

// The first tile is the daemon's own state, the same for every beamline.
function stateTile(snapshot) {
  const { ready, uptime_s: uptime, writing, bottleneck } = snapshot;
  const wrote = writing?.paused ? "writing paused" : "writing";
  const busy = isBottleneck(snapshot) ? `, bottleneck ${bottleneck}` : "";
  return { key: "state", label: "State", value: ready ? "● ready" : "▲ not ready", tone: ready && !writing?.paused ? "good" : "warn", note: `${wrote}${busy}, up ${fmt.seconds(uptime)}` };
}

function glance(tiles) {
  const all = [stateTile(net.snapshot), ...tiles];
  rows(place("glance"), all.length, (i) => tile(all[i])).forEach((node, i) => dress(node, all[i]));
}

function foot() {
  const version = el("span");
  net.on("facts", (facts) => setText(version, `beamsieve ${facts.version ?? ""}`));
  place("foot").append(version, el("span", { text: "times are this browser's" }), el("span", {}, "keys: ", el("kbd", { text: "r" }), " review"), el("a", { href: "metrics", text: "metrics" }), el("a", { href: "readyz", text: "readiness" }));
}

const tools = { glance, title: (text) => (figure = text), shown: () => !document.hidden };

async function mount(me) {
  const beamline = BEAMLINES[me.beamline];
  const grid = place("grid");
  document.body.dataset.beamline = me.beamline;
  if (!beamline) return void setText(grid, `This page has no panels for the beamline “${me.beamline}”.`);
  for (const href of beamline.styles ?? []) document.head.append(el("link", { rel: "stylesheet", href }));
  const module = await import(beamline.module);
  grid.replaceChildren();
  return module.mount(grid, net, tools);
}

let mounted = "";
net.on("me", (me) => {
  if (me.needs_sign_in && !me.signed_in) return mounted ? location.reload() : ask({ must: true }); // nothing stays to be read
  if (mounted === me.beamline) return undefined;
  if (mounted) return location.reload(); // another daemon listens there now
  mounted = me.beamline;
  return void mount(me);
});
net.on("sleep", () => (document.title = "beamsieve (asleep in a hidden tab)"));

const token = tokenOfAddress();
top();
banners();
foot();
await net.start();
if (token && !net.me?.signed_in) await enter(net, ask, token);
