"""Stacks of particles in files: MRC stacks, sessions of the daemon and their HDF5, other HDF5 and numpy files.

Images are read block by block. They may differ in edge where their boxes are equally large in ångström, because all
are brought to one working size afterwards.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from .particle_files import Floats, Part, block, opened, parts_of
from .stack_files import StackError

_SAME_BOX = 0.01


@dataclass(frozen=True, slots=True, eq=False)
class Stacks:
    """All particles of some files, in order. ``notes``: what people should know, a line each."""

    parts: tuple[Part, ...]
    notes: tuple[str, ...] = ()

    @property
    def count(self) -> int:
        """Particles."""
        return sum(part.count for part in self.parts)

    @property
    def edge(self) -> int:
        """Edge of the images in pixels, even; of several the largest."""
        return max(part.even for part in self.parts)

    @property
    def pixel_a(self) -> float | None:
        """Ångström per pixel of images of ``edge`` pixels; None: unknown."""
        return max(self.parts, key=lambda part: part.even).pixel_a

    @property
    def working_a(self) -> float | None:
        """Ångström per pixel of working images, which show the same box on 64 pixels; None: unknown."""
        part = self.parts[0]
        return None if part.pixel_a is None else part.pixel_a * part.even / 64

    def chunks(self, most: int = 512) -> Iterator[tuple[list[str], Floats]]:
        """At most ``most`` particles at a time: their names, and float32 (n, edge, edge) with the edge of their file.

        Raises ``StackError`` for a file that changed or was cut since it was looked at.
        """
        names: list[str] = []
        images: list[Floats] = []
        for part in self.parts:
            with opened(part) as blocks:
                done = 0
                while done < part.count:
                    if images and (len(names) >= most or images[0].shape[-1] != part.even):
                        yield names, np.concatenate(images)
                        names, images = [], []
                    last = min(part.count, done + most - len(names))
                    images.append(block(part, blocks, done, last))
                    names += part.names(done, last)
                    done = last
        if images:
            yield names, np.concatenate(images)


def stacks(sources: Sequence[Path], pixel_a: float | None = None, dataset: str | None = None) -> Stacks:
    """Look at files and folders of particles; nothing but headers is read.

    A source is an MRC stack, a session's folder, its ``session.h5`` or one of its records, another HDF5 or numpy file
    with one dataset (n, edge, edge) (or the one called ``dataset``), or a folder of ``.mrcs``. ``pixel_a``: ångström
    per pixel, in place of what the files say. Raises ``StackError`` naming file and remedy.
    """
    found: list[Part] = []
    notes: list[str] = []
    for source in sources:
        found += parts_of(source, dataset, notes)
    parts: list[Part] = []
    first = 0
    for part in found:
        if not part.count:
            notes.append(f"{part.path}: holds no particles")
            continue
        parts.append(replace(part, first=first, pixel_a=pixel_a or part.pixel_a))
        first += part.count
    if not parts:
        raise StackError(f"{', '.join(map(str, sources))}: no particles in it; name a stack that has some")
    _check_boxes(parts)
    return Stacks(tuple(parts), (*notes, *_remarks(parts, found, pixel_a)))


def _remarks(parts: Sequence[Part], found: Sequence[Part], pixel_a: float | None) -> Iterator[str]:
    odd = [part for part in parts if part.edge % 2]
    if odd:
        yield (
            f"{odd[0].path}: edge of {odd[0].edge} pixels is odd; the last row and column are left out, "
            f"so that the centre stays pixel {odd[0].edge // 2}"
        )
    if pixel_a is None and any(part.pixel_a is None for part in parts):
        yield f"{parts[0].path}: says no pixel size; give --pixel-size for resolutions in ångström"
    said = next((part for part in found if part.pixel_a and pixel_a and abs(part.pixel_a / pixel_a - 1) > 0.01), None)
    if said:
        yield f"{said.path}: says {said.pixel_a:.4g} Å per pixel; --pixel-size {pixel_a:g} is used"


def _check_boxes(parts: Sequence[Part]) -> None:
    """Refuse particles that one working image cannot stand for."""
    one = parts[0]
    for part in parts:
        if part.even == one.even and part.pixel_a == one.pixel_a:
            continue
        sizes = f"{one.path}: edge {one.edge}, {_pixel(one)}; {part.path}: edge {part.edge}, {_pixel(part)}"
        if part.pixel_a is None or one.pixel_a is None:
            raise StackError(f"{sizes}: the boxes cannot be compared; classify them one by one")
        if abs(part.pixel_a * part.even / (one.pixel_a * one.even) - 1) > _SAME_BOX:
            raise StackError(
                f"{sizes}: boxes of {one.pixel_a * one.even:.0f} and {part.pixel_a * part.even:.0f} Å; "
                "classify them one by one, or cut all particles out with one box"
            )


def _pixel(part: Part) -> str:
    return f"{part.pixel_a:.4g} Å per pixel" if part.pixel_a else "no pixel size"
