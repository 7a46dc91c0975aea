"""Moves the threshold of a session that is written: picks again from the candidates, without the model.

Safe while a daemon writes into the folder: the new threshold is first written where the daemon looks for it before
each micrograph, and every record is changed under the lock that the daemon takes too.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ...flow.frame import BadData
from ...formats.image import read_image
from . import picture
from .exports import export
from .files import lock, write_whole
from .images import carried, stored
from .micrograph import PickedMicrograph
from .places import RECORDS, Places
from .record import Change, Images, Record, encode, now, read, read_images
from .rows import Rows, record_files
from .settings import Format, PickSettings
from .tables import write_large, write_small
from .threshold import Band, Moved, move_of, picked_again, read_moved, write_moved

log = logging.getLogger(__name__)

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Recount:
    """One micrograph before and after.

    ``imaged``: how many of its picks have an image now; None: none are kept. ``drawn``: its picture, if there shall be
    one, shows the new picks.
    """

    name: str
    candidates: int
    before: int
    after: int
    imaged: int | None = None
    drawn: bool = True

    @property
    def without_image(self) -> int:
        """Picks that have no image though images are kept."""
        return 0 if self.imaged is None else self.after - self.imaged


def records_in(directory: Path) -> list[Record]:
    """All records of a session, by name. Raises ``BadData`` for one that is damaged."""
    return [read(directory / RECORDS / file) for file, _ in record_files(directory / RECORDS)]


def preview(records: Sequence[Record], threshold: float, sd_range: Band | None) -> list[Recount]:
    """What a threshold would give, without writing anything."""
    found = []
    for record in records:
        m = record.micrograph
        again = picked_again(m, threshold, sd_range or m.sd_range)
        found.append(Recount(m.name, len(m.candidates), int(m.picked.sum()), int(again.picked.sum())))
    return found


def curve(
    records: Sequence[Record], thresholds: Sequence[float], sd_range: Band | None
) -> list[tuple[float, int, float]]:
    """For each threshold: picks of all micrographs, and the median of a micrograph that was not skipped."""
    good = [record for record in records if not record.micrograph.skipped]
    found = []
    for threshold in thresholds:
        counts = [recount.after for recount in preview(good, threshold, sd_range)]
        found.append((threshold, sum(counts), float(np.median(counts)) if counts else 0.0))
    return found


def rethreshold(
    directory: Path,
    settings: PickSettings,
    threshold: float,
    sd_range: Band | None,
    progress: Progress,
    *,
    only: Callable[[Record], bool] = lambda _: True,
    announced: bool = False,
) -> list[Recount]:
    """Pick every micrograph of the session again and write its files and the tables; one ``Recount`` per micrograph.

    ``sd_range``: None leaves each micrograph's band. ``only``: which micrographs; the others stay as they are. Records
    that come in meanwhile are treated too. ``announced``: the daemons know of it already. A micrograph whose threshold
    somebody moves elsewhere meanwhile is left to them. Raises ``OSError`` where something cannot be written,
    ``BadData`` for a damaged record, and ``ValueError`` for a damaged ``threshold.json``; each file that was written
    until then is whole, and a second call does the rest.
    """
    places = Places(directory, settings.project)
    done: dict[str, Recount] = {}
    seen: set[str] = set()
    told: set[tuple[str, float]] = set()
    while new := [file for file, _ in record_files(directory / RECORDS) if file not in seen]:
        seen.update(new)
        files = [file for file in new if only(read(directory / RECORDS / file))]
        if not announced:
            told |= _announce(directory, files, threshold, sd_range, told)
        of = len(done) + len(files)
        for file in files:
            with lock(directory):
                found = _again(directory / RECORDS / file, settings, places, threshold, sd_range)
            if found is not None:
                done[file] = found
                progress(f"pick again: {found.name}", len(done), of)
    if not done:
        return []
    with lock(directory):
        rows = Rows(places)
        rows.scan()
        write_small(rows.sorted(), settings, places)
        write_large(rows.sorted(), settings, places)
    return list(done.values())


def _announce(
    directory: Path, files: Sequence[str], threshold: float, sd_range: Band | None, told: Set[tuple[str, float]]
) -> set[tuple[str, float]]:
    """Tell daemons that write here now: for every model and configured threshold among these records, once each."""
    records = (read(directory / RECORDS / f) for f in files)
    kinds = {(record.micrograph.model_sha256, record.configured) for record in records} - told
    if kinds:
        with lock(directory):
            others = [m for m in read_moved(directory) if (m.model_sha256, m.configured) not in kinds]
            when = now()
            write_moved(directory, [*others, *(Moved(sha, at, threshold, sd_range, when) for sha, at in sorted(kinds))])
    return kinds


def _again(
    path: Path, settings: PickSettings, places: Places, threshold: float, sd_range: Band | None
) -> Recount | None:
    record = read(path)
    m = record.micrograph
    moved = move_of(read_moved(places.directory), m.model_sha256, record.configured)
    if moved is not None and moved.threshold != threshold:
        return None
    found = picked_again(m, threshold, sd_range or m.sd_range)
    before, after = int(m.picked.sum()), int(found.picked.sum())
    images = read_images(path)
    needs_image = settings.pictures or (images is not None and bool((found.picked & ~m.picked).any()))
    image = _image(m) if needs_image and not m.skipped else None
    if images is not None:
        images = stored(carried(images, found, image), str(images.pixels.dtype))
    change = Change(now(), threshold, found.sd_range, after)
    record = replace(record, micrograph=found, changes=(*record.changes, change))
    _write(path, record, images, image, settings, places)
    imaged = None if images is None else len(images)
    drawn = image is not None or not settings.pictures or bool(m.skipped)
    return Recount(m.name, len(m.candidates), before, after, imaged, drawn)


def _write(
    path: Path,
    record: Record,
    images: Images | None,
    image: npt.NDArray[Any] | None,
    settings: PickSettings,
    places: Places,
) -> None:
    export(record, images, settings, places)
    drawn = places.of("picture", record.stem)
    if settings.pictures and image is not None:
        write_whole(drawn, picture.encode(picture.draw(image, record.micrograph)))
    elif not record.micrograph.skipped:
        # One that shows other picks than the files have is worse than none.
        drawn.unlink(missing_ok=True)
    write_whole(path, encode(record, images, now()))


def _image(m: PickedMicrograph) -> npt.NDArray[Any] | None:
    """The micrograph's pixels, if they are still what was picked: a still image of the same shape."""
    try:
        image = read_image(m.path)
    except BadData as error:
        log.info("%s: %s", m.name, error.detail)
        return None
    # A movie was summed with a gain reference that is not known here.
    return image.data if image.frames == 1 and image.data.shape == m.shape else None


def formats_of(directory: Path, settings: PickSettings, more: Sequence[Format]) -> tuple[Format, ...]:
    """The formats to write: those that the session has, so that none shows old picks, and ``more``."""
    return tuple(dict.fromkeys((*settings.formats, *Places(directory).formats(), *more)))
