// Where micrographs were taken, as far as their rows tell: items of a map, and their places on it. No drawing here.
//
// An item is {label, rows, x, y}: a grid square, a foil hole, or one micrograph; x, y are stage µm, or null.

/** Rows by grid square, in the order of their first micrograph; rows without a square are left out. */
export function bySquare(rows) {
  return grouped(rows, (row) => row.square);
}

function grouped(rows, key) {
  const found = new Map();
  for (const row of rows) {
    const name = key(row);
    if (name === null || name === undefined) continue;
    if (!found.has(name)) found.set(name, []);
    found.get(name).push(row);
  }
  return found;
}

/** Items for grid squares: [items, sentence on how they are placed]. */
export function squares(rows) {
  const items = [...bySquare(rows)].map(([name, own]) => item(`Grid square ${name}`, own, name));
  return placed(items, "Grid squares where the stage was");
}

/** Items for the foil holes among `rows` (of one square, or of all); micrographs themselves where no hole is told. */
export function holes(rows) {
  const found = grouped(rows, (row) => (row.hole === null || row.hole === undefined ? null : `${row.square ?? ""}/${row.hole}`));
  if (found.size) {
    const items = [...found.values()].map((own) => item(`Foil hole ${own[0].hole}`, own, own[0].hole));
    return placed(items, "Foil holes where the stage was");
  }
  const items = rows.map((row) => item("Micrograph", [row], row.name));
  if (items.some((one) => one.x !== null)) return placed(items, "Micrographs where the stage was");
  return [items, "In order of time, from the upper left: names and metadata tell neither grid square, foil hole nor stage."];
}

function item(label, rows, name) {
  const known = rows.filter((row) => row.stage);
  const mean = (axis) => (known.length ? known.reduce((sum, row) => sum + row.stage[axis], 0) / known.length : null);
  return { label, rows, name: String(name), x: mean(0), y: mean(1) };
}

function placed(items, words) {
  const known = items.filter((one) => one.x !== null);
  if (known.length * 2 >= items.length && known.length > 0) {
    const lost = items.length - known.length;
    return [spread(known), `${words} (µm, y upwards)${lost ? `; ${lost} without a position are left out` : ""}.`];
  }
  const inOrder = items.map((one) => ({ ...one, x: null, y: null }));
  return [inOrder, "In order of their first micrograph, from the upper left: the stage's position is not known."];
}

/** Beam shift takes many holes from one stage position: such items are set around it, so that each is seen. */
function spread(items) {
  const same = grouped(items, (one) => `${one.x.toFixed(2)}/${one.y.toFixed(2)}`);
  if (same.size === items.length) return items;
  const centres = [...same.values()].map(([first]) => first);
  const most = Math.max(...[...same.values()].map((own) => own.length));
  const step = (apart(centres) || 1) / (2 * Math.sqrt(most) + 1);
  return [...same.values()].flatMap((own) =>
    own.map((one, i) => {
      // Sunflower: even density around the centre (Vogel 1979).
      const [radius, angle] = [step * Math.sqrt(i), i * 2.399963];
      return { ...one, x: one.x + radius * Math.cos(angle), y: one.y + radius * Math.sin(angle) };
    }),
  );
}

/** The usual distance to the nearest neighbour: the median of a sample; 0 for fewer than two. */
export function apart(items) {
  if (items.length < 2) return 0;
  const by = Math.max(1, Math.floor(items.length / 200));
  const nearest = [];
  for (let i = 0; i < items.length; i += by) {
    let least = Infinity;
    for (const other of items) {
      const away = Math.hypot(other.x - items[i].x, other.y - items[i].y);
      if (away > 0 && away < least) least = away;
    }
    if (least < Infinity) nearest.push(least);
  }
  nearest.sort((a, b) => a - b);
  return nearest[nearest.length >> 1] ?? 0;
}

/** Screen places: [{...item, sx, sy}] and the half size of each, at most `most`, for a canvas of this size. */
export function onCanvas(items, width, height, most) {
  if (!items.length) return { spots: [], half: 0 };
  return items[0].x === null ? inRows(items, width, height, most) : onStage(items, width, height, most);
}

function inRows(items, width, height, most) {
  const pad = 8;
  const [w, h] = [width - 2 * pad, height - 2 * pad];
  let columns = Math.max(1, Math.ceil(Math.sqrt((items.length * w) / h)));
  let cell = Math.min(w / columns, h / Math.ceil(items.length / columns), 2.5 * most);
  // Rounding up may leave the last column empty while the rows do not fit: one more column then.
  if (Math.ceil(items.length / columns) * cell > h) cell = Math.min(w / ++columns, h / Math.ceil(items.length / columns));
  const at = (i) => ({ sx: pad + cell * ((i % columns) + 0.5), sy: pad + cell * (Math.floor(i / columns) + 0.5) });
  return { spots: items.map((one, i) => ({ ...one, ...at(i) })), half: cell * 0.45 };
}

function onStage(items, width, height, most) {
  const pad = most + 8; // half of the largest shape, and its rings
  const [left, right] = ends(items.map((one) => one.x));
  const [low, high] = ends(items.map((one) => one.y));
  const scale = Math.min((width - 2 * pad) / (right - left || 1e-9), (height - 2 * pad) / (high - low || 1e-9), 1e6);
  const middle = [(left + right) / 2, (low + high) / 2];
  const spots = items.map((one) => ({
    ...one,
    sx: width / 2 + (one.x - middle[0]) * scale,
    sy: height / 2 - (one.y - middle[1]) * scale,
  }));
  const near = items.length > 1 ? apart(items) * scale * 0.46 : most;
  return { spots, half: Math.min(Math.max(near, 2.5), most) };
}

function ends(values) {
  return values.reduce(([low, high], value) => [Math.min(low, value), Math.max(high, value)], [Infinity, -Infinity]);
}
