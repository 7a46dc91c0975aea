"""What programs call reconstructed tomograms, and what of the name is the tilt series'.

IMOD (``TS_01.rec``, ``TS_01_full_rec.mrc``), AreTomo (``TS_01_Vol.mrc``, half volumes ``_EVN``, ``_ODD``), Warp
(``reconstruction/TS_01_10.00Apx.mrc``, ``deconv/``, ``even/``, ``odd/``), RELION (``rec_TS_01.mrc``).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

ENDINGS = ("mrc", "rec", "map", "hdf")
TAKEN = tuple(f"**/*.{ending}" for ending in ENDINGS)
_BESIDE = (
    "ali",
    "preali*",
    "erase",
    "fixed",
    "orig",
    "3dfind",
    "proj",
    "projXY",
    "projXZ",
    "CTF",
    "PS",
    "mask",
    "labels",
)
_HALVES = ("EVN", "ODD", "even", "odd", "half1", "half2", "2ND", "3RD")
_FOLDERS = ("even", "odd", "deconv", "mask", "powerspectrum", "tiltstack", "thumbnails")
#: What lies beside tomograms and has their ending: tilt series, half and second volumes, masks, filtered copies.
NOT_TOMOGRAMS = (
    *(f"**/*_{word}.*" for word in (*_BESIDE, *_HALVES)),
    *(f"**/*_{word}_*" for word in _HALVES),
    *(f"**/{folder}/**" for folder in _FOLDERS),
)
_AFFIXES = re.compile(
    r"(?:_full_rec|_full|_rec|_Vol|_vol|_tomo|_bp|_SIRT|_sirt|_\d+(?:\.\d+)?Apx|_b\d+|_bin\d+|_deconv|_dec|_aligned)$"
)


_SAYS_SO = re.compile(r".*(?:_(?:rec|vol|tomo)|apx)\.\w+|.*\.rec|rec_.*", re.IGNORECASE)


def says_tomogram(name: str) -> bool:
    """Whether a file's name says that it is reconstructed, and no series of images."""
    return _SAYS_SO.fullmatch(name) is not None


def series_of(name: str) -> str:
    """The tilt series' name in the name (or path) of a tomogram: ``TS_01`` of ``a/TS_01_10.00Apx.mrc``.

    Endings that say how it was made are taken away, one after another; something always stays.
    """
    stem = PurePosixPath(name.replace("\\", "/")).name
    base, dot, ending = stem.rpartition(".")
    if dot and base and ending.lower() in {*ENDINGS, "h5", "hdf5"}:
        stem = base
    stem = stem.removeprefix("rec_") or stem
    while (shorter := _AFFIXES.sub("", stem)) not in {stem, ""}:
        stem = shorter
    return stem


def unique_name(path: Path, taken: Mapping[str, Path]) -> str:
    """The file's name, with as many of its folders before it as keep it apart from others. ``taken``: whose is which.

    ``path``: absolute, as those in ``taken``.
    """
    parts = path.parts
    for count in range(1, len(parts) + 1):
        name = PurePosixPath(*parts[-count:]).as_posix().lstrip("/")
        if taken.get(name, path) == path:
            return name
    return path.as_posix().lstrip("/")
