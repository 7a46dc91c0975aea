"""A person's marks, imitated by truth: which clusters are of which group, and what a segmentation learns from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .boxes import cut
from .cluster import Centres, assign, cluster
from .mine import Mined
from .pose import Poses
from .segment_set import Examples, Marked, SetOptions, chosen
from .simulator import Simulated
from .truth import GROUPS, SURFACES, groups_at, on_ribosomes, truth_of
from .volume import ArrayVolume, Floats

Labels = npt.NDArray[np.uint8]
Flags = npt.NDArray[np.bool_]
SHARE = 0.5
"""Of a cluster's members that must be of a group for its mark."""


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """A simulated tomogram and what was mined of it.

    ``truth``: uint8 (n,), group of each pick; ``ribosome``: bool (n,), whether it is within half a radius of one.
    """

    made: Simulated
    mined: Mined
    truth: Labels
    ribosome: Flags

    @classmethod
    def of(cls, made: Simulated, mined: Mined) -> Seen:
        """With the truth of its picks."""
        return cls(made, mined, groups_at(made, mined.xyz), on_ribosomes(made, mined.xyz))


@dataclass(frozen=True, slots=True, eq=False)
class Marks:
    """Clusters; the group (label value, 0 for none) of each, uint8 (k,); which of them are ribosome-like, bool (k,)."""

    centres: Centres
    values: Labels
    ribosomes: Flags

    def of(self, mined: Mined) -> Labels:
        """The group of each pick, by its nearest centre."""
        rows, _ = assign(mined.codes, self.centres)
        found: Labels = np.where(rows >= 0, self.values[rows], np.uint8(0)).astype(np.uint8)
        return found

    def like_ribosomes(self, mined: Mined) -> Flags:
        """Which picks are of a ribosome-like cluster."""
        rows, _ = assign(mined.codes, self.centres)
        return np.asarray((rows >= 0) & self.ribosomes[rows], np.bool_)


def marked(marking: Sequence[Seen], k: int, seed: int) -> Marks:
    """Clusters of all codes of the marking tomograms, each marked by what most of its members are."""
    codes = np.concatenate([seen.mined.codes for seen in marking])
    truth = np.concatenate([seen.truth for seen in marking])
    ribosome = np.concatenate([seen.ribosome for seen in marking])
    centres = cluster(codes, k=k, seed=seed)
    rows, _ = assign(codes, centres)
    counts = np.zeros((len(centres.codes), len(GROUPS) + 1), np.int64)
    np.add.at(counts, (rows[rows >= 0], truth[rows >= 0]), 1)
    own = np.bincount(rows[(rows >= 0) & ribosome], minlength=len(counts))
    least = SHARE * np.maximum(counts.sum(1), 1)
    best = 1 + counts[:, 1:].argmax(1)
    enough = counts[np.arange(len(counts)), best] >= least
    return Marks(centres, np.where(enough, best, 0).astype(np.uint8), own >= least)


def marked_of(seen: Seen, marks: Marks, number: int) -> Marked:
    """A marking tomogram as a segmentation's training takes it."""
    mined = seen.mined
    rows, _ = assign(mined.codes, marks.centres)
    poses = Poses(mined.rotation, mined.shift) if mined.posed else None
    places: Floats = mined.working.to_work(mined.xyz)
    centres = marks.centres.codes[rows]
    return Marked(str(number), places, mined.codes, centres, marks.of(mined), poses, mined.working, surfaces=SURFACES)


def true_examples(marking: Sequence[Seen], options: SetOptions) -> Examples:
    """Windows about picks, as many of each group as there can be, with true labels but for what no tilt shows."""
    rng, each = np.random.default_rng(options.seed), -(-options.most // len(marking))
    windows, labels, numbers = [], [], []
    for number, seen in enumerate(marking):
        truth = ArrayVolume(truth_of(seen.made, hidden=False), seen.made.voxel_a)
        rows = chosen(seen.truth, np.arange(len(seen.truth)), each, options, rng)
        middle = np.rint(seen.mined.xyz[rows]).astype(int) + rng.integers(
            -options.jitter, options.jitter + 1, (len(rows), 3)
        )
        for low in (middle - options.edge // 2)[:, ::-1].tolist():
            size = (options.edge,) * 3
            windows.append(cut(seen.mined.working, tuple(low), size))
            labels.append(cut(truth, tuple(low), size).astype(np.uint8))
            numbers.append(number)
    return Examples(np.stack(windows), np.stack(labels), np.array(numbers, np.int32))
