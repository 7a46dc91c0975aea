"""Where an emulated microscope's exposures come from: the simulator, or files that are there already."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

from ..formats.image import image_header
from .micrograph_files import Exposure, Format, mrc_bytes, tiff_bytes
from .micrographs import SIMULATED


class SimulatedCamera:
    """Simulated micrographs of one map; the same seed gives the same ones.

    ``shape``: (ny, nx) pixels, ``snr``, ``pixel_a`` and ``views``: in place of those of the named ``conditions``.
    Raises ``ValueError`` for unknown conditions or maps and values no microscope has, ``OSError`` for a map that is not
    there.
    """

    def __init__(
        self,
        particle: str = "ribosome",
        conditions: str = "small",
        *,
        seed: int = 0,
        snr: float | None = None,
        shape: tuple[int, int] | None = None,
        pixel_a: float | None = None,
        views: int = 0,
        file_format: Format = "mrc",
    ) -> None:
        # Loads torch, which copying files does not need.
        from ...models.particles.maps import load_map
        from ...models.particles.simulator import named

        changes = {"snr": snr, "shape": shape, "pixel_a": pixel_a, "views": views}
        self.conditions = named(conditions, **{name: value for name, value in changes.items() if value is not None})
        self.volume = load_map(particle)
        self._seed, self._format = seed, file_format

    @property
    def diameter_a(self) -> float:
        """The particle's diameter in ångström."""
        return self.volume.diameter_a

    def __call__(self, number: int, manner: str) -> Exposure:
        """Simulate one; ``empty`` has no particles, ``carbon`` much carbon."""
        from ...models.particles.simulator import simulate

        conditions = self.conditions
        if manner == "empty":
            conditions = replace(conditions, particles=(0, 0), aggregates=(0, 0), overlaps=(0, 0))
        elif manner == "carbon":
            conditions = replace(conditions, carbon=(0.35, 0.5))
        made = simulate(self._seed, number, conditions, self.volume)
        shown = zip(made.x, made.y, made.view, strict=True)
        centres = [(float(x), float(y), "particle", int(view)) for x, y, view in shown]
        others = zip(made.other_x, made.other_y, made.other_kind, strict=True)
        centres += [(float(x), float(y), kind, 0) for x, y, kind in others]
        encode, suffix = (tiff_bytes, ".tiff") if self._format == "tiff" else (mrc_bytes, ".mrc")
        ny, nx = made.image.shape
        optics = {
            "pixel_a": made.pixel_a,
            "voltage_kv": made.ctf.voltage_kv,
            "defocus_um": -(made.ctf.defocus_u_a + made.ctf.defocus_v_a) / 2e4,
            "dose_e_a2": conditions.dose or 40.0,
            "ny": ny,
            "nx": nx,
        }
        return Exposure(encode(made.image, made.pixel_a), suffix, tuple(centres), MappingProxyType(optics))


class CopyingCamera:
    """The bytes of files that are there, one after the other and again from the first.

    Raises ``ValueError`` without files, ``BadData`` for one that is no image, ``OSError`` for one that cannot be read.
    """

    def __init__(self, files: Sequence[Path]) -> None:
        if not files:
            raise ValueError("--from: no file named")
        for file in files:
            # What is no image is noticed now, not in the middle of a session.
            image_header(file)
        self._files = tuple(files)

    def __call__(self, number: int, manner: str) -> Exposure:
        """Read one. Raises ``ValueError`` for the manners that only a simulation has."""
        if manner in SIMULATED:
            raise ValueError(f"hostile: {manner} cannot be made of files; simulate, or leave it out")
        file = self._files[(number - 1) % len(self._files)]
        header = image_header(file)
        _, ny, nx = header.shape
        optics = {"ny": float(ny), "nx": float(nx)}
        if header.pixel_a is not None:
            optics["pixel_a"] = header.pixel_a
        return Exposure(file.read_bytes(), file.suffix, (), MappingProxyType(optics))
