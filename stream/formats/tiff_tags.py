"""What the tags of a TIFF's first page say beside the pixels: their size, and how many images there should be."""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Iterator

from .tiff import Chain

_DESCRIPTION, _X_RESOLUTION, _UNIT = 270, 282, 296


def pixel_a(chain: Chain) -> float | None:
    """Ångström per pixel where the first page's tags state it with a real unit, else None.

    Read are ImageJ's description (``unit=`` with the resolution in pixels per unit) and centimetres; the resolution
    in inches that every program writes (72, 300 dpi) says nothing of a specimen.
    """
    tags = chain.first_tags
    resolution = tags.get(_X_RESOLUTION, b"")
    if len(resolution) != 8:
        return None
    pixels, units = struct.unpack(f"{chain.order}2I", resolution)
    unit = next(iter(_units(tags.get(_DESCRIPTION, b""))), 0.0)
    if not unit and tags.get(_UNIT, b"")[:2] == struct.pack(f"{chain.order}H", 3):
        unit = 1e8
    size = units / pixels * unit if pixels else 0.0
    return size if 0.01 < size < 1000 else None


def _units(description: bytes) -> Iterator[float]:
    names = {"angstrom": 1.0, "å": 1.0, "a": 1.0, "nm": 10.0, "um": 1e4, "µm": 1e4, "micron": 1e4}
    if description.startswith(b"ImageJ"):
        for line in description.split(b"\0")[0].decode("latin-1").splitlines():
            key, _, value = line.partition("=")
            if key == "unit":
                yield names.get(value.strip().lower().replace("\\u00b5", "µ").replace("\\u00c5", "å"), 0.0)


def promised_pages(chain: Chain) -> int | None:
    """How many images the first page's description speaks of (ImageJ's ``images=``, tifffile's shape), if it does."""
    description = chain.first_tags.get(_DESCRIPTION, b"").split(b"\0")[0].decode("latin-1")
    if found := re.search(r"^images=(\d{1,9})$", description, re.MULTILINE) if "ImageJ" in description[:6] else None:
        return int(found[1])
    if not description.startswith('{"shape"'):
        return None
    try:
        shape = tuple(map(int, json.loads(description)["shape"]))
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    page = chain.pages[0]
    return shape[0] if len(shape) == 3 and shape[1:] == (page.length, page.width) else None
