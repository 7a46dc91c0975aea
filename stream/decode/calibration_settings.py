"""The settings of calibration: what the YAML says under ``calibrate``."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from ..flow.settings import Settings
from .masks import MaskIs

Kind = Literal["none", "standard", "jungfrau"]


class CommonModeSettings(Settings):
    """An offset that many pixels share in one frame, estimated from those that no photon hit, and subtracted."""

    over: Literal["none", "median", "row", "column"] = Field(
        default="none", description="pixels that share an offset: a whole ASIC (median), each of its rows or columns"
    )
    asic_shape: tuple[int, int] | None = Field(
        default=None, description="slow-scan and fast-scan pixels of an ASIC. Default: the module is one ASIC"
    )
    unlit_adu: float | None = Field(
        default=None, gt=0, description="only pixels within plus or minus this of their dark count as unlit, in ADU"
    )
    max_adu: float | None = Field(default=None, gt=0, description="a larger offset is not believed and not subtracted")
    min_pixels: int = Field(default=16, ge=1, description="with fewer unlit pixels than this nothing is subtracted")


class CalibrateSettings(Settings):
    """Detector calibration. An empty block means that the sender's pixels are photons already, and none is changed."""

    kind: Kind = Field(
        default="none",
        description="none: pixels stay as they come. standard: dark, common mode, gain. jungfrau: by gain stage",
    )
    dark: str | tuple[str, str, str] | None = Field(
        default=None,
        description="dark in ADU, file.h5:/path or file.npz:name. JUNGFRAU: G0, G1, G2 in one array or in three",
    )
    gain: str | tuple[str, str, str] | None = Field(
        default=None, description="gain map that dark-corrected ADU are divided by. JUNGFRAU: ADU/keV of G0, G1, G2"
    )
    noise: str | None = Field(default=None, description="RMS of the dark in ADU, for hot_noise_adu")
    mask: str | None = Field(default=None, description="pixel mask, file.h5:/path or file.npz:name")
    mask_is: MaskIs = Field(default="bad", description="what non-zero means in the mask: bad, good, CXI or NeXus bits")
    bad_constants: Literal["refuse", "mask"] = Field(
        default="refuse", description="dark or gain not usable at a pixel the mask calls good: refuse, or mark it dead"
    )
    hot_dark_adu: float | None = Field(default=None, description="pixels whose dark is above this are hot")
    hot_noise_adu: float | None = Field(default=None, gt=0, description="pixels whose noise is above this are hot")
    saturation_adu: float | None = Field(
        default=None, description="pixels that read this or more are saturated. Raw ADU, before anything is subtracted"
    )
    missing_value: int | Literal["auto", "none"] = Field(
        default="auto",
        description="raw value that marks a pixel without data. auto: what the sender says, else the largest value of "
        "an unsigned type where pixels are photons already (DECTRIS)",
    )
    stage_gain_adu_per_kev: tuple[float, float, float] = Field(
        default=(41.0, -1.44, -0.115), description="JUNGFRAU G0, G1, G2 where no gain map is given; good to some 5 %"
    )
    common_mode: CommonModeSettings = Field(default=CommonModeSettings(), description="offset shared by many pixels")
    adu_per_photon: float | None = Field(
        default=None, gt=0, description="what one photon reads after dark and gain, in ADU"
    )
    photon_energy_kev: float | None = Field(
        default=None, gt=0, description="photon energy, in place of adu_per_photon where the gain is in ADU/keV"
    )
    round: Literal["none", "nearest", "threshold"] = Field(
        default="none", description="none: float32. nearest, threshold: whole photons in uint16"
    )
    round_threshold_photons: float = Field(
        default=0.7, ge=0.01, le=1, description="with round threshold: the share of a photon that counts as one"
    )

    @model_validator(mode="after")
    def _words_fit(self) -> CalibrateSettings:
        mistakes = [*self._mistakes_of_kind(), *self._mistakes_of_photons()]
        if mistakes:
            raise ValueError("; ".join(mistakes))
        return self

    def _mistakes_of_kind(self) -> list[str]:
        if self.kind == "none":
            words = ("dark", "gain", "noise", "adu_per_photon", "photon_energy_kev", "hot_dark_adu", "hot_noise_adu")
            used = [word for word in words if getattr(self, word) is not None]
            used += ["round"] * (self.round != "none") + ["common_mode"] * (self.common_mode.over != "none")
            return [f"{word} has no effect with kind: none; set kind: standard or remove it" for word in used]
        mistakes = []
        if self.kind == "standard" and (isinstance(self.dark, tuple) or isinstance(self.gain, tuple)):
            mistakes.append("kind: standard takes one dark and one gain; three of each belong to kind: jungfrau")
        if self.kind == "jungfrau" and self.dark is None:
            mistakes.append("kind: jungfrau needs dark: the pedestals of G0, G1 and G2")
        if self.hot_noise_adu is not None and self.noise is None:
            mistakes.append("hot_noise_adu needs noise: the RMS of the dark")
        return mistakes

    def _mistakes_of_photons(self) -> list[str]:
        mistakes = []
        if self.adu_per_photon is not None and self.photon_energy_kev is not None:
            mistakes.append("adu_per_photon and photon_energy_kev say the same thing; give one")
        if self.kind == "jungfrau" and self.adu_per_photon is not None:
            mistakes.append("kind: jungfrau has gains in ADU/keV; give photon_energy_kev, not adu_per_photon")
        if self.kind == "jungfrau" and self.round != "none" and self.photon_energy_kev is None:
            mistakes.append("whole photons need photon_energy_kev")
        return mistakes

    @property
    def changes_pixels(self) -> bool:
        """Whether any pixel value is changed. If not, the bytes on the wire can be stored as they came."""
        return self.kind != "none"

    @property
    def unit_of_photon(self) -> float:
        """What one photon reads after dark and gain (ADU or keV); 1 where nothing is said."""
        return self.adu_per_photon or self.photon_energy_kev or 1.0
