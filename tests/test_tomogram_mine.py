"""A miner finds what is planted, encodes each box as it is, turned or not, with little of a tomogram in memory."""

from __future__ import annotations

import threading
from functools import lru_cache

import numpy as np
import pytest
from beamsieve.models.tomograms.boxes import boxes
from beamsieve.models.tomograms.dog import DogOptions
from beamsieve.models.tomograms.mine import STAGES, Mined, MineOptions, Miner
from beamsieve.models.tomograms.pose import Poses, posed_boxes
from beamsieve.models.tomograms.slabs import DEEP, Slabs
from beamsieve.models.tomograms.told import Stopped
from beamsieve.models.tomograms.volume import ArrayVolume, Floats, Shape

EDGE, CODES = 16, 6
VOXEL_A = 10.0
"""Of the file: 1.42 of its voxels are one of the network's."""
PLANTED = np.array([[25, 31, 20], [60, 70, 44], [31, 75, 72], [80, 20, 90]])
"""x, y, z in voxels of the file, the strongest first."""
OPTIONS = MineOptions(DogOptions(threshold=1), batch=9)


class Linear:
    """A network whose codes are a projection on some directions, and whose boxes are what these can say."""

    edge, voxel_a, codes = EDGE, 14.2, CODES

    def __init__(self, posed: bool) -> None:
        self.posed = posed
        self._directions = np.linalg.qr(np.random.default_rng(7).normal(size=(EDGE**3, CODES)))[0].astype(np.float32)
        self.most = 0

    def encode(self, given: Floats, /) -> Floats:
        self.most = max(self.most, len(given))
        return np.asarray(given.reshape(len(given), -1) @ self._directions)

    def error(self, given: Floats, codes: Floats, /) -> Floats:
        back = (codes @ self._directions.T).reshape(given.shape)
        return np.asarray(np.square(back - given).mean((1, 2, 3)))


class Watched(ArrayVolume):
    """Counts the voxels that were read."""

    def __init__(self, data: Floats, voxel_a: float) -> None:
        super().__init__(data, voxel_a)
        self.voxels, self.largest, self._lock = 0, 0, threading.Lock()

    def read(self, low: Shape, high: Shape) -> Floats:
        found = super().read(low, high)
        with self._lock:
            self.voxels += found.size
            self.largest = max(self.largest, found.size)
        return found


@lru_cache(maxsize=1)
def tomogram() -> Floats:
    """Density dark, as in files."""
    data = np.random.default_rng(0).normal(100, 10, (112, 96, 100)).astype(np.float32)
    z, y, x = np.ogrid[:112, :96, :100]
    for height, at in zip((60, 50, 40, 30), PLANTED, strict=True):
        data -= height * np.exp(-((x - at[0]) ** 2 / 60 + (y - at[1]) ** 2 / 40 + (z - at[2]) ** 2 / 25))
    return data


@lru_cache(maxsize=2)
def mined(posed: bool) -> Mined:
    return Miner(Linear(posed), OPTIONS, threads=2).mine(ArrayVolume(tomogram(), VOXEL_A))


@pytest.mark.parametrize("posed", [False, True])
def test_what_is_planted_is_found_in_voxels_of_the_file(posed: bool) -> None:
    found = mined(posed)
    assert len(found) > 15
    assert np.linalg.norm(found.xyz[:4] - PLANTED, axis=1).max() < 2
    assert (np.diff(found.score) <= 0).all()
    assert found.picked == len(found)
    assert (found.posed, found.edge) == (posed, EDGE)
    assert found.working.factor == pytest.approx(1.42)
    assert tuple(found.seconds) == STAGES
    assert (found.seconds["pose"] > 0) == posed


@pytest.mark.parametrize("posed", [False, True])
def test_codes_and_errors_are_those_of_the_boxes_row_by_row(posed: bool) -> None:
    found, network = mined(posed), Linear(posed)
    rows = np.array([5, 0, len(found) - 1])
    given = Miner(network, OPTIONS).boxes_of(found, rows)
    np.testing.assert_allclose(given.mean((1, 2, 3)), 0, atol=1e-5)
    np.testing.assert_allclose(given.std((1, 2, 3)), 1, atol=1e-4)
    np.testing.assert_allclose(network.encode(given), found.codes[rows], atol=2e-3)
    np.testing.assert_allclose(found.error[rows], network.error(given, network.encode(given)), atol=1e-4)
    work = found.working.to_work(found.xyz[rows])
    if posed:
        same = posed_boxes(found.working, work, Poses(found.rotation[rows], found.shift[rows]), EDGE)[0]
    else:
        same = boxes(found.working, work, EDGE)[0]
        np.testing.assert_array_equal(found.rotation, [np.eye(3)] * len(found))
    np.testing.assert_array_equal(given, same)


def test_boxes_are_turned_as_the_network_was_trained_unless_told_otherwise() -> None:
    for trained, told, turned in ((True, None, True), (False, None, False), (True, False, False), (False, True, True)):
        assert Miner(Linear(trained), MineOptions(posed=told)).posed == turned
    assert (mined(True).rotation[0] != np.eye(3)).any()
    with pytest.raises(ValueError, match="edge: 32, but the network is for boxes of 16"):
        Miner(Linear(True), MineOptions(edge=32))
    with pytest.raises(ValueError, match="batch: 0"):
        MineOptions(batch=0)


def test_a_tomogram_is_read_a_few_times_and_in_bounded_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("beamsieve.models.tomograms.differences._AT_ONCE", 30_000)
    monkeypatch.setattr("beamsieve.models.tomograms.statistics._AT_ONCE", 60_000)
    monkeypatch.setattr("beamsieve.models.tomograms.slabs._AT_ONCE", 30_000)
    volume, network = Watched(tomogram(), 14.2), Linear(True)
    found = Miner(network, OPTIONS, threads=2).mine(volume)
    assert volume.largest <= 60_000
    # Statistics, picks, boxes, each voxel once; and the sample, which is large beside so small a volume.
    sample = 24 * 48 * 100
    assert volume.voxels <= 3 * tomogram().size + sample
    assert network.most <= 9
    monkeypatch.undo()
    again = Miner(network, MineOptions(OPTIONS.dog, batch=1000), threads=1).mine(ArrayVolume(tomogram(), 14.2))
    np.testing.assert_array_equal(found.xyz, again.xyz)
    np.testing.assert_allclose(found.codes, again.codes, atol=5e-2)


def test_the_best_are_kept_where_there_are_too_many_and_none_is_no_mistake() -> None:
    some = Miner(Linear(False), MineOptions(OPTIONS.dog, most=3)).mine(ArrayVolume(tomogram(), VOXEL_A))
    np.testing.assert_array_equal(some.xyz, mined(False).xyz[:3])
    assert (len(some), some.picked) == (3, mined(False).picked)
    none = Miner(Linear(True), MineOptions(DogOptions(threshold=1e6))).mine(ArrayVolume(tomogram(), VOXEL_A))
    assert (none.codes.shape, none.rotation.shape, len(none)) == ((0, CODES), (0, 3, 3), 0)


def test_density_that_is_bright_in_the_file_is_found_too() -> None:
    found = Miner(Linear(False), OPTIONS).mine(ArrayVolume(200 - tomogram(), VOXEL_A), bright=True)
    np.testing.assert_array_equal(found.xyz, mined(False).xyz)
    np.testing.assert_allclose(found.codes, mined(False).codes, atol=0.05)


def test_progress_goes_through_the_stages_and_work_stops_when_told_to() -> None:
    steps: list[tuple[str, int, int]] = []
    Miner(Linear(True), OPTIONS).mine(
        ArrayVolume(tomogram(), VOXEL_A), progress=lambda *step: steps.append(step), stop=lambda: False
    )
    assert list(dict.fromkeys(step[0] for step in steps)) == ["statistics", "pick", "encode"]
    assert steps[-1] == ("encode", mined(True).picked, mined(True).picked)
    for stage in ("statistics", "pick", "encode"):
        seen: list[str] = []
        with pytest.raises(Stopped):
            Miner(Linear(True), OPTIONS).mine(
                ArrayVolume(tomogram(), VOXEL_A),
                progress=lambda what, done, of, seen=seen: seen.append(what),  # type: ignore[misc]
                stop=lambda seen=seen, stage=stage: stage in seen,  # type: ignore[misc]
            )
        assert seen[-1] == stage


def test_damage_in_the_file_comes_out_as_it_was_raised() -> None:
    class Damaged(ArrayVolume):
        def read(self, low: Shape, high: Shape) -> Floats:
            if high[0] > 100:
                raise OSError("the file ends early")
            return super().read(low, high)

    with pytest.raises(OSError, match="ends early"):
        Miner(Linear(True), OPTIONS).mine(Damaged(tomogram(), VOXEL_A))


def test_slabs_hold_the_planes_asked_for_and_read_none_twice() -> None:
    data = np.random.default_rng(0).normal(size=(90, 12, 10)).astype(np.float32)
    volume = Watched(data, 14.2)
    slabs = Slabs(volume, DEEP + 20)
    for first in (0, DEEP, 3 * DEEP):
        low, high = max(first - 10, 0), min(first + DEEP + 10, 90)
        slabs.move(first - 10, first + DEEP + 10)
        np.testing.assert_array_equal(slabs.read((low, 2, 3), (high, 9, 10)), data[low:high, 2:9, 3:10])
    # Four planes in between are no part of any of the three.
    assert volume.voxels == data.size - 4 * 120
    with pytest.raises(ValueError, match="were not fetched"):
        slabs.read((0, 0, 0), (1, 12, 10))
    with pytest.raises(ValueError, match="are more than"):
        slabs.move(0, DEEP + 21)
