"""A micrograph's quality in numbers: on pictures made for it, on simulated ones, on real ones, on broken ones."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import numpy.typing as npt
import pytest
from beamsieve.models.particles.conditions import named
from beamsieve.models.particles.maps import Volume, load_map
from beamsieve.models.particles.simulator import simulate
from beamsieve.stream.decode.quality import NAMES, Limits, QualitySettings, judge, measure
from beamsieve.stream.flow.settings import ConfigError, check
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from pydantic import ValidationError
from scipy import ndimage

DATA = Path(os.environ.get("BEAMSIEVE_DATA", Path(__file__).parents[2] / "shared" / "data")) / "micrographs"


def noise(shape: tuple[int, int] = (600, 700), seed: int = 0) -> npt.NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def test_white_noise_has_nothing_in_it() -> None:
    found = measure(100 + 5 * noise(), 4.0)
    assert tuple(found) == NAMES
    assert found["mean"] == pytest.approx(100, abs=0.05)
    assert found["sd"] == pytest.approx(5, rel=0.01)
    assert found["gradient"] < 0.05
    assert found["carbon_fraction"] < 0.01
    assert found["ice_fraction"] == 0
    assert found["contrast"] == pytest.approx(1, abs=0.07)
    assert found["falloff"] == pytest.approx(0, abs=0.15)
    assert found["saturated_fraction"] == found["missing_fraction"] == 0


@pytest.mark.parametrize("shape", [(3000, 2100), (1500, 1024), (777, 2500)])
def test_binning_in_strips_keeps_mean_and_spread(shape: tuple[int, int]) -> None:
    image = (1000 + 30 * noise(shape) + np.arange(shape[0], dtype=np.float32)[:, None] / 10).astype(np.uint16)
    found = measure(image, 1.0)
    assert found["mean"] == pytest.approx(image.mean(dtype=np.float64), rel=1e-6)
    assert found["sd"] == pytest.approx(image.std(dtype=np.float64), rel=1e-4)


@pytest.mark.parametrize("slope", [(3.0, 0.0), (0.0, -3.0), (2.0, 2.0)])
def test_gradient_is_the_rise_across_the_picture_in_sd(slope: tuple[float, float]) -> None:
    y, x = np.linspace(-0.5, 0.5, 600)[:, None], np.linspace(-0.5, 0.5, 700)
    image = noise() + slope[0] * y + slope[1] * x
    found = measure(image, 4.0)
    # Block medians stop half a block short of the edges.
    assert found["gradient"] * found["sd"] == pytest.approx(abs(slope[0]) + abs(slope[1]), rel=0.1)
    assert found["carbon_fraction"] < 0.01
    assert found["ice_fraction"] == 0


@pytest.mark.parametrize("power", [-3.0, -1.0, 1.0])
def test_falloff_is_the_spectrums_exponent(power: float) -> None:
    side = 768
    k = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side))
    k[0, 0] = 1
    image = np.fft.irfft2(np.fft.rfft2(noise((side, side))) * k ** (power / 2))
    assert measure(image, 3.0)["falloff"] == pytest.approx(power, abs=0.25)


def test_dark_blobs_are_ice_and_bright_ones_are_not() -> None:
    y, x = np.mgrid[:600, :700]
    image = noise() * 0.5
    discs = [(120, 150, 20), (400, 500, 35), (300, 80, 28)]
    blobs = np.zeros(image.shape, bool)
    for cy, cx, r in discs:
        blobs |= np.hypot(y - cy, x - cx) < r
    dark = measure(image - 4 * blobs, 5.0)
    assert dark["ice_fraction"] == pytest.approx(blobs.mean(), rel=0.25)
    assert measure(image + 4 * blobs, 5.0)["ice_fraction"] < 0.002


def test_rougher_texture_is_carbon() -> None:
    image = noise((800, 900)) * np.where(np.arange(900) < 270, 2.0, 1.0)
    assert measure(image, 4.0)["carbon_fraction"] == pytest.approx(0.3, abs=0.04)


def test_particles_raise_the_contrast() -> None:
    image = noise((800, 800))
    dots = np.zeros_like(image)
    dots[np.random.default_rng(1).integers(0, 800, 150), np.random.default_rng(2).integers(0, 800, 150)] = -900
    with_particles = image + ndimage.gaussian_filter(dots, 7)
    assert measure(with_particles, 4.0)["contrast"] > 1.5 * measure(image, 4.0)["contrast"]


def test_saturated_pixels_are_counted() -> None:
    image = (np.abs(noise((400, 400))) * 1000).astype(np.uint16)
    image[:4, :100] = 65535
    assert measure(image, 2.0)["saturated_fraction"] == pytest.approx(400 / 160000)
    assert measure(image, 2.0, saturation=0)["saturated_fraction"] == 1
    assert measure(image.astype(np.float64), 2.0)["saturated_fraction"] == 0


def test_missing_pixels_are_counted_and_do_no_harm() -> None:
    whole = 500 + 20 * noise((400, 400)).astype(np.float64)
    floats = whole.copy()
    floats[100:110] = np.nan
    floats[200, :50] = np.inf
    floats[201, :50] = -1e300
    broken = measure(floats, 2.0)
    assert broken["missing_fraction"] == pytest.approx((4000 + 100) / 160000)
    good = measure(whole, 2.0)
    for name in ("mean", "sd", "contrast"):
        assert broken[name] == pytest.approx(good[name], rel=0.03)
    assert broken["falloff"] == pytest.approx(good["falloff"], abs=0.1)


@pytest.mark.parametrize("value", [0, 7, 65535])
@pytest.mark.parametrize("dtype", ["u1", "i2", "u2", "f2", "f4", ">f4"])
def test_constant_pictures_have_only_a_mean(value: int, dtype: str) -> None:
    with np.errstate(over="ignore"):
        image = np.full((300, 200), value).astype(dtype)
    found = measure(image, 3.0)
    assert all(np.isfinite(list(found.values())))
    assert found["sd"] == found["contrast"] == found["gradient"] == found["carbon_fraction"] == 0


@settings(max_examples=60, deadline=None)
@given(
    arrays.arrays(
        st.sampled_from([np.float32, np.float64, np.float16, np.int16, np.uint8]),
        st.tuples(st.integers(2, 40), st.integers(2, 40)),
    ),
    st.floats(0.1, 50),
)
def test_every_number_is_finite_whatever_the_picture(image: npt.NDArray[Any], pixel_a: float) -> None:
    found = measure(image, pixel_a)
    assert tuple(found) == NAMES
    assert all(np.isfinite(list(found.values())))
    for name in NAMES:
        if name.endswith("fraction"):
            assert 0 <= found[name] <= 1


@pytest.mark.parametrize("shape", [(2, 5000), (5000, 3), (9, 3000), (1025, 1025)])
def test_odd_shapes_are_measured(shape: tuple[int, int]) -> None:
    found = measure(noise(shape), 1.0)
    assert found["sd"] == pytest.approx(1, rel=0.05)
    assert all(np.isfinite(list(found.values())))


def test_the_picture_is_not_written_to() -> None:
    image = noise((300, 300))
    image[5, 5] = np.nan
    image.flags.writeable = False
    assert measure(image, 3.0)["missing_fraction"] > 0


@pytest.mark.parametrize(
    ("image", "pixel_a", "message"),
    [
        (np.zeros((3, 20, 20)), 1.0, "ny, nx"),
        (np.zeros((20, 20), complex), 1.0, "real"),
        (np.zeros((1, 20)), 1.0, "ny, nx"),
        (np.zeros((20, 20)), 0.0, "pixel size"),
        (np.zeros((20, 20)), float("nan"), "pixel size"),
    ],
)
def test_what_is_no_micrograph_is_refused(image: npt.NDArray[Any], pixel_a: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        measure(image, pixel_a)


# Simulated and real micrographs


@pytest.fixture(scope="module")
def ribosome() -> Volume:
    return load_map("ribosome")


def test_simulated_carbon_is_measured_as_it_is(ribosome: Volume) -> None:
    for index, fraction in enumerate((0.0, 0.1, 0.3, 0.5)):
        c = replace(named("small"), carbon=(fraction, fraction), ice=(0, 0))
        found = measure(simulate(1, index, c, ribosome).image, c.pixel_a)
        assert found["carbon_fraction"] == pytest.approx(fraction, abs=0.06)


def test_ordinary_simulated_micrographs_are_neither_skipped_nor_warned_of(ribosome: Volume) -> None:
    for index in range(4):
        c = named("small", ice=(0, 1))
        found = measure(simulate(0, index, c, ribosome).image, c.pixel_a)
        assert judge(found, QualitySettings()) == ((), ())


def real(path: Path) -> npt.NDArray[Any]:
    if not path.exists():
        pytest.skip("shared data set not here (BEAMSIEVE_DATA)")
    image: npt.NDArray[Any] = imagecodecs.imread(path)
    return image if image.ndim == 2 else image[..., 0]


@pytest.mark.data
def test_real_pictures_of_each_class_differ_where_they_should() -> None:
    """Pictures binned by their authors; about 8 Å per pixel is assumed, which is not stated with them."""
    found = {
        name: measure(real(DATA / "quality" / f"{name}.png"), 8.0)
        for name in ("0Great_1", "0Great_2", "0Great_3", "1Decent_1", "2Contamination_2", "3Empty_1", "3Empty_2")
    }
    great = [found[f"0Great_{i}"] for i in (1, 2, 3)]
    assert min(g["contrast"] for g in great) > 1.3
    assert max(found[f"3Empty_{i}"]["contrast"] for i in (1, 2)) < 1.1
    assert max(g["carbon_fraction"] for g in great) < 0.02
    assert found["1Decent_1"]["carbon_fraction"] == pytest.approx(0.47, abs=0.05)
    assert found["2Contamination_2"]["falloff"] < -3
    assert judge(found["2Contamination_2"], QualitySettings())[0] == ("contrast", "falloff")
    for quality in great:
        assert judge(quality, QualitySettings()) == ((), ())


@pytest.mark.data
def test_no_real_micrograph_is_skipped_by_default() -> None:
    files = sorted((DATA / "apoferritin").glob("*.png")) + sorted((DATA / "quality").glob("*.png"))
    if not files:
        pytest.skip("shared data set not here (BEAMSIEVE_DATA)")
    for path in files:
        assert judge(measure(real(path), 2.0), QualitySettings())[1] == ()


# Ranges


def test_every_number_has_its_ranges_and_no_other() -> None:
    assert tuple(QualitySettings.model_fields) == NAMES


def test_bounds_are_allowed_and_what_lies_beyond_is_named_in_order() -> None:
    ranges = QualitySettings(
        contrast=Limits(warn=(1.0, 2.0), skip=(0.5, None)), mean=Limits(warn=(None, 10.0), skip=(None, 20.0))
    )
    calm = dict.fromkeys(NAMES, 0.0)
    assert judge(calm | {"contrast": 1.0, "mean": 10.0}, ranges) == ((), ())
    assert judge(calm | {"contrast": 2.1, "mean": 10.1}, ranges) == (("mean", "contrast"), ())
    assert judge(calm | {"contrast": 0.4, "mean": 30.0}, ranges) == (("mean", "contrast"), ("mean", "contrast"))
    assert judge({"contrast": float("nan")}, ranges) == (("contrast",), ("contrast",))
    assert judge({"falloff": float("nan")}, QualitySettings(falloff=Limits())) == ((), ())


def test_ranges_come_from_a_configuration_and_mistakes_are_named() -> None:
    read = check({"contrast": {"skip": [1.1, None]}, "sd": {"warn": [None, 3]}}, QualitySettings, "c.yaml")
    assert read.contrast.skip == (1.1, None)
    assert read.contrast.warn == QualitySettings().contrast.warn, "what is not said stays as usual"
    assert judge({"contrast": 1.0, "sd": 4.0}, read) == (("sd", "contrast"), ("contrast",))
    with pytest.raises(ConfigError, match="is above high"):
        check({"contrast": {"warn": [3, 1]}}, QualitySettings, "c.yaml")
    with pytest.raises(ConfigError, match="did you mean contrast"):
        check({"contrats": {}}, QualitySettings, "c.yaml")
    with pytest.raises(ValidationError, match="finite"):
        Limits(warn=(float("nan"), 1.0))
