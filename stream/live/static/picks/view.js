// The part of a micrograph that a viewer shows: zoom and pan, and where a point of the one lies in the other.
//
// Image coordinates here are edges: pixel 0 reaches from 0 to 1, so the picture spans 0..nx and 0..ny. A pick's
// coordinate counts the middle of a pixel as a whole number (pick 0 is at 0.5 here): `ofPick` and `toPick` convert.
// Screen coordinates are CSS pixels from the canvas' upper left corner.

const LARGEST = 12; // CSS pixels per pixel of the micrograph

/** Zoom (`scale`: CSS pixels per pixel of the micrograph) and pan (`x`, `y`: image point at the canvas' corner). */
export class View {
  constructor() {
    this.nx = this.ny = this.width = this.height = 1;
    this.x = this.y = 0;
    this.scale = 1;
    this.fitted = true;
  }

  /** The micrograph has this size. Another size fits anew; the same keeps zoom and place, to compare exposures. */
  picture(nx, ny) {
    const same = nx === this.nx && ny === this.ny;
    this.nx = nx;
    this.ny = ny;
    if (!same || this.fitted) this.fit();
  }

  /** The canvas has this size; what was in the middle stays there. */
  resize(width, height) {
    const [x, y] = this.toImage(this.width / 2, this.height / 2);
    this.width = Math.max(1, width);
    this.height = Math.max(1, height);
    if (this.fitted || this.scale < this.least) this.fit();
    else this.centre(x, y);
  }

  get least() {
    return Math.min(this.width / this.nx, this.height / this.ny);
  }

  /** The whole micrograph, in the middle. */
  fit() {
    this.scale = this.least;
    this.fitted = true;
    this.x = (this.nx - this.width / this.scale) / 2;
    this.y = (this.ny - this.height / this.scale) / 2;
  }

  /** Image point (x, y) comes into the middle. */
  centre(x, y) {
    this.x = x - this.width / 2 / this.scale;
    this.y = y - this.height / 2 / this.scale;
    this.#clamp();
  }

  /** `factor` times larger, with the image point below screen point (sx, sy) staying there. */
  zoom(factor, sx = this.width / 2, sy = this.height / 2) {
    const [x, y] = this.toImage(sx, sy);
    this.scale = Math.min(Math.max(this.scale * factor, this.least), Math.max(LARGEST, this.least));
    if (this.scale <= this.least * 1.0001) return this.fit();
    this.fitted = false;
    this.x = x - sx / this.scale;
    this.y = y - sy / this.scale;
    return this.#clamp();
  }

  /** The picture moves by so many CSS pixels; one that is seen whole stays where it is. */
  pan(dx, dy) {
    if (this.fitted) return;
    this.x -= dx / this.scale;
    this.y -= dy / this.scale;
    this.#clamp();
  }

  toImage(sx, sy) {
    return [this.x + sx / this.scale, this.y + sy / this.scale];
  }

  toScreen(x, y) {
    return [(x - this.x) * this.scale, (y - this.y) * this.scale];
  }

  /** Screen point of a pick's coordinates, and back. */
  ofPick(x, y) {
    return this.toScreen(x + 0.5, y + 0.5);
  }

  toPick(sx, sy) {
    const [x, y] = this.toImage(sx, sy);
    return [x - 0.5, y - 0.5];
  }

  /** The part of the picture that is seen: [left, top, right, bottom] in image coordinates. */
  get seen() {
    const [left, top] = this.toImage(0, 0);
    const [right, bottom] = this.toImage(this.width, this.height);
    return [Math.max(0, left), Math.max(0, top), Math.min(this.nx, right), Math.min(this.ny, bottom)];
  }

  // The canvas' middle stays on the picture. A bound on the picture's edges would pull it away from the pointer while it
  // is zoomed, until what one had pointed at is out of sight.
  #clamp() {
    const [w, h] = [this.width / this.scale / 2, this.height / this.scale / 2];
    this.x = Math.min(Math.max(this.x, -w), this.nx - w);
    this.y = Math.min(Math.max(this.y, -h), this.ny - h);
  }
}

/** A round length for a scale bar: [length in units, its width in CSS pixels], at most `widest` CSS pixels. */
export function roundLength(perUnit, widest) {
  const most = widest / perUnit;
  const power = 10 ** Math.floor(Math.log10(most));
  const length = [5, 2, 1].map((n) => n * power).find((n) => n <= most) ?? power;
  return [length, length * perUnit];
}
