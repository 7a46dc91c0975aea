// Drawing of the score histogram: bars, axes and the lines of thresholds, on one canvas.
//
//   draw(canvas, {edges, stacks: [{counts, colour}], log, lines: [{at, colour, dash, text, below}], from})
//     edges: n+1 numbers; bins narrower than a third of a rem are drawn together; stacks are drawn on each other, the first at the bottom; `from`: the score from which the plot
//     is tinted (the proposed threshold), or null.
//   padding()              the plot's edges within the canvas, in CSS pixels: {left, right, top, bottom}
//   positionOf(canvas, edges, value), valueAt(canvas, edges, x)    CSS pixels from the canvas' left edge <-> score

import { fmt } from "./dom.js";
import { INK } from "./colours.js";

const rem = () => parseFloat(getComputedStyle(document.documentElement).fontSize);

export function padding() {
  const unit = rem();
  return { left: 3.1 * unit, right: 0.9 * unit, top: 1.4 * unit, bottom: 1.6 * unit };
}

const ends = (edges) => [edges[0], edges[edges.length - 1]];

function inner(canvas) {
  const { left, right } = padding();
  return Math.max(1, canvas.clientWidth - left - right);
}

export function positionOf(canvas, edges, value) {
  const [low, high] = ends(edges);
  return padding().left + (inner(canvas) * (value - low)) / (high - low || 1);
}

export function valueAt(canvas, edges, x) {
  const [low, high] = ends(edges);
  return low + ((high - low) * (x - padding().left)) / inner(canvas);
}

function sized(canvas) {
  const ratio = window.devicePixelRatio || 1;
  const [w, h] = [canvas.clientWidth, canvas.clientHeight];
  if (canvas.width !== Math.round(w * ratio)) canvas.width = Math.round(w * ratio);
  if (canvas.height !== Math.round(h * ratio)) canvas.height = Math.round(h * ratio);
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, w, h);
  context.font = `${Math.max(11, Math.round(0.72 * rem()))}px system-ui, sans-serif`;
  return { context, w, h };
}

function ticksOf(top, log) {
  if (!log) return [0, top / 2, top];
  const ticks = [0];
  for (let n = 1; n <= top; n *= 10) ticks.push(n);
  return ticks.length > 5 ? ticks.filter((n, i) => i === 0 || i % 2 === 1) : ticks;
}

function drawAxes(context, pad, h, w, edges, heightOf, top, log) {
  context.fillStyle = INK.axis;
  context.strokeStyle = INK.grid;
  context.textAlign = "right";
  context.textBaseline = "middle";
  for (const n of ticksOf(top, log)) {
    const y = heightOf(n);
    context.beginPath();
    context.moveTo(pad.left, y);
    context.lineTo(w - pad.right, y);
    context.stroke();
    context.fillText(fmt.count(n), pad.left - 6, y);
  }
  context.textAlign = "center";
  context.textBaseline = "top";
  const [low, high] = ends(edges);
  for (let i = 0; i <= 4; i++) {
    const x = pad.left + ((w - pad.left - pad.right) * i) / 4;
    const text = String(Number((low + ((high - low) * i) / 4).toPrecision(3)));
    context.fillText(text, Math.min(x, w - 1 - context.measureText(text).width / 2), h - pad.bottom + 6);
  }
}

function drawLine(context, pad, h, x, { colour, dash = [], text = "", below = false }) {
  context.strokeStyle = colour;
  context.setLineDash(dash);
  context.lineWidth = dash.length ? 1.5 : 2;
  context.beginPath();
  context.moveTo(x, pad.top - 4);
  context.lineTo(x, h - pad.bottom);
  context.stroke();
  context.setLineDash([]);
  if (!text) return;
  const room = context.measureText(text).width / 2;
  const middle = Math.min(Math.max(x, pad.left + room), context.canvas.clientWidth - pad.right - room);
  context.fillStyle = colour;
  context.textBaseline = below ? "top" : "bottom";
  context.textAlign = below ? "right" : "center"; // beside its own line, away from the labels at the top
  context.fillText(text, below ? x - 5 : middle, below ? pad.top : pad.top - 5);
}

// Neighbouring bins as one bar where a bin would be a hair: a model that is sure of itself fills only the outermost two.
function merged(canvas, edges, stacks) {
  const width = inner(canvas) / (edges.length - 1);
  const step = Math.max(1, Math.ceil((rem() / 3) / width));
  const starts = edges.slice(0, -1).map((_, i) => i).filter((i) => i % step === 0);
  const sum = (counts, from) => counts.slice(from, from + step).reduce((a, b) => a + b, 0);
  return {
    edges: [...starts.map((i) => edges[i]), edges[edges.length - 1]],
    stacks: stacks.map(({ counts, colour }) => ({ colour, counts: starts.map((from) => sum(counts, from)) })),
  };
}

function drawBars(context, canvas, edges, stacks, heightOf) {
  const base = edges.slice(1).map(() => 0);
  for (const { counts, colour } of stacks) {
    context.fillStyle = colour;
    counts.forEach((n, i) => {
      const [x0, x1] = [positionOf(canvas, edges, edges[i]), positionOf(canvas, edges, edges[i + 1])];
      const [bottom, end] = [heightOf(base[i]), heightOf(base[i] + n)];
      context.fillRect(x0, end, Math.max(1, x1 - x0 - 1), bottom - end);
      base[i] += n;
    });
  }
}

export function draw(canvas, { log = true, lines = [], from = null, ...given }) {
  const { context, w, h } = sized(canvas);
  const pad = padding();
  const { edges, stacks } = merged(canvas, given.edges, given.stacks);
  const total = edges.slice(1).map((_, i) => stacks.reduce((sum, stack) => sum + (stack.counts[i] ?? 0), 0));
  const top = Math.max(1, ...total);
  const level = (n) => (log ? Math.log10(1 + n) / Math.log10(1 + top) : n / top);
  const heightOf = (n) => h - pad.bottom - (h - pad.bottom - pad.top) * level(n);
  drawAxes(context, pad, h, w, edges, heightOf, top, log);
  if (from !== null) {
    const x = Math.max(pad.left, positionOf(canvas, edges, from));
    context.fillStyle = "rgba(255, 179, 71, 0.1)";
    context.fillRect(x, pad.top, w - pad.right - x, h - pad.top - pad.bottom);
  }
  drawBars(context, canvas, edges, stacks, heightOf);
  for (const line of lines) drawLine(context, pad, h, positionOf(canvas, edges, line.at), line);
}
