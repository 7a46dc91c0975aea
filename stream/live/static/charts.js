// Curves over time or over a number, drawn by uPlot (vendor/uplot, loaded by index.html before the modules).
//
//   const curve = chart(parent, {
//     label,               what the curve shows, for people who do not see it
//     time: true,          x is Unix seconds (false: a number, axis label xLabel, text xText(value))
//     height: 220,         CSS pixels, the width follows the parent; "fill": as high as the parent's room (at least 16 rem)
//     axes: {left: {label, text(value), range}, right: {…}},     right may be left out; range(min, max) -> [low, high]
//     series: [{label, colour, axis: "left", width: 2, dash: [6, 4], dots: 0, text(value), legend: true}],   `whole(i, columns)`
//                          instead of text: the legend of point i from all columns (columns[0] is x)
//     bands: [[high, low, "rgba(…)"]],          series numbers (0 is the first of `series`) between which is filled
//     marks: () => [{x, text}],                 upright lines (threshold or model changed)
//   })
//   The legend shows the values under the mouse, else the last ones.
//   curve.set([xs, ys0, ys1, …])   columns as arrays; null is a gap; nothing is drawn while the parent is not on screen
//   curve.plot                     the uPlot object;  curve.destroy()
//
// History: keeps the last `seconds` of rows by time, for curves that are fed once a second.
//   const h = new History(3600); h.reset(points); h.add(points); h.column("rate", lastSeconds)

import { el, fmt, onScreen } from "./dom.js";
import { INK } from "./colours.js";

const short = (x) => (Math.abs(x) >= 1000 ? fmt.count(x) : String(Number(x.toPrecision(3))));
const fontOf = () => `${Math.round(0.72 * parseFloat(getComputedStyle(document.documentElement).fontSize))}px system-ui, sans-serif`;
const sideSize = () => 4.6 * parseFloat(fontOf());

function axis({ label = "", text = short } = {}, more = {}) {
  const font = fontOf();
  const size = parseFloat(font);
  return {
    stroke: INK.axis, font, labelFont: font, label, labelSize: label ? 1.5 * size : 0, labelGap: 0,
    grid: { stroke: INK.grid, width: 1 }, ticks: { stroke: INK.grid, width: 1, size: 5 },
    values: (_, splits) => splits.map((value) => (value === null ? "" : text(value))),
    ...more,
  };
}

function clockAxis() {
  const made = axis({}, { space: 6.5 * parseFloat(fontOf()), size: 2.4 * parseFloat(fontOf()) });
  made.values = (_, splits, __, ___, step) => splits.map((t) => (step >= 60 ? fmt.clock(t).slice(0, 5) : fmt.clock(t)));
  return made;
}

// The value of a series under the mouse, else its last one.
function told(text, whole) {
  return (plot, _, series, i) => {
    const at = i ?? plot.data[0].length - 1;
    if (at < 0) return "–";
    return whole ? whole(at, plot.data) : text(plot.data[series][at]);
  };
}

function line(given) {
  return {
    label: given.label, scale: given.axis ?? "left", stroke: given.colour, width: given.width ?? 2, dash: given.dash,
    class: given.legend === false ? "unnamed" : undefined, spanGaps: false, value: told(given.text ?? ((x) => fmt.number(x)), given.whole),
    paths: given.dots ? () => null : undefined,
    points: given.dots ? { show: true, size: given.dots, fill: given.colour, width: 0 } : { show: false },
  };
}

// Upright lines at events, drawn over the curves.
function drawMarks(plot, marks) {
  const { ctx, bbox } = plot;
  ctx.save();
  ctx.strokeStyle = INK.threshold;
  ctx.setLineDash([3, 3]);
  for (const { x } of marks()) {
    const at = plot.valToPos(x, "x", true);
    if (at < bbox.left || at > bbox.left + bbox.width) continue;
    ctx.beginPath();
    ctx.moveTo(at, bbox.top);
    ctx.lineTo(at, bbox.top + bbox.height);
    ctx.stroke();
  }
  ctx.restore();
}

const fromZero = (_, low, high) => [Math.min(0, low ?? 0), high > 0 ? 1.08 * high : 1];

function ranged(axisGiven) {
  return { range: axisGiven?.range ? (_, low, high) => axisGiven.range(low, high) : fromZero };
}

function options(given, size) {
  const time = given.time ?? true;
  const axes = given.axes ?? {};
  const right = axes.right ? [axis(axes.right, { scale: "right", side: 1, grid: { show: false }, size: sideSize() })] : [];
  const xText = given.xText ?? fmt.number;
  return {
    ...size,
    legend: { live: true, markers: { width: 3 } },
    cursor: { y: false, points: { size: 6 }, drag: { x: false, y: false } },
    scales: { x: { time }, left: ranged(axes.left), ...(axes.right ? { right: ranged(axes.right) } : {}) },
    axes: [time ? clockAxis() : axis({ label: given.xLabel, text: xText }), axis(axes.left, { scale: "left", size: sideSize() }), ...right],
    series: [{ label: time ? "time" : given.xLabel ?? "", value: told((x) => (time ? fmt.clock(x) : xText(x))) }, ...given.series.map(line)],
    bands: (given.bands ?? []).map(([high, low, fill]) => ({ series: [high + 1, low + 1], fill })),
    hooks: given.marks ? { draw: [(plot) => drawMarks(plot, given.marks)] } : {},
  };
}

export function chart(parent, given) {
  const fills = given.height === "fill";
  const holder = el("div", { class: fills ? "chart fill" : "chart", role: "img", "aria-label": given.label });
  parent.append(holder);
  const shown = onScreen(holder);
  const legend = () => holder.querySelector(".u-legend")?.offsetHeight ?? 0;
  const height = () => (fills ? Math.max(120, holder.clientHeight - legend()) : given.height ?? 220);
  const size = () => ({ width: Math.max(200, holder.clientWidth), height: height() });
  const empty = [[], ...given.series.map(() => [])];
  const plot = new window.uPlot(options(given, size()), empty, holder);
  const sized = new ResizeObserver(() => plot.setSize(size()));
  sized.observe(holder);
  let waiting = null;
  const set = (columns) => {
    waiting = columns;
    if (!shown()) return;
    plot.setData(waiting);
    waiting = null;
  };
  const later = new IntersectionObserver(() => waiting && plot.setData(waiting));
  later.observe(holder);
  const destroy = () => [sized, later].forEach((observer) => observer.disconnect()) || plot.destroy() || holder.remove();
  return { set, plot, destroy, holder };
}

export class History {
  constructor(seconds) {
    this.seconds = seconds;
    this.points = [];
  }

  reset(points) {
    this.points = [];
    this.add(points);
  }

  add(points) {
    let last = this.points.length ? this.points[this.points.length - 1].t : -Infinity;
    for (const point of points ?? []) {
      if (point.t <= last) continue; // each snapshot repeats the last ten seconds
      this.points.push(point);
      last = point.t;
    }
    const from = last - this.seconds;
    const old = this.points.findIndex((point) => point.t >= from);
    if (old > 0) this.points.splice(0, old);
  }

  // The column of one name over the last `seconds`.
  column(name, seconds = this.seconds) {
    const end = this.points.length ? this.points[this.points.length - 1].t : 0;
    const found = [];
    for (const point of this.points) if (point.t >= end - seconds) found.push(point[name] ?? null);
    return found;
  }
}
