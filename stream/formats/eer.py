"""EER movies (Electron Event Representation): electrons counted per pixel of the camera's own grid, all frames summed.

One directory of a TIFF per frame; its strips together are the frame's events: the gap to the last event, then the place
within the pixel. Sub-pixel places are not used. Source: Guo et al., IUCrJ 7 (2020) 860, and Thermo Fisher's EER reader.
"""

from __future__ import annotations

import math
import re
from typing import Any, BinaryIO

import imagecodecs
import numpy as np
import numpy.typing as npt

from ..flow.frame import BadData
from .tiff import EER_CODES, Chain, Page

_METADATA = 65001
# A frame has at most 16 events in a pixel (its 4 × 4 places): so many frames stay below 65536.
_GROUP = 4000


def is_eer(chain: Chain) -> bool:
    """Whether the TIFF has frames of events."""
    return any(page.compression in EER_CODES for page in chain.pages)


def frames_of(chain: Chain) -> tuple[Page, ...]:
    """The pages that are frames of events; a summed picture of the whole exposure may stand before them."""
    return tuple(page for page in chain.pages if page.compression in EER_CODES)


def metadata(chain: Chain) -> dict[str, Any]:
    """What the camera says in the first page: exposure, dose, pixel size, time, frames it means to write.

    The items are read by pattern, not by an XML parser: a file from a network share must not be able to name entities.
    """
    text = chain.first_tags.get(_METADATA, b"").decode("utf-8", "replace")
    items = {name: (unit, value.strip()) for name, unit, value in _ITEM.findall(text)}
    found: dict[str, Any] = {}
    for name, item, factor, low, high in _NUMBERS:
        try:
            value = float(items[item][1]) * factor
        except (KeyError, ValueError):
            continue
        if math.isfinite(value) and low < value < high:
            found[name] = int(value) if name == "frames_expected" else value
    if acquired := items.get("timestamp"):
        found["acquired"] = acquired[1]
    return found


_ITEM = re.compile(r'<item\s+name="([^"]{1,80})"(?:\s+unit="([^"]{0,20})")?\s*>([^<]{0,200})</item>')
# The pixel on the specimen is told by newer cameras; the camera's own, some µm, is outside the range.
_NUMBERS = (
    ("exposure_s", "exposureTime", 1.0, 0.0, 1e5),
    ("dose_e_a2", "totalDose", 1.0, 0.0, 1e5),
    ("frames_expected", "numberOfFrames", 1.0, 0.0, 1e6),
    ("pixel_a", "sensorPixelSize.width", 1e10, 0.01, 1000.0),
)


def read_frames(stream: BinaryIO, pages: tuple[Page, ...], name: str) -> npt.NDArray[np.uint32]:
    """Electrons per pixel, uint32 (ny, nx), over these frames. Row 0 is y = 0.

    Raises ``BadData``: ``truncated`` (events behind the end of the file), ``eer`` (events that are none), ``pages``
    (frames of different sizes).
    """
    shape = (pages[0].length, pages[0].width)
    total = np.zeros(shape, np.uint32)
    for at in range(0, len(pages), _GROUP):
        group = np.zeros(shape, np.uint16)
        for number, page in enumerate(pages[at : at + _GROUP], at + 1):
            if (page.length, page.width) != shape:
                raise BadData("pages", f"{name}: frame {number} has another size than the first; the file is damaged")
            _add(stream, page, group, f"{name}: frame {number} of {len(pages)}")
        total += group
    return total


def _add(stream: BinaryIO, page: Page, counts: npt.NDArray[np.uint16], where: str) -> None:
    events = b""
    for offset, size in zip(page.offsets, page.counts, strict=True):
        stream.seek(offset)
        strip = stream.read(size)
        if len(strip) < size:
            raise BadData("truncated", f"{where}: ends {size - len(strip)} bytes early; copy it again")
        events += strip
    if len(events) % 2:
        # The decoder reads 16 bits at a time. Ones are a gap without an event.
        events += b"\xff"
    try:
        imagecodecs.eer_decode(events, counts.shape, *page.eer_bits, out=counts)
    except (RuntimeError, ValueError) as error:
        raise BadData("eer", f"{where}: its events cannot be decoded ({error}); the file is damaged") from None
