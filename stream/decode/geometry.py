"""Assembly: the modules of a detector put where they are, as one picture; where the beam is in it; and q.

A panel is turned by quarter turns only and put on the grid of whole pixels where its centre fits best, so that no
pixel is lost, doubled or interpolated. Rows follow y and columns x, both growing: drawn with its origin at the
bottom, the picture is the detector as CrystFEL shows it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from ..flow.frame import BadData
from ..flow.settings import Settings
from .crystfel import read_geometry
from .layout import GeometryError, Layout, Panel, static_mask
from .masks import Mask, PixelMask

Array = npt.NDArray[Any]
STEEPEST = 30.0  # degrees off a quarter turn; beyond, a grid of whole pixels is no picture of the panel


class GeometrySettings(Settings):
    """Where the detector's modules are."""

    file: Path | None = Field(
        default=None, description="CrystFEL geometry (.geom). Default: frames are pictures already."
    )
    mask_files: Literal["read", "ignore"] = Field(
        default="read", description="Mask files that the geometry names: read them, or take the mask from elsewhere."
    )


@dataclass(frozen=True, slots=True)
class _Place:
    """Where one panel goes: its pixels in the frame, the turn, and rows and columns of the picture."""

    source: tuple[int | slice, ...]
    transposed: bool
    flips: tuple[slice, slice]
    rows: slice
    columns: slice

    def turned(self, panel: Array) -> Array:
        return (panel.swapaxes(-1, -2) if self.transposed else panel)[..., self.flips[0], self.flips[1]]


class Assembler:
    """Puts frames of modules together. Immutable after construction; may be used by several threads at once.

    ``output_shape`` is (y, x) of the picture. ``mask`` (uint32, CXI's bits) marks its gaps as missing and the
    geometry's bad regions as bad. ``centre`` is where the beam goes through: (y, x) in pixels of the picture, where
    the first pixel reaches from 0 to 1; it may lie outside. ``pixel_size_m`` is (y, x). ``distance_m`` is that of
    the geometry file (with the panels' mean offset), or None. ``overlapping`` counts pixels of the picture that two
    panels claim; the later has it. Without a geometry frames pass as they are, and ``centre`` and ``pixel_size_m``
    are None.
    """

    def __init__(
        self, geometry: Path | Layout | None, shape: tuple[int, ...], mask_files: Literal["read", "ignore"] = "read"
    ) -> None:
        """Read the geometry and fit it to the sender's frames of ``shape``.

        Modules may be stacked along slow scan in one of the two and have an axis of their own in the other. Raises
        ``GeometryError`` (all problems) for a file, or a shape, that cannot be used, and ``OSError`` for none.
        """
        self.shape = shape
        self.centre: tuple[float, float] | None = None
        self.pixel_size_m: tuple[float, float] | None = None
        self.distance_m: float | None = None
        self.overlapping = 0
        self.layout = read_geometry(geometry) if isinstance(geometry, Path) else geometry
        self._places: list[_Place] = []
        self.output_shape = shape
        self.mask: Mask = np.zeros(shape, np.uint32)
        if self.layout is None:
            return
        if math.prod(self.layout.shape) != math.prod(shape) or self.layout.shape[-1] != shape[-1]:
            text = f"{self.layout.path.name}: panels fill an array of {self.layout.shape}, frames have {shape}"
            raise GeometryError([f"{text}; check min/max of fs and ss, and dim, or take the geometry of this detector"])
        self._fit(self.layout)
        self.mask = np.zeros(self.output_shape, np.uint32)
        self.mask = self.assemble_mask(static_mask(self.layout, mask_files == "read").reshape(shape))

    def _fit(self, layout: Layout) -> None:
        self.pixel_size_m = _pixel_size(layout)
        exact = np.array([_lowest_corner(panel, self.pixel_size_m) for panel in layout.panels])
        corners = np.rint(exact).astype(np.intp)
        lowest = corners.min(axis=0)
        places = [_place(panel, corner - lowest) for panel, corner in zip(layout.panels, corners, strict=True)]
        self.output_shape = (max(place.rows.stop for place in places), max(place.columns.stop for place in places))
        # the beam is where the panels, on average, say it is: better than half a pixel though each is on whole pixels
        centre = np.mean(corners - lowest - exact, axis=0)
        self.centre = (float(centre[0]), float(centre[1]))
        self._places = places
        if layout.distance_m is not None:
            self.distance_m = layout.distance_m + float(np.mean([panel.corner_m[2] for panel in layout.panels]))
        claims = np.zeros(self.output_shape, np.uint16)
        for place in places:
            claims[place.rows, place.columns] += 1
        self.overlapping = int(np.count_nonzero(claims > 1))

    def assemble(self, stack: Array, mask: Mask | None = None, out: Array | None = None) -> tuple[Array, Mask]:
        """Assemble frames (n, *shape) into pictures (n, y, x) of the same dtype; gaps are 0.

        ``mask`` (shape or (n, *shape), CXI's bits) comes back assembled, (y, x) or (n, y, x), with gaps marked
        missing; without one the answer is the static ``mask``. ``out`` (n, y, x) is written to where given, except
        in gaps. Raises ``BadData`` for another shape.
        """
        if stack.shape[1:] != self.shape:
            raise BadData("shape", f"frames of {stack.shape[1:]}, geometry for {self.shape}; check the detector")
        pictures = self._scatter(stack, out if out is not None else self.empty(len(stack), stack.dtype))
        return pictures, self.mask if mask is None else self.assemble_mask(mask)

    def assemble_mask(self, mask: Mask) -> Mask:
        """Assemble a mask of CXI's bits, shape or (n, *shape), into (y, x) or (n, y, x); gaps are marked missing."""
        if self.layout is None:
            return mask
        frames = mask.reshape(-1, *self.shape)
        picture = self._scatter(frames, np.full((len(frames), *self.output_shape), PixelMask.MISSING, np.uint32))
        picture |= self.mask
        return picture if mask.ndim > len(self.shape) else picture[0]

    def empty(self, frames: int, dtype: npt.DTypeLike) -> Array:
        """An array for ``out`` of ``assemble``, zeros in the gaps."""
        return np.zeros((frames, *self.output_shape), dtype)

    def _scatter(self, stack: Array, out: Array) -> Array:
        if self.layout is None:
            return stack
        # copies of whole panels, for all frames at once, are about twice as fast as a gather by one index per pixel
        data = stack.reshape(len(stack), *self.layout.shape)
        for place in self._places:
            out[:, place.rows, place.columns] = place.turned(data[(slice(None), *place.source)])
        return out


def _transposed(panel: Panel) -> bool:
    """Whether fast scan runs along y (rows) rather than x. Raises ``GeometryError`` for a panel too far off both."""
    along_y = abs(panel.fs_m[1]) > abs(panel.fs_m[0])
    fs = (panel.fs_m[1], panel.fs_m[0]) if along_y else (panel.fs_m[0], panel.fs_m[1])
    ss = (panel.ss_m[0], panel.ss_m[1]) if along_y else (panel.ss_m[1], panel.ss_m[0])
    worst = max(math.degrees(math.atan2(abs(across), abs(along))) for along, across in (fs, ss))
    if worst > STEEPEST:
        text = f"panel {panel.name} is turned {worst:.0f} degrees off a quarter turn"
        raise GeometryError([f"{text}; assembly handles up to {STEEPEST:.0f}, analyse its modules one by one"])
    return along_y


def _pixel_size(layout: Layout) -> tuple[float, float]:
    """Pitch of the grid along y and x in metres: the panels' median. Raises ``GeometryError`` where they differ."""
    steps = np.array(
        [
            (math.hypot(*panel.fs_m), math.hypot(*panel.ss_m))[:: 1 if _transposed(panel) else -1]
            for panel in layout.panels
        ]
    )
    pitch = np.median(steps, axis=0)
    odd = np.flatnonzero((np.abs(steps / pitch - 1) > 0.15).any(axis=1))
    if odd.size:
        name = layout.panels[odd[0]].name
        text = f"{layout.path.name}: {name}/res: pixels of {steps[odd[0]] * 1e6} µm, most panels have {pitch * 1e6} µm"
        raise GeometryError([f"{text}; correct res, or leave those panels to another daemon"])
    return float(pitch[0]), float(pitch[1])


def _lowest_corner(panel: Panel, pixel_size: tuple[float, float]) -> npt.NDArray[np.float64]:
    """Where, in pixels (y, x) from the beam, the upright panel begins whose centre is this panel's."""
    slow, fast = panel.pixels
    middle = np.array(panel.corner_m) + np.array(panel.ss_m) * slow / 2 + np.array(panel.fs_m) * fast / 2
    extent = np.array((fast, slow) if _transposed(panel) else (slow, fast))
    corner: npt.NDArray[np.float64] = middle[1::-1] / np.array(pixel_size) - extent / 2
    return corner


def _place(panel: Panel, corner: npt.NDArray[np.intp]) -> _Place:
    transposed = _transposed(panel)
    down, along = (panel.fs_m[1], panel.ss_m[0]) if transposed else (panel.ss_m[1], panel.fs_m[0])
    height, width = panel.pixels[::-1] if transposed else panel.pixels
    row, column = int(corner[0]), int(corner[1])
    flips = slice(None, None, 1 if down > 0 else -1), slice(None, None, 1 if along > 0 else -1)
    return _Place(panel.slices, transposed, flips, slice(row, row + height), slice(column, column + width))
