"""Ward's hierarchical clustering: of images that may be turned in the plane, and of rows as they are."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import squareform

from .polar import Complexes, Floats, compare, turned_spectra

Ints = npt.NDArray[np.int32]


def ward(centres: Complexes, counts: npt.ArrayLike, k: int) -> Ints:
    """Merge groups until k are left: which of them each belongs to, int32 (m,), numbered from 0.

    ``centres`` complex64 (m, R, M) of length 1, ``counts`` (m,) their members; groups without members go to the most
    similar. Each step merges the two groups whose union adds least to the squared distances of all members from their
    centre (Ward, J. Am. Stat. Assoc. 58, 1963), n₁n₂ / (n₁ + n₂) × the distance of the two means when one is turned
    best. Fine groups of k-means instead of single images keep this quadratic in m, not in the number of images.
    """
    weight = np.array(counts, np.float64)
    label = np.arange(len(centres))
    means = centres.copy()
    alive = weight > 0
    cost, angle = _costs(means, means, weight, weight)
    np.fill_diagonal(cost, np.inf)
    cost[~alive], cost[:, ~alive] = np.inf, np.inf
    for _ in range(int(alive.sum()) - max(k, 1)):
        one, two = np.unravel_index(int(cost.argmin()), cost.shape)
        total = weight[one] + weight[two]
        laid = turned_spectra(means[two : two + 1], angle[two : two + 1, one])[0]
        means[one] = (weight[one] * means[one] + weight[two] * laid) / total
        weight[one], alive[two] = total, False
        label[label == two] = one
        cost[two], cost[:, two] = np.inf, np.inf
        others = np.flatnonzero(alive & (np.arange(len(alive)) != one))
        cost[others, one], angle[others, one] = (
            v[:, 0] for v in _costs(means[others], means[one][None], weight[others], total)
        )
        cost[one, others] = cost[others, one]
        angle[one, others] = -angle[others, one]
    _join_empty(label, centres, np.array(counts) > 0)
    return np.unique(label, return_inverse=True)[1].astype(np.int32)


def _costs(
    a: Complexes, b: Complexes, na: npt.ArrayLike, nb: npt.ArrayLike
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """What merging each of a with each of b adds, and the angle by which a turns onto b: (len(a), len(b))."""
    length_a, length_b = (np.sqrt((np.abs(x).astype(np.float64) ** 2).sum((1, 2))) for x in (a, b))
    scale_a, scale_b = (
        (x / np.maximum(n, 1e-12)[:, None, None]).astype(np.complex64) for x, n in ((a, length_a), (b, length_b))
    )
    similarity, angle = compare(scale_a, scale_b)
    square = length_a[:, None] ** 2 + length_b**2 - 2 * length_a[:, None] * length_b * similarity
    weight_a, weight_b = np.asarray(na, np.float64).reshape(-1, 1), np.asarray(nb, np.float64).reshape(1, -1)
    share = weight_a * weight_b / np.maximum(weight_a + weight_b, 1e-12)
    return share * np.maximum(square, 0), angle.astype(np.float64)


def _join_empty(label: npt.NDArray[np.intp], centres: Complexes, full: npt.NDArray[np.bool_]) -> None:
    if not full.all():
        similarity, _ = compare(centres[~full], centres[full])
        label[~full] = label[full][similarity.argmax(1)]


def ward_of_rows(rows: Floats, number: int) -> Ints:
    """Clusters 0 … ``number`` - 1 of rows (n, d) by Ward's hierarchical clustering (1963).

    The same as scikit-learn's, which calls the same function; but the distances, which take nearly all of its half a
    minute for 4000 images, come from one product of matrices. Raises ``ValueError`` for more
    clusters than rows.
    """
    if not 1 <= number <= len(rows):
        raise ValueError(f"{number} clusters of {len(rows)} images: give fewer clusters, or more images")
    if len(rows) == 1:
        # scipy refuses a tree of one leaf.
        return np.zeros(1, np.int32)
    centred = rows - rows.mean(0)
    length = np.einsum("ij,ij->i", centred, centred)
    far = length[:, None] + length[None] - 2 * (centred @ centred.T)
    np.fill_diagonal(far, 0)
    tree = linkage(squareform(np.sqrt(np.maximum(far, 0)).astype(np.float64), checks=False), "ward")
    found: Ints = (fcluster(tree, number, "maxclust") - 1).astype(np.int32)
    return found
