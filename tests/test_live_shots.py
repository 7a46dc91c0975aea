"""Frames put aside and added up: few, copied, bounded; and nothing of a burst is held on to."""

from __future__ import annotations

import gc
import json
import threading
import weakref
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from beamsieve.stream.flow.frame import Encoded, Frame, Key, Outcome, Result
from beamsieve.stream.live.page import Picture
from beamsieve.stream.live.powder import Powder
from beamsieve.stream.live.shots import REMEMBERED, SHOT_BYTES, SHOWN, Shot, Shots
from beamsieve.stream.live.thumbs import block_means, fitting, thumbnail
from hypothesis import given, settings
from hypothesis import strategies as st

Array = npt.NDArray[Any]


class Base(np.ndarray[Any, np.dtype[Any]]):
    """An array that can be watched."""


def burst(
    n: int = 16,
    shape: tuple[int, ...] = (8, 8),
    hits: Sequence[int] = (0,),
    random: Sequence[int] = (),
    dtype: str = "u2",
    masks: Array | None = None,
) -> tuple[Array, list[Result]]:
    """Frames as ``decode`` makes them: parts of one array, frame i filled with i."""
    base = np.empty((n, *shape), dtype).view(Base)
    base[:] = np.arange(n).reshape(-1, *[1] * len(shape))
    results = []
    for i in range(n):
        mask = None if masks is None else masks[i]
        chunk = Encoded(b"12345", shape, base.dtype, "bslz4")
        frame = Frame(Key("r", i), base[i], 0.0, 1000.0 + i, mask, chunk, {"exposure": 0.1, "parts": [base]})
        outcome = Outcome.ACCEPTED if i in hits else Outcome.REJECTED
        weight = 1.0 if i in hits else 50.0 if i in random else 0.0
        found = {"label": 1, "probabilities": np.zeros((n, 5), np.float32)[i], "model": "m", "threshold": 0.9}
        results.append(Result(frame, outcome, i / n, "model", weight, found))
    return base, results


def numbers(shots: Shots) -> dict[str, list[int]]:
    """Frame numbers that are shown, by group."""
    found: dict[str, list[int]] = {group: [] for group in SHOWN}

    def render(shot: Shot, frame: Frame) -> tuple[None, Picture]:
        return None, Picture(shot.seq, json.dumps([shot.group, frame.key.number]).encode())

    for picture in shots.pictures(0, render):
        group, number = json.loads(picture.encoded)
        found[group].append(number)
    return found


def test_the_newest_of_each_group_are_taken() -> None:
    shots = Shots("a")
    assert shots.offer(0.0, burst(12, hits=[1, 9], random=[3])[1]) == 7
    assert numbers(shots) == {"accepted": [9, 1], "random_miss": [3], "rejected": [11, 10, 8, 7]}
    assert shots.offer(0.0, burst(12, hits=[1, 9], random=[3])[1]) == 3, "four at once, then as time allows"


def test_what_is_kept_is_a_copy_and_the_burst_is_let_go() -> None:
    shots = Shots("a")
    base, results = burst(4, hits=[2], masks=np.ones((4, 8, 8), np.uint32))
    gone = weakref.ref(base)
    shots.offer(0.0, results)
    base[:] = 77
    shot = shots.get("a-1")
    assert shot is not None
    assert shot.frame is not None
    assert (shot.frame.data == 2).all()
    assert shot.frame.mask is not None
    assert shot.frame.mask.base is None
    assert shot.frame.chunk is None
    assert shot.frame.info == {"exposure": 0.1}
    assert shot.result.found == {"label": 1, "probabilities": [0.0] * 5, "model": "m", "threshold": 0.9}
    del base, results
    gc.collect()
    assert gone() is None, "the burst's array is still held"


@pytest.mark.parametrize(("shape", "per_s"), [((8, 8), 4.0), ((2048, 4096), 1.0)])
def test_copies_are_few_however_many_frames_come(shape: tuple[int, ...], per_s: float) -> None:
    shots, seconds, taken = Shots("a", budget=1 << 26), 12, Counter[str]()
    # Frames are made once: only what is copied counts here.
    _, results = burst(3, shape, hits=[1], random=[2])
    many = results * 100
    for step in range(seconds * 10):
        before = {group: len(known) for group, known in shots._known.items()}
        shots.offer(step / 10, many)
        taken.update({group: len(known) - before[group] for group, known in shots._known.items()})
    for group in SHOWN:
        assert seconds * per_s * 0.8 <= taken[group] <= seconds * per_s + 4, group


def test_memory_is_bounded_and_no_group_pushes_out_another() -> None:
    each = 64 * 64 * 2 + SHOT_BYTES
    shots = Shots("a", budget=30 * each)
    shots.offer(0.0, burst(4, (64, 64), hits=[0], random=[1])[1])
    _, results = burst(6, (64, 64), hits=[0, 1, 2])
    for second in range(1, 200):
        shots.offer(float(second), results)
    assert shots.nbytes <= 30 * each
    rare = shots.get("a-1")
    assert rare is not None
    assert (rare.group, rare.frame is not None) == ("random_miss", True)
    assert [len(shots._shown[group]) for group in SHOWN] == [24, 24, 1]


def test_the_number_remembered_is_bounded_too() -> None:
    shots = Shots("a")
    _, results = burst(2, hits=[0])
    for second in range(REMEMBERED + 50):
        shots.offer(float(second), results)
    assert {group: len(known) for group, known in shots._known.items()} == {
        "accepted": REMEMBERED, "rejected": REMEMBERED, "random_miss": 0,
    }  # fmt: skip
    assert shots.get("a-1") is None
    assert shots.nbytes <= 2 * REMEMBERED * (SHOT_BYTES + 128) + 200 * (SHOT_BYTES + 128)


def test_views_outlive_the_frames_and_are_bounded_as_well() -> None:
    shots = Shots("a", budget=4 * (1 << 20))
    _, results = burst(2, (512, 512), hits=[0])

    def render(shot: Shot, frame: Frame) -> tuple[Array, Picture]:
        return frame.data[:64, :64].copy(), Picture(shot.seq, b"{}")

    for second in range(100):
        shots.offer(float(second), results)
        shots.pictures(0, render)
    late = shots.get("a-150")
    assert late is not None
    assert (late.frame, late.view is not None) == (None, True)
    views = [shot.view.nbytes for known in shots._known.values() for shot in known.values() if shot.view is not None]
    assert (1 << 19) < sum(views) <= 1 << 20
    pictures = [shot.id for known in shots._known.values() for shot in known.values() if shot.picture is not None]
    assert sorted(pictures) == sorted(shot.id for shown in shots._shown.values() for shot in shown), "no others"
    assert shots.nbytes <= 5 * (1 << 20)


def test_pictures_are_made_once_in_order_and_not_all_at_once() -> None:
    shots, made = Shots("a"), list[int]()
    for second in range(3):
        shots.offer(2.0 * second, burst(3, hits=[0, 1])[1])

    def render(shot: Shot, frame: Frame) -> tuple[None, Picture]:
        made.append(shot.seq)
        return None, Picture(shot.seq, b"{}")

    class Slow:
        now = 0.0

        def __call__(self) -> float:
            self.now += 0.02
            return self.now

    first = shots.pictures(0, render, clock=Slow())
    assert [picture.seq for picture in first] == made == [1, 2]
    rest = shots.pictures(first[-1].seq, render)
    assert [picture.seq for picture in rest] == list(range(3, 10))
    again = shots.pictures(0, render)
    assert [picture.seq for picture in again] == made == list(range(1, 10))
    assert shots.pictures(9, render) == []


def test_a_frame_that_cannot_be_drawn_keeps_no_other_from_being_shown(caplog: pytest.LogCaptureFixture) -> None:
    shots = Shots("a")
    shots.offer(0.0, burst(6, hits=[0, 1, 2])[1])

    def render(shot: Shot, frame: Frame) -> tuple[None, Picture]:
        if shot.seq == 2:
            raise ValueError("no such colour")
        return None, Picture(shot.seq, b"{}")

    for _ in range(2):
        assert [picture.seq for picture in shots.pictures(0, render)] == [1, 3, 4, 5, 6]
    assert caplog.text.count("cannot be shown") == 1


def test_what_waits_for_review_is_what_is_shown_and_not_marked() -> None:
    shots = Shots("a")
    shots.offer(0.0, burst(6, hits=[0, 1], random=[2])[1])
    assert shots.waiting(set()) == 3
    assert shots.waiting({"a-1"}) == 2
    assert shots.waiting({"a-1", "a-2", "a-3", "b-4"}) == 0


# Powder


def added(*bursts: list[Result], share: float = 1e9) -> Powder:
    powder = Powder(share)
    for results in bursts:
        powder.offer(results, sum(result.outcome is Outcome.ACCEPTED for result in results))
        powder.settle()
    powder.close()
    return powder


@pytest.mark.parametrize("shape", [(8, 9), (2, 4, 5)])
@pytest.mark.parametrize("dtype", ["u1", "u2", "i4", "f4"])
def test_sum_and_maximum_are_numpys_when_there_is_time(shape: tuple[int, ...], dtype: str) -> None:
    rng = np.random.default_rng(1)
    base, results = burst(20, shape, hits=range(0, 20, 3), dtype=dtype)
    base[:] = rng.integers(-5 if dtype[0] in "if" else 0, 200, base.shape)
    powder = added(results[:7], results[7:8], results[8:])
    hits = np.array(base[::3])
    misses = np.array([base[i] for i in range(20) if i % 3])
    for kind, frames in (("hits", hits), ("misses", misses)):
        for highest, expected in ((False, frames.astype(np.float64).sum(0)), (True, frames.max(0))):
            found = powder.array(kind, highest)
            assert found is not None
            np.testing.assert_array_equal(found[0], expected.astype(np.float32))
            assert found[1:] == (len(frames), "")
    assert powder.state() == {
        "version": 1, "run": "", "hits": 7, "misses": 13, "of_hits": 7, "of_misses": 13,
    }  # fmt: skip
    assert powder.state()["version"] == 1, "nothing changed"


def test_masked_pixels_and_what_is_no_number_are_left_out() -> None:
    masks = np.zeros((3, 4, 4), np.uint32)
    masks[:, 0, 0] = 0x80
    masks[1, 1, 1] = 0x4
    masks[:, 2, 2] = 0x2  # saturated, and so at least as bright
    base, results = burst(3, (4, 4), hits=(0, 1, 2), dtype="f4", masks=masks)
    base[2, 3, 3] = np.nan
    base[1, 3, 2] = np.inf
    total, highest = (powder.array("hits", what) for powder in [added(results)] for what in (False, True))
    assert total is not None
    assert highest is not None
    assert total[0][0, 0] == 0
    assert np.isnan(highest[0][0, 0])
    assert (total[0][1, 1], total[0][2, 2], total[0][3, 3], total[0][3, 2]) == (2, 3, 1, 2)
    assert (highest[0][1, 1], highest[0][2, 2], highest[0][3, 3]) == (2, 2, 1)


def test_a_fast_stream_is_added_up_in_part_and_says_so() -> None:
    class Clock:
        now = 0.0

        def __call__(self) -> float:
            return self.now

    clock, work = Clock(), Clock()

    def cpu() -> float:
        work.now += 0.05  # a call before and one after: 50 ms of work for each burst that is taken
        return work.now

    powder = Powder(0.02, clock=clock, cpu=cpu)
    _, results = burst(100, (64, 64), hits=range(50))
    for step in range(1000):
        clock.now = step / 10
        powder.offer(results, 50)
        powder.settle()
    powder.close()
    state = powder.state()
    assert state["of_hits"] == state["of_misses"] == 50_000
    assert 0 < state["hits"] < 5000
    worked = work.now / 2
    assert worked <= 1.5 * 0.02 * 100, "2 % of 100 s, and what it took to learn what a frame costs"


def test_a_thread_that_hangs_costs_frames_and_no_time() -> None:
    go = threading.Event()

    def cpu() -> float:
        go.wait(20)
        return 0.0

    powder = Powder(1e9, cpu=cpu)
    _, results = burst(10, hits=range(5))
    for _ in range(100):
        powder.offer(results, 5)
    assert powder.state()["of_hits"] == 500
    go.set()
    powder.close()
    assert powder.state()["hits"] + powder.state()["misses"] <= 5 * 4


def test_a_new_run_begins_with_nothing() -> None:
    powder = added(burst(4)[1])
    assert powder.array("hits", False) is not None
    version = powder.state()["version"]
    powder.start("next")
    assert powder.array("hits", False) is None
    assert powder.state() == {
        "version": version + 1, "run": "next", "hits": 0, "misses": 0, "of_hits": 0, "of_misses": 0,
    }  # fmt: skip


def test_another_shape_is_left_out_and_counted() -> None:
    powder = added(burst(4, hits=())[1], burst(4, (5, 5), hits=())[1])
    assert (powder.state()["misses"], powder.state()["of_misses"]) == (4, 8)


def test_the_powder_holds_on_to_no_burst() -> None:
    powder = Powder(1e9)
    base, results = burst(4)
    gone = weakref.ref(base)
    powder.offer(results, 1)
    powder.settle()
    del base, results
    gc.collect()
    assert gone() is None
    powder.close()


# Small pictures


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 9), st.randoms(use_true_random=False))
def test_block_means_are_the_means_of_blocks(ny: int, nx: int, factor: int, random: Any) -> None:
    image = np.array([[random.choice([0.0, 1.0, 7.0, np.nan]) for _ in range(nx)] for _ in range(ny)])
    found = block_means(image, factor)
    for y in range(0, ny, factor):
        for x in range(0, nx, factor):
            good = image[y : y + factor, x : x + factor]
            good = good[np.isfinite(good)]
            assert found[y // factor, x // factor] == pytest.approx(good.mean() if good.size else np.nan, nan_ok=True)


@pytest.mark.parametrize("shape", [(128, 128), (96, 96), (5, 7), (512, 1024), (1300, 90), (97, 3)])
def test_a_thumbnail_fits_keeps_the_brightness_and_shows_a_bright_corner(shape: tuple[int, int]) -> None:
    image = np.full(shape, 2.0)
    image[: shape[0] // 4 + 1, : shape[1] // 4 + 1] = 50
    small, high = thumbnail(image)
    assert max(small.shape) <= 96
    assert max(small.shape) == min(96, max(shape)) or max(small.shape) > 90
    assert small.dtype == np.uint8
    assert high == pytest.approx(50, rel=1e-4)
    assert small[0, 0] == 255
    assert np.expm1(small[-1, -1] / 255 * np.log1p(high)) == pytest.approx(2, abs=0.1)


def test_noise_looks_dark_and_what_is_no_number_does_not_matter() -> None:
    image = np.random.default_rng(0).poisson(0.05, (128, 128)).astype(float)
    image[3, 3] = np.nan
    small, high = thumbnail(image)
    assert high == 3.0
    assert small.mean() < 20


def test_a_large_image_is_averaged_and_says_by_how_much() -> None:
    image = np.ones((2049, 10), np.uint16)
    small, factor = fitting(image)
    assert (small.shape, factor) == ((1025, 5), 2)
    assert fitting(image[:2048])[1] == 1
