"""Settings of the sink for picks: where, in which formats, with particles or not."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, TypeAlias

from pydantic import Field, field_validator

from ...flow.settings import Settings

Format: TypeAlias = Literal["star", "box", "eman", "cbox", "cryosparc", "csv", "coords"]
FORMATS: tuple[Format, ...] = ("star", "box", "eman", "cbox", "cryosparc", "csv", "coords")
LARGEST_BOX = 8192
SETTINGS = "settings.json"


class ParticleSettings(Settings):
    """Particles that are cut out of the micrographs."""

    keep: bool = Field(True, description="cut particles out of the micrographs and keep them in HDF5")
    size_px: int = Field(
        128, ge=8, le=1024, multiple_of=2, description="edge of their images; a larger box is binned to it"
    )
    dtype: Literal["float32", "float16"] = Field(
        "float32", description="of the stored pixels; float16 halves the files (RELION 4 and later read it)"
    )
    mrcs: bool = Field(False, description="also write an .mrcs stack and a particles STAR per micrograph, for RELION")
    invert: bool = Field(True, description="particles become white, as RELION and cryoSPARC expect")


class PickSettings(Settings):
    """Where picks are written, and how. HDF5 with all candidates is always written."""

    directory: Path = Field(description="folder for the files; it is made if it is missing")
    formats: tuple[Format, ...] = Field(("star", "csv"), description="files of other programs, one per micrograph")
    particles: ParticleSettings = Field(
        ParticleSettings(), description="whether particles are cut out, and how they are kept"
    )
    pictures: bool = Field(True, description="a PNG per micrograph with its picks")
    box_px: int | None = Field(
        None, ge=8, le=LARGEST_BOX, description="edge of a box in pixels of the micrograph; default: 1.5 diameters"
    )
    invert_y: tuple[Format, ...] = Field(
        (), description="formats whose program counts the rows of these files from the bottom (EMAN2 with TIFF)"
    )
    project: Path | None = Field(
        None, description="folder of the RELION or cryoSPARC project: names in STAR and .cs files start there"
    )
    voltage_kv: float | None = Field(None, gt=0, le=2000, description="where the micrographs do not say it")
    spherical_aberration_mm: float | None = Field(None, ge=0, le=20, description="where the micrographs do not say it")
    amplitude_contrast: float | None = Field(
        0.1, ge=0, le=1, description="where the micrographs do not say it, which is usual"
    )
    tables_every_s: float = Field(
        5.0, gt=0, description="seconds between two versions of the session's tables, longer where they are large"
    )
    min_free_gb: float = Field(1.0, ge=0, description="write nothing while less than this is free")

    @field_validator("box_px")
    @classmethod
    def _even(cls, box_px: int | None) -> int | None:
        if box_px is not None and box_px % 2:
            raise ValueError(f"must be even, so that all programs agree on its centre; use {box_px + 1}")
        return box_px

    @field_validator("invert_y")
    @classmethod
    def _not_ours(cls, formats: tuple[Format, ...]) -> tuple[Format, ...]:
        if "csv" in formats:
            raise ValueError("csv always has row 0 at y = 0; leave it out")
        return formats


def noted_settings(directory: Path) -> PickSettings | None:
    """The settings that a session was written with; None where they were not noted. Raises ``ValueError``."""
    path = directory / SETTINGS
    try:
        settings = PickSettings.model_validate_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: cannot be used ({error}); remove it to go by what lies in the folder") from None
    return PickSettings.model_validate({**settings.model_dump(), "directory": directory})
