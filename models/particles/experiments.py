"""Tables of scores: at one signal-to-noise ratio after the other, by training size, by folds. All from a seed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from .candidates import Labelled
from .evaluate import RADII, score
from .fields import Field, Found, Pick, find
from .maps import Volume
from .simulator import Conditions
from .study import FITTED, Entrant, Row, Series, Study, as_labelled, deepem, of_bundle, told_of, without_network

TRAINING_SEED = 1_000_000
"""Is added to the seed of the test micrographs for those that are trained on."""


def by_snr(
    study: Study,
    conditions: Conditions,
    snrs: Sequence[float],
    volume: Volume,
    *,
    micrographs: int,
    bundles: Sequence[Path | str] = (),
    train_on: int = 0,
    with_baselines: bool = True,
) -> list[Row]:
    """A row per signal-to-noise ratio and picker; the test micrographs show the same particles at every ratio.

    With ``train_on`` micrographs, also networks trained at one ratio alone (Zhu et al. 2017, Fig. 6). Raises as
    ``train``, and ``BundleError``.
    """
    rows: list[Row] = []
    given = [of_bundle(bundle, study.diameter_a) for bundle in bundles]
    for snr in snrs:
        at = replace(conditions, snr=snr)
        test = Series(study.seed, micrographs, at, volume)
        training = Series(study.seed + TRAINING_SEED, max(train_on, FITTED), at, volume)
        entrants = list(given)
        if train_on:
            entrants.insert(0, _trained(study, "DeepEM, trained at this SNR", f"snr {snr:g}", training))
        if with_baselines:
            fitted_on = {**training.identity(), "micrographs": FITTED}
            entrants += without_network(study, training.fields(), fitted_on)
        made = study.compare(f"SNR {snr:g}", entrants, test.fields(), test.identity())
        rows += [{**row, "snr": snr} for row in made]
    return rows


def by_size(
    study: Study, conditions: Conditions, sizes: Sequence[int], volume: Volume, *, micrographs: int, train_on: int
) -> list[Row]:
    """Scores after training with so many particles and no more (Zhu et al. 2017, Fig. 4). Raises as ``train``."""
    test = Series(study.seed, micrographs, conditions, volume)
    training = Series(study.seed + TRAINING_SEED, train_on, conditions, volume)
    rows: list[Row] = []
    for size in sizes:
        entrant = _trained(study, "DeepEM", f"{size} particles", training, positives=size)
        made = study.compare(f"{size} particles", [entrant], test.fields(), test.identity())
        rows += [{**row, "size": size} for row in made]
    return rows


def _trained(study: Study, name: str, folder: str, training: Series, **changes: int) -> Entrant:
    """A network that is trained when it is needed."""

    def make() -> tuple[Pick, float | None]:
        def micrographs() -> list[Labelled]:
            return [as_labelled(one()) for one in training.fields()]

        bundle = study.trained(folder, training.identity(), micrographs, (), **changes)
        return deepem(bundle, study.diameter_a)

    told = {"recipe": study.recipe, "changes": {**study.changes, **changes}, "trained_on": training.identity()}
    return Entrant(name, told, make)


def folds_of(names: Sequence[str], folds: int, seed: int) -> dict[str, int]:
    """Which fold each field's name is in: as evenly as that goes, drawn from the seed. ``ValueError`` for too few."""
    fields = sorted(set(names))
    if not 2 <= folds <= len(fields):
        raise ValueError(f"{folds} folds of {len(fields)} fields: there must be from 2 to as many folds as fields")
    order = np.random.default_rng(seed).permutation(len(fields))
    return {fields[at]: place % folds for place, at in enumerate(order)}


def by_fold(
    study: Study,
    micrographs: Sequence[Labelled],
    folds: int,
    *,
    field_of: Callable[[str], str] = str,
    also: Sequence[Labelled] = (),
    with_baselines: bool = True,
) -> list[Row]:
    """Every micrograph picked by a network that was trained without its field: k-fold cross-validation.

    ``field_of``: which field a micrograph's name belongs to; all micrographs of a field are in one fold. ``also``:
    micrographs that are trained on (but for those of fields that test or validate); then it is the ``micrographs``
    that validate, because their kind is what the network is for. One row per picker: the candidates of all folds in
    one ranking, and ``fold_average_precision``, of each fold by itself. Raises as ``train``.
    """
    fold = folds_of([field_of(m.name) for m in micrographs], folds, study.seed)
    data = {"tested": told_of(micrographs), "also": told_of(also), "folds": folds, "seed": study.seed}

    def compute() -> Row:
        parts: dict[str, list[list[Found]]] = {}
        for number in range(folds):
            test = [m for m in micrographs if fold[field_of(m.name)] == number]
            own = [m for m in micrographs if fold[field_of(m.name)] != number]
            held = _held(own, field_of, study.seed) if also else []
            away = {field_of(name) for name in held} | {name for name, at in fold.items() if at == number}
            rest = [*own, *(m for m in also if field_of(m.name) not in away)]
            entrants = [_of_fold(study, f"fold {number + 1} of {folds}", rest, held)]
            if with_baselines:
                entrants += without_network(study, [partial(Field.of, m) for m in own], {})
            for one in entrants:
                made = one.make()
                parts.setdefault(one.name, []).append(find(made[0], test, study.progress, len(test)))
                if made[1] is not None:
                    study.draw(f"fold {number + 1} {one.name}", one.make, partial(Field.of, test[0]), made[1])
        return {"rows": [_pooled(study, name, found) for name, found in parts.items()]}

    identity = {"recipe": study.recipe, "changes": dict(study.changes), "baselines": with_baselines, **data}
    rows: list[Row] = study.row(f"{folds} folds", identity, compute)["rows"]
    return rows


def _held(own: Sequence[Labelled], field_of: Callable[[str], str], seed: int, share: float = 0.2) -> list[str]:
    """Names of the micrographs of about a fifth of the fields."""
    fields = sorted({field_of(m.name) for m in own})
    chosen = np.random.default_rng([seed, 1]).permutation(len(fields))[: max(1, round(share * len(fields)))]
    return [m.name for m in own if fields.index(field_of(m.name)) in chosen]


def _of_fold(study: Study, name: str, rest: Sequence[Labelled], held: Sequence[str]) -> Entrant:
    def make() -> tuple[Pick, float | None]:
        return deepem(study.trained(name, told_of(rest), lambda: rest, held), study.diameter_a)

    return Entrant("DeepEM", {}, make)


def _pooled(study: Study, name: str, parts: Sequence[Sequence[Found]]) -> Row:
    alone = [score(part, study.diameter_a, threshold=0, border=study.border) for part in parts]
    return {
        "row": f"{len(parts)} folds",
        "picker": name,
        **study.scored([one for part in parts for one in part], None),
        "fold_average_precision": {f"{r:g}": [one.at[r].average_precision.value for one in alone] for r in RADII},
    }
