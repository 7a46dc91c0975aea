"""Files to images in known pixels: the work of the stage ``decode`` of beamlines that watch a folder.

A file is read once it is complete; here it becomes one image (movies summed, gain applied), and what the microscope
says of it in the header and in companion files is put together under one set of names.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
from pydantic import Field

from ..flow.frame import BadData, Failure, Frame, Mark, Raw
from ..flow.settings import Settings
from ..formats.epu import read_epu
from ..formats.gain import Gain, make_gain
from ..formats.image import Image, image_header, read_image
from ..formats.mdoc import mdoc_info

log = logging.getLogger(__name__)

SAME = 0.01
_UNSET_A = 1.0
_NAMED = ("disc", "grid", "grid_square", "foil_hole", "template", "series", "acquisition", "tilt_deg", "acquired")
_NOT_MICROSCOPE = ("pixel_a", "camera_nx", "frames_expected", "not_square_a", "repaired")
_FINER = (0.25, 0.5, 1.0, 2.0, 4.0)


class MicrographSettings(Settings):
    """From files to images: gain reference, pixel size, and what the microscope does not say."""

    pixel_a: float | None = Field(
        None,
        gt=0.05,
        lt=200,
        description="ångström per pixel of the files; default: the header's, else the XML's, else the mdoc's",
    )
    gain: Path | None = Field(None, description="gain reference (MRC, TIFF or .gain), for files that are not corrected")
    gain_is: Literal["multiplied", "divided"] = Field(
        "multiplied", description="raw pixels are multiplied with the reference, or (EER in MRC) divided by it"
    )
    gain_rotate_deg: Literal[0, 90, 180, 270] = Field(0, description="turn the reference counter-clockwise first")
    gain_flip: Literal["none", "up_down", "left_right"] = Field("none", description="then flip it")
    frames: Literal["sum", "first"] = Field("sum", description="of a movie: the sum of its frames, or the first alone")
    invert: bool = Field(False, description="particles are bright in the files (negative stain, or inverted already)")
    max_image_mb: int = Field(4096, ge=1, description="an image larger than this as float32 is refused (10^6 bytes)")
    voltage_kv: float | None = Field(None, gt=0, description="in place of what the files say")
    spherical_aberration_mm: float | None = Field(None, ge=0, description="in place of what the files say")
    amplitude_contrast: float | None = Field(None, ge=0, le=1, description="in place of what the files say")
    dose_e_a2: float | None = Field(None, gt=0, description="of the whole exposure, in place of what the files say")


class DecodeMicrographs:
    """Reads complete files. May be called by several threads at once.

    ``base``: where a relative ``gain`` starts. Raises ``BadData`` for a gain reference that cannot be used.
    """

    def __init__(self, settings: MicrographSettings, base: Path | None = None) -> None:
        self._settings = settings
        self._gain = _load_gain(settings, base or Path())
        said = ("voltage_kv", "spherical_aberration_mm", "amplitude_contrast", "dose_e_a2")
        self._said = {name: value for name in said if (value := getattr(settings, name)) is not None}

    def mark(self, mark: Mark) -> Mark:
        """A session starts or ends: nothing changes here."""
        return mark

    def __call__(self, raws: Sequence[Raw]) -> list[Frame | Failure]:
        """A frame for each file, or a ``Failure`` with the reasons of ``read_image``, ``changed`` or ``size``.

        ``Frame.data`` is (ny, nx), native byte order. To ``Raw.info`` are added ``pixel_a`` (ångström, or None),
        ``pixel_from`` (settings, header, xml, mdoc), ``saturation``, ``frames``, ``microscope`` (values by name, see
        ``PickedMicrograph.info``), ``read_s``, ``repaired`` (pixels that got their neighbours' mean), and to ``flags``:
        ``pixel_disagrees`` (by more than 1 %), ``pixel_not_square``, ``bad_xml``, ``bad_mdoc``.
        """
        return [self._one(raw) for raw in raws]

    def _one(self, raw: Raw) -> Frame | Failure:
        began = time.perf_counter()
        try:
            image = self._read(Path(str(raw.info["path"])), raw.info.get("bytes"))
        except BadData as bad:
            return Failure(raw.key, bad.reason, bad.detail, raw.count, raw)
        data, saturation = image.data, image.saturation
        if self._settings.invert:
            data, saturation = np.negative(data, dtype=np.float32, casting="unsafe"), None
        info = {**raw.info, **self._told(raw.info, image)}
        info |= {"saturation": saturation, "frames": image.frames, "read_s": time.perf_counter() - began}
        return Frame(raw.key, data, raw.arrived, raw.wall, info=MappingProxyType(info))

    def _read(self, path: Path, size: int | None) -> Image:
        before = _state(path)
        if size is not None and size != before[0]:
            raise BadData(
                "truncated" if before[0] < size else "changed",
                f"{path}: {before[0]} bytes, but {size} when it was complete; it is read again when it has settled",
            )
        _, ny, nx = image_header(path, before[0]).shape
        if 4 * ny * nx > self._settings.max_image_mb * 10**6:
            raise BadData(
                "size", f"{path}: {ny} × {nx} pixels are more than decode.max_image_mb: {self._settings.max_image_mb}"
            )
        image = read_image(path, frames=self._settings.frames, gain=self._gain)
        if _state(path) != before:
            raise BadData("changed", f"{path}: changed while it was read; it is read again when it has settled")
        return image

    def _told(self, info: Mapping[str, Any], image: Image) -> dict[str, Any]:
        """``pixel_a``, ``pixel_from``, ``microscope`` and ``flags``: all that is known but the pixels."""
        flags = [*info.get("flags", ())]
        companions = _companions(info, flags)
        sizes = {"header": image.pixel_a}
        for kind, values in companions.items():
            sizes[kind] = _pixel_of(values, image.data.shape[1])
        known = {kind: size for kind, size in sizes.items() if size is not None}
        # Many programs write 1 Å for "nobody said": then a companion knows better.
        if known.get("header") == _UNSET_A and len(known) > 1:
            del known["header"]
        chosen = "settings" if self._settings.pixel_a is not None else next(iter(known), None)
        pixel_a = self._settings.pixel_a if chosen == "settings" else known.get(chosen or "")
        if "not_square_a" in image.info:
            flags.append("pixel_not_square")
        if pixel_a is not None and any(abs(size - pixel_a) > SAME * pixel_a for size in known.values()):
            flags.append("pixel_disagrees")
        microscope: dict[str, Any] = {name: info[name] for name in _NAMED if name in info}
        said: tuple[Mapping[str, Any], ...] = (image.info, companions.get("mdoc", {}), companions.get("xml", {}))
        for part in (*said, self._said):
            microscope |= {name: value for name, value in part.items() if name not in _NOT_MICROSCOPE}
        told = {"pixel_a": pixel_a, "pixel_from": chosen, "flags": tuple(flags)}
        told["repaired"] = image.info.get("repaired", 0)
        return {**told, "microscope": MappingProxyType(microscope)}


def _companions(info: Mapping[str, Any], flags: list[str]) -> dict[str, dict[str, Any]]:
    """What XML and mdoc say; one that cannot be read costs a flag, not the micrograph."""
    found: dict[str, dict[str, Any]] = {}
    paths = info.get("companions", {})
    for kind in ("xml", "mdoc"):
        if kind not in paths:
            continue
        try:
            name = Path(str(info["path"])).name
            found[kind] = read_epu(paths[kind]) if kind == "xml" else mdoc_info(paths[kind], name)
        except BadData as bad:
            log.warning("%s: companion not used: %s", info.get("name", info["path"]), bad.detail)
            flags.append(f"bad_{kind}")
    return found


def _pixel_of(values: Mapping[str, Any], nx: int) -> float | None:
    """A companion's pixel size, for an image ``nx`` pixels wide: finer where it was taken in super-resolution."""
    pixel_a = values.get("pixel_a")
    if pixel_a is None:
        return None
    ratio = values.get("camera_nx", nx) / nx
    return float(pixel_a) * (ratio if ratio in _FINER else 1.0)


def _state(path: Path) -> tuple[int, int, int]:
    try:
        stat = os.stat(path)
    except OSError as error:
        raise BadData("vanished", f"{path}: no longer there ({error.strerror}); was it moved?") from None
    return stat.st_size, stat.st_mtime_ns, stat.st_ino


def _load_gain(settings: MicrographSettings, base: Path) -> Gain | None:
    if settings.gain is None:
        return None
    path = base / settings.gain
    if not path.exists():
        raise BadData("vanished", f"{path}: no such file; name the gain reference, or leave it out")
    reference = read_image(path, frames="first", mend=False).data
    divide = settings.gain_is == "divided"
    return make_gain(reference, path.name, divide=divide, rotate=settings.gain_rotate_deg, flip=settings.gain_flip)
