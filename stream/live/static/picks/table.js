// Panel: a row per micrograph with its numbers. Sorted by any column, filtered, and only the rows in sight exist.
//
// Other beamlines give their own columns: {title, what (one row, as a word), filter (the field's hint), names(rows),
// word(name), meaning(name), value(row, name), text(name, value)}; time and name come before those of `names`.

import { el, fmt, panel, setText } from "../dom.js";
import { rem } from "./units.js";
import { meaning, number, short, title, written } from "./words.js";

const ROW_REM = 2; // picks.css gives the rows this height
const SPARE = 6;
const FIXED = ["time", "name"];

export function table(session, given = micrographs(session)) {
  const { root, body, note } = panel(given.title, { area: "table", wide: true });
  const text = el("input", { type: "search", placeholder: given.filter, "aria-label": "Filter by text", name: "filter" });
  const only = el("input", { type: "checkbox", name: "warnings" });
  const scroller = el("div", { class: "table-rows", tabindex: "0", role: "group", "aria-label": `${given.title}: arrow keys choose a row` });
  const head = el("tr");
  const rowsBody = el("tbody");
  const [above, below] = [el("tbody", { "aria-hidden": "true" }), el("tbody", { "aria-hidden": "true" })];
  for (const spacer of [above, below]) spacer.append(el("tr", {}, el("td")));
  const grid = el("table", {}, el("thead", {}, head), above, rowsBody, below);
  scroller.append(grid);
  const bar = el("div", { class: "tools-row" }, el("label", { class: "switch" }, "Filter ", text), el("label", { class: "switch" }, only, "Warnings only"));
  body.append(bar, scroller);

  const state = { by: "time", rising: false, columns: [], found: [] };

  function columns() {
    const wanted = [...FIXED, ...given.names(session.rows)];
    if (wanted.join() === state.columns.join()) return;
    state.columns = wanted;
    head.replaceChildren(...wanted.map((name) => heading(name)));
    mark();
  }

  function heading(name) {
    const words = { time: "time", name: given.what }[name] ?? given.word(name);
    const button = el("button", { type: "button", title: given.meaning(name) }, words, el("span", { class: "way", "aria-hidden": "true" }));
    button.addEventListener("click", () => {
      state.rising = state.by === name ? !state.rising : name === "name";
      state.by = name;
      scroller.scrollTop = 0;
      mark();
      refresh();
    });
    return el("th", { scope: "col", dataset: { name } }, button);
  }

  function mark() {
    for (const cell of head.children) {
      const own = cell.dataset.name === state.by;
      cell.setAttribute("aria-sort", own ? (state.rising ? "ascending" : "descending") : "none");
      setText(cell.querySelector(".way"), own ? (state.rising ? "▲" : "▼") : "");
    }
  }

  function refresh() {
    columns();
    state.found = sorted(filtered(session.rows, text.value, only.checked), state.by, state.rising, given.value);
    setText(note, state.found.length === session.rows.length ? `${fmt.count(session.rows.length)}` : `${fmt.count(state.found.length)} of ${fmt.count(session.rows.length)}`);
    grid.setAttribute("aria-rowcount", String(state.found.length + 1));
    draw();
  }

  function draw() {
    const { found } = state;
    const high = ROW_REM * rem();
    const first = Math.max(0, Math.floor(scroller.scrollTop / high) - SPARE);
    const last = Math.min(found.length, Math.ceil((scroller.scrollTop + (scroller.clientHeight || 400)) / high) + SPARE);
    above.firstElementChild.firstElementChild.style.height = `${first * high}px`;
    below.firstElementChild.firstElementChild.style.height = `${(found.length - last) * high}px`;
    above.hidden = first === 0;
    below.hidden = last === found.length;
    rowsBody.replaceChildren(...found.slice(first, last).map((row, i) => line(row, first + i, state.columns, session, given)));
  }

  rowsBody.addEventListener("click", (event) => {
    const row = event.target.closest("tr");
    if (row) session.choose(row.dataset.id);
  });
  scroller.addEventListener("keydown", (event) => {
    const by = { ArrowDown: 1, ArrowUp: -1, PageDown: 10, PageUp: -10, Home: -1e9, End: 1e9 }[event.key];
    if (by === undefined || event.target !== scroller || !state.found.length) return;
    event.preventDefault();
    const at = state.found.findIndex((row) => String(row.id) === session.chosen);
    const to = Math.min(Math.max(at + by, 0), state.found.length - 1);
    session.choose(String(state.found[to].id));
    const [top, room] = [to * ROW_REM * rem(), scroller.clientHeight - 2.5 * ROW_REM * rem()];
    scroller.scrollTop = Math.min(Math.max(scroller.scrollTop, top - room), top);
  });
  scroller.addEventListener("scroll", draw, { passive: true });
  new ResizeObserver(draw).observe(scroller);
  for (const input of [text, only]) input.addEventListener("input", refresh);
  session.on("rows", refresh);
  session.on("chosen", draw);
  return { root };
}

function micrographs(session) {
  return {
    title: "Micrographs",
    what: "micrograph",
    filter: "name, square, hole",
    names: (rows) => {
      const names = new Set(["picks", "candidates"]);
      for (const row of rows.slice(-50)) for (const name of Object.keys(row.quality ?? {})) names.add(name);
      return [...names, "seconds"];
    },
    word: (name) => title(name, session.numbers),
    meaning: (name) => meaning(name, session.numbers),
    value: number,
    text: written,
  };
}

/** Rows whose name, square, hole or warnings hold `text`, and of those, if asked, the ones with warnings. */
export function filtered(rows, text, warningsOnly) {
  const wanted = text.trim().toLowerCase();
  return rows.filter((row) => {
    if (warningsOnly && !row.warnings?.length && !row.skipped?.length) return false;
    if (!wanted) return true;
    const words = [row.name, row.square, row.hole, ...(row.warnings ?? []), ...(row.skipped ?? [])];
    return words.some((word) => word !== null && word !== undefined && String(word).toLowerCase().includes(wanted));
  });
}

/** A sorted copy; rows without the number come last either way. `value(row, by)`: a row's number, or null. */
export function sorted(rows, by, rising, value = number) {
  const sign = rising ? 1 : -1;
  const compare = new Intl.Collator("en", { numeric: true }).compare;
  if (by === "name") return [...rows].sort((a, b) => sign * compare(a.name, b.name));
  const keyed = rows.map((row, i) => [value(row, by), i, row]);
  keyed.sort(([a, i], [b, j]) => {
    if (a === null || b === null) return (a === null) - (b === null) || j - i;
    return sign * (a - b) || j - i;
  });
  return keyed.map(([, , row]) => row);
}

function line(row, index, columns, session, given) {
  const id = String(row.id);
  const chosen = id === session.chosen;
  const cells = columns.map((name) => {
    if (name === "time") return el("td", {}, fmt.clock(row.time));
    if (name === "name") return nameCell(row, chosen);
    const skipped = row.skipped?.includes(name);
    const outside = skipped || row.warnings?.includes(name);
    const why = skipped ? "outside its skip range: nothing was picked" : "outside its usual range";
    const words = given.text(name, given.value(row, name));
    if (!outside) return el("td", { class: "n" }, words);
    const sign = el("span", { class: "sign", "aria-hidden": "true", text: skipped ? "✗ " : "! " });
    return el("td", { class: `n ${skipped ? "skip" : "warn"}`, title: why }, sign, words, el("span", { class: "unseen", text: ` (${why})` }));
  });
  return el("tr", { dataset: { id }, class: chosen ? "chosen" : null, "aria-current": chosen ? "true" : null, "aria-rowindex": index + 2 }, cells);
}

function nameCell(row, chosen) {
  const said = row.skipped?.length ? "skipped" : row.warnings?.length ? "warning" : "";
  const tag = said ? el("span", { class: `tag ${said}`, text: said }) : null;
  const cell = el("th", { scope: "row", title: row.name }, chosen ? el("span", { class: "unseen", text: "Shown: " }) : null);
  cell.append(el("span", { class: "name" }, el("bdi", { text: short(row.name) })), ...(tag ? [tag] : []));
  return cell;
}
