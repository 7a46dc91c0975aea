"""JUNGFRAU gain stages against one pixel at a time, and against a real module that another program converted."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from beamsieve.stream.decode.calibrate import Calibrator, CommonModeSettings
from beamsieve.stream.decode.calibration_settings import CalibrateSettings
from beamsieve.stream.decode.constants import Constants, load_constants
from beamsieve.stream.decode.jungfrau import ADC_BITS, convert, stage
from hypothesis import given, settings
from hypothesis import strategies as st

DATA = Path(os.environ.get("BEAMSIEVE_DATA", Path(__file__).parents[2] / "shared" / "data"))


def one_pixel(raw: int, pedestal: np.ndarray, gain: np.ndarray) -> tuple[float, int]:
    """Energy and CXI bits of one reading."""
    if raw == 0xFFFF:
        return 0.0, 0x200
    number = {0b00: 0, 0b01: 1, 0b11: 2}.get(raw >> 14)
    if number is None:
        return 0.0, 0x1
    energy = (float(raw & 0x3FFF) - float(pedestal[number])) / float(gain[number])
    return energy, 0x2 if raw == 0xC000 else 0


@settings(deadline=None, max_examples=60)
@given(
    st.lists(
        st.one_of(st.integers(0, 0xFFFF), st.sampled_from([0xC000, 0xFFFF, 0x8000, 0x4000])), min_size=1, max_size=24
    ),
    st.integers(0, 2**31),
)
def test_against_one_pixel_at_a_time(readings: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    raw = np.array(readings, np.uint16).reshape(1, 1, -1)
    pedestal = rng.uniform(1000, 15000, (3, 1, raw.size)).astype(np.float32)
    gain = (np.array([41, -1.44, -0.115])[:, None, None] * rng.uniform(0.9, 1.1, pedestal.shape)).astype(np.float32)
    words = CalibrateSettings(kind="jungfrau", dark="not:read")
    result = Calibrator(words, Constants(np.zeros((1, raw.size), np.uint32), pedestal, gain)).apply(raw)
    alone = convert(raw, pedestal, gain)
    for column, reading in enumerate(readings):
        energy, bits = one_pixel(reading, pedestal[:, 0, column], gain[:, 0, column])
        mask = result.masks[0]
        assert (0 if mask is None else int(mask[0, column])) == bits
        assert result.data[0, 0, column] == pytest.approx(energy, rel=1e-4, abs=1e-3)
        if reading != 0xFFFF:
            assert alone[0, 0, column] == pytest.approx(energy, rel=1e-4, abs=1e-3)


def test_stages_by_their_bits() -> None:
    assert stage(np.array([0x0123, 0x4123, 0x8123, 0xC123], np.uint16)).tolist() == [0, 1, 3, 2]


def test_common_mode_is_found_and_taken_off_in_g0_only() -> None:
    shape = (8, 8)
    pedestal = np.stack([np.full(shape, p, np.float32) for p in (2000, 14000, 14500)])
    raw = np.full((1, *shape), 2000 + 41, np.uint16)
    raw[0, :6] = 0x4000 | (14000 - 144)  # most pixels, so that their readings would be the median
    words = CalibrateSettings(kind="jungfrau", dark="not:read", common_mode=CommonModeSettings(over="median"))
    energy = Calibrator(words, Constants(np.zeros(shape, np.uint32), pedestal)).apply(raw).data[0]
    np.testing.assert_allclose(energy[:6], 100, rtol=1e-5)
    np.testing.assert_allclose(energy[6:], 0, atol=1e-5)


@pytest.fixture(scope="module")
def module() -> dict[str, np.ndarray]:
    path = DATA / "jungfrau" / "module.npz"
    if not path.exists():
        pytest.skip("shared data set not here (BEAMSIEVE_DATA)")
    with np.load(path) as file:
        return dict(file)


@pytest.mark.data
@pytest.mark.parametrize(("name", "number"), [("G0", 0), ("G1", 1), ("G2", 2)])
def test_real_module_is_linear_in_each_stage(module: dict[str, np.ndarray], name: str, number: int) -> None:
    """A gain map taken from each pixel's first frame in a stage foretells all its later ones.

    The gain map of the other program is missing, so that only the form of the conversion can be tested: the pedestal
    that belongs to the stage, a factor per pixel. A wrong stage, pedestal or offset would change the factor each time.
    """
    raw, expected = module["raw"], module["converted"]
    pedestal = np.stack([module[f"pedestal_G{i}"] for i in range(3)])
    here = (stage(raw) == number) & (raw != 0xC000) & (np.abs(expected) > 1e-3)
    first = here.argmax(axis=0)[None]
    reading = np.take_along_axis(raw & ADC_BITS, first, 0)[0].astype(np.float32) - pedestal[number]
    value = np.take_along_axis(expected, first, 0)[0]
    known = here.any(axis=0) & (np.abs(reading) > 20)
    gain = np.ones_like(pedestal)
    gain[number, known] = reading[known] / value[known]
    tested = here & known & (np.arange(5)[:, None, None] > first)
    assert np.count_nonzero(tested) > {0: 1_500_000, 1: 1000, 2: 40}[number]
    result = convert(raw, pedestal, gain)
    np.testing.assert_allclose(result[tested], expected[tested], rtol=2e-6, atol=1e-6)


@pytest.mark.data
def test_real_module_with_nominal_gains_is_near_the_converted_photons(module: dict[str, np.ndarray]) -> None:
    """Nominal gains and 12.4 keV, which the ratios suggest, agree to the spread of real gains."""
    path = DATA / "jungfrau" / "module.npz"
    words = CalibrateSettings(
        kind="jungfrau",
        dark=(f"{path}:pedestal_G0", f"{path}:pedestal_G1", f"{path}:pedestal_G2"),
        photon_energy_kev=12.4,
        bad_constants="mask",
    )
    raw, expected = module["raw"], module["converted"]
    calibrator = Calibrator(words, load_constants(words, raw.shape[1:]))
    result = calibrator.apply(raw)
    dead = calibrator.mask > 0
    assert 0 < np.count_nonzero(dead) < 200
    assert np.isfinite(result.data).all()
    for number in range(3):
        here = (stage(raw) == number) & ~dead & (raw != 0xC000) & (expected > 2)
        ratio = result.data[here] / expected[here]
        assert abs(np.median(ratio) - 1) < 0.03
        assert np.percentile(np.abs(ratio - 1), 95) < 0.1
    ends = [np.zeros_like(dead) if mask is None else (mask & 2) > 0 for mask in result.masks]
    assert np.array_equal(np.array(ends), (raw == 0xC000) & ~dead)
    assert (expected[raw == 0xC000] == 32678).all()
