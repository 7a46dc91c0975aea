"""``beamsieve evaluate particles``: average precision, F-scores and curves of pickers, on files or simulated fields."""

from __future__ import annotations

import re
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..flow.settings import ConfigError
from .bars import bars
from .mistakes import user_mistakes
from .run import config_errors, write_json
from .scores_table import draw, show
from .train_particles import SETTABLE, changes

if TYPE_CHECKING:
    from ...models.particles.maps import Volume
    from ...models.particles.study import Row, Study

DEFAULT_BUNDLE = "particles-general"
SNRS = "0.1,0.03,0.01,0.005,0.001"
OF_A_STUDY = ("epochs", "validation", "preset", "box", "pixel_a", "threads")
"""Options of trainings that have options of their own in ``train particles``, and none here."""


@dataclass(frozen=True, slots=True)
class Asked:
    """The options, checked."""

    micrographs: tuple[Path, ...]
    bundles: tuple[str, ...]
    coordinates: tuple[Path, ...]
    also: tuple[Path, ...]
    field_name: str | None
    pixel_size: float | None
    diameter: float | None
    simulate: str | None
    snrs: tuple[float, ...]
    map: str
    count: int
    train_at_each_snr: bool
    sizes: tuple[int, ...]
    folds: int
    train_on: int
    recipe: str
    changes: dict[str, Any]
    baselines: bool
    seed: int


def particles(
    micrographs: Annotated[list[Path] | None, typer.Argument(help="files, or folders of them")] = None,
    bundle: Annotated[
        list[str] | None,
        typer.Option(help=f"name of a model, or the path of its .pt file; repeatable. Default: {DEFAULT_BUNDLE}"),
    ] = None,
    coordinates: Annotated[
        list[Path] | None, typer.Option(help="files or folders of them (.box .star .csv …); default: beside")
    ] = None,
    pixel_size: Annotated[float | None, typer.Option(help="ångström per pixel, where the files do not say")] = None,
    diameter: Annotated[
        float | None, typer.Option(help="of the particle in ångström; default: the card's, or the map's")
    ] = None,
    simulate: Annotated[str | None, typer.Option(help="conditions: paper, clean, crowded, carbon …")] = None,
    snr: Annotated[str | None, typer.Option(help=f"signal-to-noise ratios. Default: {SNRS}")] = None,
    map_: Annotated[
        str, typer.Option("--map", help="of --simulate: built-in map or file, with @ÅNGSTRÖM per voxel")
    ] = "ribosome",
    count: Annotated[int, typer.Option("--micrographs", min=1, help="simulated for the test")] = 10,
    train_at_each_snr: Annotated[bool, typer.Option("--train-at-each-snr", help="the paper's Fig. 6")] = False,
    training_size: Annotated[
        str | None, typer.Option(help="numbers of particles, as 100,400,800,1200: the paper's Fig. 4")
    ] = None,
    folds: Annotated[int | None, typer.Option(min=2, help="cross-validation on the given micrographs")] = None,
    field_name: Annotated[
        str | None, typer.Option(help="regular expression: the part of a name that two pictures of a field share")
    ] = None,
    also: Annotated[list[Path] | None, typer.Option(help="with --folds: trained on too, never tested")] = None,
    train_on: Annotated[int, typer.Option(min=2, help="simulated micrographs per training")] = 12,
    recipe: Annotated[str, typer.Option(help="of trainings: paper or modern")] = "modern",
    set_: Annotated[list[str] | None, typer.Option("--set", help="option of trainings: epochs=20; repeatable")] = None,
    baselines: Annotated[bool, typer.Option(help="pickers without a network beside it")] = True,
    seed: Annotated[int, typer.Option(min=0, max=999_999, help="of the test micrographs and the folds")] = 0,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="keeps every row and bundle: a killed run goes on")
    ] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="write all scores to this file")] = None,
    pictures: Annotated[Path | None, typer.Option(help="folder for curves and picks")] = None,
) -> None:
    """Score pickers on micrographs whose particles are known: average precision, F-scores, centre errors.

    Particles and picks are matched one-to-one within 0.2 and 0.5 diameters; all particles count, found or not, but for
    those within half a diameter of the edge. Intervals are 95 %, by bootstrap over micrographs.
    Exit code 1: a file cannot be read or written. 2: a wrong option, model or map.
    """
    with user_mistakes(), config_errors():
        asked = Asked(
            micrographs=tuple(micrographs or ()),
            bundles=tuple(bundle or ()),
            coordinates=tuple(coordinates or ()),
            also=tuple(also or ()),
            field_name=_pattern(field_name),
            pixel_size=pixel_size,
            diameter=diameter,
            simulate=simulate,
            snrs=_numbers("--snr", snr or SNRS, float),
            map=map_,
            count=count,
            train_at_each_snr=train_at_each_snr,
            sizes=_numbers("--training-size", training_size, int) if training_size else (),
            folds=folds or 0,
            train_on=train_on,
            recipe=recipe,
            changes=changes(set_ or [], (*SETTABLE, *OF_A_STUDY)),
            baselines=baselines,
            seed=seed,
        )
        _consistent(asked, snr is not None)
        with tempfile.TemporaryDirectory(prefix="beamsieve-") as scratch:
            tables = _evaluate(asked, out or Path(scratch), pictures)
    for title, rows in tables.items():
        show(title, rows)
    if pictures:
        with user_mistakes():
            draw(tables, pictures)
    if json_file:
        write_json(json_file, tables)


def _numbers(option: str, text: str, kind: type) -> tuple[Any, ...]:
    try:
        values = tuple(kind(part) for part in text.split(","))
    except ValueError:
        raise ConfigError([f"{option} {text}: not numbers with commas between them"]) from None
    if any(not 0 < value < 1e9 for value in values):
        raise ConfigError([f"{option} {text}: must be above 0"])
    return values


def _pattern(text: str | None) -> str | None:
    try:
        return re.compile(text).pattern if text else None
    except re.error as error:
        raise ConfigError([f"--field-name {text}: not a regular expression: {error}"]) from None


def _consistent(asked: Asked, snr_given: bool) -> None:
    """Raises ``ConfigError`` for options that say nothing, or contradict each other."""
    on_files, rules = bool(asked.micrographs), []
    if not on_files and asked.simulate is None:
        rules.append("nothing to evaluate on: name micrographs, or conditions with --simulate paper")
    if on_files and asked.simulate is not None:
        rules.append("micrographs and --simulate: give one of the two")
    if asked.simulate is None and (asked.train_at_each_snr or asked.sizes or snr_given):
        rules.append("--snr, --train-at-each-snr, --training-size: need --simulate")
    if asked.folds and not on_files:
        rules.append("--folds: needs micrographs with coordinates")
    if asked.folds and asked.diameter is None:
        rules.append("--folds: needs --diameter, the particle's in ångström")
    if asked.also and not asked.folds:
        rules.append("--also: needs --folds")
    if asked.folds and asked.bundles:
        rules.append("--folds trains its own networks: leave --bundle out")
    if rules:
        raise ConfigError(rules)


def _evaluate(asked: Asked, out: Path, pictures: Path | None) -> dict[str, list[Row]]:
    """All the tables that were asked for, by title."""
    from ...models.particles.study import Study
    from ...models.progress import Lines

    with bars() as shown:
        volume = _volume(asked)
        study = Study(
            out=out,
            diameter_a=asked.diameter or (volume.diameter_a if volume else _card_diameter(asked)),
            progress=shown or Lines(),
            recipe=asked.recipe,
            changes=asked.changes,
            seed=asked.seed,
            pictures=pictures,
        )
        return _on_simulated(asked, study, volume) if volume else _on_files(asked, study)


def _volume(asked: Asked) -> Volume | None:
    if asked.simulate is None:
        return None
    from .training_set import volume

    return volume(asked.map)


def _bundles(asked: Asked) -> tuple[str, ...]:
    return asked.bundles or (DEFAULT_BUNDLE,)


def _card_diameter(asked: Asked) -> float:
    from ...models.bundle import load_bundle

    card = load_bundle(_bundles(asked)[0]).expect(task="particles").card
    return card.input.diameter_a or 0.0


def _on_simulated(asked: Asked, study: Study, volume: Volume) -> dict[str, list[Row]]:
    from ...models.particles.experiments import by_size, by_snr
    from ...models.particles.simulator import named

    conditions = named(asked.simulate or "paper")
    tables: dict[str, list[Row]] = {}
    said = f"{volume.name}, conditions {asked.simulate}, {asked.count} micrographs"
    if not asked.sizes or asked.train_at_each_snr or asked.bundles:
        tables[f"By signal-to-noise ratio: {said}"] = by_snr(
            study,
            conditions,
            asked.snrs,
            volume,
            micrographs=asked.count,
            bundles=asked.bundles if asked.train_at_each_snr else _bundles(asked),
            train_on=asked.train_on if asked.train_at_each_snr else 0,
            with_baselines=asked.baselines,
        )
    if asked.sizes:
        snr = asked.snrs[0]
        tables[f"By training size: {said}, SNR {snr:g}"] = by_size(
            study,
            named(asked.simulate or "paper", snr=snr),
            asked.sizes,
            volume,
            micrographs=asked.count,
            train_on=asked.train_on,
        )
    return tables


def _on_files(asked: Asked, study: Study) -> dict[str, list[Row]]:
    from functools import partial

    from ...models.particles.experiments import by_fold
    from ...models.particles.fields import Field
    from ...models.particles.study import of_bundle, told_of
    from .labelled import Reading, read_labelled
    from .pick import find

    how = Reading(asked.coordinates, asked.pixel_size, field_of=partial(field_of, asked.field_name))
    given = read_labelled(find(asked.micrographs), how)
    if asked.folds:
        also = read_labelled(find(asked.also), how) if asked.also else []
        title = f"{asked.folds} folds of {len(given)} micrographs"
        rows = by_fold(study, given, asked.folds, field_of=how.field_of, also=also, with_baselines=asked.baselines)
        return {title: rows}
    entrants = [of_bundle(bundle, study.diameter_a) for bundle in _bundles(asked)]
    title = f"{len(given)} micrographs"
    return {title: study.compare(title, entrants, [partial(Field.of, m) for m in given], told_of(given))}


def field_of(pattern: str | None, name: str) -> str:
    """The part of a micrograph's name that names its field: what the pattern finds, or all of it."""
    found = re.search(pattern, name) if pattern else None
    return found.group(0) if found else name
