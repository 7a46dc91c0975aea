"""Settings of a watched folder: what belongs to it, when a file counts as complete, and what becomes of failures."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal, Self, TypeAlias

from pydantic import Field, field_validator

from ...flow.settings import Place, Settings
from .patterns import compile_globs

LayoutName: TypeAlias = Literal["flat", "epu", "serialem", "leginon", "aretomo", "warp"]
Expected: TypeAlias = int | Literal["mdoc", "xml", "session"]

EXCLUDE = (
    ".*",
    "*~",
    "*.tmp",
    "*.part",
    "*.partial",
    "*downloading*",
    "gain[-_. ]*",
    "*[-_. ]gain[-_. ]*",
    "*gain*ref*",
    "*countref*",
    "*superref*",
    "*dark*ref*",
    "defect[-_. s]*",
    "*[-_. ]defect[-_. s]*",
    "*_jpg*",
)


class FolderSettings(Settings):
    """A folder where files arrive while it is watched."""

    kind: Literal["folder"] = Field("folder", description="a folder that is watched")
    directory: Path = Field(description="the folder to watch; for EPU the session's, above Images-Disc1")
    layout: LayoutName = Field("flat", description="how the microscope's program names files and what lies beside them")
    take: Literal["micrographs", "movies", "tomograms"] = Field(
        "micrographs",
        description="which of EPU's and Leginon's files: summed micrographs, or movies (fractions, EER); or tomograms: "
        "all volumes (flat), those that IMOD (serialem), AreTomo or Warp reconstructs; half volumes are left out",
    )
    patterns: tuple[str, ...] = Field(
        (),
        description="files to take, below the directory, such as **/*.mrc (case does not matter); "
        "none: those of the layout",
    )
    exclude: tuple[str, ...] = Field(
        EXCLUDE, description="names of files and folders to leave out; replaces the list that is the default"
    )
    recursive: bool = Field(True, description="watch the folders in it too")
    follow_symlinks: bool = Field(False, description="take links, and files in folders that are links")
    session: str = Field("", description="name of the session, in files and metrics; empty: the directory's name")

    poll_s: float = Field(5.0, gt=0, description="look into the folder this often; events only make it look sooner")
    settle_s: float = Field(
        10.0,
        ge=0,
        description="a file is complete only when size, time and inode stay the same this long, on our clock",
    )
    recheck_s: float = Field(
        0.1, gt=0, description="most time in one look for asking again about files that are known (changed later?)"
    )
    doubt_s: float = Field(
        120.0,
        ge=0,
        description="a file that looks unfinished and may be real (a tail of zeros, longer than its header says, fewer "
        "frames than the others) is taken with a flag when it stays the same this long",
    )
    incomplete_s: float = Field(
        900.0, gt=0, description="a file that stays the same and incomplete this long is set aside with its reason"
    )
    frames: Expected | None = Field(
        "session",
        description="frames a movie must have: a number; mdoc or xml: what the companion file says; session: as most "
        "of this session have; null: any",
    )
    companions: Literal["ignore", "wait", "require"] = Field(
        "wait",
        description="the layout's companion files (EPU .xml, SerialEM .mdoc): ignore, wait companion_timeout_s and "
        "then take the file with a flag, or require (set aside without)",
    )
    companion_timeout_s: float = Field(60.0, ge=0, description="how long a complete file waits for its companion")
    companion_directory: Path | None = Field(
        None, description="a parallel tree where companions lie too, with the same folders in it"
    )

    existing: Literal["process", "ignore"] = Field(
        "process", description="files that were there when the folder was watched for the first time"
    )
    attempts: int = Field(3, ge=1, description="a file that fails is tried this often, then set aside")
    retry_s: float = Field(60.0, ge=0, description="time between two attempts")
    deaths: int = Field(
        5, ge=1, description="a file in work while the daemon was killed this often is set aside: it may be the cause"
    )
    claims: int = Field(16, ge=1, le=10_000, description="most files taken and not finished at once; others wait")
    journal: Path | None = Field(
        None, description="what is done is remembered in this file; default: beside what the daemon writes"
    )
    lease_s: float = Field(
        120.0, ge=1, description="files of a daemon on another host that gives no sign of life this long are taken over"
    )
    end_idle_s: float | None = Field(
        None, gt=0, description="end when everything is done and nothing new came for so long; null: never"
    )

    @field_validator("patterns", "exclude")
    @classmethod
    def _known_globs(cls, globs: tuple[str, ...]) -> tuple[str, ...]:
        compile_globs(globs)
        return globs

    @field_validator("frames")
    @classmethod
    def _some_frames(cls, frames: Expected | None) -> Expected | None:
        if isinstance(frames, int) and frames < 1:
            raise ValueError("at least one frame is expected")
        return frames

    @property
    def run(self) -> str:
        """The session's name."""
        return self.session or Path(os.path.abspath(self.directory)).name or "session"

    @property
    def listens(self) -> str:
        """What the source reads from, in words."""
        return f"watching {self.directory}"

    def at(self, base: Path) -> Self:
        """The same with relative names starting at ``base``, the folder of the configuration."""
        optional = {
            name: None if path is None else base / path
            for name, path in (("journal", self.journal), ("companion_directory", self.companion_directory))
        }
        return self.model_copy(update={"directory": (base / self.directory).absolute(), **optional})

    def mistakes(self) -> list[tuple[Place, str]]:
        """What is wrong with what the settings name: which setting, and why.

        A directory that is not there yet is no mistake where its parent is: microscopes make it with the first image.
        """
        found: list[tuple[Place, str]] = []
        try:
            if self.directory.exists() and not self.directory.is_dir():
                found.append((("directory",), f"{self.directory} is a file; name the folder that files arrive in"))
            elif not self.directory.exists() and not self.directory.parent.is_dir():
                found.append(
                    (("directory",), f"{self.directory}: no such folder, nor the one above it; name the folder")
                )
        except OSError as error:
            found.append((("directory",), f"{self.directory}: {error.strerror}; name a folder that can be read"))
        if self.take == "tomograms" and self.layout in {"epu", "leginon"}:
            found.append((("layout",), f"{self.layout} names no tomograms; choose flat, serialem, aretomo or warp"))
        if self.take != "tomograms" and self.layout in {"aretomo", "warp"}:
            found.append((("layout",), f"{self.layout} names tomograms only; set take: tomograms, or choose flat"))
        if self.frames == "mdoc" and self.layout != "serialem":
            found.append((("frames",), f"mdoc files are SerialEM's, and the layout is {self.layout}; choose session"))
        if self.frames == "xml" and self.layout != "epu":
            found.append((("frames",), f"xml files are EPU's, and the layout is {self.layout}; choose session"))
        if self.journal is not None and self.journal.is_dir():
            found.append((("journal",), f"{self.journal} is a folder; name a file, such as journal.sqlite"))
        return found
