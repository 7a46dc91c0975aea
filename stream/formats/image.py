"""One micrograph from whatever file it comes in: MRC, TIFF, EER, PNG, JPEG; stills, and movies summed.

What a file is, is told by its first bytes, not by its name. ``image_header`` costs a few reads and allocates nothing
for pixels; ``read_image`` gives one array (ny, nx) whose row 0 is y = 0, and needs memory for one frame and their sum.
Every problem is a ``BadData`` whose reason is one of: ``vanished``, ``empty``, ``truncated``, ``header``, ``mode``,
``dtype``, ``pages``, ``decode``, ``eer``, ``colour``, ``values``, and ``gain_shape``, ``gain`` of the gain reference.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, BinaryIO, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from ..flow.frame import BadData
from . import eer, mrc, pictures, tiff, tiff_tags
from .gain import Gain, repair
from .tiff_pixels import TiffPixels

Frames: TypeAlias = Literal["sum", "first"] | int
SUFFIXES = (".mrc", ".mrcs", ".tif", ".tiff", ".eer", ".png", ".jpg", ".jpeg")
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_MOST_BAD = 0.1


@dataclass(frozen=True, slots=True)
class Header:
    """What a file says of itself before a pixel is read.

    ``kind``: mrc, tiff, eer, png or jpeg. ``shape``: (frames, ny, nx), the frames that are there. ``dtype``: of a frame
    as it is decoded, native byte order. ``nbytes_expected``: the size of the whole file, more than it has where it is
    cut or still being written; None where only decoding tells. ``pixel_a``: ångström per pixel, None: unknown.
    ``info``: further numbers by the names of a micrograph's ``info``; ``frames_expected`` where the file tells how many
    frames it should have.
    """

    kind: str
    shape: tuple[int, int, int]
    dtype: np.dtype[Any]
    nbytes_expected: int | None
    pixel_a: float | None
    info: Mapping[str, Any]

    @property
    def frames(self) -> int:
        """Frames of a movie or sections of a stack that are there; 1 for a still."""
        return self.shape[0]


@dataclass(frozen=True, slots=True, eq=False)
class Image:
    """One micrograph. ``data`` (ny, nx): as stored, a sum (uint32, int32, uint64, int64, float32), or float32.

    ``saturation``: the value at which its pixels are saturated (a single integer frame), None where none is known.
    ``frames``: how many were summed. ``info``: the header's, with ``repaired`` (pixels without a measurement, which
    got the mean of their neighbours) where there are any.
    """

    data: npt.NDArray[Any]
    pixel_a: float | None
    info: Mapping[str, Any]
    saturation: float | None
    frames: int


@dataclass(frozen=True, slots=True)
class _Opened:
    header: Header
    read: Callable[[int], npt.NDArray[Any]]
    total: Callable[[], npt.NDArray[Any]] | None = None


def image_header(path: str | os.PathLike[str], size: int | None = None) -> Header:
    """Read what the file at ``path`` says of itself; ``size``: its bytes, where they are known already.

    A file that is cut behind its directories is no error: compare ``nbytes_expected`` with its size, and the frames
    with ``info["frames_expected"]``. Raises ``BadData`` (see the module), ``vanished`` where it is no longer there.
    """
    with _open(Path(path)) as stream:
        return _opened(stream, size if size is not None else _size(stream), Path(path).name).header


def read_image(
    path: str | os.PathLike[str], *, frames: Frames = "sum", gain: Gain | None = None, mend: bool = True
) -> Image:
    """Read a micrograph; of a movie or stack the sum of its frames, the first, or the one of a number (from 0).

    ``gain``: multiplied with the sum (see ``gain``). Pixels that are not finite, or have no gain, get the mean of
    their neighbours, unless ``mend`` is False. Raises ``BadData`` for every file that cannot be used.
    """
    name = Path(path).name
    with _open(Path(path)) as stream:
        size = _size(stream)
        opened = _opened(stream, size, name)
        header = opened.header
        if header.nbytes_expected is not None and size < header.nbytes_expected:
            raise BadData(
                "truncated", f"{name}: {size} bytes, its header speaks of {header.nbytes_expected}; copy it again"
            )
        data, n = _frames(opened, frames, name)
    integer = data.dtype.kind in "iu" and n == 1 and gain is None
    saturation = float(np.iinfo(data.dtype).max) if integer and data.dtype.itemsize <= 2 else None
    info = dict(header.info)
    if mend or gain is not None:
        data, repaired = _mended(data, gain, name)
        info |= {"repaired": repaired} if repaired else {}
    return Image(data, header.pixel_a, MappingProxyType(info), saturation, n)


def _mended(data: npt.NDArray[Any], gain: Gain | None, name: str) -> tuple[npt.NDArray[Any], int]:
    """The image with the gain applied and its unusable pixels filled, and how many these were."""
    bad = np.zeros((), np.bool_) if data.dtype.kind in "iu" else ~np.isfinite(data)
    if gain is not None:
        data, without = gain.apply(data, name)
        bad = bad | without
    repaired = int(np.count_nonzero(bad))
    if repaired > _MOST_BAD * data.size:
        raise BadData("values", f"{name}: {repaired} of {data.size} pixels are no measurement; write it again")
    return (repair(data, bad), repaired) if repaired else (data, 0)


def _frames(opened: _Opened, frames: Frames, name: str) -> tuple[npt.NDArray[Any], int]:
    """The array asked for, and of how many frames it is the sum."""
    count = opened.header.shape[0]
    promised = opened.header.info.get("frames_expected", count)
    if promised > count and opened.header.kind == "tiff":
        raise BadData("pages", f"{name}: {count} pages, its description speaks of {promised}; it is cut, copy it again")
    if frames != "sum":
        index = 0 if frames == "first" else frames
        if not 0 <= index < count:
            raise BadData("pages", f"{name}: frame {index} of {count} was asked for; the first is 0")
        return opened.read(index), 1
    if count == 1:
        return opened.read(0), 1
    if opened.total is not None:
        return opened.total(), count
    return total(opened.read(i) for i in range(count)), count


def total(frames: Iterator[npt.NDArray[Any]]) -> npt.NDArray[Any]:
    """Sum frames (ny, nx) of one shape one by one: integers in 32 bits (64 if they have 32), others in float32."""
    summed: npt.NDArray[Any] | None = None
    for frame in frames:
        if summed is None:
            summed = frame.astype(_accumulator(frame.dtype))
        else:
            np.add(summed, frame, out=summed, casting="unsafe")
    if summed is None:
        raise ValueError("no frames to sum")
    return summed


def _accumulator(dtype: np.dtype[Any]) -> np.dtype[Any]:
    if dtype.kind == "f":
        return np.dtype(np.float32)
    return np.dtype(f"{dtype.kind}{8 if dtype.itemsize >= 4 else 4}")


def _open(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except FileNotFoundError:
        raise BadData("vanished", f"{path}: no longer there; was it moved or renamed?") from None
    except OSError as error:
        raise BadData("vanished", f"{path}: cannot be opened ({error.strerror}); check its permissions") from None


def _size(stream: BinaryIO) -> int:
    return os.fstat(stream.fileno()).st_size


def _opened(stream: BinaryIO, size: int, name: str) -> _Opened:
    start = stream.read(mrc.HEADER_BYTES)
    if not start:
        raise BadData("empty", f"{name}: 0 bytes; it is being written, or was never finished")
    if start[:4] in _TIFF:
        return _open_tiff(stream, size, name)
    if start.startswith(pictures.PNG):
        return _open_picture(stream, size, name, pictures.read_png_header)
    if start.startswith(pictures.JPEG):
        return _open_picture(stream, size, name, pictures.read_jpeg_header)
    return _open_mrc(stream, size, name)


def _open_mrc(stream: BinaryIO, size: int, name: str) -> _Opened:
    found = mrc.read_header(stream, size, name)
    dtype = np.dtype(np.float32) if found.mode == 12 else found.dtype.newbyteorder("=")
    shape = (found.nz, found.ny, found.nx)
    header = Header("mrc", shape, dtype, found.expected_bytes, found.pixel_a, MappingProxyType(dict(found.info)))
    return _Opened(header, lambda index: mrc.read_section(stream, found, index, name))


def _open_tiff(stream: BinaryIO, size: int, name: str) -> _Opened:
    chain = tiff.read_chain(stream, size, name)
    # Bytes that no directory speaks of are common in TIFF, and no sign of anything.
    whole = max(chain.expected_bytes, size)
    if eer.is_eer(chain):
        events = eer.frames_of(chain)
        info = eer.metadata(chain)
        pixel = info.pop("pixel_a", None)
        shape = (len(events), events[0].length, events[0].width)
        header = Header("eer", shape, np.dtype(np.uint32), whole, pixel, MappingProxyType(info))

        def electrons(which: slice = slice(None)) -> npt.NDArray[Any]:
            return eer.read_frames(stream, events[which], name)

        return _Opened(header, lambda i: electrons(slice(i, i + 1)), electrons)
    pixels = TiffPixels(stream, chain, name)
    promised = tiff_tags.promised_pages(chain)
    info = {} if promised is None else {"frames_expected": promised}
    shape = (len(pixels.pages), pixels.pages[0].length, pixels.pages[0].width)
    pixel = tiff_tags.pixel_a(chain)
    header = Header("tiff", shape, pixels.dtype, whole, pixel, MappingProxyType(info))
    return _Opened(header, pixels.read)


def _open_picture(
    stream: BinaryIO, size: int, name: str, reader: Callable[[BinaryIO, int, str], pictures.Picture]
) -> _Opened:
    found = reader(stream, size, name)

    def read(_: int) -> npt.NDArray[Any]:
        stream.seek(0)
        return pictures.decode(stream.read(size), found, name)

    header = Header(found.kind, (1, found.height, found.width), found.dtype, found.expected_bytes, None, {})
    return _Opened(header, read)
