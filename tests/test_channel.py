"""Channels: bounded, ordered, closable, and every item that does not come out was reported as dropped."""

from __future__ import annotations

import threading

import pytest
from beamsieve.stream.flow.channel import Channel, Closed, WhenFull
from hypothesis import given, settings
from hypothesis import strategies as st


def drain(channel: Channel[int], limit: int) -> list[int]:
    out: list[int] = []
    while True:
        try:
            out += channel.get(limit)
        except Closed:
            return out


@settings(max_examples=60, deadline=None)
@given(
    bursts=st.lists(st.lists(st.integers(1, 9), max_size=8), max_size=12),
    size=st.integers(1, 12),
    limit=st.integers(1, 7),
    when_full=st.sampled_from(WhenFull),
)
def test_what_goes_in_comes_out_in_order_or_was_dropped(
    bursts: list[list[int]], size: int, limit: int, when_full: WhenFull
) -> None:
    dropped: list[int] = []
    channel: Channel[int] = Channel("c", size, when_full, weigh=lambda item: item % 10, on_drop=dropped.extend)
    numbered = [[10 * (100 * i + j) + weight for j, weight in enumerate(burst)] for i, burst in enumerate(bursts)]
    out: list[int] = []
    taker = threading.Thread(target=lambda: out.extend(drain(channel, limit)))
    taker.start()
    for burst in numbered:
        channel.put(burst)
        assert channel.depth <= max(size, 9)
    channel.close()
    taker.join()
    assert out == sorted(out)
    assert sorted(out + dropped) == [item for burst in numbered for item in burst]
    if when_full is WhenFull.WAIT:
        assert not dropped
    assert channel.depth == 0


def test_drop_oldest_keeps_marks_and_the_newest() -> None:
    dropped: list[int] = []
    channel: Channel[int] = Channel(
        "c", 3, WhenFull.DROP_OLDEST, weigh=lambda item: 0 if item < 0 else 1, on_drop=dropped.extend
    )
    channel.put([-1, 1, 2])
    channel.put([3, 4])
    assert dropped == [1, 2]
    assert channel.get(9) == [-1, 3, 4]


def test_waiting_put_is_woken_by_get_and_reports_how_long_it_was_blocked() -> None:
    channel: Channel[int] = Channel("c", 1)
    blocked: list[float] = []
    putter = threading.Thread(target=lambda: blocked.append(channel.put([1, 2, 3])))
    putter.start()
    got = [item for _ in range(3) for item in channel.get(1, 5)]
    putter.join()
    assert got == [1, 2, 3]
    assert blocked[0] > 0


def test_abort_wakes_both_ends_and_reports_everything() -> None:
    dropped: list[int] = []
    channel: Channel[int] = Channel("c", 2, on_drop=dropped.extend)
    putter = threading.Thread(target=lambda: channel.put([1, 2, 3, 4]))
    putter.start()
    while channel.depth < 2:
        threading.Event().wait(0.001)
    channel.abort()
    putter.join()
    channel.put([5])
    assert sorted(dropped) == [1, 2, 3, 4, 5]
    with pytest.raises(Closed):
        channel.get(1)


def test_put_after_close_is_a_bug() -> None:
    channel: Channel[int] = Channel("c", 2)
    channel.close()
    with pytest.raises(RuntimeError, match="c: put after close"):
        channel.put([1])


def test_get_times_out_empty() -> None:
    assert Channel[int]("c", 1).get(1, 0.0) == []


def test_wake_ends_the_waiting_of_a_get_without_an_item() -> None:
    channel: Channel[int] = Channel("c", 2)
    got: list[list[int]] = []
    taker = threading.Thread(target=lambda: got.append(channel.get(1, 30)))
    taker.start()
    channel.wake()
    taker.join(10)
    assert got == [[]]
    channel.put([1])
    assert channel.get(1) == [1], "an old wake-up holds back nothing that is there"


def test_get_counts_shots_and_gives_at_least_one_item() -> None:
    channel: Channel[int] = Channel("c", 100, weigh=lambda item: item)
    channel.put([3, 3, 3, 50, 1])
    assert [channel.get(6) for _ in range(4)] == [[3, 3], [3], [50], [1]]


def test_a_channel_of_large_shots_holds_fewer() -> None:
    channel: Channel[int] = Channel("c", 100, measure=lambda item: 10 * item, most_bytes=1000)
    channel.put([1] * 50)
    assert channel.depth == 50
    putter = threading.Thread(target=lambda: channel.put([25] * 2))
    assert channel.get(50) == [1] * 50
    putter.start()
    putter.join(10)
    third = threading.Thread(target=lambda: channel.put([25] * 3))
    third.start()
    while channel.depth < 4:
        threading.Event().wait(0.001)
    assert third.is_alive(), "four shots of 250 bytes fill a channel of 1000 bytes"
    assert channel.get(9) == [25] * 4
    third.join(10)
    assert channel.get(9) == [25]
