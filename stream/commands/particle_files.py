"""One file or folder of particles: what is in it, and how its images are read block by block."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

import h5py
import numpy as np
import numpy.typing as npt

from ..errors import plain
from ..flow.frame import BadData
from ..formats import mrc
from ..sinks.picks.places import RECORDS, Places
from ..sinks.picks.record import LAYOUT, read
from ..sinks.picks.rows import Row, Rows
from .stack_files import StackError, open_stack

Floats: TypeAlias = npt.NDArray[np.float32]
#: ``read(first, last)``: images [first, last), as stored.
Read: TypeAlias = Callable[[int, int], npt.NDArray[np.generic]]

SESSION = "session.h5"
ARRAYS = (".h5", ".hdf5", ".hdf", ".cxi", ".npy", ".npz")
LARGEST_EDGE = 4096
_IMAGES_OF_VOLUMES = 401
#: In a folder that ``beamsieve classify2d`` wrote.
SUMMARY = "classify2d.json"


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """The particles of one file. ``first``: the number of its first particle among all, from 0.

    ``edge``: pixels as stored. ``pixel_a``: ångström per pixel, None: unknown. ``row``: the micrograph that they were
    cut from, with their centres (``row.record.images``), where the file is a session's, whose folder is ``folder``.
    ``dataset``: of which HDF5 dataset or array they are.
    """

    path: Path
    count: int
    edge: int
    pixel_a: float | None
    first: int = 0
    row: Row | None = None
    dataset: str | None = None
    folder: Path = Path()

    @property
    def even(self) -> int:
        """The edge that is used: of an odd one, the last row and column are left out, and the centre stays."""
        return self.edge - self.edge % 2

    def names(self, first: int, last: int) -> list[str]:
        """Particles as RELION names them: ``000001@file``, counted from 1."""
        return [f"{at + 1:06d}@{self.path}" for at in range(first, last)]


def parts_of(source: Path, dataset: str | None, notes: list[str]) -> list[Part]:
    """The files of particles that a source stands for. Raises ``StackError`` naming file and remedy."""
    if source.is_dir():
        return _folder(source, notes)
    if not source.is_file():
        raise StackError(f"{source}: no such file or folder")
    suffix = source.suffix.lower()
    if suffix in ARRAYS:
        if suffix in (".h5", ".hdf5") and dataset is None:
            layout = _layout(source)
            if layout == LAYOUT:
                return _session([_row(source)], source.parent)
            if source.name == SESSION and (source.parent / RECORDS).is_dir():
                return _folder(source.parent, notes)
        return [_array(source, dataset)]
    if suffix == ".star":
        raise StackError(f"{source}: a STAR names particles; name the .mrcs stacks that hold them")
    return [_mrc(source)]


def _folder(folder: Path, notes: list[str]) -> list[Part]:
    """A session's records, or the ``.mrcs`` files of another folder."""
    if (folder / RECORDS).is_dir():
        rows = Rows(Places(folder))
        rows.scan()
        kept = [row for row in rows.sorted() if row.record.images is not None and not row.record.micrograph.skipped]
        if not kept:
            raise StackError(f"{folder}: its {len(rows)} micrographs keep no particles; set files.particles.keep: true")
        return _session(kept, folder)
    everything = sorted(path for path in folder.rglob("*.mrcs") if path.is_file())
    # What was written about particles is no particle: averages, and denoised images.
    written = {summary.parent for summary in folder.rglob(SUMMARY)}
    files = [path for path in everything if written.isdisjoint(path.parents)]
    if not files:
        ours = f"; its {len(everything)} were written by classify2d, name them one by one" if everything else ""
        raise StackError(f"{folder}: neither a session (no folder {RECORDS}) nor a folder with .mrcs files{ours}")
    left_out = len(everything) - len(files)
    ours = f"; {left_out} others were written by classify2d and are left out" if left_out else ""
    notes.append(f"{folder}: {len(files)} .mrcs files{ours}")
    return [_mrc(path) for path in files]


def _session(rows: Sequence[Row], folder: Path) -> list[Part]:
    parts = []
    for row in rows:
        images = row.record.images
        if images is not None:
            known = (len(images), images.size, images.pixel_a or None)
            parts.append(Part(folder / row.file, *known, 0, row, "particles/images", folder))
    return parts


def _row(path: Path) -> Row:
    """A record that is named by itself."""
    try:
        record = read(path)
    except BadData as error:
        raise StackError(error.detail) from None
    m = record.micrograph
    if record.images is None:
        raise StackError(f"{path}: keeps no particles; name a stack of particles")
    picks = replace(m, candidates=m.picks, picked=np.ones(int(m.picked.sum()), bool))
    return Row(replace(record, micrograph=picks), len(m.candidates), path.name)


def _layout(path: Path) -> str:
    try:
        with h5py.File(path, "r") as file:
            return str(file.attrs.get("layout", ""))
    except OSError as error:
        raise StackError(f"{path}: cannot be read as HDF5 ({plain(error)}); check that it is complete") from None


def _array(path: Path, dataset: str | None) -> Part:
    with open_stack(path, dataset) as stack:
        if len(stack.shape) != 3:
            raise StackError(f"{path}: {stack.dataset} has shape {stack.shape}, not (n, edge, edge)")
        count, ny, nx = stack.shape
        _check_edge(path, nx, ny)
        return Part(path, count, ny, _attribute(path, stack.dataset), 0, None, stack.dataset)


def _attribute(path: Path, dataset: str) -> float | None:
    """``pixel_a`` of an HDF5 dataset, or of a group above it."""
    if path.suffix.lower() in (".npy", ".npz"):
        return None
    with h5py.File(path, "r") as file:
        place = file[dataset]
        for node in (place, place.parent, file):
            value = node.attrs.get("pixel_a")
            if value is not None and np.ndim(value) == 0 and np.isfinite(value) and value > 0:
                return float(value)
    return None


def _check_edge(path: Path, nx: int, ny: int) -> None:
    if nx != ny:
        raise StackError(
            f"{path}: images of {ny} × {nx} pixels; particles are square: is it a micrograph? "
            "beamsieve pick --particles cuts particles out"
        )
    if not 8 <= nx <= LARGEST_EDGE:
        raise StackError(f"{path}: edge of {nx} pixels; particles have 8 to {LARGEST_EDGE}")


def _mrc(path: Path) -> Part:
    try:
        with path.open("rb") as stream:
            size = os.fstat(stream.fileno()).st_size
            header = mrc.read_header(stream, size, str(path))
            stream.seek(0)
            start = stream.read(mrc.HEADER_BYTES)
    except BadData as error:
        raise StackError(error.detail) from None
    except OSError as error:
        raise StackError(f"{path}: cannot be opened: {error.strerror}; check its permissions") from None
    # Of the two byte orders, the one that gives a small number: a header of int8 does not say which it has.
    space = min(int.from_bytes(start[88:92], "little"), int.from_bytes(start[88:92], "big"))
    _check_edge(path, header.nx, header.ny)
    # RELION goes by the name; others say in the header whether the sections are images or a volume.
    if space >= _IMAGES_OF_VOLUMES or (space > 0 and header.nz > 1 and path.suffix.lower() != ".mrcs"):
        raise StackError(
            f"{path}: a volume of {header.nz} sections (space group {space}), not a stack of images; "
            "if it is a stack, give it the ending .mrcs"
        )
    if size < header.expected_bytes:
        whole = (size - header.offset) // header.frame_bytes
        raise StackError(f"{path}: truncated: {whole} of {header.nz} images are there; copy it again")
    return Part(path, header.nz, header.nx, header.pixel_a)


@contextmanager
def opened(part: Part) -> Iterator[Read]:
    """A file, open to be read. Raises ``StackError``."""
    if part.dataset is not None:
        with open_stack(part.path, part.dataset) as stack:
            if stack.shape[0] < part.count:
                raise StackError(f"{part.path}: has fewer particles than before; it is being written, try again")
            yield stack.read
        return
    try:
        stream = part.path.open("rb")
    except OSError as error:
        raise StackError(f"{part.path}: cannot be opened: {error.strerror}; was it moved?") from None
    with stream:
        header = mrc.read_header(stream, os.fstat(stream.fileno()).st_size, str(part.path))

        def images(first: int, last: int) -> npt.NDArray[np.generic]:
            stream.seek(header.offset + first * header.frame_bytes)
            pixels = np.fromfile(stream, header.dtype, (last - first) * header.nx * header.ny)
            if len(pixels) < (last - first) * header.nx * header.ny:
                raise StackError(f"{part.path}: truncated within particles {first + 1} to {last}; copy it again")
            return pixels.reshape(last - first, header.ny, header.nx)

        yield images


def block(part: Part, read: Read, first: int, last: int) -> Floats:
    """Its particles [first, last), float32 (n, even, even). Raises ``StackError``."""
    try:
        return read(first, last)[:, : part.even, : part.even].astype(np.float32)
    except (OSError, ValueError, EOFError, RuntimeError) as error:
        raise StackError(
            f"{part.path}: particles {first + 1} to {last} cannot be read ({plain(error)}); copy it again"
        ) from None
