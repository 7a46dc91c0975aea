"""Calibration of bursts against one pixel at a time in float64, on hostile values, and on real frames."""

from __future__ import annotations

import math
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from beamsieve.stream.decode.calibrate import Calibrator, CommonModeSettings, ConstantsError, load_constants
from beamsieve.stream.decode.calibration_settings import CalibrateSettings
from beamsieve.stream.decode.constants import Constants
from beamsieve.stream.decode.masks import UNUSABLE, PixelMask
from beamsieve.stream.decode.photons import to_photons
from beamsieve.stream.flow.frame import BadData
from hypothesis import given, settings
from hypothesis import strategies as st

DATA = Path(os.environ.get("BEAMSIEVE_DATA", Path(__file__).parents[2] / "shared" / "data"))
DTYPES = ["u1", "u2", ">u2", "i2", "u4", "i4", "f4", "f8"]


def constants(shape: tuple[int, ...], seed: int = 0) -> Constants:
    rng = np.random.default_rng(seed)
    mask = np.where(rng.random(shape) < 0.2, rng.choice([1, 2, 4, 8, 0x200, 0x1000], shape), 0).astype(np.uint32)
    dark = rng.normal(20, 5, shape).astype(np.float32)
    return Constants(mask, dark, rng.uniform(0.5, 2, shape).astype(np.float32))


def one_pixel(value: float, bits: int, dark: float, gain: float, words: CalibrateSettings) -> tuple[float, int]:
    """The signal in photons and the bits of one pixel, in Python's own floats."""
    if not bits & UNUSABLE:
        if not math.isfinite(value) or abs(value) > 1e9:
            bits |= PixelMask.INVALID
        if words.missing_value == value:
            bits |= PixelMask.MISSING
        elif words.saturation_adu is not None and value >= words.saturation_adu:
            bits |= PixelMask.SATURATED
    if bits & UNUSABLE:
        return 0.0, bits
    return (value - dark) / gain / words.unit_of_photon, bits


@settings(deadline=None, max_examples=120)
@given(
    st.sampled_from(DTYPES),
    st.integers(0, 4),
    st.tuples(st.integers(1, 2), st.integers(1, 5), st.integers(1, 6)),
    st.sampled_from(["none", "nearest", "threshold"]),
    st.sampled_from([None, 90.0]),
    st.sampled_from(["none", 77]),
    st.integers(0, 2**31),
)
def test_against_one_pixel_at_a_time(
    dtype: str, frames: int, shape: tuple[int, int, int], rounding: Any, full: float | None, missing: Any, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    raw = rng.integers(0, 120, (frames, *shape)).astype(dtype)
    if raw.dtype.kind == "f":
        raw = np.where(rng.random(raw.shape) < 0.1, rng.choice([np.nan, np.inf, -np.inf, 1e30], raw.shape), raw)
        raw = raw.astype(dtype)
    given = constants(shape, seed)
    words = CalibrateSettings(
        kind="standard", round=rounding, adu_per_photon=7, saturation_adu=full, missing_value=missing
    )
    calibrator = Calibrator(words, given)
    before = raw.copy()
    result = calibrator.apply(raw)
    assert np.array_equal(raw, before, equal_nan=raw.dtype.kind == "f")
    assert result.data.dtype == (np.float32 if rounding == "none" else np.uint16)
    assert result.data.shape == raw.shape
    assert given.dark is not None
    assert given.gain is not None
    start = {"none": 0.0, "nearest": 0.5, "threshold": 0.3}[rounding]
    for index in np.ndindex(raw.shape):
        pixel = index[1:]
        signal, bits = one_pixel(
            float(raw[index]), int(given.mask[pixel]), float(given.dark[pixel]), float(given.gain[pixel]), words
        )
        mask = result.masks[index[0]]
        assert int((calibrator.mask if mask is None else mask)[pixel]) == bits
        if rounding == "none":
            assert result.data[index] == pytest.approx(signal, abs=1e-4)
        else:
            # float32 may fall on the other side of a rounding edge, but only within its own error
            allowed = {max(0, math.floor(signal + start + error)) for error in (-1e-4, 0, 1e-4)}
            assert int(result.data[index]) in allowed


def test_large_frames_go_in_blocks_and_give_the_same() -> None:
    shape = (300, 301)  # more than one block, and not a multiple of it
    given = constants(shape)
    raw = np.random.default_rng(1).integers(0, 200, (3, *shape)).astype(np.uint16)
    words = CalibrateSettings(kind="standard", round="nearest", adu_per_photon=3)
    whole = Calibrator(words, given).apply(raw).data
    for part in (np.s_[:100], np.s_[100:]):
        assert given.dark is not None
        assert given.gain is not None
        piece = Constants(given.mask[part], given.dark[part], given.gain[part])
        assert np.array_equal(Calibrator(words, piece).apply(raw[:, part]).data, whole[:, part])


def test_an_empty_block_hands_the_pixels_through_and_marks_gaps() -> None:
    calibrator = Calibrator(CalibrateSettings(), Constants(np.zeros((2, 3), np.uint32)))
    raw = np.array([[[0, 1, 2], [3, 4, 5]], [[0, 65535, 2], [3, 4, 5]]], np.uint16)
    result = calibrator.apply(raw)
    assert not calibrator.changes_pixels
    assert result.data is raw
    assert result.masks[0] is None
    assert result.masks[1] is not None
    assert result.masks[1].tolist() == [[0, 0x200, 0], [0, 0, 0]]


def test_known_gaps_cost_no_mask_per_frame() -> None:
    static = np.array([[0x200, 0]], np.uint32)
    result = Calibrator(CalibrateSettings(), Constants(static)).apply(np.full((4, 1, 2), [65535, 3], np.uint16))
    assert result.masks == (None,) * 4


def test_what_the_sender_says_of_its_values() -> None:
    calibrator = Calibrator(
        CalibrateSettings(), Constants(np.zeros((1, 4), np.uint32)), error_value=-32768, saturation_value=32000
    )
    mask = calibrator.apply(np.array([[[-32768, 5, 32000, 31999]]], np.int16)).masks[0]
    assert mask is not None
    assert mask.tolist() == [[0x200, 0, 0x2, 0]]


def test_a_missing_pixel_is_not_also_saturated() -> None:
    calibrator = Calibrator(CalibrateSettings(), Constants(np.zeros((1, 2), np.uint32)), saturation_value=60000)
    mask = calibrator.apply(np.array([[[65535, 65534]]], np.uint16)).masks[0]
    assert mask is not None
    assert mask.tolist() == [[0x200, 0x2]]


def test_masks_that_come_with_the_data_are_kept_and_fill_with_zero() -> None:
    words = CalibrateSettings(kind="standard", adu_per_photon=1)
    calibrator = Calibrator(words, Constants(np.array([[8, 0, 0]], np.uint32)))
    raw = np.full((2, 1, 3), 9, np.uint16)
    per_frame = np.array([[[0, 1, 2]], [[0, 0, 0]]], np.uint32)
    result = calibrator.apply(raw, per_frame)
    assert [mask.tolist() for mask in result.masks if mask is not None] == [[[8, 1, 2]], [[8, 0, 0]]]
    assert result.data.tolist() == [[[0, 0, 9]], [[0, 9, 9]]]
    for_all = calibrator.apply(raw, per_frame[0])
    assert [mask.tolist() for mask in for_all.masks if mask is not None] == [[[8, 1, 2]]] * 2


def test_more_photons_than_uint16_holds_are_clipped_counted_and_saturated() -> None:
    words = CalibrateSettings(kind="standard", round="nearest", adu_per_photon=0.5)
    result = Calibrator(words, Constants(np.zeros((1, 3), np.uint32))).apply(np.array([[[40000, 100, 65535]]], "u2"))
    assert result.data.tolist() == [[[65535, 200, 65535]]]
    assert result.clipped == 2
    assert result.masks[0] is not None
    assert result.masks[0].tolist() == [[2, 0, 2]]


@pytest.mark.parametrize(("threshold", "expected"), [(0.5, [0, 0, 1, 1, 1, 2]), (0.7, [0, 0, 0, 1, 1, 1])])
def test_rounding_rules(threshold: float, expected: list[int]) -> None:
    out = np.empty(6, np.uint16)
    assert not to_photons(np.array([-3, 0.4, 0.6, 0.8, 1.4, 1.6], np.float32), threshold, out)
    assert out.tolist() == expected


@pytest.mark.parametrize("over", ["median", "row", "column"])
def test_common_mode_comes_off_before_the_gain(over: Any) -> None:
    rng = np.random.default_rng(5)
    shape = (32, 32)
    given = Constants(
        np.zeros(shape, np.uint32), np.full(shape, 100, np.float32), rng.uniform(1, 2, shape).astype("f4")
    )
    assert given.gain is not None
    photons = rng.poisson(0.05, (6, *shape))
    offset = rng.choice([-28, -20, 22, 28], (6, 1, 1))
    raw = np.rint(100 + photons * 30 * given.gain + offset + rng.normal(0, 1, photons.shape)).astype(np.uint16)
    words = CalibrateSettings(
        kind="standard",
        adu_per_photon=30,
        round="nearest",
        common_mode=CommonModeSettings(over=over, unlit_adu=45, asic_shape=(16, 32), min_pixels=8),
    )
    found = Calibrator(words, given).apply(raw).data
    assert np.mean(found != photons) < 0.002
    without = CalibrateSettings(kind="standard", adu_per_photon=30, round="nearest")
    assert np.mean(Calibrator(without, given).apply(raw).data != photons) > 0.02


def test_common_mode_ignores_masked_and_invalid_pixels() -> None:
    mask = np.zeros((4, 4), np.uint32)
    mask[0] = 8
    raw = np.full((1, 4, 4), 7, np.float32)
    raw[0, 0], raw[0, 1, 0] = 1e6, np.nan
    words = CalibrateSettings(kind="standard", common_mode=CommonModeSettings(over="median", min_pixels=11))
    assert not Calibrator(words, Constants(mask)).apply(raw).data.any()
    too_few = CalibrateSettings(kind="standard", common_mode=CommonModeSettings(over="median", min_pixels=12))
    assert Calibrator(too_few, Constants(mask)).apply(raw).data.sum() == 7 * 11


@pytest.mark.parametrize(
    ("stack", "mask", "reason"),
    [
        (np.zeros((1, 3, 3), "u2"), None, "shape"),
        (np.zeros((2, 3), "u2"), None, "shape"),
        (np.zeros((1, 2, 3), "c8"), None, "dtype"),
        (np.zeros((1, 2, 3), "S3"), None, "dtype"),
        (np.zeros((1, 2, 3), "u2"), np.zeros((2, 2, 3), np.uint32), "mask"),
    ],
)
def test_frames_that_do_not_fit_are_bad_data(stack: np.ndarray, mask: np.ndarray | None, reason: str) -> None:
    calibrator = Calibrator(CalibrateSettings(kind="standard"), Constants(np.zeros((2, 3), np.uint32)))
    with pytest.raises(BadData) as caught:
        calibrator.apply(stack, mask)
    assert caught.value.reason == reason


def test_asic_that_does_not_divide_the_module_is_refused_at_the_start() -> None:
    words = CalibrateSettings(kind="standard", common_mode=CommonModeSettings(over="row", asic_shape=(3, 3)))
    with pytest.raises(ConstantsError, match="asic_shape"):
        Calibrator(words, Constants(np.zeros((4, 6), np.uint32)))


def test_several_threads_share_one_calibrator() -> None:
    shape = (64, 64)
    calibrator = Calibrator(CalibrateSettings(kind="standard", round="nearest", adu_per_photon=3), constants(shape))
    bursts = [np.full((8, *shape), 50 + i, np.uint16) for i in range(16)]
    alone = [calibrator.apply(burst).data for burst in bursts]
    with ThreadPoolExecutor(4) as pool:
        for expected, got in zip(alone, pool.map(calibrator.apply, bursts), strict=True):
            assert np.array_equal(expected, got.data)


@pytest.mark.data
def test_real_frames_with_infinities_and_streaks() -> None:
    path = DATA / "spi-pr772" / "adu10.npz"
    if not path.exists():
        pytest.skip("shared data set not here (BEAMSIEVE_DATA)")
    with np.load(path) as file:
        adu, bad = file["adu"], file["mask"] > 0
    words = CalibrateSettings(
        kind="standard",
        mask=f"{path}:mask",
        saturation_adu=2e4,
        adu_per_photon=10,
        round="threshold",
        common_mode=CommonModeSettings(over="row", unlit_adu=5),
    )
    calibrator = Calibrator(words, load_constants(words, adu.shape[1:]))
    result = calibrator.apply(adu)
    invalid = ~np.isfinite(adu) & ~bad
    assert np.flatnonzero(invalid.any(axis=(1, 2))).tolist() == [3, 4]
    for frame, mask in enumerate(result.masks):
        bits = calibrator.mask if mask is None else mask
        assert np.array_equal((bits & PixelMask.INVALID) > 0, invalid[frame])
        assert np.array_equal((bits & PixelMask.SATURATED) > 0, (adu[frame] >= 2e4) & ~bad & ~invalid[frame]) or (
            invalid[frame].any()
        )
        assert not result.data[frame][(bits & UNUSABLE) > 0].any()
    assert not result.data[:, bad].any()
    assert 0 < result.data.astype(float).sum() < 1e7
    floats = Calibrator(words.model_copy(update={"round": "none"}), load_constants(words, adu.shape[1:])).apply(adu)
    assert np.isfinite(floats.data).all()
