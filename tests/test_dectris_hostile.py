"""Whatever comes over the wire: messages or failures, in bounded memory and time, and never an exception."""

import time
import tracemalloc
from typing import Any

import pytest
from beamsieve.stream.decode.decompress import decompress
from beamsieve.stream.emulators import hostile
from beamsieve.stream.emulators.hostile_dectris import good_series
from beamsieve.stream.flow.frame import BadData, Discard, Failure, Raw, RunEnd, RunStart
from beamsieve.stream.flow.ports import NoFacts
from beamsieve.stream.sources.dectris import Assembler, DectrisSettings
from hypothesis import given, settings
from hypothesis import strategies as st

KINDS = ("dectris_v1", "dectris_v2")
CORPUS = [message for kind in KINDS for message in hostile.corpus(kind)]
ROOM = 6_000_000
"""Bytes any message may cost beyond a few times its own size: Python's lists for the most items accepted."""


def assembler() -> Any:
    return Assembler(DectrisSettings(endpoint="tcp://nowhere:1"), NoFacts())


def feed(target: Any, parts: Any) -> Any:
    """Take one message and decode its pixels, as the daemon would; gives what came out."""
    out: list[Any] = []
    views = [memoryview(part) for part in parts]
    target.take(views, 1.0, 2.0, out)
    for item in out:
        assert isinstance(item, Raw | Failure | Discard | RunStart | RunEnd)
        if isinstance(item, Failure):
            assert item.reason
            assert item.reason.isalnum()
            assert item.detail.startswith("message ")
            assert len(item.detail) < 1000
            assert all(kept == part[: len(kept)] for kept, part in zip(parts_of(item), views, strict=False))
        if isinstance(item, Raw):
            try:
                decompress(item.image)
            except BadData as error:
                assert error.reason in {"decompress", "shape", "dtype", "size"}  # noqa: PT017
    return out


def parts_of(failure: Failure) -> tuple[Any, ...]:
    assert isinstance(failure.raw, tuple)
    return failure.raw


def check_series(target: Any, version: int) -> None:
    """A good series after what came before: every image arrives, unless the same one was there already."""
    out = [item for parts in good_series(version) for item in feed(target, parts)]
    assert {item.key.number for item in out if isinstance(item, Raw | Discard)} == {0, 1, 2}
    failures = [item for item in out if isinstance(item, Failure)]
    assert [item.reason for item in failures] in ([], ["cut"]), "a first part alone fails when the next message comes"
    assert isinstance(out[-1], RunEnd)


@pytest.mark.parametrize("kind", KINDS)
def test_the_corpus(kind: str) -> None:
    """Each alone, within memory and time; afterwards a good series goes through."""
    messages = hostile.corpus(kind)
    assert len(messages) > 300
    assert len({message.name for message in messages}) > 0.98 * len(messages)
    usable = 0
    for name, parts in messages:
        target = assembler()
        begin = time.perf_counter()
        out = feed(target, parts)
        assert time.perf_counter() - begin < 2, name
        usable += any(isinstance(item, Raw) for item in out)
        check_series(target, int(kind[-1]))
    assert 0 < usable < len(messages) / 2


def test_memory_is_bounded() -> None:
    large = sorted(CORPUS, key=lambda message: sum(map(len, message.parts)))[-25:]
    huge = [
        m for m in CORPUS if any(word in m.name for word in ("huge", "2^", "GB", "shape", "digits", "bslz4", "lz4"))
    ]
    assert len(huge) > 40
    for name, parts in [*large, *huge]:
        target = assembler()
        tracemalloc.start()
        feed(target, parts)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 4 * sum(map(len, parts)) + ROOM, name


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("place", range(5))
def test_a_hostile_message_inside_a_series_costs_at_most_its_image(version: int, place: int) -> None:
    """Inserted before each message of a series: only an end or a start in it may change the run, no image is lost."""
    for name, parts in hostile.corpus(f"dectris_v{version}")[:: 3 if version == 1 else 11]:
        target = assembler()
        out = []
        for index, message in enumerate(good_series(version)):
            if index == place:
                out += feed(target, parts)
            out += feed(target, message)
        numbers = {item.key.number for item in out if isinstance(item, Raw | Discard)}
        ended = [index for index, item in enumerate(out) if isinstance(item, RunEnd)]
        assert numbers >= {0, 1, 2}, name
        assert len(ended) <= 2, name
        assert [item.reason for item in out if isinstance(item, Discard)].count("stale") <= (3 if ended else 0), name


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_mutations(data: Any) -> None:
    """Flipped bytes, cuts, and length fields overwritten, in messages of a good series."""
    version = data.draw(st.sampled_from([1, 2]))
    target = assembler()
    for parts in good_series(version, data.draw(st.sampled_from(["none", "bslz4", "lz4"]))):
        feed(target, mutated(data, parts) if data.draw(st.booleans()) else parts)
    check_after(target, version)


def check_after(target: Any, version: int) -> None:
    """Two good series: of the second every image arrives, whatever the state the first was read in."""
    for parts in good_series(version):
        feed(target, parts)
    out = [item for parts in good_series(version) for item in feed(target, parts)]
    assert sum(item.count for item in out if isinstance(item, Raw | Discard)) >= 3


def mutated(data: Any, parts: Any) -> Any:
    parts = [bytearray(part) for part in parts]
    for _ in range(data.draw(st.integers(1, 4))):
        part = data.draw(st.sampled_from(parts))
        if not part:
            continue
        place = data.draw(st.integers(0, len(part) - 1))
        kind = data.draw(st.sampled_from(["flip", "length", "cut", "drop", "swap"]))
        if kind == "flip":
            part[place] ^= data.draw(st.integers(1, 255))
        elif kind == "length":
            size = data.draw(st.sampled_from([1, 2, 4, 8]))
            part[place : place + size] = data.draw(st.integers(0, 256**size - 1)).to_bytes(size, "big")
        elif kind == "cut":
            del part[place:]
        elif kind == "drop" and len(parts) > 1:
            parts = [other for other in parts if other is not part]
        else:
            parts = parts[::-1]
    return [bytes(part) for part in parts]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.binary(max_size=80), min_size=1, max_size=6))
def test_noise(parts: Any) -> None:
    target = assembler()
    feed(target, parts)
    feed(target, [b"\xd9\xd9\xf7\xa3\x64type\x65image" + parts[0]])
    feed(target, [b'{"htype":"dimage-1.0","series":1,"frame":0}', *parts])
