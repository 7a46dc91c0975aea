"""Where each file of a session lies, and under which names micrographs and files appear in the tables of others."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from .settings import Format

RECORDS = "micrographs"
#: Folder and ending of the files of each kind, one per micrograph.
KINDS: dict[str, tuple[str, str]] = {
    "star": ("star", "_autopick.star"),
    "box": ("box", ".box"),
    "eman": ("info", "_info.json"),
    "cbox": ("cbox", ".cbox"),
    "cryosparc": ("cryosparc", ".cs"),
    "csv": ("csv", ".csv"),
    "coords": ("coords", ".coords"),
    "mrcs": ("particles", ".mrcs"),
    "particles": ("particles", "_particles.star"),
    "picture": ("pictures", ".png"),
}


@dataclass(frozen=True, slots=True)
class Places:
    """Names of files below ``directory``. ``project``: names in tables start there; None: they are absolute."""

    directory: Path
    project: Path | None = None

    def record(self, name: str) -> Path:
        """The HDF5 file of the micrograph called ``name``."""
        return self.directory / RECORDS / f"{safe(name)}.h5"

    def of(self, kind: str, stem: str) -> Path:
        """The file of this kind of the micrograph whose files are named ``stem`` (see ``stem_of``)."""
        folder, ending = KINDS[kind]
        return self.directory / folder / f"{stem}{ending}"

    def all_of(self, stem: str) -> list[Path]:
        """The files of every kind of one micrograph, there or not."""
        return [self.of(kind, stem) for kind in KINDS]

    def called(self, path: Path) -> str:
        """The name of a file in the tables of other programs."""
        absolute = Path(os.path.abspath(path))
        if self.project is None:
            return str(absolute)
        return Path(os.path.relpath(absolute, os.path.abspath(self.project))).as_posix()

    def formats(self) -> tuple[Format, ...]:
        """Formats that the folder has files of."""
        from .settings import FORMATS

        return tuple(name for name in FORMATS if any((self.directory / KINDS[name][0]).rglob(f"*{KINDS[name][1]}")))


def safe(name: str) -> str:
    """A micrograph's name as a path that stays below the session's folder."""
    parts = [part for part in PurePosixPath(name.replace("\0", "_")).parts if part not in {"/", "..", "."}]
    return "/".join(parts) or "micrograph"


def stem_of(name: str, taken: dict[str, str]) -> str:
    """What the files of a micrograph are named after: its name without ending.

    ``taken`` says whose each stem is already: ``a.mrc`` and ``a.tif`` in one folder must not share files, so that the
    second is named with its ending.
    """
    path = PurePosixPath(safe(name))
    stem = path.with_suffix("").as_posix()
    if taken.get(stem, name) != name:
        stem = path.as_posix()
    return stem
