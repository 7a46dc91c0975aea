"""Micrographs with the coordinates of their particles, from files, as training and evaluation take them."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from ...models.particles.candidates import Floats, Labelled
from ..flow.frame import BadData
from ..flow.settings import ConfigError
from ..formats.coordinates import ENDINGS, Coordinates, micrographs_in, read_coordinates, same_micrograph
from ..formats.image import image_header, read_image

# What RELION, EMAN2 and people put behind a micrograph's name.
_ADDED = re.compile(r"_(autopick|manualpick|pick|info|picks|particles|boxes)$", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Reading:
    """How coordinates belong to micrographs.

    ``coordinates``: files, or folders of them; none: beside the micrographs. ``pixel_a``: ångström per pixel, where the
    micrographs do not say or say it wrongly. ``box_px``, ``invert_y``: see ``read_coordinates``. ``field_of``: the part
    of a name that two micrographs of one field share; a file of coordinates serves all of them.
    """

    coordinates: tuple[Path, ...] = ()
    pixel_a: float | None = None
    box_px: int | None = None
    invert_y: bool = False
    field_of: Callable[[str], str] = str


def read_labelled(files: Sequence[Path], how: Reading) -> list[Labelled]:
    """The micrographs with their particles; images are read when asked for, their headers and coordinates now.

    Raises ``ConfigError`` with all mistakes (no coordinates, no pixel size), ``BadData`` for files that cannot be used,
    ``OSError`` for those that cannot be opened.
    """
    tables = _tables(how.coordinates, files)
    mistakes: list[str] = []
    found = []
    for path in files:
        header = image_header(path)
        pixel_a = how.pixel_a or header.pixel_a
        table = _of(path, tables, how)
        if pixel_a is None:
            mistakes.append(f"{path}: does not state its pixel size; give --pixel-size")
        if table is None:
            mistakes.append(
                f"{path}: no coordinates for it; name them {path.stem}{ENDINGS[0]} …, or give --coordinates"
            )
        if pixel_a is None or table is None:
            continue
        shape = (header.shape[1], header.shape[2])
        places = read_coordinates(table, micrograph=path.name, box_px=how.box_px, shape=shape, invert_y=how.invert_y)
        found.append(_labelled(path, pixel_a, places))
    if mistakes:
        raise ConfigError(mistakes)
    return found


def _labelled(path: Path, pixel_a: float, places: Coordinates) -> Labelled:
    wrong = places.wrong if places.wrong is not None else np.zeros(len(places), bool)
    right = ~wrong
    image = partial(load, path)
    return Labelled(path.stem, image, pixel_a, places.x[right], places.y[right], places.x[wrong], places.y[wrong])


def load(path: Path) -> Floats:
    """The micrograph's image float32 (ny, nx). Raises ``BadData``."""
    image: Floats = read_image(path).data.astype(np.float32)
    return image


def _tables(coordinates: Sequence[Path], files: Sequence[Path]) -> list[Path]:
    """All files of coordinates there are to choose from. Raises ``ConfigError``."""
    places = list(coordinates) or sorted({path.parent for path in files})
    found: list[Path] = []
    for place in places:
        if place.is_dir():
            found += sorted(one for one in place.iterdir() if one.suffix.lower() in ENDINGS)
        elif place.exists():
            found.append(place)
        else:
            raise ConfigError([f"--coordinates {place}: no such file or folder"])
    return found


def _of(path: Path, tables: Sequence[Path], how: Reading) -> Path | None:
    """The file with the coordinates of a micrograph: named like it, else one that names it, else one of its field."""
    alike = [one for one in tables if same_micrograph(one.stem, path.stem)]
    alike = alike or [one for one in tables if same_micrograph(_ADDED.sub("", one.stem), path.stem)]
    alike = alike or [one for one in tables if _names(one, path)]
    alike = alike or [one for one in tables if how.field_of(one.stem) == how.field_of(path.stem)]
    if not alike and len(tables) == 1 and how.coordinates and tables[0].suffix.lower() not in {".star", ".cs"}:
        # One file for one micrograph needs no name; one for many must name them.
        return tables[0] if micrographs_in(tables[0]) == ("",) else None
    return alike[0] if alike else None


def _names(table: Path, micrograph: Path) -> bool:
    if table.suffix.lower() not in {".star", ".cs", ".csv", ".tsv", ".jsonl"}:
        return False
    try:
        return any(name and same_micrograph(name, micrograph.name) for name in micrographs_in(table))
    except BadData:
        # Folders hold tables of other things too; one that was named on purpose is read, and its fault told, later.
        return False
