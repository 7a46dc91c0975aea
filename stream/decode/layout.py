"""Where a detector's pixels lie: panels in the data and in space, and what follows for each pixel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from .constants import ConstantsError, read_dataset
from .masks import Mask, PixelMask, from_bits


class GeometryError(ValueError):
    """A geometry that cannot be used. ``problems`` has one line each: file, line, field, what is wrong, remedy."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)


@dataclass(frozen=True, slots=True)
class Panel:
    """A rectangle of pixels that lies flat in space.

    ``slices`` is where it is in a frame's array (an index or slice per axis, without the axis of frames).
    ``corner_m`` is the outer corner of its first pixel, ``fs_m`` and ``ss_m`` the steps to the next pixel: (x, y,
    z) in metres, x and y from the beam, z from the detector's distance. ``pixels_per_m`` is CrystFEL's ``res``.
    """

    name: str
    slices: tuple[int | slice, ...]
    corner_m: tuple[float, float, float]
    fs_m: tuple[float, float, float]
    ss_m: tuple[float, float, float]
    pixels_per_m: float
    ignored: bool = False

    @property
    def pixels(self) -> tuple[int, int]:
        """Slow-scan and fast-scan pixels."""
        slow, fast = self.slices[-2], self.slices[-1]
        assert isinstance(slow, slice)
        assert isinstance(fast, slice)
        return slow.stop - slow.start, fast.stop - fast.start


@dataclass(frozen=True, slots=True)
class BadRegion:
    """Pixels to leave out: lowest and highest x, y in pixels of the laboratory, or slow, fast scan of the data.

    ``bounds`` is (low, high) of x and of y, or of slow and of fast scan, both inclusive. ``panel`` limits it to one
    panel.
    """

    name: str
    in_laboratory: bool
    bounds: tuple[tuple[float, float], tuple[float, float]]
    panel: str | None = None


@dataclass(frozen=True, slots=True)
class MaskBits:
    """A mask file (``file:/dataset``): a pixel is bad unless all ``good`` bits are set, or if any ``bad`` bit is."""

    reference: str
    good: int
    bad: int


@dataclass(frozen=True, slots=True)
class Layout:
    """What a geometry file says.

    ``shape`` is that of one frame's array. ``masks`` are mask files by their bits. ``distance_m`` and
    ``photon_energy_ev`` are None where the file points to the data's own headers.
    """

    path: Path
    shape: tuple[int, ...]
    panels: tuple[Panel, ...]
    bad: tuple[BadRegion, ...] = ()
    masks: tuple[MaskBits, ...] = ()
    distance_m: float | None = None
    photon_energy_ev: float | None = None


def panel_positions(panel: Panel) -> npt.NDArray[np.float64]:
    """The centres of a panel's pixels: x, y, z in metres, float64 (3, ss, fs)."""
    slow, fast = (np.arange(count) + 0.5 for count in panel.pixels)
    corner, fs, ss = (np.array(vector)[:, None, None] for vector in (panel.corner_m, panel.fs_m, panel.ss_m))
    positions: npt.NDArray[np.float64] = corner + ss * slow[:, None] + fs * fast
    return positions


def pixel_positions(layout: Layout) -> npt.NDArray[np.float32]:
    """The centres of all pixels: x, y, z in metres, float32 (3, *shape); NaN where no panel is."""
    positions = np.full((3, *layout.shape), np.nan, np.float32)
    for panel in layout.panels:
        positions[(slice(None), *panel.slices)] = panel_positions(panel)
    return positions


def static_mask(layout: Layout, read_files: bool = True) -> Mask:
    """What the geometry file says of each pixel, uint32 of the layout's shape, in CXI's bits.

    Missing where no panel is; bad in bad regions, panels with ``no_index`` and, with ``read_files``, where a mask
    file says so (relative names start at the geometry file). Raises ``GeometryError`` for mask files that cannot be
    used.
    """
    mask = np.full(layout.shape, PixelMask.MISSING, np.uint32)
    for panel in layout.panels:
        mask[panel.slices] = PixelMask.BAD if panel.ignored else 0
        for region in layout.bad:
            if region.panel in (None, panel.name):
                mask[panel.slices] |= np.where(_inside(region, panel), np.uint32(PixelMask.BAD), np.uint32(0))
    problems: list[str] = []
    for file in layout.masks if read_files else ():
        try:
            values = read_dataset(file.reference, layout.path.parent)
            mask |= from_bits(values.reshape(layout.shape), file.good, file.bad)
        except ConstantsError as error:
            problems += [f"{layout.path.name}: mask_file: {problem}" for problem in error.problems]
        except ValueError:
            what = f"shape {values.shape}; the panels need {layout.shape}"
            problems.append(f"{layout.path.name}: mask_file: {file.reference}: {what}")
    if problems:
        raise GeometryError([f"{problem}; or set mask_files: ignore" for problem in problems])
    return mask


def _inside(region: BadRegion, panel: Panel) -> npt.NDArray[np.bool_]:
    """Which pixels of a panel lie in a region, bool (ss, fs) or what broadcasts to it."""
    if region.in_laboratory:
        first, second = panel_positions(panel)[:2] * panel.pixels_per_m
    else:
        slow, fast = panel.slices[-2], panel.slices[-1]
        assert isinstance(slow, slice)
        assert isinstance(fast, slice)
        first, second = np.arange(slow.start, slow.stop)[:, None], np.arange(fast.start, fast.stop)[None]
    (low, high), (low2, high2) = region.bounds
    inside: npt.NDArray[np.bool_] = (first >= low) & (first <= high) & (second >= low2) & (second <= high2)
    return inside
