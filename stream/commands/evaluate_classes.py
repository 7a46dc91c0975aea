"""``beamsieve evaluate classes2d``: denoising and clustering of proteins no training saw, beside other methods."""

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
from .real_classes import show_real
from .run import config_errors, write_json

if TYPE_CHECKING:
    from ...models.classes2d.study import Study
    from ...models.classes2d.study_methods import StudyOptions
    from ...models.particles.maps import Volume

TRAINED_ON = "proteasome"
SHARED = Path("maps")
TEST, VALIDATION = ("betaGal.mrc", "1aon.pdb.gz", "3iyf.pdb.gz"), ("emd_1066.map", "emd_1099.map")
WITHOUT = ("hemocyanin", "apoferritin")
"""Built-in maps on which filters are chosen where the shared data set is not mounted."""
ROWS: dict[str, dict[str, Any]] = {
    "paper": {},
    "snr-0.05": {"snr": 0.05},
    "snr-0.02": {"snr": 0.02},
    "ctf": {"ctf": True},
    "10-orientations": {"orientations": 10},
    "50-orientations": {"orientations": 50},
    "in-plane": {"in_plane": True},
    "snr-0.01": {"snr": 0.01},
}
QUICK = {"images": 60, "tune_on": 200, "scored": 40, "epochs": 2, "tune_epochs": 2, "validation": 8}
INTRODUCTION = """# Denoising and clustering of particles

Lei and Yang's experiment (Frontiers in Genetics 11, 2021, section 4) on other proteins: their structures (5flc, 5wth,
5k0y, 5gjq) are not among the maps here. Tested are {tested}; none of them was seen in any training. Of the paper's
other methods CL2D, the adversarial autoencoder, and the denoisers NLFMT, PID, NCSR, PCLR and DnCNN are left out.

{cascades}
"""


def classes2d(
    out: Annotated[Path, typer.Option("--out", "-o", help="keeps rows, networks, tables: a killed run goes on")],
    rows: Annotated[
        list[str] | None, typer.Option(help=f"{', '.join(ROWS)}, or all; repeatable. Default: paper")
    ] = None,
    maps: Annotated[
        list[str] | None,
        typer.Option(help="proteins to test: files or built-in maps; default: those of BEAMSIEVE_DATA"),
    ] = None,
    validation: Annotated[list[str] | None, typer.Option(help="maps on which filters are chosen; repeatable")] = None,
    from_: Annotated[
        str | None, typer.Option("--from", help="a pre-trained cascade; default: recipe paper is trained first")
    ] = None,
    also: Annotated[list[str] | None, typer.Option(help="more cascades to compare: name or path; repeatable")] = None,
    seed: Annotated[int, typer.Option(min=0, max=99_999, help="of everything random")] = 0,
    images: Annotated[
        int | None, typer.Option(min=10, help="per orientation; default: 4000 over the orientations")
    ] = None,
    orientations: Annotated[int | None, typer.Option(min=1, help="of each protein; default: the row's, or 4")] = None,
    snr: Annotated[float | None, typer.Option(min=1e-4, help="variance of signal over noise; default 0.1")] = None,
    ctf: Annotated[bool, typer.Option("--ctf", help="with a transfer function")] = False,
    in_plane: Annotated[bool, typer.Option("--in-plane", help="turned in the plane at random")] = False,
    epochs: Annotated[int | None, typer.Option(min=1, help="of trainings; default 20")] = None,
    tune_on: Annotated[
        int | None, typer.Option(min=200, help="most images that fine-tuning sees; default 1000")
    ] = None,
    tune_epochs: Annotated[int | None, typer.Option(min=1, help="of fine-tunings; default 20")] = None,
    target: Annotated[
        list[str] | None,
        typer.Option(help="fine-tune cascades to: outputs (published), images (raw ones); repeatable; default: both"),
    ] = None,
    scored: Annotated[int | None, typer.Option(min=1, help="most images in the PSNR table; default 400")] = None,
    real: Annotated[
        Path | None, typer.Option(help="instead: folder of micrographs with marked centres; pictures of their classes")
    ] = None,
    diameter: Annotated[float | None, typer.Option(min=1, help="of --real's particles, in ångström")] = None,
    pixel_size: Annotated[float | None, typer.Option(min=0.01, help="of --real's micrographs, ångström")] = None,
    number: Annotated[int, typer.Option("--classes", min=1, help="of --real's particles")] = 8,
    quick: Annotated[
        bool, typer.Option("--quick", help="two minutes: few images and epochs, for a first look")
    ] = False,
) -> None:
    """Peak signal-to-noise ratios and clusters of denoised particles, as the paper's tables 1 and 2.

    Writes classes2d.json, classes2d.md and a panel of images for each protein; with --real, real-classes.png,
    real-particles.png and real.json: there are no labels, so there are no scores. Exit code 1: a file cannot be read or
    written. 2: a wrong option, model or map.
    """
    given = {
        "images": images,
        "orientations": orientations,
        "snr": snr,
        "ctf": ctf or None,
        "in_plane": in_plane or None,
        "epochs": epochs,
        "tune_epochs": tune_epochs,
        "tune_on": tune_on,
        "targets": _targets(target),
        "scored": scored,
    }
    with user_mistakes(), config_errors():
        chosen = _rows(rows or ["paper"])
        options = {name: _options(ROWS[name], given, seed, quick) for name in chosen}
        extra = _named([from_] if from_ else [], also or [])
        out.mkdir(parents=True, exist_ok=True)
        if real:
            show_real(out, real, from_ or "classes2d-general", diameter, pixel_size, number, seed)
            return
        test, held = _volumes(maps, TEST, ()), _volumes(validation, VALIDATION, WITHOUT)
        _apart(test, held)
        write_tables(out, _run(out, options, test, held, from_, extra))


def _targets(names: list[str] | None) -> tuple[str, ...] | None:
    from ...models.classes2d.study_methods import TUNED

    wrong = [name for name in names or [] if name not in TUNED]
    if wrong:
        raise typer.BadParameter(f"{wrong[0]}: give {' or '.join(TUNED)}", param_hint="--target")
    return tuple(names) if names else None


def _rows(names: list[str]) -> list[str]:
    wrong = [name for name in names if name not in ROWS and name != "all"]
    if wrong:
        raise ConfigError([f"--rows {name}: unknown; known are {', '.join(ROWS)}, all" for name in wrong])
    return list(ROWS) if "all" in names else names


def _options(row: dict[str, Any], given: dict[str, Any], seed: int, quick: bool) -> StudyOptions:
    """What a row says, then ``--quick``, then what was given; many orientations have fewer images each."""
    from ...models.classes2d.study_methods import StudyOptions

    options = StudyOptions(seed=seed)
    total = options.images * options.orientations
    wanted = {**row, **(QUICK if quick else {}), **{name: value for name, value in given.items() if value is not None}}
    options = replace(options, **wanted)
    if "images" not in wanted:
        options = replace(options, images=max(10, total // options.orientations))
    return options


def _named(first: list[str], also: list[str]) -> dict[str, str]:
    """What more cascades are called in tables; all of them, and the first, must be denoisers: ``BundleError``."""
    from ...models.bundle import load_bundle

    cards = {name: load_bundle(name).expect(task="classes2d").card for name in (*first, *also)}
    return {f"CDAE {cards[name].name.removeprefix('classes2d-')}": name for name in also}


def _volumes(given: list[str] | None, shared: tuple[str, ...], built_in: tuple[str, ...]) -> tuple[Volume, ...]:
    """Maps by name or file; without any those of the shared data set, where it is mounted, or built-in ones."""
    from .training_set import volume

    folder = os.environ.get("BEAMSIEVE_DATA")
    names = given or ([str(Path(folder) / SHARED / name) for name in shared] if folder else list(built_in))
    if not names:
        raise ConfigError(["--maps: which proteins? Give density maps or PDB files, or set BEAMSIEVE_DATA"])
    return tuple(volume(name) for name in names)


def _apart(test: tuple[Volume, ...], held: tuple[Volume, ...]) -> None:
    """Refuse to test what something was chosen or trained on."""
    known = {TRAINED_ON: "trained on", **{v.name: "filters are chosen on" for v in held}}
    rules = [f"--maps {v.name}: is what {known[v.name]}" for v in test if v.name in known]
    names = [v.name for v in test]
    rules += [f"--maps {name}: given twice" for name in sorted(set(names)) if names.count(name) > 1]
    if rules:
        raise ConfigError(rules)


def _run(
    out: Path,
    options: dict[str, StudyOptions],
    test: tuple[Volume, ...],
    held: tuple[Volume, ...],
    from_: str | None,
    extra: dict[str, str],
) -> dict[str, Any]:
    """All studies that were asked for, by the row's name."""
    from ...models.classes2d.study import Study
    from ...models.progress import Lines
    from .training_set import volume

    with bars() as shown:
        progress = shown or Lines()
        first = next(iter(options.values()))
        cascade = from_ or str(_pretrained(out, first, held, progress))
        studies: dict[str, Study] = {
            name: Study(out, o, {"CDAE": cascade, **extra}, volume(TRAINED_ON), held, progress)
            for name, o in options.items()
        }
        return {name: study.run(test) for name, study in studies.items()}


def _pretrained(out: Path, options: StudyOptions, held: tuple[Volume, ...], progress: Any) -> Path:
    """The cascade of recipe paper: made now, or found from an earlier run with as many images and epochs."""
    from ...models.classes2d.train import make_options, train
    from .training_set import volume

    count = options.images * options.orientations
    folder = out / f"pretrained-{count}-images-{options.epochs}-epochs-seed-{options.seed}"
    path = folder / "classes2d-paper.pt"
    if path.exists():
        return path
    how = make_options(folder, "paper", images=count, epochs=options.epochs, seed=options.seed, resume=True)
    made = train(how, [volume(TRAINED_ON)], held, progress)
    assert made is not None
    return made


def write_tables(out: Path, found: dict[str, Any]) -> None:
    """Print the tables and write them, with the panels of images. Raises ``OSError``."""
    from ...models.classes2d.study_report import (
        SAID_OF_CLUSTERS,
        SAID_OF_NAMES,
        SAID_OF_PSNR,
        draw_panel,
        markdown,
    )

    write_json(out / "classes2d.json", found)
    first = next(iter(found.values()))
    tested = ", ".join(p["protein"] for p in first["proteins"])
    cascades = "\n".join(
        f"- {title}: bundle {card['name']}, SHA-256 {card['sha256'][:12]}…" for title, card in first["cascades"].items()
    )
    text = [INTRODUCTION.format(tested=tested, cascades=cascades)]
    text += ["\n\n".join((SAID_OF_PSNR, SAID_OF_CLUSTERS, SAID_OF_NAMES)) + "\n"]
    text += [markdown(name, study) for name, study in found.items()]
    whole = "\n".join(text)
    (out / "classes2d.md").write_text(whole, encoding="utf-8")
    typer.echo(whole)
    for name, study in found.items():
        for protein in study["proteins"]:
            with np.load(out / protein["shown"]) as shown:
                draw_panel(out / f"{name}-{protein['protein']}.png", dict(shown), f"{protein['protein']}, {name}")
