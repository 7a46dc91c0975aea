"""The paper's experiment from a seed: denoise and cluster proteins that no training saw, beside other methods.

Lei and Yang 2021, section 4: pre-train on one protein, fine-tune on the images of another without their truth, measure
the peak signal-to-noise ratio of what is denoised and how well clusters agree with orientations. A protein's row costs
minutes, so it is written to a file of its own as soon as it is known, named by what it was computed from: a run that
was killed goes on with the next one.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..bundle import load_bundle
from ..particles.maps import Volume
from . import autoencoders
from .autoencoders import FitOptions
from .baselines import Candidate, candidates, choose
from .cdae import Block
from .simulator import Particles, particles
from .study_methods import Floats, Methods, Progress, Row, StudyOptions, digest

DEFOCUS_UM = (1.0, 2.5)
_FILTERS, _SINGLE, _TEST = 1_000_003, 2_000_003, 3_000_017
"""Seeds of images that choose filters, train the single autoencoder, and test: no two sets are drawn alike."""


@dataclass(frozen=True, slots=True)
class Study:
    """``out``: folder of all rows and networks. ``cascades``: bundles by what they are called in tables.

    ``train``: the map that the single autoencoder learns from, which is the one that the first cascade learnt from.
    ``validation``: maps on which the filters' parameters are chosen. None of these may be tested.
    """

    out: Path
    options: StudyOptions
    cascades: Mapping[str, str | Path]
    train: Volume
    validation: tuple[Volume, ...]
    progress: Progress

    def run(self, volumes: tuple[Volume, ...]) -> Row:
        """Scores of all methods on all proteins, and what they were made with; ``study_report`` tells of it.

        Raises ``BundleError`` for a cascade that is none, ``OSError`` where ``out`` cannot be written.
        """
        bundles = {title: load_bundle(place).expect(task="classes2d") for title, place in self.cascades.items()}
        filters = self.filters()
        methods = Methods(self.out, self.options, bundles, self.single(), filters, self.progress)
        return {
            "options": asdict(self.options),
            "trained_on": self.train.name,
            "validated_on": [volume.name for volume in self.validation],
            "cascades": {title: {"name": b.card.name, "sha256": b.card.sha256} for title, b in bundles.items()},
            "filters": {name: one.parameters for name, one in filters.items()},
            "proteins": [self._protein(volume, methods) for volume in volumes],
        }

    def _protein(self, volume: Volume, methods: Methods) -> Row:
        about = {
            "map": volume.name,
            "cascades": {title: bundle.card.sha256 for title, bundle in methods.cascades.items()},
            "filters": {name: one.parameters for name, one in methods.filters.items()},
        }

        def compute() -> Row:
            images = self.simulated(volume, self.options.images, _TEST + self.options.seed)
            size = {"diameter_a": volume.diameter_a, "pixel_a": self.options.pixel_share * volume.diameter_a}
            return {"protein": volume.name, **size, **methods.scored(volume.name, images)}

        return self.row(volume.name, about, compute)

    def simulated(self, volume: Volume, images: int, seed: int) -> Particles:
        """Images of a protein under this study's conditions; ``images`` per orientation."""
        o = self.options
        return particles(
            volume,
            images * o.orientations,
            seed=seed,
            snr=o.snr,
            pixel_a=o.pixel_share * volume.diameter_a,
            orientations=o.orientations,
            ctf=DEFOCUS_UM if o.ctf else None,
            in_plane=o.in_plane,
        )

    def filters(self) -> dict[str, Candidate]:
        """Each filter with the parameters that are best on the validation maps under this study's conditions."""
        o = self.options
        each = max(1, o.validation // (len(self.validation) * o.orientations))
        parts = [self.simulated(v, each, _FILTERS + 7 * o.seed + i) for i, v in enumerate(self.validation)]
        images, clean = (np.concatenate([getattr(p, name) for p in parts]) for name in ("images", "clean"))

        found = {}
        for name, tried in candidates().items():
            # What was tried belongs to the name of the row: its number is a place in this list.
            about = [[v.name for v in self.validation], [one.parameters for one in tried]]
            found[name] = tried[
                self.row(f"filter {name}", about, partial(_chosen, self, tried, images, clean))["number"]
            ]
        return found

    def single(self) -> Block:
        """The single denoising autoencoder: noisy images to clean ones of the protein that the cascade learnt from.

        Like the cascade it is pre-trained once, under the paper's conditions, whatever those of this study are.
        """
        o = self.options
        usual = StudyOptions()
        images = max(1, o.images * o.orientations // usual.orientations)
        own = replace(usual, seed=o.seed, images=images, epochs=o.epochs, rate=o.rate, pixel_share=o.pixel_share)
        path = self.out / f"dae-{digest([self.train.name, asdict(own)])}.pt"
        block = autoencoders.new_block(o.seed)
        if path.exists():
            block.load_state_dict(torch.load(path, weights_only=True))
            return block.eval()
        p = replace(self, options=own).simulated(self.train, images, _SINGLE + o.seed)
        how = FitOptions(epochs=o.epochs, rate=o.rate, seed=o.seed)
        autoencoders.fit(block, p.images, p.clean, how, "train single autoencoder", self.progress)
        self.out.mkdir(parents=True, exist_ok=True)
        torch.save(block.state_dict(), path)
        return block

    def row(self, name: str, about: Any, compute: Callable[[], Row]) -> Row:
        """What ``compute`` gives, or gave in an earlier run of the same options. Raises ``OSError``."""
        identity = {"about": about, "options": asdict(self.options), "train": self.train.name}
        path = self.out / "rows" / f"{name.replace(' ', '-')}-{digest(identity)}.json"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            part = path.with_suffix(".inprogress")
            part.write_text(json.dumps({**compute(), "identity": identity}, indent=1))
            part.replace(path)
        row: Row = json.loads(path.read_text())
        return row


def _chosen(study: Study, tried: list[Candidate], images: Floats, clean: Floats) -> Row:
    best, value = choose(tried, images, clean, study.options.sigma, study.progress)
    return {"number": tried.index(best), "psnr": value, "parameters": best.parameters}
