// Panel: the chosen micrograph with its picks, the strip of the last ones, and what the selected pick is.

import { colourOf } from "../colours.js";
import { el, fmt, panel, setText } from "../dom.js";
import { lock } from "../net.js";
import { thumbnail } from "./grey.js";
import { colourBar } from "./legend.js";
import { Micrograph } from "./micrograph.js";
import { short } from "./words.js";

const STRIP = 12;
const HELP =
  "On the micrograph: wheel or pinch zooms, dragging moves, + − 0 and the arrow keys do the same, a double click shows " +
  "the whole. j and k go through the picks from the best on, y and n mark the selected one right or wrong, u withdraws. " +
  "Shift and click marks a particle that was missed; once more withdraws it.";

/** The colour of a score from 0 to 1; the map's dark end would not be seen on ice. */
export const scoreColour = (score) => colourOf("viridis", 0.3 + 0.7 * score);

/** Builds the panel; `session`, `marks` as in their files, `say(text)` tells a person in passing. */
export function viewer(session, net, marks, say) {
  const { root, head, body, note } = panel("Micrograph", { area: "micrograph" });
  const canvas = el("canvas", { class: "field", tabindex: "0", role: "img", "aria-describedby": "micrograph-help" });
  const parts = controls();
  const view = new Micrograph(
    canvas,
    net,
    scoreColour,
    {
      changed: () => {
        arrive();
        tell();
      },
      picked: () => tell(),
      added: (x, y) => add(x, y),
      hover: (x, y) => setText(parts.cursor, inside(x, y) ? `x ${Math.round(x)}, y ${Math.round(y)} px` : ""),
    },
    { j: () => view.step(1), k: () => view.step(-1), y: () => mark("right"), n: () => mark("wrong"), u: () => mark("none") },
  );
  const inside = (x, y) => x >= 0 && y >= 0 && x < view.view.nx && y < view.view.ny;

  async function add(x, y) {
    if (net.whyLocked()) return say(net.whyLocked());
    const [sx, sy] = view.view.ofPick(x, y);
    if (view.circles.near(view.view, sx, sy) >= 0) return say("There is a pick already: select it, then y or n.");
    const [rx, ry] = [Math.round(x * 10) / 10, Math.round(y * 10) / 10];
    const radius = (view.circles.picks?.diameter_px ?? 0) / 2;
    const known = view.places.find((place) => Math.hypot(place.x - x, place.y - y) <= radius);
    if (!(await marks.place(view.id, rx, ry, known ? "none" : "right"))) return undefined;
    return say(known ? "Withdrawn." : `Marked as missed: a particle at x ${rx}, y ${ry}.`);
  }

  function mark(verdict) {
    const { selected, id } = view;
    if (selected < 0) return say("Select a pick first: click it, or press j.");
    return net.whyLocked() ? say(net.whyLocked()) : marks.pick(id, selected, verdict);
  }

  function tell() {
    const { picks } = view.circles;
    const shown = view.circles.shown;
    const row = session.row;
    setText(note, row ? short(row.name) : "none yet");
    const at = view.circles.preview ?? picks?.threshold;
    setText(parts.count, view.error || (picks ? `${shown} picks at ${fmt.number(at, 2)}` : "…"));
    canvas.setAttribute("aria-label", `${row ? short(row.name) : "No micrograph"}: ${shown} picks`);
    setText(parts.readout, readout(view));
    unlock();
  }

  const unlock = lock(net, parts.verdicts, null, () => (view.selected < 0 ? "Select a pick first." : ""));
  parts.bind(view, session, mark);
  head.append(parts.legend);
  body.append(
    el("div", { class: "mg-main" }, parts.strip, el("div", { class: "field-frame" }, canvas, el("div", { class: "zoom" }, parts.zoom))),
    el("div", { class: "tools-row" }, parts.switches),
    el("div", { class: "tools-row readout" }, parts.readout, parts.cursor, el("span", { class: "buttons" }, parts.verdicts)),
    el("details", { class: "quiet" }, el("summary", { text: "Keys and gestures" }), el("p", { id: "micrograph-help", text: HELP })),
  );

  session.on("micrographs", () => strip(parts.strip, session));
  session.on("chosen", () => {
    parts.follow.checked = session.following;
    for (const button of parts.strip.children) press(button, session);
    if (session.chosen === null || session.chosen === view.id) return;
    const picture = session.micrographs.find((one) => String(one.id) === session.chosen);
    const size = picture?.nx ? [picture.nx, picture.ny] : null;
    view.pixelA = session.row?.pixel_a ?? picture?.pixel_a ?? null;
    view.show(session.chosen, picture ? thumbnail(picture, "") : null, size);
    tell();
  });

  let wanted = null; // a candidate to select once its micrograph's picks are here
  function arrive() {
    if (wanted === null || wanted.row !== view.id || !view.circles.picks) return;
    const { index, x, y } = wanted;
    wanted = null;
    view.circles.candidates ||= !view.circles.isPick(index);
    parts.candidates.checked = view.circles.candidates;
    view.lookAt(x ?? view.circles.picks.x[index], y ?? view.circles.picks.y[index]);
    view.select(index);
  }

  /** Show the micrograph of a particle's picture, and the particle in it. */
  function goTo({ id, row, x, y }) {
    wanted = { row: String(row ?? String(id).split("/")[0]), index: Number(String(id).split("/").at(-1)), x, y };
    session.choose(wanted.row);
    canvas.scrollIntoView({ block: "nearest" });
    canvas.focus({ preventScroll: true });
    arrive();
  }

  /** The picks at a threshold that is being dragged; null: at the one that holds. */
  function preview(value) {
    if (view.circles.preview === value) return;
    view.circles.preview = value;
    view.draw();
    tell();
  }

  /** Rows have changed: picks are fetched again where the shown micrograph has others now. */
  function changed() {
    const row = session.byId.get(view.id);
    const { picks } = view.circles;
    if (row && picks && row.threshold !== null && Math.abs(row.threshold - picks.threshold) > 1e-6) view.reload();
    tell();
  }

  return { root, goTo, preview, changed, reload: () => view.id && view.reload() };
}

/** What the selected pick is, in words. */
function readout(view) {
  const { selected: i, verdicts } = view;
  const { picks } = view.circles;
  if (i < 0 || !picks) return "Click a pick to select it.";
  const kind = view.circles.isPick(i) ? "Pick" : "Candidate";
  const verdict = verdicts.get(i);
  const nm = view.pixelA ? ` (${fmt.number((picks.x[i] * view.pixelA) / 10)}, ${fmt.number((picks.y[i] * view.pixelA) / 10)} nm)` : "";
  const place = `x ${picks.x[i].toFixed(1)}, y ${picks.y[i].toFixed(1)} px${nm}`;
  return `${kind} ${i + 1}: score ${picks.score[i].toFixed(3)}, ${place}${verdict ? `; marked ${verdict}` : ""}`;
}

function controls() {
  const box = (text, checked, key) => {
    const input = el("input", { type: "checkbox", name: key });
    input.checked = checked;
    return [input, el("label", { class: "switch" }, input, text)];
  };
  const button = (text, label) => el("button", { type: "button", "aria-label": label, title: label, text });
  const [follow, followLabel] = box("Follow newest", true, "follow");
  const [circles, circlesLabel] = box("Picks", true, "circles");
  const [candidates, candidatesLabel] = box("Below threshold (dashed)", false, "candidates");
  const [adding, addingLabel] = box("Mark missed by click", false, "adding");
  const legend = colourBar(scoreColour, "Colour of the score, from 0 to 1");
  const zoom = [button("+", "Zoom in"), button("−", "Zoom out"), button("⤢", "Show the whole micrograph")];
  const verdicts = [
    el("button", { type: "button", class: "right", text: "Right (y)", dataset: { verdict: "right" } }),
    el("button", { type: "button", class: "wrong", text: "Wrong (n)", dataset: { verdict: "wrong" } }),
    el("button", { type: "button", text: "Withdraw (u)", dataset: { verdict: "none" } }),
  ];
  const count = el("strong", { class: "count" });
  return {
    strip: el("div", { class: "mg-strip", role: "group", "aria-label": "Last micrographs" }),
    switches: [count, followLabel, circlesLabel, candidatesLabel, addingLabel],
    legend: el("span", { class: "tools colours" }, "score 0", legend, "1"),
    readout: el("span", { class: "what", "aria-live": "polite" }),
    cursor: el("span", { class: "cursor" }),
    follow,
    candidates,
    count,
    zoom,
    verdicts,
    bind(view, session, mark) {
      follow.addEventListener("change", () => session.follow(follow.checked));
      circles.addEventListener("change", () => set(view.circles, "hidden", !circles.checked, view));
      candidates.addEventListener("change", () => set(view.circles, "candidates", candidates.checked, view));
      adding.addEventListener("change", () => set(view, "adding", adding.checked, view));
      zoom[0].addEventListener("click", () => view.gestures.closer());
      zoom[1].addEventListener("click", () => view.gestures.wider());
      zoom[2].addEventListener("click", () => view.gestures.fit());
      for (const one of verdicts) one.addEventListener("click", () => mark(one.dataset.verdict));
    },
  };
}

function set(target, name, value, view) {
  target[name] = value;
  view.draw();
  view.told.changed();
}

/** The last micrographs, newest first; elements are kept, so that a focus stays where it is. */
function strip(parent, session) {
  const wanted = session.micrographs.slice(-STRIP).reverse();
  const old = new Map([...parent.children].map((child) => [child.dataset.id, child]));
  const buttons = wanted.map((picture) => {
    const id = String(picture.id);
    const button = old.get(id) ?? thumb(picture, session);
    const row = session.byId.get(id);
    setText(button.lastElementChild, `${fmt.count(row?.picks ?? picture.picks)} picks`);
    press(button, session);
    return button;
  });
  const kept = new Set(buttons);
  for (const child of [...parent.children]) if (!kept.has(child)) child.remove();
  buttons.forEach((button, i) => parent.children[i] !== button && parent.insertBefore(button, parent.children[i] ?? null));
}

function thumb(picture, session) {
  const canvas = thumbnail(picture, short(picture.name ?? picture.id));
  const button = el("button", { type: "button", class: "mg-thumb", title: picture.name, dataset: { id: String(picture.id) } }, canvas, el("span"));
  button.addEventListener("click", () => session.choose(String(picture.id)));
  return button;
}

function press(button, session) {
  button.setAttribute("aria-pressed", String(button.dataset.id === session.chosen));
}
