"""The layout of the files we write: CXI version 1.6 (F. Maia, "The CXI File Format for Coherent X-ray Imaging").

Everything is SI: energy in joule, lengths in metre, times in seconds since 1970 (UTC). One entry holds the frames of
one part of one run; ``entry_1/result_1`` holds one value per frame of what was decided, and why. Whatever grows with
the frames has the frame as its first axis, and ``entry_1/number_of_frames`` says how many of them are complete.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

import h5py
import hdf5plugin
import numpy as np
import numpy.typing as npt

from ..flow.frame import EMPTY
from .cxi_rows import IDENTIFIER, row_dtype

log = logging.getLogger(__name__)

CXI_VERSION = 160
# "latest" writes structures of HDF5 2.0, which no older library opens; v110 is the oldest that has SWMR.
LIBVER = ("v110", "v110")
COUNT = "entry_1/number_of_frames"
END_TIME = "entry_1/end_time"
END_REASON = "entry_1/end_reason"
DETECTOR = "entry_1/instrument_1/detector_1"
RESULT = "entry_1/result_1"
CHANGES = "entry_1/result_1/process_1/changes"
TIME_BYTES = 32
REASON_BYTES = 16
MOST_CHANGES, CHANGE_BYTES = 128, 512
ROWS_PER_CHUNK = 1024
PLANCK_TIMES_LIGHT = 6.62607015e-34 * 299792458.0  # J m, exact (SI 2019)
_ROOM = 512


@dataclass(frozen=True, slots=True)
class Layout:
    """What is fixed when a file is laid out.

    ``shape`` of one frame: (y, x) or (module, y, x). ``whole``: a stacked frame is one chunk, not one per module.
    ``identifier_bytes``: room for the longest identifier of the run. ``compressed``: with bitshuffle-LZ4, which is HDF5
    filter 32008.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    classes: int = 5
    mask_per_frame: bool = False
    whole: bool = True
    identifier_bytes: int = 48
    compressed: bool = True

    @property
    def chunk(self) -> tuple[int, ...]:
        """Shape of one chunk of ``data``: one frame, or one module of one frame."""
        return (1, *self.shape) if self.whole or len(self.shape) == 2 else (1, 1, *self.shape[1:])

    @property
    def axes(self) -> str:
        """The ``axes`` attribute of what has one image per frame (CXI 1.6, "Dimension Scales")."""
        return f"{IDENTIFIER}:y:x" if len(self.shape) == 2 else f"{IDENTIFIER}:module_identifier:y:x"


@dataclass(frozen=True, slots=True)
class About:
    """What a file says of its run besides the frames.

    ``started``: seconds since 1970. ``info``: ``RunStart.info`` (SI units). ``mask``: CXI's pixel bits, the shape of
    one frame, for a file whose frames share one mask. ``changes``: what people had changed when the file was begun, a
    line of JSON each.
    """

    run: str
    started: float
    info: Mapping[str, Any] = field(default_factory=lambda: EMPTY)
    mask: npt.NDArray[np.uint32] | None = None
    instrument: str = ""
    sample: str = ""
    configuration: str = ""
    changes: Sequence[str] = ()


def iso_time(seconds: float) -> str:
    """ISO 8601 in UTC with its zone, 32 characters, from seconds since 1970."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="microseconds")


def compression(compressed: bool) -> Mapping[str, Any]:
    """How image datasets are compressed, or not: keywords of ``create_dataset``."""
    return hdf5plugin.Bitshuffle(cname="lz4") if compressed else {}


def lay_out(file: h5py.File, layout: Layout, about: About) -> None:
    """Create every group, link, dataset and attribute of a file that has no frame yet.

    SWMR forbids creating any of them later, and strings of variable length as well: all strings here have fixed length.
    """
    file["cxi_version"] = np.int32(CXI_VERSION)
    file["number_of_entries"] = np.int32(1)
    entry = file.create_group("entry_1")
    put_text(entry, "program_name", f"beamsieve {version('beamsieve')}")
    put_text(entry, "start_time", iso_time(about.started))
    put_text(entry, "end_time", iso_time(about.started), TIME_BYTES)
    put_text(entry, "end_reason", "", REASON_BYTES)
    put_text(entry, "title", _said(about.info, "title") or f"run {about.run}")
    entry["number_of_frames"] = np.int64(0)
    put_text(entry.create_group("sample_1"), "name", about.sample or _said(about.info, "sample") or "unknown")
    _put_instrument(entry, layout, about)
    entry["data_1"] = h5py.SoftLink(f"/{DETECTOR}")
    _put_columns(entry, layout)
    _put_process(entry["result_1"], about)


def put_text(group: h5py.Group, name: str, text: str, size: int = 0) -> None:
    """Write a UTF-8 string of fixed length: ``size`` bytes, or as many as ``text`` has."""
    raw = text.replace("\0", "").encode()
    dtype = h5py.string_dtype("utf-8", max(size, len(raw), 1))
    group.create_dataset(name, data=np.array(raw, dtype))


def _said(info: Mapping[str, Any], name: str) -> str:
    """A text of the sender's, at most 512 characters; nothing if it is not text."""
    value = info.get(name)
    return value[:_ROOM].strip() if isinstance(value, str) else ""


def said_number(info: Mapping[str, Any], name: str) -> float | None:
    """A number of the sender's, or None where it said none that is finite."""
    value = info.get(name)
    if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
        return None
    return float(value) if math.isfinite(value) else None


def _put_instrument(entry: h5py.Group, layout: Layout, about: About) -> None:
    instrument = entry.create_group("instrument_1")
    put_text(instrument, "name", about.instrument or _said(about.info, "instrument") or "unknown")
    source = instrument.create_group("source_1")
    energy, wavelength = said_number(about.info, "energy_J"), said_number(about.info, "wavelength_m")
    if energy is None and wavelength:
        energy = PLANCK_TIMES_LIGHT / wavelength
    if energy is not None and energy > 0:
        source["energy"] = energy
    detector = instrument.create_group("detector_1")
    put_text(detector, "description", _said(about.info, "detector") or "unknown")
    for name in ("distance", "x_pixel_size", "y_pixel_size"):
        value = said_number(about.info, f"{name}_m")
        if value is not None and value > 0:
            detector[name] = value
    _put_corner(detector, layout, about.info)
    _put_images(detector, layout, about)


def _put_corner(detector: h5py.Group, layout: Layout, info: Mapping[str, Any]) -> None:
    """Where the corner of the first pixel is, if the sender said where the beam goes through the detector.

    With CXI's default basis vectors rows go down and columns go against x (section "The orientation of pixel
    detectors"), so that the corner lies at (+x, +y) of the beam. A stack of modules has no single corner.
    """
    x, y = said_number(info, "beam_center_x_px"), said_number(info, "beam_center_y_px")
    known = {"distance", "x_pixel_size", "y_pixel_size"} <= set(detector)
    if x is not None and y is not None and known and len(layout.shape) == 2:
        width, height = detector["x_pixel_size"][()], detector["y_pixel_size"][()]
        detector["corner_position"] = np.array([x * width, y * height, detector["distance"][()]])


def _put_images(detector: h5py.Group, layout: Layout, about: About) -> None:
    growing = {"shape": (0, *layout.shape), "maxshape": (None, *layout.shape), "chunks": layout.chunk}
    data = detector.create_dataset("data", dtype=layout.dtype, **growing, **compression(layout.compressed))
    data.attrs["axes"] = layout.axes
    if layout.mask_per_frame:
        mask = detector.create_dataset("mask", dtype=np.uint32, **growing, **compression(layout.compressed))
        mask.attrs["axes"] = layout.axes
    else:
        shared = np.zeros(layout.shape, np.uint32) if about.mask is None else about.mask
        mask = detector.create_dataset("mask", data=shared, chunks=layout.chunk[1:], **compression(layout.compressed))
        if len(layout.shape) == 3:
            mask.attrs["axes"] = "module_identifier:y:x"
    detector[IDENTIFIER] = h5py.SoftLink(f"/entry_1/{IDENTIFIER}")
    if len(layout.shape) == 3:
        names = _module_names(about.info.get("modules"), layout.shape[0])
        detector["module_identifier"] = np.array(names, h5py.string_dtype("utf-8", max(map(len, names))))


def _module_names(said: object, count: int) -> list[bytes]:
    if isinstance(said, Sequence) and not isinstance(said, (str, bytes)) and len(said) == count:
        names = [str(name)[:_ROOM].encode() for name in said]
        if all(names) and len(set(names)) == count:
            return names
    return [str(number).encode() for number in range(count)]


def _put_columns(entry: h5py.Group, layout: Layout) -> None:
    """One growing dataset per column. They are not compressed: SWMR leaks a chunk each time one is written again."""
    result = entry.create_group("result_1")
    dtypes = row_dtype(layout.classes, layout.identifier_bytes)
    for name in dtypes.names or ():
        dtype, extra = dtypes[name].base, dtypes[name].shape
        group = entry if name == IDENTIFIER else result
        group.create_dataset(
            name, shape=(0, *extra), maxshape=(None, *extra), chunks=(ROWS_PER_CHUNK, *extra), dtype=dtype
        )
    result["timestamp"].attrs["units"] = "s"
    result["hit_score"].attrs["headings"] = np.array(["hit_score"], h5py.string_dtype("utf-8", 9))
    result[IDENTIFIER] = h5py.SoftLink(f"/entry_1/{IDENTIFIER}")
    result["detector_1"] = h5py.SoftLink(f"/{DETECTOR}")
    entry["instrument_1/detector_1/score"] = h5py.SoftLink(f"/{RESULT}/hit_score")
    put_text(result, "description", "Single-particle hits: the model's verdict on every stored frame")


def _put_process(result: h5py.Group, about: About) -> None:
    process = result.create_group("process_1")
    put_text(process, "program", "beamsieve")
    put_text(process, "version", version("beamsieve"))
    put_text(process, "date", iso_time(about.started))
    if about.configuration:
        note = process.create_group("note_1")
        put_text(note, "description", "The configuration the program ran with")
        put_text(note, "type", "text/yaml")
        put_text(note, "data", about.configuration)
    # Not one that grows: those have the frame as their first axis. Written at once: what gets its place on the disk
    # only with its first change is damage to a live reader, until a frame follows.
    process["changes"] = np.zeros(MOST_CHANGES, h5py.string_dtype("utf-8", CHANGE_BYTES))
    process["changes"].attrs["description"] = "What people changed: before the first frame, and while the file was open"
    for at, line in enumerate(about.changes[-MOST_CHANGES // 2 :]):
        put_change(process["changes"], at, line)


def put_change(changes: h5py.Dataset, at: int, line: str) -> None:
    """Write one change into its place. One more than there are places takes the last: what came in force last is there.

    A line too long for its place loses the old value, and is left out if it is too long still: every frame has its own
    threshold, and the title is the file's.
    """
    raw = line.encode(errors="replace")
    if len(raw) > CHANGE_BYTES:
        raw = json.dumps({**json.loads(line), "old": None}, ensure_ascii=False).encode(errors="replace")
    if len(raw) <= CHANGE_BYTES:
        changes[min(at, MOST_CHANGES - 1)] = raw
