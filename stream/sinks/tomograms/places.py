"""Where each file of a session on tomograms lies."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from ...formats import copick
from ..picks.places import safe, stem_of

__all__ = ["RECORDS", "Places", "file_name", "records_below", "safe", "stem_of"]

RECORDS = "session"
LABELS = "labels"
#: Folder and ending of the files of each kind, one per tomogram.
KINDS: dict[str, tuple[str, str]] = {
    "eman": ("eman", "_info.json"),
    "csv": ("csv", ".csv"),
    "picture": ("pictures", ".png"),
}


@dataclass(frozen=True, slots=True)
class Places:
    """Names of files below ``directory``. ``stems``, ``runs``: whose each is; shared by all who write in a session."""

    directory: Path
    stems: dict[str, str] = field(default_factory=dict, compare=False, repr=False)
    runs: dict[str, str] = field(default_factory=dict, compare=False, repr=False)
    _turn: threading.Lock = field(default_factory=threading.Lock, compare=False, repr=False)

    def stem(self, name: str) -> str:
        """What the files of the tomogram called ``name`` are named after, for as long as the session lasts.

        Its name without ending, and with it where ``TS_01.mrc`` and ``TS_01.rec`` lie in one folder. For any thread.
        """
        with self._turn:
            stem = stem_of(name, self.stems)
            self.stems[stem] = name
            return stem

    def run(self, name: str, stem: str, wanted: str) -> str:
        """What RELION and copick know the tomogram called ``name`` by, for as long as the session lasts.

        ``wanted``, where no other is called so: two tomograms under one name would be taken for one, and copick's files
        of the one would replace those of the other. Else its ``stem`` (folders and name), or all of its name.
        """
        names = [wanted, *("-".join(PurePosixPath(one).parts) for one in (stem, safe(name)))]
        with self._turn:
            run = next((one for one in names if self.runs.get(copick.clean(one), name) == name), names[-1])
            self.runs[copick.clean(run)] = name
            return run

    def taken(self, stem: str, name: str, run: str) -> None:
        """Note what the record of ``name`` says it goes by; ``run`` may be empty."""
        with self._turn:
            self.stems[stem] = name
            if run:
                self.runs[copick.clean(run)] = name

    def record(self, name: str) -> Path:
        """The HDF5 file of the tomogram called ``name``."""
        return self.directory / RECORDS / f"{safe(name)}.h5"

    def of(self, kind: str, stem: str) -> Path:
        """The file of this kind (``eman``, ``csv``, ``picture``) of the tomogram whose files are named ``stem``."""
        folder, ending = KINDS[kind]
        return self.directory / folder / f"{stem}{ending}"

    def labels(self, stem: str) -> Path:
        """Its label volume."""
        return self.directory / LABELS / f"{stem}_labels.mrc"

    def probability(self, stem: str, name: str) -> Path:
        """The volume of the probability of the class called ``name``."""
        return self.directory / LABELS / f"{stem}_{file_name(name)}.mrc"

    def particles(self, name: str | None = None) -> Path:
        """RELION's table of all sub-volumes of the session, or of those of one class."""
        return self.directory / "star" / ("particles.star" if name is None else f"particles_{file_name(name)}.star")

    @property
    def copick(self) -> Path:
        """The root of copick's overlay."""
        return self.directory / "copick"


def records_below(directory: Path) -> list[Path]:
    """The records of the session in ``directory``, by name; none where there is no session."""
    return sorted((directory / RECORDS).rglob("*.h5"))


def file_name(name: str) -> str:
    """A class's name as a part of a file's name: without spaces."""
    return "-".join(safe(name).replace("/", "-").split()) or "class"
