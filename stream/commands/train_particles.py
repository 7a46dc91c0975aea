"""``beamsieve train particles``: a picker from labelled micrographs, from simulated ones, or from corrected picks."""

from __future__ import annotations

import difflib
import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..flow.settings import ConfigError
from .marked_picks import completed, marked_micrographs, marks_among
from .mistakes import user_mistakes
from .run import config_errors

if TYPE_CHECKING:
    from ...models.particles.pick import Picker
    from ...models.particles.recipes import Options, Progress
    from .training_set import Files, Simulation

CONTINUED = {"modern": {"epochs": 10, "rate": 2e-3}, "paper": {}}
"""What going on from a bundle changes of a recipe: it need not learn from nothing."""
SETTABLE = (
    *("maps", "activation", "batch_norm", "loss", "sigma", "cells", "negatives", "away", "share", "near", "hard"),
    *("contrast", "noise", "optimiser", "rate", "decay", "cosine", "batch", "steps", "accuracy", "mining", "beta"),
)
NUMBER = re.compile(r"[-+]?[\d.]+[eE][-+]?\d+")


def particles(
    micrographs: Annotated[list[Path] | None, typer.Argument(help="files, or folders of them")] = None,
    *,
    out: Annotated[Path, typer.Option("--out", "-o", help="folder for checkpoint, log, pictures and bundle")],
    coordinates: Annotated[
        list[Path] | None, typer.Option(help="files or folders of them (.box .star .csv .json …); default: beside")
    ] = None,
    pixel_size: Annotated[float | None, typer.Option(help="ångström per pixel, where the files do not say")] = None,
    diameter: Annotated[float | None, typer.Option(help="of the particle in ångström")] = None,
    recipe: Annotated[str | None, typer.Option(help="modern, or paper: as published")] = None,
    preset: Annotated[str | None, typer.Option(help="published network: klh, 19s, 26s, inflammasome")] = None,
    box: Annotated[int | None, typer.Option(min=24, help="edge of the network's box in its pixels")] = None,
    input_pixel: Annotated[float | None, typer.Option(help="ångström per pixel of the network's input")] = None,
    simulate: Annotated[str | None, typer.Option(help="conditions instead of files: paper,contaminated …")] = None,
    snr: Annotated[str, typer.Option(help="signal-to-noise ratios of --simulate: 0.1,0.03")] = "0.1",
    map_: Annotated[
        list[str] | None,
        typer.Option("--map", help="of --simulate: built-in map or file, with @ÅNGSTRÖM per voxel; repeatable"),
    ] = None,
    count: Annotated[int, typer.Option("--micrographs", min=2, help="simulated")] = 24,
    binned: Annotated[int, typer.Option(min=1, max=8, help="simulate so many times coarser pixels")] = 1,
    start: Annotated[str | None, typer.Option("--from", help="bundle to go on from: a name, or its .pt file")] = None,
    add: Annotated[
        list[Path] | None,
        typer.Option(help="corrected picks of MICROGRAPHS (with a column verdict), or marks.jsonl of the live page"),
    ] = None,
    positives: Annotated[int | None, typer.Option(min=10, help="train from so many particles and no more")] = None,
    validation: Annotated[float | None, typer.Option(help="share of the micrographs held back. Default: 0.2")] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="default: the recipe's")] = None,
    seed: Annotated[int | None, typer.Option(min=0, max=2**31, help="of everything random. Default: 1")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="any other option: hard=0.3; repeatable")] = None,
    invert_y: Annotated[bool, typer.Option("--invert-y", help="coordinates count rows from the bottom")] = False,
    box_size: Annotated[int | None, typer.Option(help="of corner coordinates without one, in pixels")] = None,
    name: Annotated[str | None, typer.Option(help="of the bundle. Default: particles")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="default: all cores")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="go on from the checkpoint in --out")] = False,
) -> None:
    """Train a picker (DeepEM) to find particles like those that are marked.

    All particles of a micrograph must be marked: what is not counts as background. About 20 % of the micrographs are
    held back, to say when to stop and which threshold to take. Use the bundle with --bundle OUT/particles.pt.

    The loop of Zhu et al. (2017): pick other micrographs, correct the picks (CSV with micrograph, x, y, verdict: right
    or wrong), and go on: beamsieve train particles OTHERS --from OUT/particles.pt --add corrected.csv --out NEW.
    The new ones join what the bundle was trained on, which is remembered beside it.
    Marks of the live page (--add marks.jsonl) are of some picks only: the micrographs, which they name, are picked with
    the bundle at the threshold of that time; all picks but those marked wrong then count as particles.

    Exit code 1: a file cannot be read or written. 2: a wrong option.
    """
    given = locals()
    from ...models.progress import Lines
    from .bars import bars

    with user_mistakes(), config_errors():
        asked = _Asked(given)
        with bars() as shown:
            made = asked.train(shown or Lines())
    typer.echo(f"{made}: use it with --bundle {made}; pictures and scores.json lie beside it")


class _Asked:
    """What the options ask for: where the micrographs come from, and how to train."""

    def __init__(self, given: dict[str, Any]) -> None:
        self.g = given
        self.files: list[Path] = given["micrographs"] or []
        self.marks = bool(given["add"]) and marks_among(given["add"])
        used = (given["out"] / "checkpoint.pt").exists() and not given["resume"]
        rules = {
            "nothing to train from: name micrographs, or conditions with --simulate paper": self.files
            or given["simulate"]
            or given["add"],
            "--simulate makes its own micrographs: leave the files out": not (self.files and given["simulate"]),
            "--add belongs to a bundle to go on from: give --from": not given["add"] or given["start"],
            "--add takes the coordinates: leave --coordinates out": not (given["add"] and given["coordinates"]),
            "--add: name the micrographs that the corrections are of": not given["add"] or self.files or self.marks,
            f"--out {given['out']}: holds a training; go on with --resume, or name another folder": not used,
            "--diameter: state the particle's, in ångström": given["diameter"] or given["simulate"] or given["start"],
        }
        mistakes = [text for text, right in rules.items() if not right]
        if mistakes:
            raise ConfigError(mistakes)

    def train(self, progress: Progress) -> Path:
        """Read or simulate, train, remember what was trained on."""
        from ...models.particles.train import train
        from .training_set import TrainingSet

        source = self._source(progress)
        options = self._options()
        before = TrainingSet.of_bundle(self.g["start"]) if self.g["add"] else TrainingSet()
        old, new = before.labelled(progress), source.labelled(progress)
        data = before.joined(source, old, new).holding(new, options.validation, options.seed)
        data.write(options.out)
        made = train(options, [*old, *new], progress, held=data.held)
        assert made is not None  # it is None only where it was told to stop early
        return made

    def _source(self, progress: Progress) -> Files | Simulation:
        """What is given to train on, checked as far as can be without reading images; marked micrographs are picked."""
        from .labelled import Reading
        from .pick import find
        from .training_set import Files, Simulation

        g = self.g
        if g["simulate"]:
            maps = tuple(g["map_"] or ["ribosome"])
            mixed = (_words(g["simulate"]), _numbers(g["snr"]), maps)
            simulation = Simulation(*mixed, g["count"], 1 if g["seed"] is None else g["seed"], g["binned"])
            simulation.check()
            return simulation
        how = Reading(tuple(g["add"] or g["coordinates"] or ()), g["pixel_size"], g["box_size"], g["invert_y"])
        files = find(self.files)
        if not self.marks:
            return Files.read(files, how)
        return completed(Files.read(marked_micrographs(g["add"], files), how), g["add"], self._picker(), progress)

    def _picker(self) -> Picker:
        """The bundle to go on from, as it picks what was not marked."""
        from ...models.bundle import load_bundle
        from ...models.particles.pick import Picker

        return Picker(
            load_bundle(self.g["start"]), device="cpu", threads=self.g["threads"], diameter_a=self.g["diameter"]
        )

    def _diameter_a(self) -> float:
        from .training_set import volume

        maps = self.g["map_"] or ["ribosome"]
        return self.g["diameter"] or volume(maps[0]).diameter_a

    def _options(self) -> Options:
        from ...models.bundle import load_bundle
        from ...models.particles.deepem import layout_of
        from ...models.particles.recipes import make_options

        g = self.g
        kept: dict[str, Any] = {}
        recipe, diameter = g["recipe"] or "modern", g["diameter"]
        if g["start"]:
            bundle = load_bundle(g["start"]).expect(task="particles")
            layout = layout_of(bundle.module)
            kept = {"box": layout.box, "maps": layout.maps, "pixel_a": bundle.card.input.pixel_a}
            kept |= {"start": str(g["start"]), **CONTINUED.get(recipe, {})}
            diameter = diameter or bundle.card.input.diameter_a
        said = {n: g[n] for n in ("preset", "box", "positives", "validation", "epochs", "seed", "name", "threads")}
        said |= {"pixel_a": g["input_pixel"], "resume": g["resume"] or None}
        said |= {"command": shlex.join(["beamsieve", *sys.argv[1:]])}
        said = {n: value for n, value in said.items() if value is not None}
        said |= changes(g["set_"] or [])
        return make_options(g["out"], diameter or self._diameter_a(), recipe, **{**kept, **said})


def _words(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(","))


def _numbers(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(word) for word in text.split(","))
    except ValueError:
        raise ConfigError([f"--snr {text}: not numbers with commas between them"]) from None


def changes(pairs: list[str], names: Sequence[str] = SETTABLE) -> dict[str, Any]:
    """``--set name=value``: options of a training among ``names``, by name. Raises ``ConfigError``."""
    import yaml

    found: dict[str, Any] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or name not in names:
            near = difflib.get_close_matches(name, names, 1)
            hint = f"did you mean {near[0]}?" if near else f"name one of {', '.join(names)}"
            raise ConfigError([f"--set {pair}: give name=value; {hint}"])
        number = yaml.safe_load(value)
        # YAML takes 1e-3 for a word.
        found[name] = float(number) if isinstance(number, str) and NUMBER.fullmatch(number) else number
        if isinstance(number, list):
            found[name] = tuple(number)
    return found
