"""Topaz's pretrained detectors on the micrographs that ours is scored on: ``python benchmarks/topaz.py --help``.

Topaz (Bepler et al. 2019) is run as an external program, never imported: its path comes from ``--topaz`` or the
variable ``TOPAZ``. It sees every micrograph binned by the same factor as DeepEM's input, so that the particle is
``--width`` pixels wide, and normalised by its own ``topaz normalize``. Its picks are matched and ranked by our code, as
all others are. Ours runs with one thread and one picture at a time, as Topaz does; Topaz's start (import, reading the
model) is measured with a tiny picture and taken off.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import mrcfile
import numpy as np
from beamsieve.models.particles.candidates import Candidates, Floats
from beamsieve.models.particles.fields import Field, Pick
from beamsieve.models.particles.prepare import rescale, to_full
from beamsieve.models.particles.simulator import named
from beamsieve.models.particles.study import Entrant, Row, Series, Study, of_bundle, told_of
from beamsieve.models.progress import Lines
from beamsieve.stream.commands.labelled import Reading, read_labelled
from beamsieve.stream.commands.pick import find as find_files
from beamsieve.stream.commands.scores_table import show
from beamsieve.stream.commands.training_set import volume as read_volume

MODELS = ("resnet16_u64", "resnet8_u64", "resnet16_u32", "resnet8_u32")
THRESHOLD = -8.0
"""Log-likelihood ratio down to which Topaz lists picks; its default is -6, and lower ones only lengthen the curve."""


class Topaz:
    """Picks with one of Topaz's detectors: ``pick(image, pixel_a)``, as our pickers do; remembers its own seconds."""

    def __init__(self, program: str, model: str, diameter_a: float, width: float, radius: float) -> None:
        self.program, self.model, self.diameter_a, self.width = program, model, diameter_a, width
        self.radius = max(1, round(radius * width))
        self.started = self._seconds_of(np.random.default_rng(0).normal(size=(64, 64)).astype(np.float32))

    def pick(self, image: Floats, pixel_a: float) -> Candidates:
        """Candidates of an image (ny, nx), in its pixels."""
        factor = self.diameter_a / self.width / pixel_a
        x, y, score, _ = self._extract(rescale(image, 1.0, factor))
        full_x, full_y = (to_full(at, factor).astype(np.float32) for at in (x, y))
        return Candidates(full_x, full_y, score, np.ones_like(score))

    def seconds(self, image: Floats, pixel_a: float) -> float:
        """Seconds that scoring and extraction take, without normalisation and without the start of the program."""
        return self._seconds_of(rescale(image, 1.0, self.diameter_a / self.width / pixel_a)) - self.started

    def _seconds_of(self, image: Floats) -> float:
        return self._extract(image)[3]

    def _extract(self, image: Floats) -> tuple[Floats, Floats, Floats, float]:
        with tempfile.TemporaryDirectory(prefix="topaz-") as name:
            folder = Path(name)
            with mrcfile.new(folder / "field.mrc") as file:
                file.set_data(image)
            self._run("normalize", "-o", folder / "n", "--format", "mrc", "--num-workers", 0, folder / "field.mrc")
            began = time.perf_counter()
            options = ("-m", self.model, "-r", self.radius, "-t", THRESHOLD, "-d", -1, "-j", 1)
            self._run("extract", *options, "-o", folder / "picks.txt", folder / "n" / "field.mrc")
            seconds = time.perf_counter() - began
            rows = [line.split("\t")[1:4] for line in (folder / "picks.txt").read_text().splitlines()[1:]]
        found = np.array(rows, np.float32).reshape(-1, 3)
        return found[:, 0], found[:, 1], found[:, 2], seconds

    def _run(self, *arguments: object) -> None:
        command = [self.program, *map(str, arguments)]
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"}
        )
        if done.returncode:
            raise RuntimeError(f"{' '.join(command[:2])}: {done.stderr.strip().splitlines()[-1:]}")


def entrant(program: str, model: str, study: Study, width: float, radius: float) -> Entrant:
    """One of Topaz's detectors; the threshold is that of its best F2."""

    def make() -> tuple[Pick, float | None]:
        return Topaz(program, model, study.diameter_a, width, radius).pick, None

    told = {"width": width, "radius": radius, "threshold": THRESHOLD}
    return Entrant(f"Topaz {model}, {width:g} px", told, make)


def timed(program: str, model: str, study: Study, width: float, radius: float, field: Field, ours: Entrant) -> Row:
    """Seconds for one field, one thread each; ours at its own binning and all of it, Topaz without normalisation."""
    topaz = Topaz(program, model, study.diameter_a, width, radius)
    pick = ours.make()[0]
    pick(field.image, field.pixel_a)
    began = time.perf_counter()
    pick(field.image, field.pixel_a)
    seconds = time.perf_counter() - began
    theirs = topaz.seconds(field.image, field.pixel_a)
    return {
        "model": model,
        "topaz_s": theirs,
        "topaz_start_s": topaz.started,
        "beamsieve_s": seconds,
        "ratio": theirs / seconds,
    }


def tables(asked: argparse.Namespace) -> dict[str, list[Row]]:
    """All rows that were asked for, by title."""
    study, sets = _sets(asked)
    found: dict[str, list[Row]] = {}
    for title, fields, identity in sets:
        entrants = [of_bundle(bundle, study.diameter_a) for bundle in asked.bundle]
        for model in asked.models.split(","):
            entrants += [entrant(asked.topaz, model, study, w, asked.radius) for w in _widths(asked)]
        found[title] = study.compare(title, entrants, fields, identity)
        if asked.time and asked.bundle:
            found[f"{title}: seconds"] = _timed(asked, study, title, fields[0])
    return found


def _timed(asked: argparse.Namespace, study: Study, title: str, field: Callable[[], Field]) -> list[Row]:
    ours, width = of_bundle(asked.bundle[0], study.diameter_a), _widths(asked)[0]
    rows = []
    for model in asked.models.split(","):
        compute = partial(timed, asked.topaz, model, study, width, asked.radius, field(), ours)
        rows.append(study.row(f"seconds {title} {model}", {"width": width, **ours.identity}, compute))
    return rows


def _widths(asked: argparse.Namespace) -> list[float]:
    return [float(width) for width in asked.width.split(",")]


def _sets(asked: argparse.Namespace) -> tuple[Study, list[tuple[str, Sequence[Callable[[], Field]], Row]]]:
    """The micrographs by title, each with what tells them from others."""
    if asked.micrographs:
        how = Reading(tuple(asked.coordinates or ()), asked.pixel_size)
        given = read_labelled(find_files(asked.micrographs), how)
        study = Study(asked.out, asked.diameter, Lines())
        return study, [(f"{len(given)} micrographs", [partial(Field.of, m) for m in given], told_of(given))]
    volume = read_volume(asked.map)
    study = Study(asked.out, asked.diameter or volume.diameter_a, Lines(), seed=asked.seed)
    sets: list[tuple[str, Sequence[Callable[[], Field]], Row]] = []
    for snr in asked.snr.split(","):
        series = Series(asked.seed, asked.count, named(asked.simulate, snr=float(snr)), volume)
        sets.append((f"SNR {float(snr):g}", series.fields(), series.identity()))
    return study, sets


def main() -> int:
    """Print the tables, write them to ``--json``."""
    p = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    p.add_argument("micrographs", nargs="*", type=Path, help="with coordinates beside them; none: simulated ones")
    p.add_argument("--topaz", default=os.environ.get("TOPAZ", "topaz"), help="the program (or the variable TOPAZ)")
    p.add_argument("--models", default=",".join(MODELS[:2]), help="pretrained detectors")
    p.add_argument("--width", default="32", help="of the particle after binning, pixels; several with commas")
    p.add_argument("--radius", type=float, default=0.4, help="of suppression, in particle widths")
    p.add_argument("--bundle", action="append", default=[], help="ours beside it; repeatable")
    p.add_argument("--time", action="store_true", help="measure one micrograph, one thread each")
    p.add_argument("--coordinates", action="append", type=Path)
    p.add_argument("--pixel-size", type=float)
    p.add_argument("--diameter", type=float, help="of the particle, Å; needed with micrographs")
    p.add_argument("--simulate", default="paper")
    p.add_argument("--snr", default="0.1,0.03,0.01")
    p.add_argument("--map", default="ribosome", help="built-in map or file, with @ÅNGSTRÖM per voxel")
    p.add_argument("--count", type=int, default=10, help="simulated micrographs")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--out", type=Path, default=Path("build/topaz"), help="keeps every row: a killed run goes on")
    p.add_argument("--json", type=Path)
    asked = p.parse_args()
    if shutil.which(asked.topaz) is None:
        sys.stderr.write(f"--topaz {asked.topaz}: no such program; install topaz-em somewhere and name it\n")
        return 2
    if asked.micrographs and not asked.diameter:
        sys.stderr.write("--diameter: needed with micrographs\n")
        return 2
    found = tables(asked)
    for title, rows in found.items():
        if not title.endswith(": seconds"):
            show(title, rows)
            continue
        for row in rows:
            sys.stdout.write(
                f"{title} for one micrograph, one thread: Topaz {row['model']} {row['topaz_s']:.1f} (and "
                f"{row['topaz_start_s']:.1f} to start), beamsieve {row['beamsieve_s']:.2f}: {row['ratio']:.0f} times\n"
            )
    if asked.json:
        asked.json.write_text(json.dumps(found, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
