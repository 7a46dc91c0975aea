// Colour maps for arrays, and drawing an array on a canvas.
//
//   MAPS                     names: "grey", "inferno", "viridis"; brightness rises from end to end, so that they also read
//                            in black and white and to the colour-blind
//   lut(name)                Uint32Array(256): the colours as RGBA words of an ImageData
//   INK                      colours of the page by meaning (series of charts, marks on pictures)
//   colourOf(name, share)    "rgb(…)" of a share 0..1: for circles, tiles, table cells
//   scale(low, high, log)    a function: value -> 0..255, linear or log1p above low
//   range(data, share)       [low, high] of an array for display: the least value, and the quantile `share` (0.999)
//   paint(canvas, data, w, h, {map, low, high, log, flip})   any array, h·w values row by row; one canvas pixel each;
//                            NaN (masked) dark blue-grey; flip: row 0 at the bottom
//   paintPicture(canvas, picture, {map, log})          an SSE picture (base64 u8; "high" present: its log1p scale)
//   scaleBar(canvas, map)    the map from left to right on a canvas
//
// The tables are ten anchors each of matplotlib's inferno and viridis (S. van der Walt and N. Smith, CC0), joined
// linearly.

export const INK = {
  accepted: "#4fb3ff",
  rejected: "#8894a6",
  band: "rgba(79, 179, 255, 0.22)",
  threshold: "#ffb347",
  speed: "#d6c48a",
  grid: "#232b36",
  axis: "#a9b4c2",
  fresh: "#6fe0c8",
};

const ANCHORS = {
  grey: ["000000", "ffffff"],
  inferno: ["000004", "1b0c41", "4a0c6b", "781c6d", "a52c60", "cf4446", "ed6925", "fb9b06", "f7d13d", "fcffa4"],
  viridis: ["440154", "482878", "3e4a89", "31688e", "26828e", "1f9e89", "35b779", "6dcd59", "b4de2c", "fde725"],
};

export const MAPS = Object.keys(ANCHORS);

const channels = (hex) => [0, 2, 4].map((at) => parseInt(hex.slice(at, at + 2), 16));

function mixed(name, share) {
  const anchors = ANCHORS[name] ?? ANCHORS.grey;
  const at = Math.min(Math.max(share, 0), 1) * (anchors.length - 1);
  const left = Math.min(Math.floor(at), anchors.length - 2);
  const [a, b] = [channels(anchors[left]), channels(anchors[left + 1])];
  return a.map((from, i) => Math.round(from + (b[i] - from) * (at - left)));
}

export function colourOf(name, share) {
  return `rgb(${mixed(name, share).join(", ")})`;
}

const tables = {};

export function lut(name) {
  if (tables[name]) return tables[name];
  const bytes = new Uint8ClampedArray(1024);
  for (let i = 0; i < 256; i++) bytes.set([...mixed(name, i / 255), 255], 4 * i); // bytes, so that endianness does not matter
  tables[name] = new Uint32Array(bytes.buffer);
  return tables[name];
}

const MASKED = new Uint32Array(new Uint8ClampedArray([26, 34, 44, 255]).buffer)[0]; // no colour of the maps: a gap, no zero

export function scale(low, high, log) {
  const span = high > low ? high - low : 1;
  if (!log) return (value) => (255 * (value - low)) / span;
  const top = Math.log1p(span);
  return (value) => (255 * Math.log1p(Math.max(0, value - low))) / top;
}

export function range(data, share = 0.999) {
  const step = Math.max(1, Math.floor(data.length / 50000)); // enough for a quantile, quick for a whole detector
  const sample = [];
  for (let i = 0; i < data.length; i += step) if (Number.isFinite(data[i])) sample.push(data[i]);
  if (sample.length === 0) return [0, 1];
  sample.sort((a, b) => a - b);
  const low = sample[0];
  const high = sample[Math.min(sample.length - 1, Math.floor(share * sample.length))];
  return [low, high > low ? high : Math.max(sample[sample.length - 1], low + 1)];
}

export function paint(canvas, data, w, h, { map = "inferno", low = 0, high = 1, log = false, flip = false } = {}) {
  if (canvas.width !== w) canvas.width = w;
  if (canvas.height !== h) canvas.height = h;
  const context = canvas.getContext("2d");
  const image = context.createImageData(w, h);
  const words = new Uint32Array(image.data.buffer);
  const table = lut(map);
  const to = scale(low, high, log);
  for (let row = 0; row < h; row++) {
    const from = (flip ? h - 1 - row : row) * w;
    for (let col = 0; col < w; col++) {
      const level = to(data[from + col]);
      words[row * w + col] = Number.isNaN(level) ? MASKED : table[level <= 0 ? 0 : level >= 255 ? 255 : level | 0];
    }
  }
  context.putImageData(image, 0, 0);
}

function unpacked(text) {
  const raw = atob(text);
  const bytes = new Uint8Array(raw.length);
  for (let i = 0; i < raw.length; i++) bytes[i] = raw.charCodeAt(i);
  return bytes;
}

export function paintPicture(canvas, picture, { map = "inferno", log = true } = {}) {
  const bytes = unpacked(picture.pixels);
  const high = picture.high;
  if (log || !high) return paint(canvas, bytes, picture.w, picture.h, { map, low: 0, high: 255 });
  const top = Math.log1p(high);
  const photons = Float32Array.from({ length: 256 }, (_, i) => Math.expm1((i / 255) * top));
  const linear = Float32Array.from(bytes, (byte) => photons[byte]);
  return paint(canvas, linear, picture.w, picture.h, { map, low: 0, high });
}

export function scaleBar(canvas, map) {
  paint(canvas, Uint8Array.from({ length: 256 }, (_, i) => i), 256, 1, { map, low: 0, high: 255 });
}
