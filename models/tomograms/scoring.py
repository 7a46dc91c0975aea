"""How good an autoencoder is: what it reconstructs of the signal, and what its codes tell of the classes."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ..evaluate import cluster_scores
from .bundles import TOLERANCE
from .cluster import K, assign, cluster
from .codec_plans import choose
from .nets import Autoencoder3D
from .practice import Sample
from .volume import Floats

_AT_ONCE = 32


def scores(
    net: Autoencoder3D, sample: Sample, rows: npt.NDArray[np.intp], *, marked: Sample | None = None
) -> dict[str, Any]:
    """Of sub-volumes ``rows`` of ``sample``.

    All are of sub-volumes as the network smooths them. ``error``: mean squared error of the reconstruction over the
    sub-volume's variance; ``code_in_use``: share of the code's numbers above 0 in any of them. Where the clean
    sub-volumes are known, ``correlation``: mean of Pearson's with them, and ``explained``: share of their variance that
    is reconstructed, over all. ``marked``: sub-volumes with
    classes, clustered into 100; each cluster is marked by its most frequent class. ``agree``: share of the ``rows``
    whose nearest centre has the mark of their class; ``agree_by_class``: the same for each class;
    ``homogeneity``: of the assignment of ``rows``.
    """
    codes, sums = _passed(net, sample, rows)
    found: dict[str, Any] = {
        "sub_volumes": len(rows),
        "error": _round(sums["error"].mean()),
        "code_in_use": _round((codes > 0).any(0).mean()),
    }
    if sample.clean is not None:
        found["correlation"] = _round(sums["correlation"].mean())
        found["explained"] = _round(1 - sums["left"].sum() / max(sums["signal"].sum(), 1e-9))
    if marked is not None and marked.label is not None and sample.label is not None:
        known, _ = _passed(net, marked, np.arange(len(marked)))
        found |= agreement(known, marked.label, codes, sample.label[rows])
    return found


def agreement(
    known: Floats, classes: npt.NDArray[np.uint8], codes: Floats, truth: npt.NDArray[np.uint8]
) -> dict[str, Any]:
    """``agree``, ``agree_by_class``, ``homogeneity`` as ``scores`` says, of codes (n, d) and known ones (m, d)."""
    centres = cluster(known, k=K)
    own, _ = assign(known, centres)
    counts = np.zeros((len(centres.codes), 256), np.int64)
    np.add.at(counts, (own, classes), 1)
    given, _ = assign(codes, centres)
    right = counts.argmax(1)[given] == truth
    by_class = {str(one): _round(right[truth == one].mean()) for one in np.unique(truth).tolist()}
    told = cluster_scores(truth.astype(np.int64), given.astype(np.int64), resamples=0)
    return {
        "clusters": len(centres.codes),
        "agree": _round(right.mean()),
        "agree_by_class": by_class,
        "homogeneity": _round(told.homogeneity.value),
    }


@torch.no_grad()
def _passed(net: Autoencoder3D, sample: Sample, rows: npt.NDArray[np.intp]) -> tuple[Floats, dict[str, Floats]]:
    """Codes, and of each sub-volume its error, the clean one's variance, what is left of it, their correlation."""
    plan, codes, parts = choose(net, _AT_ONCE, TOLERANCE["float32"]), [], []
    for first in range(0, len(rows), plan.piece):
        some = rows[first : first + plan.piece]
        boxes = np.asarray(sample.boxes[some], np.float32)
        code = plan.encode(torch.from_numpy(boxes)[:, None])
        made = plan.decode(code)[:, 0].numpy()
        codes.append(code.numpy())
        seen = _smoothed(net, boxes)
        error = np.square(made - seen).mean((1, 2, 3)) / np.maximum(seen.var((1, 2, 3)), 1e-9)
        clean = seen if sample.clean is None else _smoothed(net, np.asarray(sample.clean[some], np.float32))
        signal, left = clean.var((1, 2, 3)), np.square(made - clean).mean((1, 2, 3))
        a, b = (array - array.mean((1, 2, 3), keepdims=True) for array in (made, clean))
        below = np.sqrt(np.square(a).mean((1, 2, 3)) * np.square(b).mean((1, 2, 3)))
        parts.append(np.stack([error, signal, left, (a * b).mean((1, 2, 3)) / np.maximum(below, 1e-9)]))
    told = np.concatenate(parts, 1).astype(np.float32)
    return np.concatenate(codes), dict(zip(("error", "signal", "left", "correlation"), told, strict=True))


def _smoothed(net: Autoencoder3D, boxes: Floats) -> Floats:
    """What the network can give back of boxes (n, e, e, e)."""
    found: Floats = net.smoothed(torch.from_numpy(boxes)[:, None]).div(net.gain)[:, 0].numpy()
    return found


def _round(value: float | np.floating[Any]) -> float:
    return round(float(value), 5)
