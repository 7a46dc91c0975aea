"""Scores of one simulated tomogram: picks and their groups against truth, and voxels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from ..evaluate import cluster_scores
from .labels import Decoder, LabelOptions, Painter
from .mine import Mined
from .segment_set import Marked
from .simulator import Simulated
from .truth import GROUPS, boxed, match, overlap, truth_of
from .volume import Floats

Labels: TypeAlias = npt.NDArray[np.uint8]
Row: TypeAlias = dict[str, Any]
_NAMES = tuple(GROUPS)
_TILE = 48


def mining_scores(made: Simulated, mined: Mined, truth: Labels, values: Labels, edge: int) -> Row:
    """Of picks, whose true groups are ``truth`` (n,) and whose marks are ``values`` (n,); 0 is none of them.

    ``homogeneity``, ``completeness`` (Rosenberg and Hirschberg 2007), ``rand`` (adjusted; Hubert and Arabie 1985): of
    the marks, no mark being one more, against the true groups, the background being one more. ``groups``: of each, how
    many picks are of it, share of them with its mark (``recall``), share of the marked that are of it (``precision``).
    ``surface_voxels``: share of the membranes' voxels, those that no tilt shows left out, in boxes of picks so marked.
    """
    found: Row = {"picks": len(truth), "kept": int((values > 0).sum())}
    if len(truth):
        there = cluster_scores(truth.astype(np.int64), values.astype(np.int64), resamples=0)
        back = cluster_scores(values.astype(np.int64), truth.astype(np.int64), resamples=0)
        found |= {"homogeneity": there.homogeneity.value, "completeness": back.homogeneity.value}
        found["rand"] = there.rand.value
    found["groups"] = {name: _marked(truth == value, values == value) for value, name in enumerate(_NAMES, 1)}
    shown = (truth_of(made) == 1 + _NAMES.index("membrane")) & ~made.hidden
    inside = boxed(made.data.shape, mined.xyz[values == 1 + _NAMES.index("membrane")], edge)
    found["surface_voxels"] = _share(int((shown & inside).sum()), int(shown.sum()))
    found["particles"] = _particles(made, mined, values)
    return found


def _marked(true: npt.NDArray[np.bool_], given: npt.NDArray[np.bool_]) -> Row:
    both = int((true & given).sum())
    return {
        "of": int(true.sum()),
        "recall": _share(both, int(true.sum())),
        "precision": _share(both, int(given.sum())),
    }


def _particles(made: Simulated, mined: Mined, values: Labels) -> Row:
    """Macromolecules, ribosomes among them, with a pick at half of their radius: any pick, one marked as a globule.

    ``precision``: share of the picks marked as globules that are matched with a macromolecule there, one with one.
    """
    of = made.particles
    radius = of.diameter_a / made.voxel_a / 4
    every = np.isin(np.array(made.classes)[of.label], GROUPS["globule"])
    marked = mined.xyz[values == 1 + _NAMES.index("globule")]
    hits = match(marked, of.xyz[every], radius[every])
    picked = match(mined.xyz, of.xyz[every], radius[every])
    return {
        "of": int(every.sum()),
        "picked": _share(int(picked.true.sum()), int(every.sum())),
        "recall": _share(int(hits.true.sum()), int(every.sum())),
        "precision": _share(int(hits.found.sum()), len(marked)),
    }


def ribosome_scores(made: Simulated, mined: Mined, like: npt.NDArray[np.bool_]) -> Row:
    """Of ribosome-like picks, ``like`` (n,), at half of a ribosome's radius, matched one with one.

    ``picked``: share of the ribosomes with any pick there; ``recall``: with a ribosome-like one; ``precision``: share
    of the ribosome-like picks that have one.
    """
    of = made.particles
    own = of.take(np.asarray(of.label == made.classes.index("ribosome"), np.bool_))
    radius = own.diameter_a / made.voxel_a / 4
    hits, picked = match(mined.xyz[like], own.xyz, radius), match(mined.xyz, own.xyz, radius)
    return {
        "of": len(own),
        "picked": _share(int(picked.true.sum()), len(own)),
        "recall": _share(int(hits.true.sum()), len(own)),
        "precision": _share(int(hits.found.sum()), int(like.sum())),
    }


def voxel_scores(made: Simulated, labels: Labels, kept: Floats, edge: int) -> Row:
    """Dice (which is F1 of voxels), precision and recall of each group, three ways.

    ``all``: every voxel counts. ``shown``: all but those of membranes that no tilt shows. ``kept``: as ``shown``, and
    labels only in boxes about the positions ``kept`` (n, 3), x, y, z. ``classes``: of each class of the simulation
    the share of its voxels that is found, as of its group, and that has the label of another one.
    """
    truth, shown = truth_of(made), ~made.hidden
    inside = np.where(boxed(made.data.shape, kept, edge), labels, np.uint8(0)).astype(np.uint8)
    return {
        "all": dices(overlap(labels, truth)),
        "shown": dices(overlap(labels, truth, shown)),
        "kept": dices(overlap(inside, truth, shown)),
        "classes": _by_class(made, labels),
    }


def _by_class(made: Simulated, labels: Labels) -> Row:
    """Of the voxels of each class, those that no tilt shows left out: shares found, and taken for another group."""
    truth, found = truth_of(made), {}
    for value, name in enumerate(made.classes[1:], 1):
        here = (made.labels == value) & ~made.hidden
        given, right = labels[here], truth[here]
        wrong = (given != right) & (given > 0)
        of = int(here.sum())
        found[name] = {"found": _share(int((given == right).sum()), of), "other": _share(int(wrong.sum()), of)}
    return found


def dices(counts: npt.NDArray[np.int64]) -> Row:
    """By group, from ``truth.overlap``; None where there is nothing to divide by."""
    return {
        name: {
            "dice": _share(2 * both, here + there),
            "precision": _share(both, here),
            "recall": _share(both, there),
            "voxels": there,
        }
        for name, (both, here, there) in zip(_NAMES, counts.tolist(), strict=True)
    }


def labels_score(marking: Sequence[tuple[Simulated, Marked]], codec: Decoder, options: LabelOptions) -> Row:
    """How good weak labels are: Dice of all that decoded volumes say of the marking tomograms, as ``shown`` above.

    What a segmentation that learnt nothing but its labels would reach; tomograms must be of the working voxel size.
    """
    total = np.zeros((len(GROUPS), 3), np.int64)
    for made, one in marking:
        painter = Painter(one.xyz, one.values, codec, options, one.codes, one.centres, one.poses, one.surfaces)
        total += overlap(_painted(painter, made.data.shape), truth_of(made), ~made.hidden)
    return dices(total)


def _painted(painter: Painter, shape: tuple[int, ...]) -> Labels:
    """Weak labels of a whole tomogram, tile by tile."""
    corners = np.stack(np.meshgrid(*(np.arange(0, n, _TILE) for n in shape), indexing="ij"), -1).reshape(-1, 3)
    found = np.zeros([-(-n // _TILE) * _TILE for n in shape], np.uint8)
    for corner in corners.tolist():
        middle = np.array([[at + _TILE // 2 for at in corner[::-1]]])
        found[tuple(slice(at, at + _TILE) for at in corner)] = painter.labels(middle, _TILE)[0]
    return found[tuple(slice(0, n) for n in shape)]


def _share(hits: int, of: int) -> float | None:
    return hits / of if of else None
