"""A picture of a micrograph with its picks: small, quick, drawn without a plotting library.

Row 0 is at the top. Circles have the particle's diameter and go from blue (a score at the threshold) over green to
yellow (1). The bar is a round number of nanometres.
"""

from __future__ import annotations

import math

import imagecodecs
import numpy as np
import numpy.typing as npt

from .micrograph import PickedMicrograph

LARGEST_PX = 1024
_STEP = 8
_LINE_PX = 1.6
_COLOURS = np.array([[70, 150, 255], [60, 215, 140], [255, 235, 60]], np.float32)
_BAR = (255, 255, 255)
_GREYS = (1.0, 99.5)
#: Glyphs of 3 by 5 pixels (m: 5 by 5), a number per row.
_GLYPHS: dict[str, tuple[int, ...]] = {
    "0": (7, 5, 5, 5, 7),
    "1": (2, 6, 2, 2, 7),
    "2": (7, 1, 7, 4, 7),
    "3": (7, 1, 7, 1, 7),
    "4": (5, 5, 7, 1, 1),
    "5": (7, 4, 7, 1, 7),
    "6": (7, 4, 7, 5, 7),
    "7": (7, 1, 1, 1, 1),
    "8": (7, 5, 7, 5, 7),
    "9": (7, 5, 7, 1, 7),
    " ": (0, 0, 0, 0, 0),
    "n": (0, 6, 5, 5, 5),
    "m": (0, 26, 21, 21, 21),
}
_ZOOM = 3

Picture = npt.NDArray[np.uint8]


def draw(image: npt.NDArray[np.generic], found: PickedMicrograph) -> Picture:
    """The picture, uint8 (h, w, 3), at most ``LARGEST_PX`` along an edge. ``image``: (ny, nx), any real type."""
    factor = max(1, math.ceil(max(image.shape) / LARGEST_PX))
    picture = np.repeat(_grey(_binned(image, factor))[..., None], 3, axis=2)
    picks = found.picks
    if len(picks):
        span = max(1e-6, 1.0 - found.threshold)
        at = np.clip((picks.score - found.threshold) / span, 0.0, 1.0)
        # The middle of a binned pixel is the middle of its block.
        x, y = ((centre + 0.5) / factor - 0.5 for centre in (picks.x, picks.y))
        _circles(picture, x, y, found.diameter_a / found.pixel_a / factor / 2, at)
    _bar(picture, found.pixel_a * factor)
    return picture


def encode(picture: Picture) -> bytes:
    """PNG."""
    return bytes(imagecodecs.png_encode(picture, level=1, filter=imagecodecs.PNG.FILTER.NONE))


def _binned(image: npt.NDArray[np.generic], factor: int) -> npt.NDArray[np.float32]:
    """Means of ``factor`` by ``factor`` pixels; what is left over at the far edges is cut off."""
    ny, nx = (edge // factor for edge in image.shape)
    block = image[: ny * factor, : nx * factor]
    # Rows first: summing both at once, or columns first, takes four times as long.
    rows = block.reshape(ny, factor, nx * factor).sum(axis=1, dtype=np.float32)
    return np.asarray(rows.reshape(ny, nx, factor).sum(axis=2) / np.float32(factor * factor), np.float32)


def _grey(image: npt.NDArray[np.float32]) -> Picture:
    """Stretched between percentiles, in steps that PNG packs well."""
    good = image[np.isfinite(image)]
    low, high = np.percentile(good[:: max(1, good.size // 100_000)], _GREYS) if good.size else (0.0, 1.0)
    scaled = (np.nan_to_num(image, nan=low, posinf=high, neginf=low) - low) * (255.0 / max(float(high - low), 1e-20))
    return np.clip(scaled, 0, 255).astype(np.uint8) // _STEP * _STEP


def _circles(
    picture: Picture,
    x: npt.NDArray[np.float32],
    y: npt.NDArray[np.float32],
    radius: float,
    at: npt.NDArray[np.float32],
) -> None:
    reach = math.ceil(radius + _LINE_PX)
    dy, dx = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    on = np.abs(np.hypot(dy, dx) - radius) <= _LINE_PX / 2
    rows = np.rint(y).astype(np.intp)[:, None] + dy[on]
    columns = np.rint(x).astype(np.intp)[:, None] + dx[on]
    inside = (rows >= 0) & (rows < picture.shape[0]) & (columns >= 0) & (columns < picture.shape[1])
    places = at * (len(_COLOURS) - 1)
    colours = np.stack([np.interp(places, range(len(_COLOURS)), channel) for channel in _COLOURS.T], 1)
    shown = np.broadcast_to(colours.astype(np.uint8)[:, None], (*rows.shape, 3))
    # The best come first; drawn backwards they end on top.
    picture[rows[::-1][inside[::-1]], columns[::-1][inside[::-1]]] = shown[::-1][inside[::-1]]


def _bar(picture: Picture, pixel_a: float) -> None:
    """A bar of about a fifth of the width, with its length."""
    height, width = picture.shape[:2]
    wanted_nm = width * pixel_a / 10 / 5
    step = 10.0 ** math.floor(math.log10(wanted_nm))
    nanometres = max(n for n in (1, 2, 5) if n * step <= wanted_nm) * step
    length = round(nanometres * 10 / pixel_a)
    text = _text(f"{nanometres:.0f} nm" if nanometres >= 1 else "")
    tall = text.shape[0] + 14
    if height < 2 * tall or width < max(length, text.shape[1]) + 24:
        return
    left, low = 12, height - 12
    panel = picture[low - tall : low + 6, left - 6 : left + max(length, text.shape[1]) + 6]
    panel //= 4
    picture[low - 4 : low, left : left + length] = _BAR
    area = picture[low - 8 - text.shape[0] : low - 8, left : left + text.shape[1]]
    area[text] = _BAR


def _text(text: str) -> npt.NDArray[np.bool_]:
    columns: list[npt.NDArray[np.bool_]] = [np.zeros((5, 0), bool)]
    for letter in text:
        glyph = _GLYPHS[letter]
        wide = 5 if letter == "m" else 3
        bits = [[bool(row >> (wide - 1 - at) & 1) for at in range(wide)] for row in glyph]
        columns += [np.array(bits), np.zeros((5, 1), bool)]
    return np.kron(np.concatenate(columns, axis=1), np.ones((_ZOOM, _ZOOM), bool)).astype(bool)
