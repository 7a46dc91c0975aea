"""Sequence numbers and runs: every image is new, late, twice, stale or a stray, whatever the sender does."""

import random
from collections import Counter
from typing import Any

import pytest
from beamsieve.stream.flow.frame import Discard, Failure, Key, RunEnd, RunStart
from beamsieve.stream.sources.sequence import Arrival, Sequence
from beamsieve.stream.sources.series import Book
from hypothesis import given, settings
from hypothesis import strategies as st


class Told:
    """Facts, remembered."""

    def __init__(self) -> None:
        self.events: Counter[str] = Counter()

    def event(self, kind: str, n: int = 1) -> None:
        self.events[kind] += n


def book(**settings: Any) -> Any:
    told = Told()
    return Book(told, **settings), told.events


def arrivals(numbers: Any, **settings: Any) -> Any:
    sequence = Sequence(**settings)
    return [sequence.arrive(n) for n in numbers], sequence


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, 60), max_size=150), st.integers(1, 10))
def test_against_a_set(numbers: Any, window: int) -> None:
    """The obvious version remembers everything ever seen."""
    seen = set()
    got, sequence = arrivals(numbers, window=window)
    for number, arrival in zip(numbers, got, strict=True):
        assert (arrival is Arrival.DUPLICATE) == (number in seen)
        seen.add(number)
    sequence.finish()
    late = got.count(Arrival.LATE)
    assert sequence.missing - late == len(set(range(max(seen, default=-1) + 1)) - seen)


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 16), st.integers(0, 2**32), st.sets(st.integers(0, 199), max_size=40))
def test_reordering_within_the_window_is_not_missing(window: int, seed: int, lost: Any) -> None:
    numbers = sorted(range(200), key=lambda n: n + random.Random(seed + n).uniform(0, window - 1))
    got, sequence = arrivals([n for n in numbers if n not in lost], window=window)
    assert set(got) <= {Arrival.NEW}
    sequence.finish()
    last = max(set(range(200)) - lost)
    assert sequence.missing == len([n for n in lost if n < last])


def test_a_gap_is_told_once_the_window_is_past() -> None:
    sequence = Sequence(window=4)
    counts = []
    for number in (0, 1, 3, 4, 5, 6, 7):
        sequence.arrive(number)
        counts.append(sequence.missing)
    assert counts == [0, 0, 0, 0, 0, 1, 1]
    assert sequence.arrive(2) is Arrival.LATE
    assert sequence.arrive(2) is Arrival.DUPLICATE


def test_one_wild_number_does_not_make_the_rest_look_old() -> None:
    got, sequence = arrivals([0, 1, 1 << 50, 2, 3, 4], window=4)
    assert set(got) == {Arrival.NEW}
    assert sequence.missing == 0
    for number in range(1 << 50, (1 << 50) + 5):
        assert sequence.arrive(number) is Arrival.NEW
    assert sequence.seen_to == (1 << 50) + 5


def test_shared_numbers_are_never_missing() -> None:
    got, sequence = arrivals(range(0, 3000, 3), counts=False)
    sequence.finish()
    assert (set(got), sequence.missing) == ({Arrival.NEW}, 0)
    assert sequence.arrive(2997) is Arrival.DUPLICATE
    assert sequence.arrive(2998) is Arrival.NEW


def test_what_came_and_could_not_be_used_is_not_missing_and_may_come_again() -> None:
    sequence = Sequence(window=2)
    sequence.fail(1)
    sequence.fail(3)
    sequence.fail(1 << 60)
    assert [sequence.arrive(n) for n in (0, 3, 4, 5, 6)] == [Arrival.NEW] * 5
    sequence.finish()
    assert sequence.missing == 1, "2 never came"
    sequence.fail(9)
    assert (sequence.seen_to, sequence.came_to) == (7, 10)


def test_numbers_before_the_first_are_new_and_not_missing() -> None:
    got, sequence = arrivals([100, 99, 101, 98, 98], first=100)
    assert got == [Arrival.NEW] * 4 + [Arrival.DUPLICATE]
    assert sequence.missing == 0


def test_a_series_from_start_to_end() -> None:
    runs, events = book()
    assert runs.start((12, "a"), {"images_expected": 3}, 0) == [RunStart("12", {"images_expected": 3})]
    assert [runs.image((12, "a"), n, 0) for n in range(3)] == [([], Key("12", n)) for n in range(3)]
    assert runs.end((12, "a"), 1) == [RunEnd("12")]
    assert not events


def test_joining_late() -> None:
    runs, events = book()
    assert runs.image((12, "a"), 1000, 0) == ([RunStart("12")], Key("12", 1000))
    assert runs.image((12, "a"), 1001, 0) == ([], Key("12", 1001))
    assert events == {"joined_late": 1}


def test_a_new_series_without_the_end_of_the_old() -> None:
    runs, events = book()
    runs.start((12, "a"), {}, 0)
    runs.image((12, "a"), 0, 0)
    assert runs.start((13, "b"), {}, 0) == [RunEnd("12", "superseded"), RunStart("13")]
    assert runs.image((12, "a"), 1, 1) == ([], Discard(Key("12", 1), "stale"))
    assert events == {"no_end": 1}


@pytest.mark.parametrize("unique", [("", ""), ("a", "b")])
def test_a_restarted_sender(unique: Any) -> None:
    runs, events = book()
    runs.start((12, unique[0]), {}, 0)
    runs.image((12, unique[0]), 0, 0)
    assert runs.start((12, unique[1]), {}, 0) == [RunEnd("12", "aborted"), RunStart("12.2")]
    assert runs.image((12, unique[1]), 0, 0) == ([], Key("12.2", 0))
    assert runs.end((12, unique[1]), 0) == [RunEnd("12.2")]
    assert events == {"restart": 1}


def test_a_start_said_again_on_another_socket() -> None:
    runs, events = book()
    runs.start((12, "a"), {}, 0)
    assert runs.start((12, "a"), {}, 0) == []
    assert events == {"start_again": 1}


def test_a_start_that_comes_after_images_is_not_lost() -> None:
    runs, events = book()
    runs.image((12, "a"), 3, 0)
    assert runs.start((12, "a"), {"energy_J": 1.0}, 0) == [
        RunEnd("12", "superseded"),
        RunStart("12.2", {"energy_J": 1.0}),
    ]
    assert runs.image((12, "a"), 4, 0) == ([], Key("12.2", 4))
    assert runs.image((12, "a"), 3, 0) == ([], Discard(Key("12.2", 3), "duplicate"))
    assert events == {"joined_late": 1, "start_late": 1}


def test_a_restart_without_a_start_is_seen_by_numbers_that_count_up_again() -> None:
    runs, events = book(window=5)
    runs.start((12, ""), {}, 0)
    for n in range(100):
        runs.image((12, ""), n, 0)
    got = [runs.image((12, ""), n, 0) for n in range(8)]
    assert got[:4] == [([], Discard(Key("12", n), "duplicate")) for n in range(4)]
    assert got[4] == ([RunEnd("12", "aborted"), RunStart("12.2")], Key("12.2", 4))
    assert got[5:] == [([], Key("12.2", n)) for n in (5, 6, 7)]
    assert events == {"restart": 1}


def test_images_after_the_end() -> None:
    runs, events = book(stale_s=10)
    runs.start((12, ""), {}, 0)
    assert runs.end((12, ""), 0) == [RunEnd("12")]
    assert runs.image((12, ""), 0, 9) == ([], Discard(Key("12", 0), "stale"))
    assert runs.image((12, ""), 0, 11) == ([RunStart("12.2")], Key("12.2", 0)), (
        "a rebooted detector counts from 1 again"
    )
    assert events == {"joined_late": 1}


def test_a_pause_splits_a_series_but_loses_nothing() -> None:
    runs, events = book()
    runs.start((12, "a"), {"energy_J": 1.0}, 0)
    runs.image((12, "a"), 0, 0)
    assert runs.close("idle", 100) == [RunEnd("12", "idle")]
    assert runs.image((12, "a"), 1, 101) == ([RunStart("12.2", {"energy_J": 1.0})], Key("12.2", 1))
    assert runs.image((12, "a"), 0, 101)[1] == Discard(Key("12.2", 0), "duplicate")
    assert events == {"resumed": 1}


def test_strays_do_not_end_a_run_but_a_lost_start_does() -> None:
    runs, events = book()
    runs.start((12, ""), {}, 0)
    for n in range(2):
        marks, refused = runs.image((999, ""), 5, 0)
        assert not marks
        assert isinstance(refused, Failure)
        assert refused.reason == "series"
        assert runs.image((12, ""), n, 0) == ([], Key("12", n))
    answers = [runs.image((13, ""), n, 0) for n in range(4)]
    assert [type(answer) for _, answer in answers] == [Failure, Failure, Key, Key]
    assert answers[2][0] == [RunEnd("12", "superseded"), RunStart("13")]
    assert events == {"no_end": 1, "joined_late": 1}


def test_among_several_receivers_an_unknown_series_is_believed_at_once() -> None:
    runs, events = book(shared=True)
    runs.start((12, ""), {"images_expected": 1000}, 0)
    runs.image((12, ""), 0, 0)
    runs.image((12, ""), 500, 0)
    assert runs.image((13, ""), 4, 0) == ([RunEnd("12", "superseded"), RunStart("13")], Key("13", 4))
    assert events == {"no_end": 1, "joined_late": 1}


def test_missing_and_short() -> None:
    runs, events = book(window=2)
    runs.start((12, ""), {"images_expected": 10}, 0)
    for n in (0, 1, 4, 5, 6):
        runs.image((12, ""), n, 0)
    runs.end((12, ""), 0)
    assert events == {"missing": 2, "short": 3}


def test_ends_of_other_series() -> None:
    runs, events = book()
    assert runs.end((5, ""), 0) == []
    runs.start((12, ""), {}, 0)
    runs.end((12, ""), 0)
    assert runs.end((12, ""), 0) == []
    assert events == {"stray_end": 1, "end_again": 1}


steps = st.lists(
    st.tuples(
        st.sampled_from(["start", "image", "image", "image", "end", "idle"]), st.integers(1, 3), st.integers(0, 9)
    ),
    max_size=60,
)


@settings(max_examples=200, deadline=None)
@given(steps, st.booleans(), st.sampled_from(["", "u"]))
def test_whatever_comes_runs_open_and_close_in_turn(messages: Any, shared: bool, unique: Any) -> None:
    """No name is used twice, no image is outside its run, and each key comes once."""
    runs, _ = book(shared=shared, window=3, stale_s=5)
    open_run, names, keys = None, [], set()
    for now, (kind, series, number) in enumerate(messages):
        name, answer = (series, unique and f"{unique}{series}"), None
        if kind == "start":
            marks = runs.start(name, {}, now)
        elif kind == "end":
            marks = runs.end(name, now)
        elif kind == "idle":
            marks = runs.close("idle", now)
        else:
            marks, answer = runs.image(name, number, now)
        for mark in marks:
            if isinstance(mark, RunStart):
                assert open_run is None
                open_run = mark.run
                names.append(mark.run)
            else:
                assert mark.run == open_run
                open_run = None
        if isinstance(answer, Key):
            assert answer.run == open_run
            assert answer not in keys
            keys.add(answer)
    assert len(set(names)) == len(names)
