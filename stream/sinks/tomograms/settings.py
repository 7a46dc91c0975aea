"""Settings of the sink for mined tomograms: where, in which formats, with labels and pictures or not."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, TypeAlias

from pydantic import Field

from ...flow.settings import Settings

Format: TypeAlias = Literal["star", "eman", "copick", "csv"]
SETTINGS = "settings.json"
FORMATS: tuple[Format, ...] = ("star", "eman", "copick", "csv")


class TomogramFiles(Settings):
    """Where what was mined is written, and how. HDF5 with all sub-volumes and codes is always written."""

    directory: Path = Field(description="folder for the files; it is made if it is missing")
    formats: tuple[Format, ...] = Field(
        ("star", "eman", "copick"),
        description="files of other programs: star (RELION 5), eman (EMAN2 boxes_3d), copick, csv",
    )
    labels: bool = Field(True, description="a label volume (MRC mode 0) per tomogram that is segmented")
    probabilities: bool = Field(True, description="and a volume of probabilities (MRC mode 12) per class")
    pictures: bool = Field(True, description="a PNG per tomogram: central slices, labels and sub-volumes in colour")
    names: Literal["series", "file"] = Field(
        "series",
        description="rlnTomoName and copick's run: the tilt series' name (TS_01 of TS_01_10.00Apx.mrc), or the file's",
    )
    tilt_series_pixel_a: float | None = Field(
        None,
        gt=0.05,
        lt=200,
        description="ångström per pixel of the unbinned tilt series, for RELION's optics groups; default: the STAR "
        "files have no optics groups, as RELION's import of coordinates expects",
    )
    voltage_kv: float | None = Field(None, gt=0, le=2000, description="for RELION's optics groups")
    spherical_aberration_mm: float | None = Field(None, ge=0, le=20, description="for RELION's optics groups")
    amplitude_contrast: float | None = Field(0.1, ge=0, le=1, description="for RELION's optics groups")
    tables_every_s: float = Field(
        10.0, gt=0, description="seconds between two versions of the session's tables, longer where they are large"
    )
    min_free_gb: float = Field(1.0, ge=0, description="write nothing while less than this is free")
