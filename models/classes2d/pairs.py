"""Pairs to learn from: the same clean images at the noise of one step of the cascade and at that of the next."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..particles.maps import Volume
from .recipes import STEPS, Options, Progress
from .simulator import Views, coloured, defoci, noisy, project, views
from .working import EDGE, Floats

_GROUP = 128
"""Images that share a pixel size."""


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Images float32 (n, 64, 64), all in the units of ``start``, whose s.d. is 1.

    ``start``: at the lowest SNR. ``before``, ``after``: what a block takes and gives. ``clean``: without noise.
    """

    start: Floats
    before: Floats
    after: Floats
    clean: Floats


class Pool:
    """Clean images of all maps, (n, 64, 64) of variance 1, kept in half precision; noise is added when it is needed."""

    def __init__(self, options: Options, volumes: Sequence[Volume], progress: Progress) -> None:
        self.options = options
        rows = options.images // _GROUP + bool(options.images % _GROUP)
        self.clean = np.empty((options.images * len(volumes), EDGE, EDGE), np.float16)
        for number, volume in enumerate(volumes):
            for group in range(rows):
                first = group * _GROUP
                count = min(_GROUP, options.images - first)
                seed = [options.seed, number, group]
                images = _simulate(options, volume, first, count, seed)
                images /= images.std((1, 2), keepdims=True)
                at = number * options.images + first
                self.clean[at : at + count] = images
                progress("simulate", number * rows + group + 1, rows * len(volumes))

    def __len__(self) -> int:
        return len(self.clean)

    def batches(self, block: int, epoch: int) -> Iterator[Batch]:
        """One epoch for a block (0, 1, 2), in an order and with noise that come from the seed and these numbers."""
        o = self.options
        order = np.random.default_rng([o.seed, 11, block, epoch]).permutation(len(self))
        # Where each image is simulated once, the noise of an epoch is that of every other.
        key = (o.seed, 12, block, epoch) if o.fresh else (o.seed, 12)
        for first in range(0, len(order), o.batch):
            yield self._batch(order[first : first + o.batch], block, key)

    def _batch(self, chosen: npt.NDArray[np.intp], block: int, key: tuple[int, ...]) -> Batch:
        o = self.options
        rngs = [np.random.default_rng([*key, int(i)]) for i in chosen]
        clean = self.clean[chosen].astype(np.float32)
        if o.fresh:
            clean = np.stack([turned(image, int(rng.integers(8))) for image, rng in zip(clean, rngs, strict=True)])
        low, high = np.log(o.snr)
        snr = np.exp([rng.uniform(low, high) for rng in rngs]).astype(np.float32)
        colour = np.array([rng.uniform(0, o.colour) for rng in rngs], np.float32)
        # A noise of its own at each step: the images of a pair are simulated apart from each other, as published.
        levels = [self._noise(key, level, chosen, colour) for level in sorted({0, block, block + 1})]
        start, true = noisy(clean, levels[0], snr)
        # Units of the start: its noise has this s.d., that of a step with k times its SNR 1 / √k of it.
        spread = true.std((1, 2)) / np.sqrt(snr)
        made = dict(zip(sorted({0, block, block + 1}), levels, strict=True))
        at = {level: self._at(true, spread, made[level], level) for level in made if level}
        return Batch(start, at.get(block, start), at[block + 1], true)

    def _at(self, true: Floats, spread: Floats, noise: Floats, level: int) -> Floats:
        if level > len(STEPS):
            return true
        return true + noise * (spread / np.float32(np.sqrt(STEPS[level - 1])))[:, None, None]

    def _noise(self, key: tuple[int, ...], level: int, chosen: npt.NDArray[np.intp], colour: Floats) -> Floats:
        if level > len(STEPS):
            return np.empty((0, EDGE, EDGE), np.float32)
        each = [np.random.default_rng([*key, int(i), level]).standard_normal((EDGE, EDGE), np.float32) for i in chosen]
        white = np.stack(each)
        return coloured(white, colour) if self.options.colour else white


def _simulate(o: Options, volume: Volume, first: int, count: int, key: Sequence[int]) -> Floats:
    """Clean images, mean 0; those with a transfer function come last."""
    rng = np.random.default_rng([*key, 13])
    seed = int(rng.integers(2**31))
    pixel_a = volume.diameter_a * rng.uniform(*o.box) / EDGE
    if o.orientations:
        basis = views(o.orientations, seed=o.seed + key[1], orientations=o.orientations).rotations
        seen = views(count, seed=seed, orientations=np.roll(basis, -first, axis=0), shift_px=o.shift)
    else:
        seen = views(count, seed=seed, shift_px=o.shift)
    # Rounded at random, or few images of small groups would all lack it.
    without = count - int(count * o.ctf + rng.uniform())
    without = min(max(without, 0), count)
    images = np.concatenate(
        [
            project(volume, _part(seen, 0, without), pixel_a=pixel_a),
            project(
                volume,
                _part(seen, without, count),
                pixel_a=pixel_a,
                defocus_um=defoci(count - without, seed, o.defocus),
            ),
        ]
    )
    images -= images.mean((1, 2), keepdims=True)
    return images


def _part(seen: Views, first: int, last: int) -> Views:
    some = slice(first, last)
    return Views(seen.rotations[some], seen.orientation[some], seen.angle_deg[some], seen.shift_px[some])


def turned(image: Floats, way: int) -> Floats:
    """An image (e, e), e even, in one of its eight turns and mirrors around pixel [e / 2, e / 2], ``way`` 0..7."""
    # Row and column 0 have no partner across the middle; what is opposite them comes around, as in Fourier transforms.
    found = image.T if way & 1 else image
    if way & 2:
        found = np.roll(found[::-1], 1, axis=0)
    if way & 4:
        found = np.roll(found[:, ::-1], 1, axis=1)
    return np.ascontiguousarray(found)
