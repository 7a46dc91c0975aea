"""Common mode against one group of pixels at a time, and on offsets that were put in."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pytest
from beamsieve.stream.decode.common_mode import subtract_common_mode
from hypothesis import given, settings
from hypothesis import strategies as st

Over = Literal["median", "row", "column"]


def slowly(
    values: np.ndarray, good: np.ndarray, over: Over, asic: tuple[int, int], unlit: float | None, least: int
) -> np.ndarray:
    """Each ASIC, row or column by itself, with numpy's own median in float64."""
    out = values.copy()
    for frame in np.ndindex(values.shape[:-2]):
        for top in range(0, values.shape[-2], asic[0]):
            for left in range(0, values.shape[-1], asic[1]):
                rows, columns = range(top, top + asic[0]), range(left, left + asic[1])
                groups = {
                    "median": [[(y, x) for y in rows for x in columns]],
                    "row": [[(y, x) for x in columns] for y in rows],
                    "column": [[(y, x) for y in rows] for x in columns],
                }[over]
                for group in groups:
                    quiet = [
                        float(values[(*frame, y, x)])
                        for y, x in group
                        if good[(*frame, y, x)] and (unlit is None or abs(values[(*frame, y, x)]) <= np.float32(unlit))
                    ]
                    if len(quiet) >= least:
                        for y, x in group:
                            out[(*frame, y, x)] -= np.median(quiet)
    return out


@settings(deadline=None, max_examples=60)
@given(
    st.sampled_from(["median", "row", "column"]),
    st.tuples(st.integers(1, 3), st.integers(1, 2), st.integers(1, 2)),
    st.tuples(st.integers(1, 4), st.integers(1, 5)),
    st.sampled_from([None, 3.0]),
    st.integers(1, 4),
    st.integers(0, 2**31),
)
def test_against_the_slow_version(
    over: Over, tiles: tuple[int, int, int], asic: tuple[int, int], unlit: float | None, least: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    shape = (tiles[0], tiles[1] * asic[0], tiles[2] * asic[1])
    values = rng.normal(0, 3, shape).astype(np.float32)
    good = rng.random(shape) < 0.7
    expected = slowly(values, good, over, asic, unlit, least)
    result = subtract_common_mode(values.copy(), good, over, asic_shape=asic, unlit=unlit, min_pixels=least)
    np.testing.assert_allclose(result, expected, atol=1e-5)


def test_finds_the_offset_under_lit_pixels() -> None:
    rng = np.random.default_rng(3)
    offsets = rng.normal(0, 20, (4, 2, 2)).astype(np.float32)
    frames = np.repeat(np.repeat(offsets, 32, 1), 32, 2) + rng.normal(0, 1, (4, 64, 64)).astype(np.float32)
    frames[:, ::3, ::3] += 1000
    result = subtract_common_mode(frames.copy(), np.array(True), "median", asic_shape=(32, 32), unlit=200)
    assert np.abs((frames - result).reshape(4, 2, 32, 2, 32).mean(axis=(2, 4)) - offsets).max() < 0.2


def test_an_offset_too_large_is_not_believed() -> None:
    frame = np.full((1, 8, 8), 50, np.float32)
    result = subtract_common_mode(frame.copy(), np.array(True), "median", largest=40)
    assert np.array_equal(result, frame)


def test_masked_everywhere_changes_nothing() -> None:
    frame = np.full((1, 8, 8), 50, np.float32)
    assert np.array_equal(subtract_common_mode(frame.copy(), np.array(False), "row", min_pixels=1), frame)


def test_asic_that_does_not_divide_is_refused() -> None:
    with pytest.raises(ValueError, match="does not divide"):
        subtract_common_mode(np.zeros((1, 8, 8), np.float32), np.array(True), "median", asic_shape=(3, 8))
