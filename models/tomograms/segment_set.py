"""What a segmentation is trained on: windows of tomograms with weak labels, from the marks of a session.

A window is larger than a sub-volume where the tomogram is still there, so that the network sees structure with its
surroundings and not with the zeros beside a cut-out box; else it is the sub-volume that was kept.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from .boxes import cut
from .labels import BACKGROUND, IGNORED, Decoder, LabelOptions, Labels, Painter
from .pose import Poses, unposed
from .told import Progress, Stop, Told
from .volume import Floats, Shape, Volume

Ints: TypeAlias = npt.NDArray[np.intp]


@dataclass(frozen=True, slots=True, eq=False)
class Marked:
    """A tomogram of a session, n sub-volumes of it encoded and m of them kept.

    ``xyz`` float32 (n, 3), x, y, z in working voxels; ``codes`` float32 (n, 32); ``centres`` float32 (n, 32): code of
    each one's cluster; ``values`` uint8 (n,): label value of its group, 0 for none; ``poses``: where sub-volumes are
    pose-normalised; ``surfaces``: label values of groups of the kind surface. ``working``: the tomogram's working
    volume, where it can still be read; else ``rows`` (m,) say which sub-volumes ``boxes`` (m, e, e, e) are, as they
    were encoded.
    """

    name: str
    xyz: Floats
    codes: Floats
    centres: Floats
    values: Labels
    poses: Poses | None = None
    working: Volume | None = None
    rows: Ints | None = None
    boxes: npt.NDArray[np.floating] | None = None
    surfaces: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Examples:
    """``windows`` float32 (n, e, e, e), ``labels`` uint8 of the same shape (255: not counted), ``tomogram`` (n,)."""

    windows: Floats
    labels: Labels
    tomogram: npt.NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.windows)


@dataclass(frozen=True, slots=True)
class SetOptions:
    """How windows are chosen.

    ``most``: windows in all. ``edge``: of a window, in working voxels, a multiple of 4. ``background``: share of the
    windows that are about sub-volumes without a mark. ``jitter``: largest distance, along each axis, of a window's
    middle from that of its sub-volume, so that structure is not always in the middle.
    """

    most: int = 1000
    edge: int = 40
    background: float = 0.3
    jitter: int = 8
    seed: int = 1
    labels: LabelOptions = field(default_factory=LabelOptions)


def examples(
    marked: Iterable[Marked],
    count: int,
    codec: Decoder,
    options: SetOptions | None = None,
    *,
    progress: Progress | None = None,
    stop: Stop | None = None,
) -> Examples:
    """The training set of ``count`` tomograms, of which each gives an equal share of windows.

    Within a tomogram, classes get equal shares as far as there are sub-volumes. Raises ``ValueError`` where no
    sub-volume is marked, or none shows anything, ``Stopped`` when told to stop.
    """
    options, told = options or SetOptions(), Told(progress, stop)
    rng = np.random.default_rng(options.seed)
    found: list[tuple[Floats, Labels]] = []
    some = False
    for number, one in enumerate(marked):
        some |= bool((one.values != BACKGROUND).any())
        found.append(_windows(one, -(-options.most // count), codec, options, rng))
        told("labels", number + 1, count)
    if not some:
        raise ValueError("no sub-volume of a marked cluster: mark clusters first (beamsieve cluster tomograms --mark)")
    return _joined(found, options)


def _joined(found: list[tuple[Floats, Labels]], options: SetOptions) -> Examples:
    if not any(((labels != BACKGROUND) & (labels != IGNORED)).any() for _, labels in found):
        raise ValueError(
            "decoded volumes of marked clusters show nothing in their middle: mark other clusters, or train the "
            "autoencoder further (beamsieve train tomograms)"
        )
    # Kept sub-volumes are smaller than windows: all take the smallest edge, around their middles.
    edge = min(windows.shape[-1] for windows, _ in found if len(windows))
    windows = np.concatenate([_middle(w, edge) for w, _ in found if len(w)])
    labels = np.concatenate([_middle(v, edge) for _, v in found if len(v)])
    number = np.concatenate([np.full(len(w), i, np.int32) for i, (w, _) in enumerate(found)])
    order = np.random.default_rng(options.seed).permutation(len(windows))[: options.most]
    return Examples(windows[order], labels[order], number[order])


def _windows(
    one: Marked, most: int, codec: Decoder, options: SetOptions, rng: np.random.Generator
) -> tuple[Floats, Labels]:
    painter = Painter(one.xyz, one.values, codec, options.labels, one.codes, one.centres, one.poses, one.surfaces)
    if one.working is not None:
        rows = chosen(one.values, np.arange(len(one.values)), most, options, rng)
        middle = _whole(one.xyz[rows]) + rng.integers(-options.jitter, options.jitter + 1, (len(rows), 3))
        middle = np.clip(middle, 0, np.array(one.working.shape[::-1]) - 1)
        return read_windows(one.working, middle, options.edge), painter.labels(middle, options.edge)
    if one.rows is None or one.boxes is None:
        raise ValueError(f"{one.name}: the tomogram cannot be read any more, and no sub-volumes of it were kept")
    at = chosen(one.values[one.rows], np.arange(len(one.rows)), most, options, rng)
    return _kept(one, one.rows[at], np.asarray(one.boxes[at], np.float32), painter)


def chosen(values: Labels, rows: Ints, most: int, options: SetOptions, rng: np.random.Generator) -> Ints:
    """Which of ``rows``, at most ``most``: the share without a mark, and of each class as many as of the others."""
    classes = [value for value in np.unique(values) if value != BACKGROUND]
    unmarked = round(most * options.background) if classes else most
    picked = [_some(rows[values == BACKGROUND], unmarked, rng)]
    left = most - len(picked[0])
    # The smallest class first: what it does not use, the others share.
    for number, value in enumerate(sorted(classes, key=lambda v: int((values == v).sum()))):
        some = _some(rows[values == value], left // (len(classes) - number), rng)
        picked.append(some)
        left -= len(some)
    return np.concatenate(picked)


def _some(rows: Ints, most: int, rng: np.random.Generator) -> Ints:
    return rng.permutation(rows)[:most]


def _whole(xyz: npt.NDArray[np.floating]) -> npt.NDArray[np.intp]:
    return np.floor(np.asarray(xyz, np.float64) + 0.5).astype(np.intp)


def read_windows(volume: Volume, middle: npt.NDArray[np.intp], edge: int) -> Floats:
    """Windows (n, edge, edge, edge) about whole voxels, normalised as the tomogram."""
    found = np.empty((len(middle), edge, edge, edge), np.float32)
    size: Shape = (edge, edge, edge)
    for window, (x, y, z) in zip(found, (middle - edge // 2).tolist(), strict=True):
        window[:] = cut(volume, (z, y, x), size)
    return found


def _kept(one: Marked, rows: Ints, boxes: Floats, painter: Painter) -> tuple[Floats, Labels]:
    """Kept sub-volumes as they lie in the tomogram, and their labels."""
    edge = boxes.shape[-1]
    labels = painter.labels(_whole(one.xyz[rows]), edge)
    if one.poses is None:
        return boxes, labels
    some = one.poses[rows]
    # Of a box that was turned the corners are not known.
    known = unposed(np.ones_like(boxes), some) > 0.999
    labels[~known] = IGNORED
    return unposed(boxes, some), labels


def _middle(volumes: npt.NDArray[np.generic], edge: int) -> npt.NDArray[np.generic]:
    cropped = (volumes.shape[-1] - edge) // 2
    inner = slice(cropped, cropped + edge)
    return volumes[:, inner, inner, inner]
