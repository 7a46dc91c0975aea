"""Settings of the HDF5 sink, and the names of its files."""

from __future__ import annotations

import re
import string
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator

from ..flow.settings import Settings

_LONGEST_NAME = 120


class Hdf5Settings(Settings):
    """Where accepted frames are written, and how."""

    directory: Path = Field(description="folder for the files; it is made if it is missing")
    name: str = Field(
        "{run}_{part:04d}.cxi", description="name of each file; {run} and {part} (from 1) are filled in, no folders"
    )
    max_frames: int = Field(20_000, ge=1, description="a file with so many frames is closed and the next one begun")
    max_gb: float = Field(20.0, gt=0, description="a file of about so many gigabytes (1e9 bytes) is closed likewise")
    flush_s: float = Field(1.0, gt=0, description="seconds between flushes: what a reader or a kill may be behind")
    swmr: bool = Field(
        True, description="let others read while we write, and survive a kill. Turn it off on NFS, which cannot do it"
    )
    compression: Literal["bslz4", "none"] = Field(
        "bslz4", description="bslz4 stores frames that arrive as bitshuffle-LZ4 as they came; none stores plain pixels"
    )
    masks: Literal["per_frame", "static"] = Field(
        "per_frame", description="a pixel mask per frame (where it is the run's own it takes no room), or one per file"
    )
    min_free_gb: float = Field(1.0, ge=0, description="close the file and keep nothing while less than this is free")
    master: bool = Field(True, description="a run in several files also gets one that shows them as a whole (virtual)")
    instrument: str = Field("", description="name of the instrument, written into every file")
    sample: str = Field("", description="name of the sample, written into every file")

    @field_validator("name")
    @classmethod
    def _only_a_name(cls, name: str) -> str:
        try:
            fields = {field for _, field, _, _ in string.Formatter().parse(name) if field is not None}
            sample = name.format(run="r", part=1)
        except (KeyError, IndexError, ValueError, AttributeError) as error:
            raise ValueError(f"cannot be filled in ({error}); use {{run}} and {{part:04d}}") from None
        if not fields <= {"run", "part"}:
            raise ValueError("only {run} and {part} can be filled in")
        if not re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9._-]*\.(cxi|h5|hdf5)", sample):
            raise ValueError("use letters, digits, . _ - only, and end in .cxi or .h5")
        return name


def safe_name(run: str) -> str:
    """The name of a run as a part of a file name: other characters than letters, digits, . _ - become _."""
    return re.sub(r"[^A-Za-z0-9._-]", "_", run)[:_LONGEST_NAME].lstrip(".") or "run"
