"""Files to tomograms whose voxels have a known size: the work of the stage ``decode`` where tomograms are watched for.

A tomogram is opened, judged and looked at here, and read later, box by box: it does not fit into a queue.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
from pydantic import Field

from ..flow.frame import BadData, Failure, Frame, Mark, Raw
from ..flow.settings import Settings
from ..formats.tomogram_names import says_tomogram, series_of
from ..formats.volume_slices import Slices, central_slices
from ..formats.volumes import VolumeFile, open_volume


class TomogramSettings(Settings):
    """From files to tomograms: the size of their voxels, which way density goes, and which hand."""

    voxel_a: float | None = Field(
        None, gt=0.05, lt=1000, description="ångström per voxel of the files; default: what their headers say"
    )
    bright: bool = Field(False, description="density is bright in the files (negative stain, or inverted already)")
    flip: Literal["none", "x", "y", "z"] = Field(
        "none",
        description="mirror this axis as files are read, where their hand is known to be wrong; all that is written "
        "then is of the mirrored tomogram, and says so",
    )
    stacks: Literal["refuse", "take"] = Field(
        "refuse",
        description="files whose MRC header says stack of images (ispg 0 and mz 1, or tilt angles), and whose name "
        "does not say tomogram (.rec, _rec, _Vol, Apx): a tilt series, or a tomogram with the wrong header",
    )
    max_volume_gb: float = Field(
        64.0, gt=0, description="a tomogram larger than this as float32 is refused (10^9 bytes)"
    )


class DecodeTomograms:
    """Opens complete files. May be called by several threads at once."""

    def __init__(self, settings: TomogramSettings) -> None:
        self._settings = settings

    def mark(self, mark: Mark) -> Mark:
        """A session starts or ends: nothing changes here."""
        return mark

    def __call__(self, raws: Sequence[Raw]) -> list[Frame | Failure]:
        """A frame for each file, or a ``Failure``: reasons of ``open_volume``, ``changed``, ``size``, ``values``.

        ``Frame.data`` is a slice through the middle (y, x), float32, no more than about a thousand pixels wide. To
        ``Raw.info`` are added ``volume`` (an open ``VolumeFile``: whoever takes the frame closes it; it closes itself
        when it is forgotten), ``slices``, ``series``, ``voxel_a``, ``voxel_from`` (settings, header), ``bright``,
        ``flip``, ``hand`` (what is known of the handedness), ``read_s``, and to ``flags`` those of ``VolumeInfo``.
        """
        return [self._one(raw) for raw in raws]

    def _one(self, raw: Raw) -> Frame | Failure:
        began = time.perf_counter()
        try:
            volume, slices, preview = self._open(Path(str(raw.info["path"])), raw.info.get("bytes"))
        except BadData as bad:
            return Failure(raw.key, bad.reason, bad.detail, raw.count, raw)
        said: dict[str, Any] = {
            "volume": volume,
            "slices": slices,
            "series": series_of(str(raw.info.get("name", raw.info["path"]))),
            "voxel_a": volume.voxel_a,
            "voxel_from": volume.info.voxel_from,
            "bright": self._settings.bright,
            "flip": volume.info.flip,
            "hand": volume.info.hand,
            "flags": (*raw.info.get("flags", ()), *volume.info.flags),
            "read_s": time.perf_counter() - began,
        }
        return Frame(raw.key, preview, raw.arrived, raw.wall, info=MappingProxyType({**raw.info, **said}))

    def _open(self, path: Path, size: int | None) -> tuple[VolumeFile, Slices, np.ndarray[Any, np.dtype[np.float32]]]:
        s = self._settings
        # Some programs write the header of a stack for everything: then the name is to be believed.
        stacks = s.stacks == "take" or says_tomogram(path.name)
        volume = open_volume(path, voxel_a=s.voxel_a, flip=s.flip, stacks=stacks)
        try:
            if size is not None and size != volume.info.nbytes:
                raise BadData(
                    "truncated" if volume.info.nbytes < size else "changed",
                    f"{path}: {volume.info.nbytes} bytes, but {size} when it was complete; it is read again when it "
                    "has settled",
                )
            if 4 * np.prod(volume.shape, dtype=np.float64) > s.max_volume_gb * 1e9:
                raise BadData(
                    "size",
                    f"{path}: {volume.shape} voxels (z, y, x) are more than decode.max_volume_gb: {s.max_volume_gb:g}",
                )
            slices, preview = central_slices(volume)
            if not np.ptp(preview):
                raise BadData(
                    "values", f"{path}: all voxels in its middle are the same, or no numbers; was it reconstructed?"
                )
            volume.check_same()
        except BaseException:
            volume.close()
            raise
        return volume, slices, preview
