"""PNG and JPEG pictures of micrographs: sizes and completeness from their chunks, pixels by imagecodecs."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any, BinaryIO

import imagecodecs
import numpy as np
import numpy.typing as npt

from ..flow.frame import BadData

PNG = b"\x89PNG\r\n\x1a\n"
JPEG = b"\xff\xd8\xff"
LARGEST_SIDE = 1 << 17
LARGEST_PICTURE = 1 << 29
# Deflate gains at most 1032, and a row of a palette of two colours eight times that.
_MOST_GAIN = 8256
_MOST_CHUNKS = 1 << 20
_FRAMES_OF_JPEG = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}


@dataclass(frozen=True, slots=True)
class Picture:
    """What a picture's first bytes say. ``expected_bytes``: of the whole file, None where only its end tells."""

    kind: str
    width: int
    height: int
    dtype: np.dtype[Any]
    expected_bytes: int | None


def read_png_header(stream: BinaryIO, size: int, name: str) -> Picture:
    """Sizes and type of a PNG, and where its last chunk ends (beyond ``size`` where it is cut).

    Raises ``BadData``: ``truncated`` (no room for the first chunk), ``header`` (impossible sizes).
    """
    stream.seek(0)
    start = stream.read(33)
    if len(start) < 33 or start[12:16] != b"IHDR":
        raise BadData("truncated" if len(start) < 33 else "header", f"{name}: a PNG without IHDR; copy it again")
    width, height, depth = struct.unpack(">2IB", start[16:25])
    _believe(width, height, size, name)
    at = 8
    for _ in range(_MOST_CHUNKS):
        stream.seek(at)
        chunk = stream.read(8)
        if len(chunk) < 8:
            at += 12
            break
        at += 12 + int(struct.unpack(">I", chunk[:4])[0])
        if chunk[4:] == b"IEND" or at > size:
            break
    return Picture("png", width, height, np.dtype(np.uint16 if depth == 16 else np.uint8), at)


def read_jpeg_header(stream: BinaryIO, size: int, name: str) -> Picture:
    """Sizes of a JPEG from its frame header; whether it is whole is seen when it is decoded.

    Raises ``BadData``: ``truncated`` (ends before the frame header), ``header`` (no chain of markers).
    """
    at = 2
    while True:
        stream.seek(at)
        head = stream.read(10)
        if len(head) < 10:
            raise BadData("truncated", f"{name}: ends before the size of the picture; copy it again")
        if head[0] != 0xFF:
            raise BadData("header", f"{name}: no marker at byte {at} of this JPEG; the file is damaged")
        if head[1] in _FRAMES_OF_JPEG:
            height, width = struct.unpack(">2H", head[5:9])
            _believe(width, height, size, name)
            return Picture("jpeg", width, height, np.dtype(np.uint8 if head[4] == 8 else np.uint16), None)
        at += 1 if head[1] == 0xFF else 2 + struct.unpack(">H", head[2:4])[0]


def _believe(width: int, height: int, size: int, name: str) -> None:
    fits = 0 < width <= LARGEST_SIDE and 0 < height <= LARGEST_SIDE and width * height <= LARGEST_PICTURE
    if not fits or width * height > size * _MOST_GAIN:
        raise BadData("header", f"{name}: {width} × {height} pixels in {size} bytes; the file is damaged")


def decode(data: bytes, picture: Picture, name: str) -> npt.NDArray[Any]:
    """The pixels, (ny, nx) uint8 or uint16, row 0 the top row of the picture, which is y = 0.

    A picture in grey that was saved as RGB is taken; colours are refused (``colour``), because no mixture of them is
    the electron's count. Raises ``BadData``: ``truncated``, ``decode``, ``colour``.
    """
    if picture.kind == "jpeg" and b"\xff\xd9" not in data[-4096:]:
        raise BadData("truncated", f"{name}: no end of image in the last 4 KiB of this JPEG; copy it again")
    try:
        pixels = imagecodecs.png_decode(data) if picture.kind == "png" else imagecodecs.jpeg_decode(data)
    except (RuntimeError, ValueError, MemoryError) as error:
        raise BadData("decode", f"{name}: {picture.kind} cannot be decoded ({error}); save it again") from None
    return grey(np.asarray(pixels), name)


def grey(pixels: npt.NDArray[Any], name: str) -> npt.NDArray[Any]:
    """(ny, nx) of (ny, nx), or of (ny, nx, channels) with equal colours; opaque alpha is dropped.

    Raises ``BadData("colour")`` where the colours differ.
    """
    if pixels.ndim == 2:
        return pixels
    if pixels.ndim == 3 and pixels.shape[2] in (1, 2, 3, 4):
        colours = pixels[..., : 1 if pixels.shape[2] < 3 else 3]
        if (colours == colours[..., :1]).all():
            return np.ascontiguousarray(colours[..., 0])
    raise BadData("colour", f"{name}: a picture in colour ({pixels.shape}); save it in grey, 8 or 16 bits")
