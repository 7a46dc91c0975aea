"""What the cascade is compared with: filters that denoise one image at a time, and clusterings of any images.

Filters get the noise's standard deviation, which a simulation knows and an experiment estimates from empty ice. Their
parameters are chosen by ``choose`` on particles that are in no test. BM3D is in a file of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage, signal

from ..evaluate import psnr_fit
from .bm3d import Bm3d, bm3d_all

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int32]
Progress = Callable[[str, int, int], None]
Filter = Callable[[Floats, float], Floats]
"""Images (n, s, s) and the noise's standard deviation to images (n, s, s) with less of it."""

_IMAGES_AT_ONCE = 32


def low_pass(images: Floats, sigma: float, *, blur: float) -> Floats:
    """A Gaussian of ``blur`` pixels: what a person would do first. ``sigma`` is not used."""
    del sigma
    found: Floats = ndimage.gaussian_filter(images, (0, blur, blur))
    return found


def wiener(images: Floats, sigma: float, *, window: int) -> Floats:
    """Wiener's filter by the mean and variance of windows of ``window`` pixels (Lim 1990; ``scipy.signal.wiener``)."""
    # A window without variance is divided by nothing; scipy then takes the mean, but says so.
    with np.errstate(divide="ignore", invalid="ignore"):
        found = [signal.wiener(image.astype(np.float64), window, noise=sigma * sigma) for image in images]
    return np.asarray(found, np.float32).reshape(images.shape)


def non_local_means(images: Floats, sigma: float, *, patch: int, search: int, strength: float) -> Floats:
    """Each pixel becomes the mean of those around it, weighed by how much their patches look like its own.

    Buades, Coll and Morel, CVPR 2005; the noise's share of a patch's distance is taken off (Image Processing On Line 1,
    2011). ``patch``: edge, odd; ``search``: how far in each direction, in pixels; ``strength``: distance at which the
    weight is 1/e, in units of ``sigma``.
    """
    found = [
        _non_local(images[first : first + _IMAGES_AT_ONCE], sigma, patch, search, strength)
        for first in range(0, len(images), _IMAGES_AT_ONCE)
    ]
    return np.concatenate(found) if found else images.copy()


def _non_local(images: Floats, sigma: float, patch: int, search: int, strength: float) -> Floats:
    _, ny, nx = images.shape
    edge = search + patch // 2
    padded = np.pad(images, ((0, 0), (edge, edge), (edge, edge)), mode="reflect")
    wide = (slice(None), slice(search, padded.shape[1] - search), slice(search, padded.shape[2] - search))
    here, half = padded[wide], patch // 2
    total, weights = np.zeros_like(images), np.zeros_like(images)
    for dy in range(-search, search + 1):
        for dx in range(-search, search + 1):
            there = padded[:, search + dy : search + dy + here.shape[1], search + dx : search + dx + here.shape[2]]
            far = ndimage.uniform_filter((here - there) ** 2, (0, patch, patch))[:, half : half + ny, half : half + nx]
            # Two patches of the same signal differ by twice the noise; a patch from itself by nothing.
            excess = np.maximum(far - (2 * sigma * sigma if dy or dx else 0), 0)
            weight = np.exp(excess / np.float32(-((strength * sigma) ** 2)))
            total += weight * there[:, half : half + ny, half : half + nx]
            weights += weight
    found: Floats = total / weights
    return found


@dataclass(frozen=True, slots=True)
class Candidate:
    """A filter with parameters: what it is called in a table, what they are, and the filter."""

    name: str
    parameters: dict[str, Any]
    run: Filter


def candidates() -> dict[str, list[Candidate]]:
    """By method: all parameters that are tried. BM3D's are the paper's, and those that much noise asks for."""
    found = {
        "low-pass": [Candidate("low-pass", {"blur": b}, partial(low_pass, blur=b)) for b in (1.5, 2.0, 2.5, 3, 3.5, 4)],
        "Wiener": [Candidate("Wiener", {"window": w}, partial(wiener, window=w)) for w in (5, 7, 9, 11, 15)],
    }
    means = [
        {"patch": patch, "search": search, "strength": strength}
        for search in (10, 16)
        for patch in (5, 9, 13, 19)
        for strength in (0.2, 0.3, 0.4, 0.6)
    ]
    found["non-local means"] = [
        Candidate("non-local means", how, partial(non_local_means, **how))  # type: ignore[arg-type]
        for how in means
    ]
    found["BM3D"] = [
        Candidate("BM3D", {"block": o.block, "near": o.near, "cut": o.cut}, _bm3d(o)) for o in _bm3d_options()
    ]
    return found


def _bm3d(options: Bm3d) -> Filter:
    return lambda images, sigma: bm3d_all(images, sigma, options)


def _bm3d_options() -> Iterable[Bm3d]:
    yield Bm3d()
    for block in (8, 12):
        for near in ((4.0, 0.64), (16.0, 2.5)):
            for cut, cut_match in ((2.8, 2.0), (3.2, 2.5), (3.7, 3.0)):
                yield Bm3d(block=block, most=(32, 64), near=near, cut=cut, cut_match=cut_match)


def choose(
    options: Sequence[Candidate], images: Floats, truth: Floats, sigma: float, progress: Progress | None = None
) -> tuple[Candidate, float]:
    """Of ``options`` the one with the highest mean PSNR after a fitted gain, and that PSNR in dB.

    ``images``, ``truth``: (n, s, s) of particles that are in no test.
    """
    scored = []
    for done, one in enumerate(options, 1):
        scored.append(float(psnr_fit(one.run(images, sigma), truth).mean()))
        if progress:
            progress(f"choose {one.name}", done, len(options))
    best = int(np.argmax(scored))
    return options[best], scored[best]


def rows_of(images: npt.NDArray[Any]) -> Floats:
    """Images or features (n, …) as rows, float32 (n, d)."""
    return np.ascontiguousarray(images.reshape(len(images), -1), np.float32)


def principal(rows: Floats, components: int, seed: int = 0) -> Floats:
    """The first ``components`` principal components of rows (n, d), float32 (n, components) (scikit-learn)."""
    from sklearn.decomposition import PCA

    most = min(components, *rows.shape)
    found: Floats = PCA(most, svd_solver="randomized", random_state=seed).fit_transform(rows).astype(np.float32)
    return found
