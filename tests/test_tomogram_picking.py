"""A tomogram becomes the working volume, part by part as in one piece, and its picks are those of the whole volume."""

from __future__ import annotations

import math
import threading

import numpy as np
import pytest
from beamsieve.models.tomograms.ahead import ahead
from beamsieve.models.tomograms.differences import response
from beamsieve.models.tomograms.dog import DogOptions, apart, pick
from beamsieve.models.tomograms.statistics import Statistics, statistics
from beamsieve.models.tomograms.told import Stopped
from beamsieve.models.tomograms.volume import ArrayVolume, Floats, Shape
from beamsieve.models.tomograms.working import Working, scale_factor
from scipy import ndimage

PLAIN = Statistics(0.0, 1.0, -100.0, 100.0)


class Watched(ArrayVolume):
    """Remembers how often each voxel was read, and the largest box."""

    def __init__(self, data: Floats, voxel_a: float) -> None:
        super().__init__(data, voxel_a)
        self.times = np.zeros(data.shape, int)
        self.largest = 0
        self._lock = threading.Lock()

    def read(self, low: Shape, high: Shape) -> Floats:
        found = super().read(low, high)
        with self._lock:
            self.times[low[0] : high[0], low[1] : high[1], low[2] : high[2]] += 1
            self.largest = max(self.largest, found.size)
        return found


def noise(*shape: int, seed: int = 0) -> Floats:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def blobs(shape: Shape, places: list[tuple[int, int, int]], sigma: float = 4.0) -> Floats:
    """Gaussian blobs of height 1 at (x, y, z)."""
    z, y, x = np.ogrid[: shape[0], : shape[1], : shape[2]]
    found = np.zeros(shape, np.float32)
    for at in places:
        found += np.exp(-((x - at[0]) ** 2 + (y - at[1]) ** 2 + (z - at[2]) ** 2) / (2 * sigma**2))
    return found


def whole(volume: Working | ArrayVolume) -> Floats:
    return volume.read((0, 0, 0), volume.shape)


def test_voxels_of_the_right_size_are_only_normalised() -> None:
    data = noise(34, 40, 48) * 20 + 150
    working = Working(ArrayVolume(data, 14.2))
    assert working.factor == 1
    assert working.shape == data.shape
    found = whole(working)
    assert (found.mean(), found.std()) == (pytest.approx(0, abs=2e-3), pytest.approx(1, abs=2e-3))
    assert np.corrcoef(found.ravel(), data.ravel())[0, 1] == pytest.approx(-1, abs=1e-4)
    np.testing.assert_allclose(whole(Working(ArrayVolume(data, 14.2), bright=True)), -found)


def test_voxels_that_differ_little_are_taken_as_they_are() -> None:
    working = Working(ArrayVolume(noise(40, 40, 40), 14.0))
    assert (working.factor, working.voxel_a, working.shape) == (1, 14.2, (40, 40, 40))
    assert Working(ArrayVolume(noise(40, 40, 40), 13.5)).factor == pytest.approx(14.2 / 13.5)


@pytest.mark.parametrize("voxel_a", [10.0, 7.1, 4.1, 17.0])
def test_a_box_read_in_parts_is_the_box_read_whole(voxel_a: float) -> None:
    working = Working(ArrayVolume(noise(110, 120, 130), voxel_a), box=20)
    every = whole(working)
    assert every.std() == pytest.approx(1, abs=0.03)
    rng = np.random.default_rng(1)
    for _ in range(6):
        low = [int(rng.integers(0, n - 2)) for n in working.shape]
        high = [int(rng.integers(a + 1, n + 1)) for a, n in zip(low, working.shape, strict=True)]
        part = working.read((low[0], low[1], low[2]), (high[0], high[1], high[2]))
        same = every[low[0] : high[0], low[1] : high[1], low[2] : high[2]]
        np.testing.assert_allclose(part, same, atol=1e-5)
    with pytest.raises(ValueError, match="reaches out"):
        working.read((0, 0, 0), (working.shape[0] + 1, 4, 4))


@pytest.mark.parametrize("voxel_a", [10.0, 5.0, 20.0])
def test_rescaling_keeps_what_is_where_and_does_not_fold(voxel_a: float) -> None:
    shape = (40, 44, 128)
    x = np.arange(shape[2], dtype=np.float64)

    def wave(at: Floats | np.ndarray, period: float) -> np.ndarray:
        return np.broadcast_to(np.sin(2 * np.pi * np.asarray(at, np.float64) / period), shape[:2] + np.shape(at))

    slow = 8 * max(1.0, 14.2 / voxel_a)
    volume = ArrayVolume(np.ascontiguousarray(wave(x, slow)), voxel_a)
    working = Working(volume, bright=True, statistics=PLAIN, box=8)
    found = whole(working)
    places = working.to_file(np.arange(working.shape[2]))
    expected = np.sin(2 * np.pi * places / slow)
    inner = slice(4, -4)
    assert np.corrcoef(found[9, 9, inner], expected[inner])[0, 1] > 0.999
    np.testing.assert_allclose(working.to_work(places), np.arange(working.shape[2]), atol=1e-4)
    if working.factor > 1.3:
        # Faster than the working voxels can hold: what is left would be a wave that is not there.
        both = np.ascontiguousarray(wave(x, slow) + wave(x, 1.3 * working.factor))
        folded = whole(Working(ArrayVolume(both, voxel_a), bright=True, statistics=PLAIN, box=8))
        assert np.corrcoef(folded[9, 9, inner], expected[inner])[0, 1] > 0.99


def test_volumes_too_small_and_voxels_impossible_are_refused_with_the_remedy() -> None:
    with pytest.raises(ValueError, match=r"40 × 60 × 60 voxels of 10 Å are 28 × 42 × 42 .* less than one box of 32"):
        Working(ArrayVolume(noise(40, 60, 60), 10.0))
    with pytest.raises(ValueError, match=r"factor of 0.473.*check the voxel size"):
        Working(ArrayVolume(noise(40, 60, 60), 30.0))
    for wrong in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="is not above 0"):
            scale_factor(wrong, 14.2)


def test_statistics_are_those_of_the_tomogram_without_gold_padding_and_nan() -> None:
    data = noise(40, 60, 70) * 8 + 120
    clean = data.copy()
    data[:, :, :12] = 0
    data[10:14, 20:24, 30:34] = -5000
    data[30, 30, 30:40] = np.nan
    data[31, 31, 31] = np.inf
    found = statistics(ArrayVolume(data, 10.0))
    assert found.mean == pytest.approx(clean[:, :, 12:].mean(), abs=0.1)
    assert found.sd == pytest.approx(8, abs=0.1)
    assert found.padding == (0.0,)
    assert found.padded == pytest.approx(12 / 70, abs=1e-3)
    assert (found.bad, found.voxels) == (11, data.size)
    assert "11 of 168000 voxels are NaN or infinite" in found.notes[0]
    assert "17.1 % of the voxels are padding (0)" in found.notes[1]
    seen = whole(Working(ArrayVolume(data, 14.2), statistics=found))
    assert np.isfinite(seen).all()
    assert (seen[:, :, :12] == 0).all()
    assert (seen[30, 30, 30:40] == 0).all()
    assert seen[11, 21, 31] == pytest.approx(6)


@pytest.mark.parametrize("spread", [1, 3, 40])
def test_whole_numbers_that_come_often_are_no_padding(spread: int) -> None:
    data = np.clip(np.rint(noise(40, 50, 60) * spread), -128, 127).astype(np.int8)
    found = statistics(ArrayVolume(data, 10.0))
    assert found.padding == ()
    assert found.notes == ()
    assert found.sd == pytest.approx(data.std(), rel=0.02)
    if spread == 40:
        data[:8] = 0
        assert statistics(ArrayVolume(data, 10.0)).padding == (0.0,)


def test_statistics_take_one_pass_in_bounded_boxes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("beamsieve.models.tomograms.statistics._AT_ONCE", 5000)
    volume = Watched(noise(30, 64, 90), 10.0)
    steps: list[tuple[str, int, int]] = []
    found = statistics(volume, progress=lambda *step: steps.append(step))
    assert volume.largest <= 5000
    assert (volume.times >= 1).all()
    assert (volume.times > 1).mean() < 0.7  # rows of the sample: of so small a volume they are many
    assert steps[-1] == ("statistics", len(steps), len(steps))
    monkeypatch.undo()
    assert found == statistics(volume, threads=1)
    with pytest.raises(Stopped):
        statistics(volume, stop=lambda: True)


@pytest.mark.parametrize(("fill", "said"), [(7.0, "one value"), (math.nan, "not one is a finite number")])
def test_volumes_of_nothing_are_refused(fill: float, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        statistics(ArrayVolume(np.full((32, 32, 32), fill, np.float32), 10.0))


def test_volumes_of_mostly_nan_are_refused() -> None:
    data = noise(32, 32, 32)
    data[:8] = np.nan
    with pytest.raises(ValueError, match="8192 of 32768 voxels are NaN or infinite, more than 20 %"):
        statistics(ArrayVolume(data, 10.0))


def reference(data: Floats, options: DogOptions) -> np.ndarray:
    """Smoothing and difference one after the other, on the whole volume, in double precision."""
    exact = ndimage.gaussian_filter(data.astype(np.float64), options.smooth, truncate=6)
    narrow, wide = (ndimage.gaussian_filter(exact, options.sigma * k, truncate=6) for k in (1, options.ratio))
    return np.asarray(narrow - wide)


@pytest.mark.parametrize(
    "options", [DogOptions(), DogOptions(smooth=1, sigma=3), DogOptions(smooth=2, sigma=7, ratio=1.6)]
)
def test_the_difference_of_gaussians_is_that_of_scipy(options: DogOptions) -> None:
    data = noise(47, 62, 55) + 8 * blobs((47, 62, 55), [(0, 0, 0), (30, 30, 46), (50, 20, 20)])
    exact = reference(data, options)
    found = response(ArrayVolume(data, 14.2), *options.widths)
    assert np.abs(found - exact).max() < 3e-4 * exact.std()


@pytest.mark.parametrize("options", [DogOptions(threshold=1.5), DogOptions(threshold=0.5, distance=2)])
def test_picks_are_those_of_the_whole_volume_whatever_the_tiles(options: DogOptions) -> None:
    data = noise(50, 70, 61)
    exact = reference(data, options)
    low, high = np.percentile(exact[::4, ::4, ::4], (15.865, 84.135))
    score = exact / ((high - low) / 2)
    at = np.argwhere((score == ndimage.maximum_filter(score, 3)) & (score >= options.threshold))
    best = sorted(at.tolist(), key=lambda place: -score[tuple(place)])
    kept: list[list[int]] = []
    for place in best:
        if all(math.dist(place, other) >= options.distance for other in kept):
            kept.append(place)
    assert 20 < len(kept) <= len(best)
    for tile, threads in ((64, 2), (17, 3), (1000, 1)):
        found = pick(ArrayVolume(data, 14.2), options, tile=tile, threads=threads)
        assert found.xyz[:, ::-1].tolist() == kept
        np.testing.assert_allclose(found.score, [score[tuple(place)] for place in kept], rtol=1e-3)


def test_blobs_are_found_where_they_are_the_strongest_first() -> None:
    places = [(20, 30, 25), (60, 22, 30), (45, 70, 12)]
    data = noise(44, 90, 80)
    for height, at in zip((4, 3, 2), places, strict=True):
        data += height * blobs(data.shape, [at])
    found = pick(ArrayVolume(data, 14.2), DogOptions(threshold=6))
    assert len(found.xyz) == 3
    assert np.abs(found.xyz - np.array(places)).max() <= 1
    assert (np.diff(found.score) < 0).all()


def test_padding_does_not_lower_the_threshold() -> None:
    data = noise(40, 64, 160)
    with_padding = data.copy()
    with_padding[:, :, 50:] = 0
    assert pick(ArrayVolume(with_padding, 14.2)).sd == pytest.approx(pick(ArrayVolume(data, 14.2)).sd, rel=0.35)


def test_what_is_constant_has_no_picks() -> None:
    assert len(pick(ArrayVolume(np.zeros((33, 33, 33), np.float32), 14.2), DogOptions(threshold=0)).xyz) == 0


def test_every_voxel_is_read_once_and_a_few_planes_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("beamsieve.models.tomograms.differences._AT_ONCE", 20_000)
    volume = Watched(noise(40, 50, 60), 14.2)
    steps: list[tuple[str, int, int]] = []
    found = pick(volume, DogOptions(threshold=1), tile=20, progress=lambda *step: steps.append(step))
    assert (volume.times == 1).all()
    assert volume.largest <= 20_000
    # First the planes, then the tiles: it never goes back, and it ends.
    done = [step[1] / step[2] for step in steps]
    assert done == sorted(done)
    assert done[-1] == 1
    monkeypatch.undo()
    again = pick(volume, DogOptions(threshold=1))
    np.testing.assert_array_equal(found.xyz, again.xyz)


def test_picking_stops_when_told_to() -> None:
    asked = iter([False, True])
    with pytest.raises(Stopped):
        pick(ArrayVolume(noise(33, 33, 33), 14.2), stop=lambda: next(asked))


def test_points_stay_apart_the_better_one_first_and_of_equals_the_first() -> None:
    at = np.array([[0, 0, 0], [0, 0, 9], [0, 0, 10], [0, 0, 19], [30, 0, 0]])
    score = np.array([1, 2, 1, 1, 5], np.float32)
    assert apart(at, score, 10).tolist() == [4, 1, 3]
    assert apart(at, np.ones(5, np.float32), 10).tolist() == [0, 2, 4]
    assert apart(at, score, 0).tolist() == [4, 1, 0, 2, 3]


def test_options_in_nm_and_wrong_ones() -> None:
    assert DogOptions.from_nm(14.2) == DogOptions(2.0, 5.0, 1.1, 2.5, 10.0)
    assert DogOptions.from_nm(10.0, sigma=6, distance=20).distance == 20
    for name, value in (("sigma", 0.5), ("ratio", 1.0), ("threshold", -1.0), ("smooth", math.nan), ("distance", -2.0)):
        with pytest.raises(ValueError, match=f"{name}: .* is not a number of at least"):
            DogOptions(**{name: value})
    with pytest.raises(ValueError, match="tile: 0"):
        pick(ArrayVolume(noise(8, 8, 8), 14.2), tile=0)


def test_work_ahead_comes_in_order_and_no_more_than_asked_for_is_begun() -> None:
    begun: list[int] = []

    def work(item: int) -> int:
        begun.append(item)
        if item == 5:
            raise OSError("item 5")
        return item * 2

    taken = ahead(work, range(100), 2)
    assert [next(taken) for _ in range(3)] == [0, 2, 4]
    with pytest.raises(OSError, match="item 5"):
        list(taken)
    assert max(begun) <= 8
    with pytest.raises(ValueError, match="threads: 0"):
        list(ahead(work, [1], 0))
