// Grey pictures on canvases of their own, to be drawn from.

import { paint, paintPicture } from "../colours.js";

/** A canvas of a picture's bytes (Uint8Array, row by row; 0 black, 255 white). */
export function grey(data, width, height) {
  const canvas = document.createElement("canvas");
  paint(canvas, data, width, height, { map: "grey", low: 0, high: 255 });
  return canvas;
}

/** A canvas of a picture of the stream of events, with a description for those who do not see it. */
export function thumbnail(picture, text) {
  const canvas = document.createElement("canvas");
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", text);
  paintPicture(canvas, picture, { map: "grey" });
  return canvas;
}
