"""One protein of a study: what each method makes of its images, and the scores of that."""

from __future__ import annotations

import hashlib
import json
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..bundle import Bundle, load_bundle
from ..evaluate import cluster_scores, mean_interval, psnr, psnr_fit
from . import autoencoders
from .autoencoders import FitOptions
from .baselines import Candidate, principal, rows_of
from .bundles import network
from .cdae import Block
from .equalise import equalised
from .finetune import TuneOptions, finetune
from .grouping import GROUPERS, Method
from .polar import features
from .simulator import Particles

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int32]
Progress = Callable[[str, int, int], None]
Row = dict[str, Any]

COMPONENTS = 20
TUNED = {"outputs": "", "images": ", raw means"}
"""How a fine-tuned cascade is called by what it was tuned to."""
SLOW = ("non-local means", "BM3D")
"""Filters that take longer than a network; what they make of all images is not clustered."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyOptions:
    """What is simulated and how much is trained. All from ``seed``.

    ``images``: per orientation; ``orientations``: random ones, the same for all proteins. ``snr``: variance of the
    clean image over that of the noise. ``ctf``: defocus of 1 to 2.5 µm, each image its own. ``in_plane``: each image
    turned by a random angle; clusterings then turn them back (``polar``), but PCA's and the plain autoencoder's.
    ``pixel_share``: ångström per pixel over the protein's diameter. ``epochs``: of every training but fine-tunings,
    which have ``tune_epochs``. ``tune_on``: how many of the images fine-tuning sees, at most. ``scored``: how many are
    in the PSNR table, at most; all are in the clusters. ``validation``: images that filters' parameters are chosen on.
    ``rate``, ``tune_rate``: RMSprop's. ``targets``: what cascades are fine-tuned to, see ``TuneOptions.target``;
    ``outputs`` is published.
    """

    seed: int = 0
    images: int = 1000
    orientations: int = 4
    snr: float = 0.1
    ctf: bool = False
    in_plane: bool = False
    pixel_share: float = 1.5 / 64
    epochs: int = 20
    tune_epochs: int = 20
    tune_on: int = 1000
    scored: int = 400
    rate: float = 1e-3
    tune_rate: float = 3e-4
    targets: tuple[str, ...] = ("outputs", "images")
    validation: int = 48

    @property
    def sigma(self) -> float:
        """The noise's standard deviation in images whose own is 1."""
        return float(1 / np.sqrt(1 + self.snr))


@dataclass(frozen=True, slots=True)
class Methods:
    """All methods under one study's options: ``cascades`` and ``filters`` by name, the ``single`` autoencoder.

    ``out``: folder of fine-tuned networks, and of some images for pictures.
    """

    out: Path
    options: StudyOptions
    cascades: Mapping[str, Bundle]
    single: Block
    filters: Mapping[str, Candidate]
    progress: Progress

    def scored(self, name: str, p: Particles) -> Row:
        """Scores of all methods on the images of protein ``name``."""
        o, began = self.options, time.monotonic()
        ratios: Row = {}
        clusters: Row = {}
        shown: dict[str, Floats] = {"truth": p.clean[: min(8, 2 * o.orientations, o.scored)]}
        notes: Row = {}
        for method, found, seconds in self._denoised(name, p, notes):
            ratios[method] = {**ratios_of(found[: o.scored], p.clean[: o.scored]), "seconds": seconds}
            shown[method] = found[: len(shown["truth"])]
            if method not in SLOW:
                clusters |= self._clusters(method, found, p.orientation)
        clusters |= self._of_features(p)
        return {
            "images": len(p.images),
            "psnr": ratios,
            "clusters": clusters,
            "shown": self._keep(name, shown),
            "tuning": notes,
            "seconds": time.monotonic() - began,
        }

    def _denoised(self, name: str, p: Particles, notes: Row) -> Iterator[tuple[str, Floats, float]]:
        """Each method's name, what it makes of the images (the slow ones: of those that are scored), seconds each."""
        o = self.options
        some, few = p.images[: o.tune_on], p.images[: o.scored]
        yield "raw", p.images, 0.0
        for title, one in self.filters.items():
            yield self._timed(title, few if title in SLOW else p.images, partial(_filtered, one, o.sigma))
        yield self._timed("DAE, not tuned", p.images, partial(autoencoders.run, self.single))
        how = FitOptions(epochs=o.tune_epochs, rate=o.tune_rate, falling=True, seed=o.seed)
        tuned = autoencoders.tuned(self.single, some, how, aligned=o.in_plane, progress=self.progress)
        yield self._timed("DAE", p.images, partial(autoencoders.run, tuned))
        other = autoencoders.on_means(some, self._from_nothing(), progress=self.progress)
        yield self._timed("DAE on means", p.images, partial(autoencoders.run, other))
        for title, bundle in self.cascades.items():
            yield self._timed(f"{title}, not tuned", p.images, partial(cascaded, bundle))
            for target in o.targets:
                tuned_as = title + TUNED[target]
                notes[tuned_as], finer = self._tuned(name, bundle, some, target)
                yield self._timed(tuned_as, p.images, partial(cascaded, finer))

    def _from_nothing(self) -> FitOptions:
        # Small batches: as many steps as the paper's 4000 images make in batches of 64.
        return FitOptions(epochs=self.options.epochs, batch=16, rate=self.options.rate, seed=self.options.seed)

    def _timed(self, name: str, images: Floats, run: Callable[[Floats], Floats]) -> tuple[str, Floats, float]:
        began = time.monotonic()
        found = run(images)
        self.progress(f"denoise: {name}", len(images), len(images))
        return name, found, (time.monotonic() - began) / len(images)

    def _tuned(self, name: str, bundle: Bundle, images: Floats, target: str) -> tuple[Row, Bundle]:
        """A cascade fine-tuned on these images, kept whether it is better or not, as in the paper; and its scores."""
        o = self.options
        folder = f"{name}-{bundle.card.name}-{digest([bundle.card.sha256, target, asdict(o)])}"
        options = TuneOptions(
            out=self.out / "tuned" / folder,
            name="tuned",
            target=target,
            epochs=o.tune_epochs,
            aligned=o.in_plane,
            rate=o.tune_rate,
            validation=0.05,
            seed=o.seed,
            resume=True,
            anyway=True,
            source=f"{name}, simulated",
        )
        made = finetune(bundle, images, options, self.progress)
        assert made is not None, "nobody told it to stop"
        told = {name: made.to_json()[name] for name in ("before", "after", "error", "better")}
        # A training that diverged leaves nothing behind.
        return told, load_bundle(made.path) if made.path else bundle

    def _clusters(self, name: str, images: Floats, orientation: Ints) -> Row:
        """Scores of k-means, and of Ward's for the raw images and the cascades', on images of known orientation."""
        o = self.options
        vectors = features(images).spectra if o.in_plane else rows_of(images)
        found = {f"{name} + k-means": self._group(vectors, o.in_plane)}
        cascade = name in {title + ending for title in self.cascades for ending in TUNED.values()}
        if name == "raw" or cascade:
            found[f"{name} + Ward"] = self._group(vectors, o.in_plane, "ward")
        if cascade and not o.in_plane:
            found[f"{name}, equalised + k-means"] = self._group(rows_of(equalised(images)))
        return {title: cluster_scores(orientation, label).to_json() for title, label in found.items()}

    def _group(self, vectors: npt.NDArray[Any], turning: bool = False, method: Method = "kmeans") -> Ints:
        o = self.options
        with warnings.catch_warnings():
            # A network that collapsed makes the same image of all; that this is one cluster is for the score to tell.
            warnings.filterwarnings("ignore", "Number of distinct clusters")
            return GROUPERS[turning, method](vectors, o.orientations, o.seed, self.progress).label

    def _of_features(self, p: Particles) -> Row:
        """Clusters of principal components, and of what a plain autoencoder keeps."""
        net = autoencoders.plain(p.images[: self.options.tune_on], self._from_nothing(), self.progress)
        found = {
            "PCA + k-means": principal(rows_of(p.images), COMPONENTS, self.options.seed),
            "CAE + k-means": rows_of(autoencoders.latent(net, p.images)),
        }
        return {n: cluster_scores(p.orientation, self._group(rows)).to_json() for n, rows in found.items()}

    def _keep(self, name: str, shown: Mapping[str, Floats]) -> str:
        """Write a few images of each method, for pictures; the file's name from ``out``."""
        path = self.out / "shown" / f"{name}-{digest(asdict(self.options))}.npz"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(path, allow_pickle=False, **shown)
        return str(path.relative_to(self.out))


def ratios_of(found: Floats, clean: Floats) -> Row:
    """Mean peak signal-to-noise ratios in dB with intervals, without and with histogram equalisation of ``found``.

    ``fit``: after the best gain and offset. ``scaled``: both images to 0..1. The truth is never equalised.
    """
    equal = equalised(found)
    values = {
        "fit": psnr_fit(found, clean),
        "scaled": psnr(found, clean),
        "fit_equalised": psnr_fit(equal, clean),
        "scaled_equalised": psnr(equal, clean),
    }
    return {name: asdict(mean_interval(each)) for name, each in values.items()}


def _filtered(one: Candidate, sigma: float, images: Floats) -> Floats:
    return one.run(images, sigma)


def cascaded(bundle: Bundle, images: Floats) -> Floats:
    """What the cascade of a bundle makes of images (n, 64, 64), block by block."""
    for block in network(bundle).blocks:
        assert isinstance(block, Block)
        images = autoencoders.run(block, images)
    return images


def digest(about: Any) -> str:
    """A short name for what JSON can hold."""
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:12]
