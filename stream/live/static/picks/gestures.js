// Fingers, mouse, wheel and keys on a micrograph's canvas, as zoom and pan of a `View`.

const CLICK_PX = 5;
const STEP = 0.2;

/**
 * Listen on `canvas`. `changed()`: the view moved. `click(sx, sy, event)`: a tap or click that moved nothing, in CSS
 * pixels of the canvas. `keys`: {key: action} beyond those for zoom and pan. `hover(sx, sy)`: the mouse is there.
 * `anchor()`: the screen point that stays where it is when keys and buttons zoom, or [] for the middle.
 */
export function gestures(canvas, view, { changed, click, hover, anchor, keys = {} }) {
  const down = new Map(); // pointer id -> [x, y]
  let moved = false;
  const moves = () => {
    // One finger scrolls the page while the whole micrograph is seen, and moves the micrograph when it is not.
    canvas.style.touchAction = view.fitted ? "pan-y" : "none";
    changed();
  };
  const zoom = (factor, x, y) => {
    view.zoom(factor, x, y);
    moves();
  };

  canvas.addEventListener("pointerdown", (event) => {
    if (event.button > 0) return;
    canvas.setPointerCapture(event.pointerId);
    if (down.size === 0) moved = false;
    down.set(event.pointerId, at(canvas, event));
  });
  canvas.addEventListener("pointermove", (event) => {
    const to = at(canvas, event);
    const from = down.get(event.pointerId);
    if (!from) return hover?.(...to);
    if (!moved && down.size === 1 && Math.hypot(to[0] - from[0], to[1] - from[1]) < CLICK_PX) return undefined;
    moved = true;
    if (down.size === 1) view.pan(to[0] - from[0], to[1] - from[1]);
    else if (down.size === 2) pinch(view, [...down].find(([id]) => id !== event.pointerId)[1], from, to);
    down.set(event.pointerId, to);
    return moves();
  });
  canvas.addEventListener("pointerup", (event) => {
    const from = down.get(event.pointerId);
    if (from && !moved && down.size === 1) click(...from, event);
    down.delete(event.pointerId);
  });
  canvas.addEventListener("pointercancel", (event) => down.delete(event.pointerId));
  canvas.addEventListener("dblclick", () => {
    view.fit();
    moves();
  });
  canvas.addEventListener(
    "wheel",
    (event) => {
      // Zooming out of what is seen whole is left to the page, which scrolls on.
      if (event.deltaY > 0 && view.fitted) return;
      event.preventDefault();
      const lines = event.deltaMode === 1 ? 33 : 1;
      zoom(Math.exp(Math.max(-1, Math.min(1, -event.deltaY * lines * 0.0022))), ...at(canvas, event));
    },
    { passive: false },
  );
  const step = (dx, dy) => {
    view.pan(dx * STEP * view.width, dy * STEP * view.height);
    moves();
  };
  const own = {
    "+": () => zoom(1.5, ...anchor()),
    "=": () => zoom(1.5, ...anchor()),
    "-": () => zoom(1 / 1.5, ...anchor()),
    0: () => {
      view.fit();
      moves();
    },
    ArrowLeft: () => step(1, 0),
    ArrowRight: () => step(-1, 0),
    ArrowUp: () => step(0, 1),
    ArrowDown: () => step(0, -1),
    ...keys,
  };
  canvas.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const action = own[event.key];
    if (!action) return;
    event.preventDefault();
    event.stopPropagation();
    action();
  });
  moves();
  return { closer: own["+"], wider: own["-"], fit: own[0] };
}

/** One finger stays at `still`, the other goes `from` `to`. */
function pinch(view, still, from, to) {
  const before = Math.hypot(from[0] - still[0], from[1] - still[1]);
  const after = Math.hypot(to[0] - still[0], to[1] - still[1]);
  const middle = [(from[0] + still[0]) / 2, (from[1] + still[1]) / 2];
  if (before > 1 && after > 1) view.zoom(after / before, ...middle);
  view.pan((to[0] - from[0]) / 2, (to[1] - from[1]) / 2);
}

function at(canvas, event) {
  const box = canvas.getBoundingClientRect();
  return [event.clientX - box.left - canvas.clientLeft, event.clientY - box.top - canvas.clientTop];
}
