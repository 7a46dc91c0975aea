"""How microscopes' programs name files: which are images, what the name says, and which companions describe them.

EPU (Thermo Fisher), SerialEM, and Leginon; ``flat`` is any folder of images. Names were taken from the programs' own
files as CryoFLARE, Murfey, Warp and the documentation of cryoSPARC's tools describe them. Tomograms are named by what
reconstructs them: IMOD (beside SerialEM), AreTomo, Warp.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any

from ...formats.tomogram_names import ENDINGS, NOT_TOMOGRAMS, TAKEN, series_of
from .patterns import Test, compile_globs

IMAGES = ("mrc", "mrcs", "tif", "tiff", "eer")
FLAT = tuple(f"**/*.{ending}" for ending in IMAGES)
TOMOGRAMS: Mapping[str, tuple[str, ...]] = {
    "flat": TAKEN,
    "serialem": ("**/*.rec", *(f"**/*_rec.{ending}" for ending in ENDINGS)),
    "aretomo": ("**/*.rec", *(f"**/*_{word}.{ending}" for word in ("vol", "rec") for ending in ENDINGS)),
    "warp": ("**/reconstruction/*.mrc", "**/*apx.mrc"),
}

_EPU = re.compile(
    r"FoilHole_(?P<foil_hole>\d+)_Data_(?P<template>\d+)(?:_(?P<acquisition>\d+))?_"
    r"(?P<date>(?:19|20)\d{6})_(?P<time>\d{6}|\d{4})(?!\d)(?P<rest>.*)",
    re.IGNORECASE,
)
# "-0001": a K2's movies, numbered.
_EPU_MOVIE = re.compile(r"_Fractions(?:_.*)?|_EER|-\d{4,6}", re.IGNORECASE)
_GRID_SQUARE = re.compile(r"GridSquare_(\d+)", re.IGNORECASE)
_DISC = re.compile(r"Images-Disc(\d+)", re.IGNORECASE)
_LEGINON_STEP = re.compile(r"_(\d{5})([a-z]+)")
_LEGINON = re.compile(r"(?P<session>.+?)(?P<steps>(?:_\d{5}[a-z]+|_v\d\d)+)(?P<rest>(?:-[\w-]+)?)(?P<movie>\.frames)?")
_LEGINON_NAMES = {"gr": "grid", "sq": "grid_square", "hl": "foil_hole"}
_TILT = re.compile(r"(?P<series>.+?)_(?P<acquisition>\d{3,5})[_\[](?P<tilt>-?\d{1,2}(?:\.\d+)?)\]?(?P<rest>_.*)?")
_PLAIN_DATE = re.compile(r"(?<!\d)(?P<date>20\d{6})[_-](?P<time>\d{6})(?!\d)")


def chooser(layout: str, take: str, patterns: Sequence[str], exclude: Sequence[str]) -> tuple[Test, Test]:
    """Two tests of a path below the folder: whether the file is one to take, and whether a name is left out.

    The second is asked of each part of a path alone, the folders too. Files that are left out are never taken.
    """
    wanted = compile_globs(patterns) if patterns else _default(layout, take)
    return wanted, compile_globs(exclude)


def _default(layout: str, take: str) -> Test:
    if take == "tomograms":
        named, beside = compile_globs(TOMOGRAMS[layout]), compile_globs(NOT_TOMOGRAMS)
        return lambda path: named(path) and not beside(path)
    image = compile_globs(FLAT)
    if layout == "epu":
        return lambda path: image(path) and _is_epu(path, take)
    if layout == "leginon":
        return lambda path: image(path) and _is_leginon(path, take)
    return image


def _is_epu(path: str, take: str) -> bool:
    found = _EPU.fullmatch(_stem(path))
    if found is None:
        return False
    movie = path.lower().endswith(".eer") or _EPU_MOVIE.fullmatch(found["rest"]) is not None
    return movie if take == "movies" else not movie and not found["rest"]


def _is_leginon(path: str, take: str) -> bool:
    found = _LEGINON.fullmatch(_stem(path))
    if found is None:
        return False
    steps = _LEGINON_STEP.findall(found["steps"])
    exposed = bool(steps) and steps[-1][1].startswith("e")
    movie = found["movie"] is not None or path.lower().endswith(".eer")
    # "-a" marks an aligned copy of the same image: taking both would pick the same particles twice.
    return exposed and not found["rest"] and movie == (take == "movies")


def parse_name(layout: str, path: str | PurePosixPath, take: str = "micrographs") -> dict[str, Any]:
    """What a file's name and folders say, as the layout writes them; nothing for a name that is not of the layout.

    Of a tomogram's, the ``series``: its tilt series.

    ``path``: below the watched folder, or whole; Windows paths too. Keys, where known: ``disc``, ``grid``,
    ``grid_square``, ``foil_hole``, ``template``, ``series`` (str), ``acquisition`` (int), ``preset`` (str), ``version``
    (int), ``tilt_deg`` (float), ``acquired`` (ISO 8601 without a zone: the microscope's own clock).
    """
    text = str(path)
    parts = PureWindowsPath(text).parts if "\\" in text else PurePosixPath(text).parts
    if not parts:
        return {}
    if take == "tomograms":
        return {"series": series_of(parts[-1])}
    return _PARSERS.get(layout, _parse_nothing)(parts)


def _parse_nothing(parts: Sequence[str]) -> dict[str, Any]:  # noqa: ARG001
    return {}


def _parse_epu(parts: Sequence[str]) -> dict[str, Any]:
    found = _EPU.fullmatch(_stem(parts[-1]))
    if found is None:
        return {}
    info: dict[str, Any] = {"foil_hole": found["foil_hole"], "template": found["template"]}
    if found["acquisition"] is not None:
        info["acquisition"] = int(found["acquisition"])
    for name, pattern in (("grid_square", _GRID_SQUARE), ("disc", _DISC)):
        matches = [match[1] for part in parts[:-1] if (match := pattern.fullmatch(part))]
        info |= {name: matches[-1]} if matches else {}
    return info | _time(found["date"], found["time"])


def _parse_leginon(parts: Sequence[str]) -> dict[str, Any]:
    found = _LEGINON.fullmatch(_stem(parts[-1]))
    if found is None:
        return {}
    info: dict[str, Any] = {"series": found["session"]}
    steps = _LEGINON_STEP.findall(found["steps"])
    info |= {_LEGINON_NAMES[kind]: number for number, kind in steps if kind in _LEGINON_NAMES}
    if steps and steps[-1][1] not in _LEGINON_NAMES:
        info |= {"acquisition": int(steps[-1][0]), "preset": steps[-1][1]}
    version = re.search(r"_v(\d\d)", found["steps"])
    return info | ({"version": int(version[1])} if version else {})


def _parse_serialem(parts: Sequence[str]) -> dict[str, Any]:
    stem = _stem(parts[-1])
    info: dict[str, Any] = {}
    date = _PLAIN_DATE.search(stem)
    # What follows the date is of no interest, and the date itself looks like a number of a series.
    before = stem[: date.start()].rstrip("_-") if date else stem
    if (tilt := _TILT.fullmatch(before)) and abs(float(tilt["tilt"])) <= 90:
        info = {"series": tilt["series"], "acquisition": int(tilt["acquisition"]), "tilt_deg": float(tilt["tilt"])}
    elif plain := re.fullmatch(r"(.+?)[_-](\d{1,6})(?:_[A-Z][a-z]{2}\d\d_.*)?", before):
        info = {"series": plain[1], "acquisition": int(plain[2])}
    # The date in SerialEM's own frame names has no year: the mdoc has all of it.
    return info | (_time(date["date"], date["time"]) if date else {})


_PARSERS: Mapping[str, Callable[[Sequence[str]], dict[str, Any]]] = {
    "epu": _parse_epu,
    "serialem": _parse_serialem,
    "leginon": _parse_leginon,
}


def _time(date: str, time: str) -> dict[str, str]:
    try:
        return {"acquired": datetime.strptime(date + time.ljust(6, "0"), "%Y%m%d%H%M%S").isoformat()}
    except ValueError:
        return {}


def _stem(name: str) -> str:
    """The last part of a path without the ending of an image."""
    last = name.replace("\\", "/").rsplit("/", 1)[-1]
    stem, dot, ending = last.rpartition(".")
    return stem if dot and ending.lower() in IMAGES else last


def companions(layout: str, name: str, take: str = "micrographs") -> dict[str, tuple[str, ...]]:
    """Kind of companion (``xml``, ``mdoc``) and the names it may have, the likeliest first; nothing where none is due.

    A tomogram has none: the mdoc describes its tilt series.

    ``name`` and the answers are file names without folders.
    """
    if take == "tomograms":
        return {}
    stem = _stem(name)
    if layout == "epu":
        base = re.sub(r"(?:_Fractions(?:_.*)?|_EER|-\d{4,6})$", "", stem, flags=re.IGNORECASE)
        return {"xml": tuple(dict.fromkeys((f"{stem}.xml", f"{base}.xml")))}
    if layout == "serialem":
        return {"mdoc": (f"{name}.mdoc", f"{stem}.mdoc")}
    return {}
