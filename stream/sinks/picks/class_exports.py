"""The 2-D classes of a session as files for RELION and cryoSPARC, in its folder ``classes``.

One set is kept, the newest: ``run_it003_…`` takes the place of ``run_it002_…`` after the third time that all particles
were grouped anew. RELION and cryoSPARC count classes without gaps, this project never uses a number twice:
``classes.csv`` says which is which. Particles without a class are in none of the sets.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ...formats import relion_classes
from ...formats.centres import upside_down
from ...formats.cryosparc_classes import Aligned
from ...formats.relion_classes import ClassifiedStack
from .class_sets import ClassAverage, remove_sets, write_cryosparc, write_relion
from .classes_file import ClassTables, Labels, Table
from .exports import located, optics
from .files import write_whole
from .places import Places
from .rows import Row
from .settings import PickSettings

FOLDER, CSV = "classes", "classes.csv"
GOOD = "particles_good.star"

Wanted = Callable[[Table], npt.NDArray[np.bool_]]


def export_classes(
    tables: ClassTables, rows: Sequence[Row], settings: PickSettings, places: Places, number: int
) -> list[Path]:
    """Write the sets that the settings' formats ask for; returns the files. ``number``: of the grouping, from 1.

    ``rows``: the session's micrographs, as ``Rows.sorted`` has them. With ``particles.mrcs`` there is also
    ``particles_good.star`` beside ``particles.star``: all particles but those of classes that were marked bad.
    Where there are no classes any more there are no sets either. Raises ``OSError``.
    """
    order = np.argsort(tables.classes["id"], kind="stable")
    classes = [_average(tables.classes[at], at_number) for at_number, at in enumerate(order.tolist(), 1)]
    averages = tables.averages[order]
    labels = Labels(tables.micrographs, tables.particles)
    found = [
        Labelled(labels.rows(row.labelled, images.x, images.y, images.score), row, settings, places, tables.edge)
        for row in rows
        if (images := row.record.images) is not None
    ]
    numbers = {one.id: one.number for one in classes}
    folder = places.directory / FOLDER
    if classes:
        written = [_csv(folder, classes)]
    else:
        # A threshold that leaves nothing was set: what is there names particles that are none any more.
        written = []
        remove_sets(folder, [CSV])
    if classes and "star" in settings.formats:
        stacks = [one.relion(numbers, lambda labels: labels["class"] > 0) for one in found]
        written += write_relion(folder, number, stacks, averages, tables.pixel_a, classes, places.called)
    if settings.particles.mrcs:
        # A particle without a label is not known to be bad.
        good = [one.relion(numbers, lambda labels: labels["rejected"] == 0) for one in found]
        write_whole(places.directory / GOOD, relion_classes.encode_data([stack for stack in good if stack is not None]))
        written.append(places.directory / GOOD)
    if classes and "cryosparc" in settings.formats:
        aligned = [one.cryosparc(numbers) for one in found]
        written += write_cryosparc(folder, aligned, averages, tables.pixel_a, classes, places.called)
    return written


def _average(row: np.void, number: int) -> ClassAverage:
    mark = bytes(row["mark"]).rstrip(b"\0").decode("ascii", "replace")
    return ClassAverage(
        number, int(row["id"]), int(row["count"]), mark, float(row["resolution_a"]), float(row["spread"])
    )


class Labelled:
    """One micrograph's particles with their labels, in the order of its images.

    ``labels``: rows of ``classes_file.PARTICLE``, shifts in pixels of images of ``edge`` pixels.
    """

    def __init__(self, labels: Table, row: Row, settings: PickSettings, places: Places, edge: int) -> None:
        assert row.record.images is not None
        self._row, self._settings, self._places = row, settings, places
        self._images = row.record.images
        self._labels = labels
        self._edge = edge
        file = places.of("mrcs", row.record.stem)
        self._file = file if settings.particles.mrcs and file.exists() else None

    def _kept(self, numbers: dict[int, int], wanted: Wanted) -> tuple[Table, npt.NDArray[np.intp]]:
        """All labels, with classes counted without gaps, and the numbers (from 0) of the images that are wanted."""
        known = np.array([numbers.get(one, 0) for one in self._labels["class"].tolist()], np.int32)
        labels = self._labels.copy()
        labels["class"] = known
        return labels, np.flatnonzero(wanted(labels))

    def relion(self, numbers: dict[int, int], wanted: Wanted) -> ClassifiedStack | None:
        """Its rows for RELION; None where stacks are kept but this one is not there (yet)."""
        if self._settings.particles.mrcs and self._file is None:
            return None
        labels, at = self._kept(numbers, wanted)
        m, images = self._row.record.micrograph, self._images
        y = upside_down(images.y, m.shape[0]).astype(np.float32) if "star" in self._settings.invert_y else images.y
        return ClassifiedStack(
            replace(optics(m, self._settings), image_pixel_a=images.pixel_a, image_size=images.size),
            (at + 1).astype(np.int32),
            labels["class"][at],
            labels["angle"][at],
            labels["shift"][at] * np.float32(images.pixel_a * images.size / self._edge),
            None if self._file is None else self._places.called(self._file),
            self._places.called(m.path),
            images.x[at],
            y[at],
            images.score[at],
        )

    def cryosparc(self, numbers: dict[int, int]) -> Aligned | None:
        """Its rows for cryoSPARC, as ``relion``."""
        if self._settings.particles.mrcs and self._file is None:
            return None
        labels, at = self._kept(numbers, lambda rows: rows["class"] > 0)
        m, images = self._row.record.micrograph, self._images
        turned = "cryosparc" in self._settings.invert_y
        y = upside_down(images.y, m.shape[0]).astype(np.float32) if turned else images.y
        place = located(m, self._places, turned=turned)
        return Aligned(
            m.name,
            at.astype(np.int32),
            labels["class"][at] - 1,
            labels["angle"][at],
            labels["shift"][at] * np.float32(images.size / self._edge),
            labels["similarity"][at],
            images.size,
            images.pixel_a,
            None if self._file is None else self._places.called(self._file),
            replace(place, x=images.x[at], y=y[at], score=images.score[at]),
        )


def _csv(folder: Path, classes: Sequence[ClassAverage]) -> Path:
    """``classes.csv``: which number of RELION (from 1) and cryoSPARC (from 0) is which class."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["class", "relion", "cryosparc", "particles", "mark", "resolution_a", "spread"])
    for one in classes:
        resolution = f"{one.resolution_a:.2f}" if np.isfinite(one.resolution_a) else ""
        row = (one.id, one.number, one.number - 1, one.count, one.mark, resolution, f"{one.spread:.4f}")
        writer.writerow(row)
    path = folder / CSV
    write_whole(path, out.getvalue().encode())
    return path
