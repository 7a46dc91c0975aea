"""What tables of scores are made with: rows that are kept, trainings that go on, simulated series, pickers by name.

A row costs minutes to hours, so each is written to a file of its own as soon as it is known, and a run that was killed
goes on with the next one. Files are named by what they were computed from: other settings are another file.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from ..bundle import load_bundle
from .baselines import fit_gaussians, fit_template
from .candidates import Labelled
from .evaluate import BORDER, RADII, score
from .fields import Field, Found, Pick, Progress, find
from .maps import Volume
from .pick import Picker, PickOptions
from .recipes import make_options
from .report import draw_picks
from .simulator import Conditions, simulate
from .train import train

Row = dict[str, Any]
FLOOR = 1e-3
"""Candidates below this score are not kept; lower than the product's, so that the end of the curve is there."""
FITTED = 3
"""Training micrographs that the pickers without a network are fitted on."""


@dataclass(frozen=True, slots=True)
class Series:
    """``count`` simulated fields of the endless series ``seed``."""

    seed: int
    count: int
    conditions: Conditions
    volume: Volume

    def field(self, number: int) -> Field:
        """Field ``number``, made when it is asked for, so that not all are in memory."""
        return Field.simulated(simulate(self.seed, number, self.conditions, self.volume))

    def fields(self) -> list[Callable[[], Field]]:
        """One function per field, which makes it."""
        return [partial(self.field, number) for number in range(self.count)]

    def identity(self) -> Row:
        """What they are made from."""
        return {
            "seed": self.seed,
            "micrographs": self.count,
            "conditions": asdict(self.conditions),
            "map": self.volume.name,
            "map_sha256": hashlib.sha256(np.ascontiguousarray(self.volume.data).tobytes()).hexdigest()[:16],
        }


def told_of(micrographs: Sequence[Labelled]) -> Row:
    """What tells labelled micrographs from others: their names and centres."""
    centres = [np.concatenate([m.x, m.y, m.wrong_x, m.wrong_y]).astype("<f4").tobytes() for m in micrographs]
    return {
        "micrographs": [m.name for m in micrographs],
        "centres_sha256": hashlib.sha256(b"|".join(centres)).hexdigest()[:16],
    }


def as_labelled(one: Field) -> Labelled:
    """A field as a training takes it; the image stays in memory."""
    none = one.x[:0]
    return Labelled(one.name, lambda: one.image, one.pixel_a, one.x, one.y, none, none)


@dataclass(frozen=True, slots=True)
class Entrant:
    """A picker that takes part: its name, what it is (for the row's file), and how it is made.

    ``make`` gives the picker and the threshold in force, or None: then that of its best F2 on the test micrographs.
    """

    name: str
    identity: Mapping[str, Any]
    make: Callable[[], tuple[Pick, float | None]]


@dataclass(frozen=True, slots=True)
class Study:
    """Where rows and bundles are kept, how trainings are done, who is told of progress, and what scores are about.

    ``recipe`` and ``changes``: what ``make_options`` is given. ``border``: see ``score``. ``seed``: of everything.
    ``pictures``: folder for the picks of each row's first micrograph; None: none are drawn.
    """

    out: Path
    diameter_a: float
    progress: Progress
    recipe: str = "modern"
    changes: Mapping[str, Any] = field(default_factory=dict)
    border: float = BORDER
    seed: int = 0
    pictures: Path | None = None

    def row(self, name: str, identity: Mapping[str, Any], compute: Callable[[], Row]) -> Row:
        """What ``compute`` gives, or gave in an earlier run with the same ``identity``. Raises ``OSError``."""
        about = {"diameter_a": self.diameter_a, "border": self.border, **identity}
        path = self.out / "rows" / f"{_slug(name)}-{_hash(about)}.json"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            partial_ = path.with_suffix(".inprogress")
            partial_.write_text(json.dumps({**compute(), "identity": about}, indent=1, allow_nan=False))
            partial_.replace(path)
        row: Row = json.loads(path.read_text())
        return row

    def trained(
        self,
        name: str,
        identity: Mapping[str, Any],
        micrographs: Callable[[], Sequence[Labelled]],
        held: Sequence[str] = (),
        **changes: Any,
    ) -> Path:
        """The bundle of a training; one that was finished is not done again, one that was begun goes on.

        ``identity``: of the micrographs. ``held``: names of those that validate; none: a share, drawn from the seed.
        Raises as ``train``.
        """
        options = make_options(self.out, self.diameter_a, self.recipe, resume=True, **{**self.changes, **changes})
        about = {"options": options.identity(), **identity, "held": list(held)}
        folder = self.out / "trained" / f"{_slug(name)}-{_hash(about)}"
        finished = folder / "finished"
        if not finished.exists():
            again = make_options(folder, self.diameter_a, self.recipe, resume=True, **{**self.changes, **changes})
            made = train(again, micrographs(), self.progress, held=held)
            if made is None:
                raise ValueError(f"{folder}: the training was told to stop early")
            finished.write_text(made.name)
        return folder / finished.read_text()

    def compare(
        self, title: str, entrants: Sequence[Entrant], test: Sequence[Callable[[], Field]], identity: Mapping[str, Any]
    ) -> list[Row]:
        """A row per entrant on the same test micrographs, which ``identity`` tells."""
        rows = []
        for one in entrants:
            about = {"picker": one.name, **one.identity, "test": dict(identity)}
            name = f"{title} {one.name}"
            rows.append(self.row(name, about, partial(self._scored_by, title, one, test)))
            self.draw(name, one.make, test[0], rows[-1]["scores"]["threshold"])
        return rows

    def draw(
        self, name: str, make: Callable[[], tuple[Pick, float | None]], field: Callable[[], Field], threshold: float
    ) -> None:
        """Draw the picks on a field, unless there are to be no pictures or it is there. Raises ``OSError``."""
        if self.pictures is None or (self.pictures / f"{_slug(name)}.png").exists():
            return
        self.pictures.mkdir(parents=True, exist_ok=True)
        shown = field()
        found = find(make()[0], [shown])[0]
        path = self.pictures / f"{_slug(name)}.png"
        draw_picks(path, shown.image, found, threshold, self.diameter_a, title=f"{name}: {shown.name}")

    def _scored_by(self, title: str, one: Entrant, test: Sequence[Callable[[], Field]]) -> Row:
        pick, threshold = one.make()
        found = find(pick, (make() for make in test), self.progress, len(test))
        return {"row": title, "picker": one.name, **self.scored(found, threshold)}

    def scored(self, found: Sequence[Found], threshold: float | None) -> Row:
        """Scores as plain values; without a threshold, at that of the best F2, which the row then says."""
        chosen = threshold
        if chosen is None:
            best = score(found, self.diameter_a, threshold=0, border=self.border).at[RADII[0]].best_f2
            chosen = best.threshold if best else 0.0
        scores = score(found, self.diameter_a, threshold=chosen, border=self.border)
        said = "best F2 on the test micrographs" if threshold is None else "bundle"
        return {"threshold_from": said, "scores": scores.to_json()}


def _hash(about: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:12]


def _slug(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9.]+", "-", name).strip("-")


def deepem(bundle: Path | str, diameter_a: float | None = None) -> tuple[Pick, float | None]:
    """The picker of a bundle as evaluations take it, and its threshold. Raises ``BundleError``."""
    picker = Picker(load_bundle(bundle), PickOptions(floor=FLOOR), device="cpu", diameter_a=diameter_a)
    return picker.pick, picker.threshold


def of_bundle(bundle: Path | str, diameter_a: float) -> Entrant:
    """A bundle as it is. Raises ``BundleError``."""
    card = load_bundle(bundle).expect(task="particles").card
    return Entrant(card.name, {"bundle": card.sha256}, partial(deepem, bundle, diameter_a))


def without_network(
    study: Study, training: Sequence[Callable[[], Field]], identity: Mapping[str, Any]
) -> list[Entrant]:
    """Difference of Gaussians and radial template, fitted on the first few training micrographs."""

    @cache
    def some() -> list[Field]:
        return [make() for make in training[:FITTED]]

    def fitted(fit: Callable[[Sequence[Field], float], Pick]) -> tuple[Pick, float | None]:
        return fit(some(), study.diameter_a), None

    about = {"fitted_on": dict(identity), "first": FITTED}
    return [
        Entrant("difference of Gaussians", about, partial(fitted, fit_gaussians)),
        Entrant("radial template", about, partial(fitted, fit_template)),
    ]
