"""Tomograms that were written before: their files for other programs follow when their clusters or classes change.

The daemon's sink, or ``write_session_tables`` for a command, also finds the records that are newer than what was made
of them, as after ``record.relabel`` alone, or a kill.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ...flow.frame import BadData
from ...formats import copick
from ..picks.files import lock, write_whole
from ..picks.sink import CONFIG
from .exports import export, run_name
from .mined import UNMARKED
from .places import Places
from .record import read, relabel, stem_in
from .rows import Row, Rows
from .settings import SETTINGS, TomogramFiles
from .tables import write_tables

Progress = Callable[[str, int, int], None]


def is_behind(row: Row, settings: TomogramFiles, places: Places) -> bool:
    """Whether a file that is made of the record is not there, or is older than it."""
    wanted = [places.of(kind, row.stem) for kind in ("eman", "csv") if kind in settings.formats]
    wanted += [places.of("picture", row.stem)] if settings.pictures and row.drawn else []
    if "copick" in settings.formats:
        run, counts = run_name(row.found, row.stem, settings), row.found.counts
        names = [name for name in (*row.found.classes, UNMARKED) if counts[name]]
        wanted += [places.copick / copick.place(run, name) for name in names]
    try:
        return any(path.stat().st_mtime_ns < row.stamp[0] for path in wanted)
    except OSError:
        return True


def export_again(row: Row, settings: TomogramFiles, places: Places) -> None:
    """Make all files of a record anew. A record that is gone or damaged meanwhile has none. Raises ``OSError``."""
    with lock(places.directory), contextlib.suppress(BadData):
        export(read(row.path, codes=False), row.stem, settings, places)


def relabel_and_export(
    path: Path,
    cluster: npt.NDArray[np.integer],
    label: npt.NDArray[np.integer],
    *,
    classes: Sequence[str],
    colours: Sequence[str] = (),
    clusters_version: int,
    settings: TomogramFiles,
    places: Places,
) -> None:
    """Give the sub-volumes in the record at ``path`` other clusters and classes, and make its exports anew.

    Nothing is written where the record says the same already. Raises ``BadData`` for a record that cannot be used,
    ``ValueError`` (see ``record.relabel``) and ``OSError``. Tables of the session follow (``write_session_tables``, or
    the daemon that writes there).
    """
    with lock(places.directory):
        old = read(path, codes=False)
        same = np.array_equal(old.picked.cluster, cluster) and np.array_equal(old.picked.label, label)
        if same and (old.classes, old.colours, old.clusters_version) == (
            *map(tuple, (classes, colours)),
            clusters_version,
        ):
            return
        relabel(path, cluster, label, classes=classes, colours=colours, clusters_version=clusters_version)
        export(read(path, codes=False), stem_in(path), settings, places)


def write_session_tables(settings: TomogramFiles, places: Places, progress: Progress = lambda *_: None) -> list[Path]:
    """Bring the session's tables, and files that are behind their records, up to date. Raises ``OSError``.

    Gives the tables. For commands, where no daemon runs; where one does, its sink does the same.
    """
    rows = Rows(places)
    rows.scan()
    behind = [row for row in rows.sorted() if is_behind(row, settings, places)]
    for at, row in enumerate(behind, 1):
        export_again(row, settings, places)
        progress("write exports", at, len(behind))
    with lock(places.directory):
        return write_tables(rows.sorted(), settings, places)


def note_settings(settings: TomogramFiles, places: Places) -> None:
    """Keep the settings beside what is written, for commands that write there later. Raises ``OSError``."""
    noted = settings.model_copy(update={"directory": places.directory.absolute()})
    write_whole(places.directory / SETTINGS, noted.model_dump_json(indent=1).encode())


def note_config(directory: Path, config: str) -> None:
    """Keep the text of a configuration beside what is written; another one that is there, as ``….r<n>``."""
    path = directory / CONFIG
    if not config or (path.exists() and path.read_text(encoding="utf-8", errors="replace") == config):
        return
    if path.exists():
        earlier = (path.with_name(f"{path.name}.r{n}") for n in range(1 << 20))
        path.rename(next(name for name in earlier if not name.exists()))
    write_whole(path, config.encode())


def noted_settings(directory: Path) -> TomogramFiles:
    """The settings that a session was written with; the defaults where they were not noted.

    Raises ``ValueError`` for a note that cannot be used.
    """
    path = directory / SETTINGS
    found = TomogramFiles(directory=directory)
    try:
        with contextlib.suppress(FileNotFoundError):
            found = TomogramFiles.model_validate_json(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror or error})") from None
    except ValueError as error:  # pydantic says it in several lines, the first of which says nothing
        why = next((line.strip() for line in str(error).splitlines()[1:]), str(error))
        raise ValueError(f"{path}: cannot be used ({why}); remove it to go by the defaults") from None
    return found.model_copy(update={"directory": directory})
