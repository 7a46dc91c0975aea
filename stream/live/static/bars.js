// Drawing of the score histogram: bars, axes and the lines of thresholds, on one canvas.
//
//   draw(canvas, {edges, stacks: [{counts, colour}], log, lines: [{at, colour, dash, text}], from})
//     edges: n+1 numbers; stacks are drawn on each other, the first at the bottom; `from`: the score from which the plot
//     is tinted (the proposed threshold), or null.
//   PAD                    the plot's edges within the canvas, in CSS pixels: {left, right, top, bottom}
//   positionOf(canvas, edges, value), valueAt(canvas, edges, x)    CSS pixels from the canvas' left edge <-> score

import { fmt } from "./dom.js";
import { INK } from "./colours.js";

export const PAD = { left: 46, right: 14, top: 22, bottom: 24 };

const ends = (edges) => [edges[0], edges[edges.length - 1]];
const inner = (canvas) => Math.max(1, canvas.clientWidth - PAD.left - PAD.right);

export function positionOf(canvas, edges, value) {
  const [low, high] = ends(edges);
  return PAD.left + (inner(canvas) * (value - low)) / (high - low || 1);
}

export function valueAt(canvas, edges, x) {
  const [low, high] = ends(edges);
  return low + ((high - low) * (x - PAD.left)) / inner(canvas);
}

function sized(canvas) {
  const ratio = window.devicePixelRatio || 1;
  const [w, h] = [canvas.clientWidth, canvas.clientHeight];
  if (canvas.width !== Math.round(w * ratio)) canvas.width = Math.round(w * ratio);
  if (canvas.height !== Math.round(h * ratio)) canvas.height = Math.round(h * ratio);
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, w, h);
  context.font = `${Math.max(11, Math.round(0.7 * parseFloat(getComputedStyle(document.documentElement).fontSize)))}px system-ui, sans-serif`;
  return { context, w, h };
}

function ticksOf(top, log) {
  if (!log) return [0, top / 2, top];
  const ticks = [0];
  for (let n = 1; n <= top; n *= 10) ticks.push(n);
  return ticks.length > 5 ? ticks.filter((n, i) => i === 0 || i % 2 === 1) : ticks;
}

function drawAxes(context, h, w, edges, heightOf, top, log) {
  context.fillStyle = INK.axis;
  context.strokeStyle = INK.grid;
  context.textAlign = "right";
  context.textBaseline = "middle";
  for (const n of ticksOf(top, log)) {
    const y = heightOf(n);
    context.beginPath();
    context.moveTo(PAD.left, y);
    context.lineTo(w - PAD.right, y);
    context.stroke();
    context.fillText(fmt.number(n, 2), PAD.left - 6, y);
  }
  context.textAlign = "center";
  context.textBaseline = "top";
  const [low, high] = ends(edges);
  for (let i = 0; i <= 4; i++) {
    const x = PAD.left + ((w - PAD.left - PAD.right) * i) / 4;
    context.fillText(Number((low + ((high - low) * i) / 4).toPrecision(3)), x, h - PAD.bottom + 6);
  }
}

function drawLine(context, h, x, { colour, dash = [], text = "" }) {
  context.strokeStyle = colour;
  context.setLineDash(dash);
  context.lineWidth = dash.length ? 1.5 : 2;
  context.beginPath();
  context.moveTo(x, PAD.top - 4);
  context.lineTo(x, h - PAD.bottom);
  context.stroke();
  context.setLineDash([]);
  if (!text) return;
  const room = context.measureText(text).width / 2;
  context.fillStyle = colour;
  context.textAlign = "center";
  context.textBaseline = "bottom";
  context.fillText(text, Math.min(Math.max(x, PAD.left + room), context.canvas.clientWidth - PAD.right - room), PAD.top - 5);
}

export function draw(canvas, { edges, stacks, log = true, lines = [], from = null }) {
  const { context, w, h } = sized(canvas);
  const total = edges.slice(1).map((_, i) => stacks.reduce((sum, stack) => sum + (stack.counts[i] ?? 0), 0));
  const top = Math.max(1, ...total);
  const level = (n) => (log ? Math.log10(1 + n) / Math.log10(1 + top) : n / top);
  const heightOf = (n) => h - PAD.bottom - (h - PAD.bottom - PAD.top) * level(n);
  drawAxes(context, h, w, edges, heightOf, top, log);
  if (from !== null) {
    const x = Math.max(PAD.left, positionOf(canvas, edges, from));
    context.fillStyle = "rgba(255, 179, 71, 0.08)";
    context.fillRect(x, PAD.top, w - PAD.right - x, h - PAD.top - PAD.bottom);
  }
  const base = total.map(() => 0);
  for (const { counts, colour } of stacks) {
    context.fillStyle = colour;
    counts.forEach((n, i) => {
      const [x0, x1] = [positionOf(canvas, edges, edges[i]), positionOf(canvas, edges, edges[i + 1])];
      const [bottom, end] = [heightOf(base[i]), heightOf(base[i] + n)];
      context.fillRect(x0, end, Math.max(1, x1 - x0 - 1), bottom - end);
      base[i] += n;
    });
  }
  for (const line of lines) drawLine(context, h, positionOf(canvas, edges, line.at), line);
}
