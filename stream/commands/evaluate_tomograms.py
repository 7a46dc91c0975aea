"""``beamsieve evaluate tomograms``: mining and segmentation of simulated tomograms with truth, a table from a seed."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer

from ..flow.settings import ConfigError
from .bars import bars
from .mistakes import user_mistakes
from .run import config_errors, write_json

if TYPE_CHECKING:
    from ...models.tomograms.codec import Codec
    from ...models.tomograms.study import StudyOptions

CODEC, POSED = "tomograms-general", "tomograms-posed"
UNSEEN = ("1aon.pdb.gz", "betaGal.mrc", "emd_1148.map")
"""Maps of the shared data set that nothing was trained on; test tomograms have them where it is mounted."""
ROWS: dict[str, dict[str, Any]] = {
    "snr-0.1": {},
    "snr-0.1-posed": {"posed": True},
    "snr-0.05": {"snr": 0.05},
    "snr-0.05-posed": {"snr": 0.05, "posed": True},
    "snr-0.1-true-labels": {"oracle": True},
}
DEFAULT = tuple(ROWS)[:4]
QUICK: dict[str, Any] = {"marking": 2, "test": 2, "windows": 60, "edge": 32, "minutes": 0.3, "shape": (48, 128, 128)}
INTRODUCTION = """# Tomograms: mining and segmentation

Simulated tomograms with truth, {tilts}. Networks: {networks}. {marking} tomograms of seeds from {first_marking} are
mined and their clusters marked; all scores are of {test} others, {what}. Macromolecules that only these have: {unseen}.

"""


def evaluate_tomograms(
    out: Annotated[Path, typer.Option("--out", "-o", help="keeps rows, networks, tables: a killed run goes on")],
    rows: Annotated[
        list[str] | None, typer.Option(help=f"{', '.join(ROWS)}, or all; repeatable. Default: the first four")
    ] = None,
    codec: Annotated[str, typer.Option("--model", help="autoencoder of sub-volumes as they lie: name or path")] = CODEC,
    posed: Annotated[
        str | None,
        typer.Option("--posed-model", help=f"of sub-volumes in their poses; default: {POSED}, or --model without it"),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, max=99_999, help="of clustering and training")] = 1,
    marking: Annotated[int | None, typer.Option(min=1, help="tomograms whose clusters are marked; default 6")] = None,
    test: Annotated[int | None, typer.Option(min=1, max=1000, help="tomograms to tell of; default 3")] = None,
    threshold: Annotated[float | None, typer.Option(min=0, help="of picks, in s.d.; default 2.5")] = None,
    clusters: Annotated[int | None, typer.Option(min=1, help="default 100")] = None,
    minutes: Annotated[
        float | None, typer.Option(min=0.05, help="most, of a segmentation's training; default 4")
    ] = None,
    start: Annotated[
        str | None, typer.Option(help="a segmentation that training begins with: name or path; default: none")
    ] = None,
    mine_only: Annotated[bool, typer.Option("--mine-only", help="no segmentation, no scores of voxels")] = False,
    unseen: Annotated[
        list[str] | None,
        typer.Option(help="maps that only test tomograms have; repeatable. Default: three of BEAMSIEVE_DATA"),
    ] = None,
    tuning: Annotated[
        bool, typer.Option("--tuning", help="on tomograms to choose settings with, not on those of tables")
    ] = False,
    threads: Annotated[int | None, typer.Option(min=1, help="of the networks; default: all cores")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="a minute a row: few and small tomograms")] = False,
) -> None:
    """How well groups, picks and voxels agree with the truth of simulated tomograms, with and without poses.

    Writes tomograms.json, tomograms.md and a picture for each row. Exit code 1: a file cannot be read or written. 2: a
    wrong option or model.
    """
    given: dict[str, Any] = {
        "marking": marking,
        "test": test,
        "threshold": threshold,
        "k": clusters,
        "minutes": minutes,
        "start": start,
    }
    with user_mistakes(), config_errors():
        given["segment"] = False if mine_only else None
        given["unseen"] = _unseen(unseen)
        chosen = _rows(rows or list(DEFAULT))
        options = {name: _options(ROWS[name], given, seed, tuning, quick) for name in chosen}
        out.mkdir(parents=True, exist_ok=True)
        straight, turned = _codecs(codec, posed, threads)
        write_tables(out, _run(out, options, straight, turned), straight, turned)


def _rows(names: list[str]) -> list[str]:
    wrong = [name for name in names if name not in ROWS and name != "all"]
    if wrong:
        raise ConfigError([f"--rows {name}: unknown; known are {', '.join(ROWS)}, all" for name in wrong])
    return list(ROWS) if "all" in names else list(dict.fromkeys(names))


def _unseen(given: list[str] | None) -> tuple[str, ...]:
    """Maps as they were given, or of the shared data set; each is read now, so that a mistake is told at once."""
    from ...models.particles.maps import load_map

    folder = os.environ.get("BEAMSIEVE_DATA")
    names = given if given is not None else [str(Path(folder) / "maps" / n) for n in UNSEEN] if folder else []
    for name in names:
        load_map(name)
    return tuple(names)


def _options(row: dict[str, Any], given: dict[str, Any], seed: int, tuning: bool, quick: bool) -> StudyOptions:
    """What a row says, then ``--quick``, then what was given."""
    from ...models.tomograms.study import StudyOptions

    wanted = {**row, **(QUICK if quick else {}), **{name: value for name, value in given.items() if value is not None}}
    return replace(StudyOptions(seed=seed, tuning=tuning), **wanted)


def _codecs(straight: str, posed: str | None, threads: int | None) -> tuple[Codec, Codec]:
    """The autoencoders for sub-volumes as they lie and in their poses, one for both where there is no other.

    Raises ``BundleError``.
    """
    from ...models.bundle import available
    from ...models.tomograms.codec import Codec

    first = Codec(straight, threads=threads)
    if posed is None:
        posed = POSED if POSED in available() else straight
    return first, first if posed == straight else Codec(posed, threads=threads)


def _run(out: Path, options: dict[str, StudyOptions], straight: Codec, posed: Codec) -> list[dict[str, Any]]:
    from ...models.progress import Lines
    from ...models.tomograms.study import Study

    with bars() as shown:
        study = Study(out, straight, posed, shown or Lines())
        return [study.row(name, one) for name, one in options.items()]


def write_tables(out: Path, found: list[dict[str, Any]], straight: Codec, posed: Codec) -> None:
    """Print the tables and write them, with a picture of each row. Raises ``OSError``."""
    from ...models.tomograms.study import MARKING
    from ...models.tomograms.study_report import draw, markdown

    write_json(out / "tomograms.json", {"rows": found})
    o = found[0]["options"]
    networks = dict.fromkeys(f"{one.name} (SHA-256 {one.sha256[:12]}…)" for one in (straight, posed))
    whole = INTRODUCTION.format(
        tilts="tilts -60 to +50 degrees every 4, with a transfer function and a missing wedge",
        networks=", ".join(networks),
        marking=o["marking"],
        first_marking=MARKING,
        test=o["test"],
        unseen=", ".join(Path(name).name for name in o["unseen"]) or "none",
        what="validation seeds: to choose with, not to tell of" if o["tuning"] else "test seeds",
    ) + markdown(found)
    (out / "tomograms.md").write_text(whole, encoding="utf-8")
    typer.echo(whole)
    for row in found:
        with np.load(out / row["shown"]) as shown:
            title = f"{row['row']}, seed {row['tomograms'][0]['seed']}"
            draw(out / f"{row['row']}.png", dict(shown), title)
