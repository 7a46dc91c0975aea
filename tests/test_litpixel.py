"""Cutting the model's input out of frames, judging probabilities, and the lit-pixel hit finder: against loops."""

from __future__ import annotations

import math
import os
import statistics
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from beamsieve.models.hits.infer import bad_pixels, to_input, verdicts
from beamsieve.models.hits.litpixel import LitPixels, photon_sums
from beamsieve.stream.decode.masks import PixelMask, usable
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

DATA = Path(os.environ.get("BEAMSIEVE_DATA", Path(__file__).parents[2] / "shared" / "data"))
Array = npt.NDArray[Any]


def random_frames(rng: np.random.Generator, shape: tuple[int, ...], dtype: str) -> Array:
    """Counts, negative where the dtype can be, with NaN and infinities where it has them."""
    counts = rng.integers(0, 200, shape)
    if np.dtype(dtype).kind != "u":
        counts -= 50
    found = counts.astype(dtype)
    if np.dtype(dtype).kind == "f":
        for odd in (np.nan, np.inf, -np.inf):
            found[rng.random(shape) < 0.05] = odd
    return found


def obvious_input(
    frame: Array, bad: Array | None, size: int, centre: tuple[float, float] | None, bin_: int
) -> npt.NDArray[np.float64]:
    """Pixel by pixel."""
    height, width = frame.shape
    cy, cx = centre or (height / 2, width / 2)
    made = np.zeros((size, size))
    for row in range(size):
        for column in range(size):
            total = 0.0
            for dy in range(bin_):
                for dx in range(bin_):
                    y = math.floor(cy - size * bin_ / 2 + 0.5) + row * bin_ + dy
                    x = math.floor(cx - size * bin_ / 2 + 0.5) + column * bin_ + dx
                    inside = 0 <= y < height and 0 <= x < width
                    if inside and not (bad is not None and bad[y, x]) and math.isfinite(frame[y, x]):
                        total += float(frame[y, x])
            made[row, column] = max(total, 0.0)
    return made


@settings(max_examples=120, deadline=None)
@given(data=st.data())
def test_input_is_what_a_loop_over_pixels_makes(data: st.DataObject) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    n, height, width = (data.draw(st.integers(low, high)) for low, high in ((0, 3), (1, 12), (1, 12)))
    size, bin_ = data.draw(st.integers(1, 6)), data.draw(st.integers(1, 3))
    dtype = data.draw(st.sampled_from(["u1", "u2", "i2", "u4", "i8", "f4", "f8", ">u2"]))
    middle = st.none() | st.tuples(st.floats(0.1, height - 0.1), st.floats(0.1, width - 0.1))
    centre = data.draw(middle)
    frames = random_frames(rng, (n, height, width), dtype)
    mask = data.draw(st.sampled_from([None, "one", "each"]))
    bad = None if mask is None else rng.random((height, width) if mask == "one" else frames.shape) < 0.3
    given_mask = bad if bad is None or data.draw(st.booleans()) else bad.astype(np.uint32) * 0x80
    before = frames.copy()
    made = to_input(frames, given_mask, size=size, centre=centre, bin=bin_)
    assert made.shape == (n, size, size)
    assert made.dtype == (np.uint16 if dtype in ("u1", "u2") and bin_ == 1 else np.float32)
    for i, frame in enumerate(frames):
        bad_here = bad[i] if bad is not None and bad.ndim == 3 else bad
        np.testing.assert_allclose(made[i], obvious_input(frame, bad_here, size, centre, bin_), rtol=1e-6)
    np.testing.assert_array_equal(to_input(list(frames), given_mask, size, centre, bin_), made) if n else None
    np.testing.assert_array_equal(frames, before)


def test_the_middle_of_an_even_frame_is_the_frame() -> None:
    frames = np.arange(2 * 128 * 128, dtype=np.uint16).reshape(2, 128, 128)
    made = to_input(frames)
    np.testing.assert_array_equal(made, frames)
    assert np.shares_memory(made, frames)


def test_the_beam_lands_in_the_middle() -> None:
    frame = np.zeros((1, 200, 300), np.uint16)
    frame[0, 50, 250] = 9  # reaches from 50 to 51, so that its middle is at 50.5
    made = to_input(frame, size=5, centre=(50.5, 250.5))
    assert made[0, 2, 2] == made.sum() == 9
    made = to_input(frame, size=4, bin=3, centre=(51, 251))
    assert made[0, 1, 1] == made.sum() == 9


def test_sums_of_many_photons_do_not_overflow() -> None:
    frames = np.full((1, 256, 256), 65535, np.uint16)
    made = to_input(frames, size=16, bin=16)
    assert made.dtype == np.float32
    assert np.all(made == 256 * 65535)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"images": np.zeros((4, 4))}, r"shape \(4, 4\), not \(n, y, x\)"),
        ({"images": [np.zeros((4, 4)), np.zeros((4, 5))]}, "not one shape"),
        ({"mask": np.zeros((4, 5), bool)}, "give \\(y, x\\) or \\(n, y, x\\)"),
        ({"mask": np.zeros((4, 4))}, "dtype float64"),
        ({"centre": (40, 2)}, "misses the"),
        ({"size": 0}, "at least 1"),
    ],
)
def test_what_does_not_fit_is_refused(arguments: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        to_input(**{"images": np.zeros((2, 4, 4), np.uint16), "size": 4, **arguments})


@given(hnp.arrays(np.uint32, (7,), elements=st.integers(0, 2**32 - 1)))
def test_bad_pixels_are_those_that_calibration_calls_unusable(mask: npt.NDArray[np.uint32]) -> None:
    np.testing.assert_array_equal(bad_pixels(mask), ~usable(mask))


@pytest.mark.parametrize("dtype", ["u1", "i1", "u2", "i4", "u4", "i8", "u8"])
def test_bad_pixels_in_integers_of_any_width(dtype: str) -> None:
    bits = [0, PixelMask.INVALID, PixelMask.SATURATED, PixelMask.HOT, PixelMask.SHADOWED]
    assert bad_pixels(np.array(bits, dtype)).tolist() == [False, True, False, True, True]


def test_verdicts() -> None:
    probabilities = np.array(
        [[0.6, 0.4, 0, 0, 0], [0.1, 0.9, 0, 0, 0], [0, 0.05, 0.05, 0.1, 0.8], [np.nan] * 5], np.float32
    )
    labels, scores, accepted = verdicts(probabilities, 0.9)
    assert labels.tolist()[:3] == [0, 1, 4]
    assert scores.dtype == np.float32
    np.testing.assert_array_equal(scores, probabilities[:, 1])
    assert accepted.tolist() == [False, True, False, False]
    assert verdicts(probabilities, 0.4).accepted.tolist() == [True, True, False, False]
    assert verdicts(probabilities[:0], 0.5).labels.shape == (0,)


@settings(max_examples=80, deadline=None)
@given(data=st.data())
def test_lit_pixels_and_sums_are_what_a_loop_counts(data: st.DataObject) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    dtype = data.draw(st.sampled_from(["u1", "u2", "i2", "u4", "i4", "f4", "f8", ">u2"]))
    shape = data.draw(st.sampled_from([(0, 3, 4), (1, 1, 1), (5, 6, 7), (3, 2, 5, 4)]))
    frames = random_frames(rng, shape, dtype)
    threshold = data.draw(st.sampled_from([-1e9, -20, -0.5, 0, 0.5, 20, 20.5, 199, 255, 256, 70000, 1e12]))
    mask = data.draw(st.sampled_from([None, "one", "each"]))
    bad = None if mask is None else rng.random(shape[1:] if mask == "one" else shape) < 0.3
    least = data.draw(st.integers(0, 20))
    counts, hits = LitPixels(adu_threshold=threshold, hitscore_threshold=least).screen(frames, bad)
    sums = photon_sums(np.nan_to_num(frames, posinf=0, neginf=0), bad)
    for i, frame in enumerate(frames):
        bad_here = bad[i] if bad is not None and bad.ndim == frames.ndim else bad
        good = [v for j, v in np.ndenumerate(frame) if bad_here is None or not bad_here[j]]
        lit = sum(1 for value in good if float(value) > threshold)
        assert counts[i] == lit
        assert hits[i] == (lit >= least)
        assert sums[i] == pytest.approx(sum(float(value) for value in good if math.isfinite(value)))
    assert counts.dtype == np.int64
    assert hits.dtype == np.bool_


def test_large_frames_are_counted_in_parts() -> None:
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 40, (9, 300, 400), np.uint16)
    mask = rng.random((9, 300, 400)) < 0.1
    counts = LitPixels().count(frames, mask)
    assert counts.tolist() == [(frame[~bad] > 20).sum() for frame, bad in zip(frames, mask, strict=True)]


def test_a_bad_pixel_that_holds_nan_does_not_spoil_the_sum() -> None:
    frames = np.ones((2, 3, 3), np.float32)
    frames[:, 1, 1] = np.nan
    mask = np.isnan(frames[0])
    assert photon_sums(frames, mask).tolist() == [8, 8]
    assert photon_sums(np.full((1, 4, 4), 65535, np.uint16)).tolist() == [16 * 65535]


def shots(counts: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
    """Frames with so many lit pixels."""
    return (np.arange(64) < counts[:, None]).astype(np.uint8).reshape(-1, 8, 8)


def obvious_adaptive(counts: list[int], first: int, sigmas: float, window: int, every: int) -> list[bool]:
    """The definition, with lists and the statistics module."""
    hits = []
    for i, count in enumerate(counts):
        known = counts[: i - i % every][-window:]
        if not known:
            hits.append(count >= first)
            continue
        median = statistics.median(known)
        deviation = statistics.median(abs(value - median) for value in known)
        hits.append(count > median + sigmas * max(1.4826 * deviation, math.sqrt(median), 1.0))
    return hits


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_adaptive_is_its_definition_wherever_bursts_end(data: st.DataObject) -> None:
    counts = data.draw(st.lists(st.integers(0, 64), max_size=80))
    every, window = data.draw(st.integers(1, 9)), data.draw(st.integers(1, 40))
    every = min(every, window)
    finder = LitPixels(
        adu_threshold=0, hitscore_threshold=30, adaptive=True, sigmas=2.5, window=window, update_every=every
    )
    hits: list[bool] = []
    rest = np.array(counts, np.int64)
    while len(rest):
        burst = data.draw(st.integers(1, len(rest)))
        found, judged = finder.screen(shots(rest[:burst]))
        assert found.tolist() == rest[:burst].tolist()
        hits += judged.tolist()
        rest = rest[burst:]
    assert hits == obvious_adaptive(counts, 30, 2.5, window, every)


def test_adaptive_learns_a_background_that_rises_and_still_finds_hits() -> None:
    rng = np.random.default_rng(3)
    counts = np.concatenate([rng.poisson(4, 600), rng.poisson(16, 600)])
    truth = rng.random(1200) < 0.1
    counts[truth] = 60
    finder = LitPixels(adu_threshold=0, hitscore_threshold=30, adaptive=True, sigmas=5, window=200, update_every=20)
    found = np.concatenate([finder.screen(shots(part))[1] for part in np.array_split(counts, 37)])
    for part in (slice(0, 600), slice(850, 1200)):  # between them, the window holds both backgrounds
        assert found[part][truth[part]].all()
        assert found[part][~truth[part]].mean() < 0.01
    assert 30 < finder.limit < 60


def test_no_light_at_all_makes_no_hits_of_single_pixels() -> None:
    finder = LitPixels(adu_threshold=0, adaptive=True, sigmas=5, window=100, update_every=10)
    finder.screen(shots(np.zeros(100, np.int64)))
    assert finder.screen(shots(np.array([0, 1, 5, 6])))[1].tolist() == [False, False, False, True]


def test_memory_is_bounded() -> None:
    finder = LitPixels(adaptive=True, window=64, update_every=8)
    frames = np.zeros((50, 8, 8), np.uint8)
    sizes = set()
    for _ in range(20):
        finder.screen(frames)
        sizes.add((finder._past.nbytes, finder._scratch.nbytes))
    assert len(sizes) == 1


@pytest.mark.parametrize(
    "arguments",
    [{"adu_threshold": math.nan}, {"sigmas": -1}, {"hitscore_threshold": -1}, {"window": 0}, {"update_every": 0}],
)
def test_settings_that_mean_nothing_are_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(arguments))):
        LitPixels(**arguments)


def test_a_mask_of_another_shape_is_refused() -> None:
    with pytest.raises(ValueError, match=r"mask: has shape \(3, 4\)"):
        LitPixels().screen(np.zeros((2, 4, 3), np.uint16), np.zeros((3, 4), bool))


@pytest.mark.data
def test_real_shots_are_told_from_no_shots() -> None:
    path = DATA / "spi-pr772" / "labelled27.npz"
    if not path.exists():
        pytest.skip(f"{path} is not here; set BEAMSIEVE_DATA")
    with np.load(path) as file:
        patterns, mask = file["patterns"], file["mask_bad"].astype(bool)
    empty = np.random.default_rng(0).poisson(0.02, patterns.shape).astype(np.uint16)
    mixed = np.concatenate([empty, patterns, empty])
    counts, hits = LitPixels(adu_threshold=0, adaptive=True, hitscore_threshold=2000, update_every=8).screen(
        mixed, mask
    )
    assert hits.tolist() == [False] * 27 + [True] * 27 + [False] * 27
    assert photon_sums(patterns, mask).min() > 7000
    assert counts[27:54].min() > 3 * counts[:27].max()
