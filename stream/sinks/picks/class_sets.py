"""Writes a set of 2-D classes for RELION (``run_it001_…``) and one for cryoSPARC, whosever classes they are."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import mrcfile
import numpy as np
import numpy.typing as npt

from ...formats import cryosparc_classes, relion_classes
from ...formats.cryosparc_classes import Aligned
from ...formats.relion_classes import ClassifiedStack, ModelClass
from .files import whole, write_whole

_OURS = re.compile(r"run_it(\d{3,})_(classes\.mrcs|data\.star|model\.star|optimiser\.star)")
_CRYOSPARC = ("templates.mrc", "templates.cs", "templates.csg", "particles.cs", "particles.csg")

Floats = npt.NDArray[np.float32]
Called = Callable[[Path], str]


@dataclass(frozen=True, slots=True, eq=False)
class ClassAverage:
    """A class as the tables show it. ``number``: without gaps, from 1; ``id``: ours."""

    number: int
    id: int
    count: int
    mark: str
    resolution_a: float
    spread: float


def write_stack(path: Path, images: npt.NDArray[np.floating], pixel_a: float | None) -> None:
    """Images (n, edge, edge) as an MRC image stack, float32 or float16. ``pixel_a`` None: not known.

    Raises ``OSError``.
    """
    with whole(path) as working, mrcfile.new(working) as file:
        file.set_data(np.ascontiguousarray(images))
        # Else the header of a single image would be a volume's.
        file.set_image_stack()
        file.voxel_size = pixel_a or 0.0


def write_relion(
    folder: Path,
    number: int,
    stacks: Sequence[ClassifiedStack | None],
    averages: Floats,
    pixel_a: float,
    classes: Sequence[ClassAverage],
    called: Called,
) -> list[Path]:
    """A Class2D set ``run_it<number>_…`` into ``folder``, in place of an earlier one; returns its files.

    ``averages``: float32 (k, edge, edge) of ``pixel_a``, in the order of ``classes``. ``called``: a file's name for
    RELION. Raises ``OSError``.
    """
    stem = folder / f"run_it{number:03d}"
    names = [Path(f"{stem}_{kind}") for kind in ("classes.mrcs", "model.star", "data.star", "optimiser.star")]
    total = max(1, sum(one.count for one in classes))
    model = [ModelClass(one.count / total, one.resolution_a) for one in classes]
    write_stack(names[0], averages.astype(np.float32), pixel_a)
    edge = int(averages.shape[-1])
    write_whole(names[1], relion_classes.encode_model(called(names[0]), edge, pixel_a, model))
    write_whole(names[2], relion_classes.encode_data([stack for stack in stacks if stack is not None]))
    # Last: it is what people open, and it names the others.
    write_whole(names[3], relion_classes.encode_optimiser(called(folder / "run"), number))
    _remove_runs(folder, number)
    return names


def remove_sets(folder: Path, more: Sequence[str] = ()) -> None:
    """Remove both sets from ``folder``, and the files ``more``; what others put there stays. Raises ``OSError``."""
    if folder.is_dir():
        _remove_runs(folder, None)
        for name in (*_CRYOSPARC, *more):
            (folder / name).unlink(missing_ok=True)


def _remove_runs(folder: Path, number: int | None) -> None:
    """Sets for RELION, but that of ``number``."""
    for path in folder.iterdir():
        ours = _OURS.fullmatch(path.name)
        if ours and int(ours[1]) != number:
            with suppress(FileNotFoundError):
                path.unlink()


def write_cryosparc(
    folder: Path,
    stacks: Sequence[Aligned | None],
    averages: Floats,
    pixel_a: float,
    classes: Sequence[ClassAverage],
    called: Called,
) -> list[Path]:
    """``particles.cs`` and ``templates.cs`` with their groups, and ``templates.mrc``; as ``write_relion``."""
    kept = [stack for stack in stacks if stack is not None]
    stack = folder / "templates.mrc"
    write_stack(stack, averages.astype(np.float32), pixel_a)
    edge, count = int(averages.shape[-1]), sum(len(one.image) for one in kept)
    slots = ["alignments2D"]
    slots += ["location", "pick_stats"] if kept and all(one.located is not None for one in kept) else []
    slots += ["blob"] if kept and all(one.path is not None for one in kept) else []
    created = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S.%f")
    written = [stack]
    resolutions = [one.resolution_a for one in classes]
    for kind, name, content, of, n in (
        (
            "template",
            "templates",
            cryosparc_classes.encode_templates(called(stack), edge, pixel_a, resolutions),
            ["blob"],
            len(classes),
        ),
        ("particle", "particles", cryosparc_classes.encode_particles(kept), slots, count),
    ):
        write_whole(folder / f"{name}.cs", content)
        group = cryosparc_classes.encode_group(kind, f"{name}.cs", of, n, created=created, version=version("beamsieve"))
        write_whole(folder / f"{name}.csg", group)
        written += [folder / f"{name}.cs", folder / f"{name}.csg"]
    return written
