// A bar of the colours that stand for numbers.

const STEPS = 64;

/** A canvas with the colours of 0 to 1 from left to right; `colour(share)` gives CSS colours. */
export function colourBar(colour, label) {
  const canvas = document.createElement("canvas");
  canvas.className = "scale";
  canvas.width = STEPS;
  canvas.height = 1;
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", label);
  const context = canvas.getContext("2d");
  for (let i = 0; i < STEPS; i++) {
    context.fillStyle = colour(i / (STEPS - 1));
    context.fillRect(i, 0, 1, 1);
  }
  return canvas;
}
