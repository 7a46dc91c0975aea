"""Ways to group many images at once: k-means and Ward's, with and without turning images in the plane."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from .kmeans import Ints, Progress, kmeans, lloyd, merged, nearest
from .polar import Floats
from .ward import ward_of_rows

Method = Literal["kmeans", "ward"]
Vectors = npt.NDArray[Any]

SAMPLE = 20_000
WARD_SAMPLE = 5000
_FINE_PER_CLASS = 8
_FINE_MEMBERS = 4
_MOST_FINE = 160
_AT_ONCE = 2048
_POLISH = 2
_FINE_ITERATIONS = 10


@dataclass(frozen=True, slots=True, eq=False)
class Grouped:
    """``label`` int32 (n,) from 0; ``angle`` float32 (n,), degrees that turn an image onto its group's centre;
    ``similarity`` float32 (n,), correlation with it.
    """  # noqa: D205

    label: Ints
    angle: Floats
    similarity: Floats


Grouper = Callable[[Vectors, int, int, Progress], Grouped]


def turning_kmeans(spectra: Vectors, k: int, seed: int, told: Progress) -> Grouped:
    """``kmeans.kmeans`` of spectra (n, R, M), or of a sample of 20 000; the rest go to the nearest centre."""
    some = _sample(spectra, SAMPLE, seed)
    found = kmeans(some, k, seed=seed, progress=lambda _, done, of: told("group", done, of))
    return _by_centres(spectra, found.centres)


def turning_ward(spectra: Vectors, k: int, seed: int, told: Progress) -> Grouped:
    """``ward.ward`` on fine groups of k-means: 8 for each class, of at least 4 images, at most 160.

    The tree's classes are then polished by two of Lloyd's iterations, which say each image's angle, too.
    """
    some = _sample(spectra, SAMPLE, seed)
    fine = max(k, min(_FINE_PER_CLASS * k, len(some) // _FINE_MEMBERS, _MOST_FINE))
    groups = kmeans(
        some,
        fine,
        seed=seed,
        restarts=1,
        iterations=_FINE_ITERATIONS,
        progress=lambda _, done, of: told("group", done, of),
    )
    return _by_centres(spectra, lloyd(some, merged(groups, k), _POLISH).centres)


def _by_centres(spectra: Vectors, centres: Vectors) -> Grouped:
    label, angle, similarity, _ = nearest(spectra, centres)
    return Grouped(label, angle, similarity)


def pixel_kmeans(images: Vectors, k: int, seed: int, told: Progress) -> Grouped:
    """scikit-learn's k-means of images (n, pixels) as they lie, or of a sample of 20 000; ten starts."""
    from sklearn.cluster import KMeans

    told("group", 0, 1)
    model = KMeans(k, n_init=10, random_state=seed).fit(_sample(images, SAMPLE, seed))
    told("group", 1, 1)
    return _to_means(images, model.cluster_centers_)


def pixel_ward(images: Vectors, k: int, seed: int, told: Progress) -> Grouped:
    """Ward's hierarchical clustering of images (n, pixels) as they lie (``ward.ward_of_rows``).

    Its memory grows with the square of n: beyond 5000 a sample is grouped and the rest go to the nearest mean.
    """
    told("group", 0, 1)
    some = _sample(images, WARD_SAMPLE, seed)
    label = ward_of_rows(some, k)
    told("group", 1, 1)
    means = np.stack([some[label == i].mean(0) for i in range(k)])
    found = _to_means(images, means)
    return found if len(some) < len(images) else Grouped(label, found.angle, _likeness(images, means, label))


def _sample(vectors: Vectors, most: int, seed: int) -> Vectors:
    if len(vectors) <= most:
        return vectors
    chosen = np.random.default_rng(seed).choice(len(vectors), most, replace=False)
    return np.asarray(vectors[np.sort(chosen)])


def _to_means(images: Vectors, means: Vectors) -> Grouped:
    means = means.astype(np.float32)
    square = (means**2).sum(1)
    parts = [images[i : i + _AT_ONCE] @ means.T for i in range(0, len(images), _AT_ONCE)]
    label = (square - 2 * np.concatenate(parts)).argmin(1).astype(np.int32)
    return Grouped(label, np.zeros(len(images), np.float32), _likeness(images, means, label))


def _likeness(images: Vectors, means: Vectors, label: npt.NDArray[np.integer[Any]]) -> Floats:
    """Correlation of each image with the mean of its group."""
    found = np.zeros(len(images), np.float32)
    for i in range(0, len(images), _AT_ONCE):
        one, other = images[i : i + _AT_ONCE], means[label[i : i + _AT_ONCE]]
        one, other = one - one.mean(1, keepdims=True), other - other.mean(1, keepdims=True)
        length = np.sqrt((one**2).sum(1) * (other**2).sum(1))
        found[i : i + _AT_ONCE] = (one * other).sum(1) / np.maximum(length, 1e-12)
    return found


GROUPERS: Mapping[tuple[bool, Method], Grouper] = {
    (True, "kmeans"): turning_kmeans,
    (True, "ward"): turning_ward,
    (False, "kmeans"): pixel_kmeans,
    (False, "ward"): pixel_ward,
}
"""By whether images are turned, and the method."""
