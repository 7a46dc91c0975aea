"""Pixel masks: CXI's bits and the conventions translated into them."""

from __future__ import annotations

import os
from pathlib import Path

import h5py
import numpy as np
import pytest
from beamsieve.stream.decode.masks import UNUSABLE, PixelMask, combine, from_bits, from_flags, from_nexus, usable
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

DATA = Path(os.environ.get("BEAMSIEVE_DATA", Path(__file__).parents[2] / "shared" / "data"))
words = arrays(np.uint32, st.tuples(st.integers(1, 4), st.integers(1, 5)), elements=st.integers(0, 2**32 - 1))


def test_bits_are_those_of_the_cxi_specification() -> None:
    expected = {"INVALID": 0x1, "SATURATED": 0x2, "HOT": 0x4, "DEAD": 0x8, "SHADOWED": 0x10, "BAD": 0x80}
    expected |= {"MISSING": 0x200, "NOISY": 0x400, "HAS_SIGNAL": 0x1000}
    assert {bit.name: bit.value for bit in PixelMask if bit != PixelMask.VIRTUAL} == expected


@pytest.mark.parametrize(
    ("nexus_bit", "expected"),
    [(0, 0x200), (1, 0x8), (2, 0x80), (3, 0x4), (4, 0x400), (5, 0x80), (6, 0x80), (7, 0x80), (8, 0x80)]
    + [(bit, 0) for bit in range(9, 31)]
    + [(31, 0x80000000)],
)
def test_each_nexus_bit(nexus_bit: int, expected: int) -> None:
    assert from_nexus(np.array([1 << nexus_bit], np.uint32)).tolist() == [expected]


def test_nexus_mask_in_signed_integers_keeps_bit_31() -> None:
    # DECTRIS masks are often stored as int32, where the bit of virtual pixels is the sign
    assert from_nexus(np.array([-(2**31)], np.int32)).tolist() == [0x80000000]


@settings(deadline=None, max_examples=50)
@given(words)
def test_a_pixel_is_usable_after_translation_unless_nexus_says_leave_it_out(pixel_mask: np.ndarray) -> None:
    for before, good in zip(pixel_mask.ravel(), usable(from_nexus(pixel_mask)).ravel(), strict=True):
        assert good == (int(before) & 0x1FF == 0)


@settings(deadline=None, max_examples=50)
@given(words, st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1))
def test_crystfel_rule_against_one_pixel_at_a_time(values: np.ndarray, good: int, bad: int) -> None:
    result = from_bits(values, good, bad)
    for value, bits in zip(values.ravel(), result.ravel(), strict=True):
        all_good_bits = all(int(value) >> i & 1 for i in range(32) if good >> i & 1)
        any_bad_bit = any(int(value) >> i & 1 for i in range(32) if bad >> i & 1)
        assert bits == (0x80 if any_bad_bit or not all_good_bits else 0)


def test_conventions_of_files() -> None:
    values = np.array([0.0, 1.0, 2.0, np.nan])
    assert from_flags(values, "bad").tolist() == [0, 0x80, 0x80, 0x80]
    assert from_flags(values, "good").tolist() == [0x80, 0, 0, 0x80]
    assert from_flags(np.array([0, 0x208]), "cxi").tolist() == [0, 0x208]
    assert from_flags(np.array([1, 2]), "nexus").tolist() == [0x200, 0x8]


def test_booleans_are_masks_too() -> None:
    assert from_flags(np.array([True, False]), "bad").tolist() == [0x80, 0]
    assert from_flags(np.array([True, False]), "good").tolist() == [0, 0x80]


def test_combine_keeps_every_bit_and_repeats_static_masks() -> None:
    static = np.array([[1, 0], [0, 8]], np.uint32)
    frames = np.zeros((3, 2, 2), np.uint32)
    frames[1, 0, 0] = 2
    result = combine((3, 2, 2), static, None, frames)
    assert result[0].tolist() == static.tolist()
    assert result[1].tolist() == [[3, 0], [0, 8]]
    with pytest.raises(ValueError, match="broadcast"):
        combine((2, 2), np.zeros(3, np.uint32))


def test_saturated_and_virtual_pixels_are_measurements() -> None:
    kept = PixelMask.SATURATED | PixelMask.VIRTUAL | PixelMask.HAS_SIGNAL
    assert usable(np.array([kept], np.uint32)).all()
    assert not UNUSABLE & kept


@pytest.mark.data
def test_real_pnccd_mask_where_one_is_good() -> None:
    path = DATA / "geometry" / "amo86615_pnccd_back_mask.h5"
    if not path.exists():
        pytest.skip("shared data set not here (BEAMSIEVE_DATA)")
    with h5py.File(path) as file:
        values = file["data/data"][...]
    mask = from_flags(values, "good")
    assert mask.shape == (1024, 1040)
    assert np.count_nonzero(mask) == 84485
    assert np.array_equal(mask, from_bits(values, good=1, bad=0))
