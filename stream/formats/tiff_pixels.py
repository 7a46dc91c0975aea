"""Pixels of the pages of a TIFF, decoded by tifffile, after the chain of pages was checked by ``tiff``."""

from __future__ import annotations

import logging
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import tifffile

from ..flow.frame import BadData
from .pictures import grey
from .tiff import Chain

# It reports what it finds strange in a file; what matters is told in our own words, once.
logging.getLogger("tifffile").setLevel(logging.CRITICAL)


class TiffPixels:
    """The pages of one open TIFF that are frames: of the first one's size and type, previews left out.

    Raises ``BadData``: ``dtype`` (no plain numbers), ``pages`` (pages of different sizes or types).
    """

    def __init__(self, stream: BinaryIO, chain: Chain, name: str) -> None:
        self.pages = tuple(page for page in chain.pages if not page.reduced) or chain.pages
        self._places = [i for i, page in enumerate(chain.pages) if page in self.pages]
        self._stream, self._name = stream, name
        self._file: tifffile.TiffFile | None = None
        first = self.pages[0]
        if first.dtype is None:
            raise BadData(
                "dtype", f"{name}: pixels of {first.bits} bits, format {first.sample_format}; save them as 8, 16 or 32"
            )
        for number, page in enumerate(self.pages, 1):
            if (page.width, page.length, page.dtype) != (first.width, first.length, first.dtype):
                raise BadData(
                    "pages",
                    f"{name}: page {number} is {page.width} × {page.length} {page.dtype}, the first "
                    f"{first.width} × {first.length} {first.dtype}; a movie has frames of one size",
                )
        self.dtype = np.dtype(np.float32) if first.dtype == np.float16 else first.dtype

    def read(self, index: int) -> npt.NDArray[Any]:
        """Frame ``index`` (ny, nx), native byte order; float16 comes as float32. Row 0 is y = 0.

        Raises ``BadData("decode")`` for strips that cannot be decoded.
        """
        page = self.pages[index]
        try:
            if self._file is None:
                self._stream.seek(0)
                self._file = tifffile.TiffFile(self._stream)
            pixels = self._file.pages[self._places[index]].asarray(maxworkers=1)
        except MemoryError:
            raise
        except Exception as error:
            # tifffile and its codecs raise whatever they meet, from IndexError to struct.error.
            raise BadData(
                "decode", f"{self._name}: page {index + 1} cannot be decoded ({error}); copy or save it again"
            ) from None
        data = grey(np.asarray(pixels), self._name)
        if data.shape != (page.length, page.width):
            raise BadData(
                "pages", f"{self._name}: page {index + 1} came out as {data.shape}, not {page.length} × {page.width}"
            )
        wanted = np.float32 if data.dtype == np.float16 else data.dtype.newbyteorder("=")
        return data.astype(wanted, copy=False)
