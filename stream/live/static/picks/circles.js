// Picks on a micrograph: circles coloured by score, candidates below the threshold dashed, verdicts as signs.

import { font, rem } from "./units.js";

const NEAR_PX = 12;
const DARK = "rgba(0, 0, 0, 0.65)";

/** The candidates of one micrograph, as the blob `picks/<row>` gives them, and which of them are shown. */
export class Circles {
  /** `colour(score)` gives a CSS colour. */
  constructor(colour) {
    this.colour = colour;
    this.candidates = false; // show those below the threshold
    this.hidden = false;
    this.preview = null; // a threshold that is being dragged
    this.set(null);
  }

  /** {x, y, score, picked, diameter_px, threshold}, or null. */
  set(picks) {
    this.picks = picks;
    this.count = picks?.x.length ?? 0;
  }

  /** Whether candidate `i` is a pick at the threshold that holds, or at the one that is being dragged. */
  isPick(i) {
    const { picked, score, threshold } = this.picks;
    if (this.preview === null) return Boolean(picked[i]);
    // One above the threshold that is no pick lies in the wrong place (its band of s.d.): no threshold makes it one.
    return score[i] >= this.preview && (Boolean(picked[i]) || score[i] < threshold);
  }

  isShown(i) {
    return !this.hidden && (this.candidates || this.isPick(i));
  }

  /** How many are picks. */
  get shown() {
    let n = 0;
    for (let i = 0; i < this.count; i++) if (this.isPick(i)) n += 1;
    return n;
  }

  /** The circle that is shown nearest to a screen point, within its radius; -1 where there is none. */
  near(view, sx, sy) {
    let best = -1;
    let least = Math.max(NEAR_PX, ((this.picks?.diameter_px ?? 0) / 2) * view.scale);
    for (let i = 0; i < this.count; i++) {
      if (!this.isShown(i)) continue;
      const [x, y] = view.ofPick(this.picks.x[i], this.picks.y[i]);
      const away = Math.hypot(x - sx, y - sy);
      if (away <= least) [best, least] = [i, away];
    }
    return best;
  }

  /** `verdicts`: index -> "right" | "wrong"; `places`: those marked where no candidate is; `selected`: an index or -1. */
  draw(context, view, { selected, verdicts, places }) {
    const line = rem() / 16;
    const radius = Math.max(3, ((this.picks?.diameter_px ?? 20) / 2) * view.scale);
    const inside = ([x, y]) => x > -radius && y > -radius && x < view.width + radius && y < view.height + radius;
    for (const picked of [false, true]) {
      for (let i = 0; i < this.count; i++) {
        if (i === selected || !this.isShown(i) || this.isPick(i) !== picked) continue;
        const at = view.ofPick(this.picks.x[i], this.picks.y[i]);
        if (inside(at)) circle(context, ...at, radius, this.colour(this.picks.score[i]), 2 * line, picked ? [] : [5 * line, 4 * line]);
      }
    }
    if (!this.hidden) this.#signs(context, view, radius, { verdicts, places }, inside);
    if (selected >= 0 && selected < this.count) {
      const at = view.ofPick(this.picks.x[selected], this.picks.y[selected]);
      circle(context, ...at, radius, this.colour(this.picks.score[selected]), 3 * line);
      circle(context, ...at, radius + 5 * line, "#ffffff", 1.5 * line);
    }
  }

  #signs(context, view, radius, { verdicts, places }, inside) {
    for (const [i, verdict] of verdicts) {
      if (i >= this.count) continue;
      const at = view.ofPick(this.picks.x[i], this.picks.y[i]);
      if (inside(at)) sign(context, at[0] + radius * 0.75, at[1] - radius * 0.75, verdict === "right" ? "✓" : "✗");
    }
    for (const { x, y, verdict } of places) {
      const at = view.ofPick(x, y);
      if (!inside(at)) continue;
      diamond(context, ...at, radius);
      sign(context, at[0], at[1], verdict === "right" ? "+" : "✗");
    }
  }
}

function circle(context, x, y, radius, colour, width, dash = []) {
  context.beginPath();
  context.arc(x, y, radius, 0, 2 * Math.PI);
  stroke(context, colour, width, dash);
}

function diamond(context, x, y, radius) {
  const r = radius * 1.2;
  context.beginPath();
  context.moveTo(x, y - r);
  context.lineTo(x + r, y);
  context.lineTo(x, y + r);
  context.lineTo(x - r, y);
  context.closePath();
  stroke(context, "#ffffff", 2);
}

/** A dark line below keeps bright colours apart from bright ice; it has no gaps, or dashes would look like teeth. */
function stroke(context, colour, width, dash = []) {
  context.strokeStyle = DARK;
  context.lineWidth = width + (dash.length ? 1 : 2);
  context.setLineDash([]);
  context.stroke();
  context.setLineDash(dash);
  context.strokeStyle = colour;
  context.lineWidth = width;
  context.stroke();
  context.setLineDash([]);
}

function sign(context, x, y, text) {
  context.font = font(0.9, "bold");
  context.textAlign = "center";
  context.textBaseline = "middle";
  context.lineWidth = 4;
  context.strokeStyle = DARK;
  context.strokeText(text, x, y);
  context.fillStyle = "#ffffff";
  context.fillText(text, x, y);
}
