"""Whether a denoiser became better on a session's own particles, without knowing the truth.

A part of the images is held out of fine-tuning. What each of them should look like is told by others: the mean of *raw*
images most similar to it, from the part that is trained on. Their noise is independent of the held-out image's, so a
denoised image that is closer to that mean is, on average, closer to the truth (as in Noise2Noise; Lehtinen et al., ICML
2018). The neighbours are chosen once, with the model before fine-tuning, so that both models meet the same references;
what is wrong in that choice favours the old model.

Scored are the *differences* between particles: the mean of all held-out images is taken away, of references and of
denoised images alike, and the gain between the two is fitted to the whole images, mean included. A model that answers
the mean of all particles, which explains much of each single one, explains no difference and scores 0, and so does
one that is close to it; one that invents differences scores less than 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .neighbours import Each, Floats, find, means

Rows = npt.NDArray[np.intp]
Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """Which images are trained on and which are held out: rows, ascending."""

    training: Rows
    held: Rows


@dataclass(frozen=True, slots=True)
class Change:
    """Mean scores of the same held-out images before and after, and the standard error of their difference."""

    before: float
    after: float
    error: float

    @property
    def better(self) -> bool:
        """Whether the improvement is larger than its standard error, and the model now explains anything at all."""
        return self.after > 0 and self.after - self.before > self.error


def split(count: int, share: float, seed: int) -> Split:
    """Hold out ``share`` of ``count`` images at random. Raises ``ValueError`` where a part would be empty."""
    held = round(share * count)
    if not 0 < held < count:
        raise ValueError(f"validation: {share:g} of {count} images leaves a part empty; give more images")
    order = np.random.default_rng([seed, 77]).permutation(count)
    return Split(np.sort(order[held:]), np.sort(order[:held]))


def references(
    raw: Floats, denoised: Floats, parts: Split, k: int, *, aligned: bool, each: Each | None = None
) -> Floats:
    """What held-out images should look like: float32 (h, s, s), means of ``k`` raw images of the training part.

    ``raw``, ``denoised``: all images (n, s, s), before and after the model that the neighbours are chosen with.
    """
    found = find(denoised[parts.held], k, among=denoised[parts.training], aligned=aligned, each=each)
    return means(raw[parts.training], found)


def scores(denoised: npt.ArrayLike, wanted: npt.ArrayLike) -> Doubles:
    """The share of each reference's difference from the mean that is explained, float64 (h,).

    ``denoised``, ``wanted``: (h, s, s), in any units. 1 would be a reference without noise, met exactly; the mean of
    all over the mean difference is the score of the model. 0 throughout where ``denoised`` is constant.
    """
    given, needed = (_rows(part) for part in (denoised, wanted))
    gain = _gain(given, needed)
    given, needed = given - given.mean(0), needed - needed.mean(0)
    left = np.square(needed - gain * given).sum(1)
    whole = np.square(needed).sum(1)
    average = whole.mean()
    found: Doubles = (whole - left) / (average if average > 0 else 1.0)
    return found


def _rows(images: npt.ArrayLike) -> Doubles:
    pixels = np.asarray(images, np.float64)
    return pixels.reshape(len(pixels), -1)


def _gain(given: Doubles, needed: Doubles) -> float:
    """The factor that, with an offset, brings all pixels of ``given`` closest to ``needed``."""
    given, needed = given - given.mean(), needed - needed.mean()
    power = float((given * given).sum())
    return float((given * needed).sum()) / power if power > 1e-12 * given.size else 0.0


def compare_scores(before: Doubles, after: Doubles, *, seed: int = 0, resamples: int = 1000) -> Change:
    """The change of the mean score, with the standard error by drawing held-out images again (paired bootstrap)."""
    difference = after - before
    rng = np.random.default_rng([seed, 78])
    drawn = [difference[rng.integers(0, len(difference), len(difference))].mean() for _ in range(resamples)]
    return Change(float(before.mean()), float(after.mean()), float(np.std(drawn)))
