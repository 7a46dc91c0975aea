// Panel: maps over grid squares and foil holes, coloured by any number of the micrographs.

import { colourOf } from "../colours.js";
import { el, onScreen, panel, setText } from "../dom.js";
import { colourBar } from "./legend.js";
import { GridMap } from "./map.js";
import { bySquare, holes, squares } from "./places.js";
import { number, short, title, written } from "./words.js";
import { median } from "./yields.js";

const [SHOWN, ALL] = ["", "*"]; // instead of a square's name: that of the micrograph that is shown, all squares
const colour = (share) => colourOf("viridis", share);

/** Panel for `session`. */
export function maps(session) {
  const { root, body, note } = panel("Where on the grid", { area: "maps", wide: true });
  const choice = el("select", { "aria-label": "Colour by", name: "number" });
  const square = el("select", { "aria-label": "Grid square", name: "square" });
  const [low, high] = [el("span"), el("span")];
  const legend = el("span", { class: "colours" }, low, colourBar(colour, "Colours from the lowest to the highest value"), high);
  const value = el("p", { class: "value", "aria-live": "polite" });
  const [left, right] = [side("Grid squares", false, pickSquare), side("Foil holes", true, pickRow)];
  const state = { by: "picks", square: SHOWN, seen: onScreen(root) };
  body.append(
    el("div", { class: "tools-row" }, el("label", { class: "switch" }, "Colour by ", choice), legend, el("label", { class: "switch of" }, "Holes of ", square)),
    el("div", { class: "sides" }, left.root, right.root),
    value,
  );

  function side(label, round, chose) {
    const map = new GridMap(label, { round, chose, told });
    const caption = el("p", { class: "quiet" });
    return { map, caption, root: el("figure", { class: "side" }, map.canvas, el("figcaption", {}, caption)) };
  }

  function told(item) {
    if (!item) return setText(value, "");
    const one = item.rows.length === 1;
    const words = written(state.by, worth(item));
    const which = one ? short(item.rows[0].name) : `${item.rows.length} micrographs`;
    return setText(value, `${item.label} (${which}): ${one ? "" : "median "}${title(state.by, session.numbers)} ${words}`);
  }

  function pickSquare(item) {
    state.square = item.name;
    refresh();
  }

  // A hole with several micrographs gives the newest first, and with each further click the one before.
  function pickRow(item) {
    const ids = item.rows.map((row) => String(row.id));
    const at = ids.indexOf(session.chosen);
    session.choose(ids.at(at > 0 ? at - 1 : -1));
  }

  const worth = (item) => median(item.rows.map((row) => number(row, state.by)).filter((one) => one !== null));

  function options() {
    const names = ["picks", "candidates", ...Object.keys(session.rows.at(-1)?.quality ?? {}), "seconds"];
    const known = names.filter((name, i) => names.indexOf(name) === i);
    fill(choice, known.map((name) => [name, title(name, session.numbers)]), state.by);
    const found = [...bySquare(session.rows).keys()].map(String);
    fill(square, [[SHOWN, "the square shown"], [ALL, "all grid squares"], ...found.map((name) => [name, `grid square ${name}`])], state.square);
    square.parentElement.hidden = left.root.hidden = found.length === 0;
  }

  function refresh() {
    options();
    const { rows } = session;
    const shown = session.byId.get(session.chosen)?.square ?? null;
    const wanted = state.square === SHOWN ? shown : state.square;
    const own = wanted === ALL || wanted === null ? rows : rows.filter((row) => String(row.square) === String(wanted));
    const [upper, upperWords] = squares(rows);
    const [lower, lowerWords] = holes(own);
    const [from, to] = span([...upper, ...lower].map(worth));
    setText(low, written(state.by, from));
    setText(high, written(state.by, to));
    const colours = (item) => {
      const found = worth(item);
      return found === null ? null : colour(to > from ? (found - from) / (to - from) : 0.5);
    };
    const look = { colour: colours, text: (item) => written(state.by, worth(item)) };
    const holds = (item) => item.rows.some((row) => String(row.id) === session.chosen);
    left.map.set(upper, { ...look, ringed: (item) => (wanted === ALL ? holds(item) : item.name === String(wanted)) });
    right.map.set(lower, { ...look, ringed: holds });
    setText(left.caption, upperWords);
    setText(right.caption, rows.length ? lowerWords : "No micrograph yet.");
    setText(note, rows.length ? `${title(state.by, session.numbers)}: median of each; ring: shown` : "");
    right.map.canvas.setAttribute("aria-label", `Map of ${lower.length} places, from ${low.textContent} to ${high.textContent}; arrow keys tell values`);
  }

  // Out of sight nothing is computed; it is made good when it is seen.
  let stale = true;
  const later = () => {
    stale = true;
    if (state.seen()) now();
  };
  const now = () => {
    if (!stale) return;
    stale = false;
    refresh();
  };
  new IntersectionObserver(() => requestAnimationFrame(() => state.seen() && now())).observe(root);
  document.addEventListener("visibilitychange", () => state.seen() && now());
  choice.addEventListener("change", () => {
    state.by = choice.value;
    refresh();
  });
  square.addEventListener("change", () => {
    state.square = square.value;
    refresh();
  });
  session.on("rows", later);
  session.on("chosen", later);
  return { root };
}

/** The range for colours: the values' 2nd to 98th percentile, so that one outlier does not take all colours. */
function span(values) {
  const known = values.filter((value) => value !== null).sort((a, b) => a - b);
  if (!known.length) return [null, null];
  const at = (share) => known[Math.round(share * (known.length - 1))];
  return [at(0.02), at(0.98)];
}

function fill(select, entries, chosen) {
  const key = entries.map(([value]) => value).join("\n");
  if (select.dataset.key !== key) {
    select.dataset.key = key;
    select.replaceChildren(...entries.map(([value, text]) => el("option", { value, text })));
  }
  if (select.value !== chosen) select.value = chosen;
}
