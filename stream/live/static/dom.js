// Building elements, writing numbers, and the frame of a panel. No other file of the page touches HTML strings.
//
//   el(tag, attributes, ...children)   an element. Attributes: class, text, dataset {..}, style {..} (through CSSOM),
//                                      onclick and the like (functions), true/false, anything else as an attribute.
//                                      Children: elements, strings, numbers, arrays of them; null and false are left out.
//   svg(tag, attributes, ...children)  the same for SVG.
//   setText(node, text)                writes only what has changed: no work for the browser where nothing happened.
//   setClass(node, name, on)
//   panel(title, {area, wide, hint})   {root, head, body, note}: a section with its heading; `note` is a line at its right.
//   fmt.*                              numbers as text; null, undefined and NaN become "–".
//   rows(parent, n, make)              keeps exactly n children in parent, made by make(i); gives them as an array.
//   onScreen(node)                     () => boolean: whether node is in the window and the tab is shown.

const SVG = "http://www.w3.org/2000/svg";

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "text") node.textContent = value;
    else if (name === "dataset") Object.assign(node.dataset, value);
    else if (name === "style") for (const [key, text] of Object.entries(value)) node.style.setProperty(key, text);
    else if (typeof value === "function") node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : String(value));
  }
  const kept = children.flat(3).filter((child) => child !== null && child !== undefined && child !== false);
  node.append(...kept.map((child) => (child instanceof Node ? child : String(child))));
  return node;
}

export function el(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

export function svg(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

export function setText(node, text) {
  const wanted = String(text);
  if (node.textContent !== wanted) node.textContent = wanted;
}

export function setClass(node, name, on) {
  node.classList.toggle(name, Boolean(on));
}

let panels = 0;

export function panel(title, { area = "", wide = false, hint = "" } = {}) {
  const id = `panel-${area || ++panels}`;
  const note = el("span", { class: "note" });
  const head = el("header", {}, el("h2", { id: `${id}-title`, text: title }), note);
  const body = el("div", { class: "body" });
  const text = hint ? el("p", { class: "hint", text: hint }) : null;
  const root = el("section", { class: wide ? "panel wide" : "panel", id, "aria-labelledby": `${id}-title` }, head, text, body);
  if (area) root.dataset.area = area;
  return { root, head, body, note };
}

export function rows(parent, count, make) {
  while (parent.children.length > count) parent.lastElementChild.remove();
  while (parent.children.length < count) parent.append(make(parent.children.length));
  return [...parent.children];
}

export function onScreen(node) {
  let inside = false;
  new IntersectionObserver((entries) => {
    inside = entries[entries.length - 1].isIntersecting;
  }).observe(node);
  return () => inside && !document.hidden;
}

const missing = (x) => x === null || x === undefined || Number.isNaN(x);
const NONE = "–";

function significant(x, digits) {
  if (x === 0) return "0";
  const places = Math.max(0, Math.min(9, digits - 1 - Math.floor(Math.log10(Math.abs(x)))));
  return x.toFixed(places);
}

function count(x) {
  return missing(x) ? NONE : Math.round(x).toString().replace(/\B(?=(\d{3})+$)/g, "\u202f");
}

function number(x, digits = 3) {
  if (missing(x)) return NONE;
  return Math.abs(x) >= 10 ** digits ? count(x) : significant(x, digits);
}

// A share as percent without its sign: two decimals below ten, one above, so that the width stays calm.
function share(x) {
  if (missing(x)) return NONE;
  const p = 100 * x;
  if (p >= 99.95) return "100";
  if (p >= 9.995) return p.toFixed(1);
  return p >= 0.1 || p === 0 ? p.toFixed(2) : significant(p, 2);
}

function percent(x) {
  return missing(x) ? NONE : `${share(x)}\u202f%`;
}

function bytes(x) {
  if (missing(x)) return NONE;
  const step = x < 1000 ? 0 : Math.min(4, Math.floor(Math.log10(x) / 3));
  return `${number(x / 1000 ** step)}\u202f${["B", "kB", "MB", "GB", "TB"][step]}`;
}

function seconds(x) {
  if (missing(x)) return NONE;
  if (x < 1) return `${number(1000 * x, 2)}\u202fms`;
  if (x < 60) return `${number(x, 2)}\u202fs`;
  const minutes = Math.floor(x / 60);
  if (minutes < 60) return `${minutes}\u202fmin ${Math.floor(x % 60)}\u202fs`;
  return `${Math.floor(minutes / 60)}\u202fh ${minutes % 60}\u202fmin`;
}

const two = (n) => String(n).padStart(2, "0");

function clock(time) {
  if (missing(time)) return NONE;
  const at = new Date(1000 * time);
  return `${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}`;
}

// [value, low, high] or {value, low, high} as "87.1 % (82.0 – 91.2)"; null as the text given.
function estimate(x, otherwise = NONE) {
  if (missing(x)) return otherwise;
  const [value, low, high] = Array.isArray(x) ? x : [x.value, x.low, x.high];
  return missing(value) ? otherwise : `${percent(value)} (${share(low)} – ${share(high)})`;
}

export const fmt = { count, number, share, percent, bytes, seconds, clock, estimate };
