"""SerialEM's mdoc beside an image or a movie: ``key = value`` lines under ``[ZValue = n]`` or ``[FrameSet = n]``.

mdocfile reads them well, but gives up on a line without ``=``, on two of them before the first section, and on numbers
it does not expect, and a session must not wait for a comment. So lines are read here, in any order, and what is not
understood is passed over; the tests compare with mdocfile. Source: SerialEM's "About image file formats".
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path, PureWindowsPath
from typing import Any

from ..flow.frame import BadData

MOST_BYTES = 1 << 24
_SECTION = re.compile(r"^\[\s*(ZValue|FrameSet|MontSection)\s*=\s*(\d+)\s*\]$")
_DATES = ("%d-%b-%y %H:%M:%S", "%d-%b-%Y %H:%M:%S", "%Y-%m-%d %H:%M:%S", "%d.%m.%Y %H:%M:%S")
# name, key, which of its numbers, factor, smallest and largest believable value
_NUMBERS: tuple[tuple[str, str, int, float, float, float], ...] = (
    ("pixel_a", "PixelSpacing", 0, 1.0, 0.01, 1000.0),
    ("voltage_kv", "Voltage", 0, 1.0, 1.0, 3000.0),
    ("dose_e_a2", "ExposureDose", 0, 1.0, 0.0, 1e5),
    ("exposure_s", "ExposureTime", 0, 1.0, 0.0, 1e5),
    ("magnification", "Magnification", 0, 1.0, 1.0, 1e8),
    ("defocus_um", "Defocus", 0, 1.0, -1e3, 1e3),
    ("applied_defocus_um", "TargetDefocus", 0, 1.0, -1e3, 1e3),
    ("stage_x_um", "StagePosition", 0, 1.0, -1e4, 1e4),
    ("stage_y_um", "StagePosition", 1, 1.0, -1e4, 1e4),
    ("stage_z_um", "StageZ", 0, 1.0, -1e4, 1e4),
    ("tilt_deg", "TiltAngle", 0, 1.0, -360.0, 360.0),
    ("frames", "NumSubFrames", 0, 1.0, 0.5, 1e6),
    ("binning", "Binning", 0, 1.0, 0.0, 64.0),
)


@dataclass(frozen=True, slots=True)
class Mdoc:
    """An mdoc: what stands before the first section, and the sections in order, their numbers under ``index``."""

    top: Mapping[str, str]
    titles: tuple[str, ...]
    sections: tuple[Mapping[str, str], ...]


def read_mdoc(path: str | os.PathLike[str]) -> Mdoc:
    """Read an mdoc as it stands, all values as text.

    Raises ``BadData``: ``vanished``, ``mdoc`` (no text, too large, or without a single ``key = value``).
    """
    name = Path(path).name
    try:
        with Path(path).open("rb") as stream:
            data = stream.read(MOST_BYTES + 1)
    except OSError as error:
        raise BadData("vanished", f"{path}: cannot be read ({error.strerror}); was it moved?") from None
    if len(data) > MOST_BYTES or b"\0" in data:
        raise BadData("mdoc", f"{name}: not a text of at most {MOST_BYTES >> 20} MiB; is it an mdoc?")
    top: dict[str, str] = {}
    titles: list[str] = []
    sections: list[dict[str, str]] = []
    # SerialEM writes in Windows' own encoding, newer programs in UTF-8; latin-1 takes any byte.
    for raw in data.decode("utf-8-sig" if _is_utf8(data) else "latin-1").splitlines():
        line = raw.strip()
        if found := _SECTION.match(line):
            sections.append({"index": found[2]})
        elif line.startswith("["):
            titles.append(line.strip("[]").partition("=")[2].strip())
        elif "=" in line:
            key, _, value = line.partition("=")
            (sections[-1] if sections else top)[key.strip()] = value.strip()
    if not top and not any(sections):
        raise BadData("mdoc", f"{name}: no line 'key = value' in it; is it an mdoc?")
    return Mdoc(top, tuple(titles), tuple(sections))


def mdoc_info(path: str | os.PathLike[str], image: str = "") -> dict[str, Any]:
    """What an mdoc says of one image, by the names of a micrograph's ``info``.

    ``image``: the image's file name; of several sections the one whose ``SubFramePath`` ends with it is taken, else the
    first. Numbers that cannot be are left out. Raises as ``read_mdoc``.
    """
    mdoc = read_mdoc(path)
    section = next((s for s in mdoc.sections if image and sub_frame(s) == image), None)
    return dict(_known({**mdoc.top, **(section or next(iter(mdoc.sections), {}))}))


def sub_frame(section: Mapping[str, str]) -> str:
    """The name of the movie a section speaks of, without the (Windows) folders before it; empty where it names none."""
    return PureWindowsPath(section.get("SubFramePath", "")).name


def _known(values: Mapping[str, str]) -> Iterator[tuple[str, Any]]:
    for name, key, which, factor, low, high in _NUMBERS:
        try:
            number = float(values.get(key, "").split()[which]) * factor
        except (ValueError, IndexError):
            continue
        if math.isfinite(number) and low < number < high:
            yield name, round(number) if name == "frames" else number
    for form in _DATES:
        try:
            # The two spaces SerialEM puts between date and time count as one.
            acquired = datetime.strptime(" ".join(values.get("DateTime", "").split()), form)
        except ValueError:
            continue
        yield "acquired", acquired.isoformat()
        return


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True
