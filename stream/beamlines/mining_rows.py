"""A mined tomogram as the page and the work in the background see it: numbers, no arrays of sub-volumes."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ..live.mining_view import Tomogram
from ..sinks.tomograms.mined import UNMARKED, MinedTomogram


@dataclass(frozen=True, slots=True)
class Entry:
    """A record. ``network``: SHA-256 of what its codes are of; ``version``: of the clusters that it names.

    ``marks``: its classes, by label value from 1, with their colours. ``errors``: sum of the errors of reconstruction,
    by cluster; ``kept``: sub-volumes that are kept.
    """

    path: Path
    row: Tomogram
    version: int
    marks: tuple[tuple[str, str], ...]
    errors: Mapping[int, float]
    kept: int

    @property
    def network(self) -> str:
        """What its codes are of."""
        return self.row.network


def row_of(found: MinedTomogram, *, when: float, revision: int, record: Path | None, labels: Path | None) -> Tomogram:
    """The row of a tomogram. ``when``: Unix seconds; ``revision``: of its files."""
    errors = found.picked.error
    return Tomogram(
        id=hashlib.sha256(f"{found.revision} {found.name}".encode()).hexdigest()[:16],
        name=found.name,
        time=when,
        shape=found.shape,
        voxel_a=found.voxel_a,
        picks=len(found.picked),
        by_class={"" if name == UNMARKED else name: n for name, n in found.counts.items()},
        error=mean_error(errors),
        seconds=float(sum(found.seconds.values())),
        mode=found.mode,
        revision=revision,
        record=record,
        labels=labels,
        warnings=found.flags,
        by_cluster=by_cluster(found.picked.cluster),
        network=found.network_sha256,
    )


def by_cluster(cluster: npt.NDArray[np.int32]) -> dict[int, int]:
    """Sub-volumes by the number of their cluster, those of none (0) as well."""
    numbers, counts = np.unique(cluster, return_counts=True)
    return dict(zip(numbers.tolist(), counts.tolist(), strict=True))


def errors_of(cluster: npt.NDArray[np.int32], error: npt.NDArray[np.float32]) -> dict[int, float]:
    """Sum of the errors by the number of the cluster; what is no number does not count."""
    numbers, at = np.unique(cluster, return_inverse=True)
    sums = np.bincount(at, weights=np.nan_to_num(error, nan=0.0), minlength=len(numbers))
    return dict(zip(numbers.tolist(), sums.tolist(), strict=True))


def mean_error(error: npt.NDArray[np.float32]) -> float:
    """The mean of what is a number; NaN where nothing is."""
    good = error[np.isfinite(error)]
    return float(good.mean()) if len(good) else math.nan
