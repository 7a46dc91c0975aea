// Sizes on canvases that grow with the page's letters, which are larger on a wall screen.

/** CSS pixels of the page's letter size. */
export const rem = () => parseFloat(getComputedStyle(document.documentElement).fontSize) || 16;

/** A font of so many letter sizes. */
export const font = (size, weight = "") => `${weight} ${Math.round(size * rem())}px system-ui, sans-serif`.trim();
