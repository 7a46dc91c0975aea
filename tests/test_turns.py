"""Threads take turns in the order in which they asked, one at a time."""

from __future__ import annotations

import threading
import time

import pytest
from beamsieve.stream.flow.turns import SMALL_S, Turn, Turns


def until(condition: object, seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline
        threading.Event().wait(0.001)


def test_turns_are_given_in_the_order_of_asking() -> None:
    turns, order = Turns(), []

    def work(number: int) -> None:
        with turns:
            order.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    with turns:
        for asked, thread in enumerate(threads):
            thread.start()
            until(lambda asked=asked: turns.waiting == asked + 1)
        assert order == []
    for thread in threads:
        thread.join(10)
    assert order == list(range(8))


def test_one_thread_at_a_time_has_its_turn() -> None:
    turns, inside, most = Turns(), [0], [0]

    def work() -> None:
        for _ in range(300):
            with turns:
                inside[0] += 1
                most[0] = max(most[0], inside[0])
                threading.Event().wait(0)
                inside[0] -= 1

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert most == [1]
    assert turns.waiting == 0


def test_a_turn_is_over_after_an_error() -> None:
    turns = Turns()
    with pytest.raises(ZeroDivisionError), turns:
        _ = 1 / 0
    with turns:
        pass


def test_a_stage_whose_shots_cost_much_works_beside_the_others() -> None:
    turns = Turns()
    turn = Turn(turns)
    with turn.take(1):
        threading.Event().wait(3 * SMALL_S)
    with turns, turn.take(1000):
        pass  # would wait for ever if it asked for the turn that is taken
    with turn.take(1000):
        assert turns.taken, "its shots were cheap the last time"
