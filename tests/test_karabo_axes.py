"""Axes of trains: both orders give the same shots, and an order that does not fit is refused with what fits."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from beamsieve.stream.decode.trains import MISSING, split_mask, split_train, stack_train
from beamsieve.stream.flow.frame import BadData, Encoded, Key, Raw
from beamsieve.stream.sources.axes import extent, parse_axes, read_axes
from beamsieve.stream.sources.train_settings import parse_ids
from hypothesis import given, settings
from hypothesis import strategies as st

PULSES, MODULES, SS, FS = 5, 3, 70, 4
SIZES = {"pulse": PULSES, "module": MODULES, "ss": SS, "fs": FS, "gain": 2, "one": 1}


def train(words: tuple[str, ...]) -> np.ndarray:
    """Every value tells where it is: ((pulse · 10 + module) · 100 + ss) · 10 + fs, and 10⁶ more for the gain."""
    grids = dict(zip(words, np.indices([SIZES[w] for w in words]), strict=True))
    zero = np.zeros([SIZES[w] for w in words], np.int64)
    value = zero
    for word, base in (("pulse", 1), ("module", 10), ("ss", 100), ("fs", 10)):
        value = value * base + grids.get(word, zero)
    return np.asarray(value + 10**6 * grids.get("gain", zero), np.int32)


def raw_of(array: np.ndarray, words: tuple[str, ...], **info: Any) -> Raw:
    pulses = PULSES if "pulse" in words else 1
    select = info.get("select")
    count = pulses if select is None else len(select)
    encoded = Encoded(array.tobytes(), array.shape, array.dtype)
    ids = tuple(range(count)) if "pulse" in words else ()
    return Raw(Key("r", 1), encoded, 0.0, 0.0, count, ids, None, {"axes": words, **info})


def slow_shot(array: np.ndarray, words: tuple[str, ...], pulse: int) -> np.ndarray:
    """One shot, element by element."""
    shape = [SIZES[w] for w in ("module", "ss", "fs") if w in words]
    out = np.empty(shape, array.dtype)
    for where in np.ndindex(*shape):
        at = dict(zip([w for w in ("module", "ss", "fs") if w in words], where, strict=True))
        out[where] = array[tuple({"pulse": pulse, "gain": 0, "one": 0, **at}[w] for w in words)]
    return out


@pytest.mark.parametrize("extra", [(), ("gain",), ("one",)])
@pytest.mark.parametrize("modules", [(), ("module",)])
def test_every_order_of_axes_gives_the_same_shots(modules: tuple[str, ...], extra: tuple[str, ...]) -> None:
    words = ("pulse", "ss", "fs", *modules, *extra)
    expected = [slow_shot(train(words), words, p) for p in range(PULSES)]
    orders = list(itertools.permutations(words))
    for order in orders[:: max(len(orders) // 12, 1)]:
        shots = split_train(raw_of(train(order), order), train(order))
        for shot, wanted in zip(shots, expected, strict=True):
            np.testing.assert_array_equal(shot, wanted)


@pytest.mark.parametrize("words", [("module", "fs", "ss", "pulse"), ("pulse", "module", "ss", "fs")])
def test_selected_pulses_only(words: tuple[str, ...]) -> None:
    array = train(words)
    shots = split_train(raw_of(array, words, select=(1, 4)), array)
    assert [int(s[0, 0, 0]) for s in shots] == [1 * 10_000, 4 * 10_000]
    np.testing.assert_array_equal(shots[1], slow_shot(array, words, 4))


def test_file_order_is_not_copied() -> None:
    array = train(("pulse", "module", "ss", "fs"))
    assert np.shares_memory(stack_train(raw_of(array, ("pulse", "module", "ss", "fs")), array), array)


def test_cameras_are_one_shot() -> None:
    array = train(("ss", "fs", "one"))
    (shot,) = split_train(raw_of(array, ("ss", "fs", "one")), array)
    assert shot.shape == (SS, FS)
    plain = Raw(Key("r", 1), Encoded(b"", (2, 3), np.dtype("u1")), 0.0, 0.0)
    assert [s.shape for s in split_train(plain, np.zeros((2, 3)))] == [(2, 3)]


@pytest.mark.parametrize(
    ("words", "info"),
    [(("pulse", "ss"), {}), (("pulse", "ss", "fs"), {"select": (0, 9)})],
)
def test_arrays_that_are_not_what_was_announced(words: tuple[str, ...], info: dict[str, Any]) -> None:
    array = train(("pulse", "ss", "fs"))
    with pytest.raises(BadData, match=r"train r:1: .*") as caught:
        split_train(raw_of(array, words, **info), array)
    assert caught.value.reason == "axes"


def test_a_count_that_does_not_fit_is_refused() -> None:
    array = train(("pulse", "ss", "fs"))
    with pytest.raises(BadData, match="announced"):
        split_train(raw_of(array[:3], ("pulse", "ss", "fs")), array[:3])


def test_missing_modules_are_marked_in_every_mask() -> None:
    words = ("module", "pulse", "ss", "fs")
    array = np.zeros([SIZES[w] for w in words], np.uint8)
    array[0, 2, 1, 1] = 4
    raw = raw_of(array, words, missing_modules=(1,))
    shape = (MODULES, SS, FS)
    masks = split_mask(raw, array, shape)
    assert masks is not None
    assert len(masks) == PULSES
    assert masks[2].dtype == np.uint32
    assert masks[2][0, 1, 1] == 4
    assert masks[0][0, 1, 1] == 0
    assert all((m[1] == MISSING).all() and not (m[2] & MISSING).any() for m in masks)
    alone = split_mask(raw, None, shape)
    assert alone is not None
    assert [int(m.sum()) for m in alone] == [int(MISSING) * SS * FS] * PULSES
    assert split_mask(raw_of(array, words), None, shape) is None


def test_presets() -> None:
    assert read_axes("online", (16, 128, 512, 64)) == ("module", "fs", "ss", "pulse")
    assert read_axes("file", (64, 16, 512, 128)) == ("pulse", "module", "ss", "fs")
    assert read_axes("file", (64, 2, 16, 512, 128)) == ("pulse", "gain", "module", "ss", "fs")
    assert read_axes("file", (64, 2, 512, 128), one_module=True) == ("pulse", "gain", "ss", "fs")
    assert read_axes("file", (300, 1, 16, 256, 256), module_shape=(256, 256))[1] == "gain"
    assert read_axes("camera", (1, 512, 1024)) == ("one", "ss", "fs")
    assert read_axes("camera", (960, 960, 1)) == ("ss", "fs", "one")
    assert read_axes("camera", (1, 1)) == ("ss", "fs")
    assert read_axes("pulse one ss fs", (3, 1, 4, 5)) == ("pulse", "one", "ss", "fs")
    assert extent("pulse", ("ss", "fs"), (1, 2)) is None


@pytest.mark.parametrize(
    ("axes", "shape", "module_shape", "remedy"),
    [
        ("online", (64, 16, 512, 128), (512, 128), "axes: file would fit"),
        ("file", (16, 128, 512, 64), (512, 128), "axes: online would fit"),
        ("online", (7,), None, "write the axes as words"),
        ("camera", (2, 5, 6), None, "axes: online or file would fit"),
        ("pulse ss fs", (2, 2), None, "axes: online or file or camera would fit"),
        ("pulse one ss fs", (3, 2, 4, 5), None, "not 1 long"),
        ("file", (64, 16, 512, 128), (128, 512), "correct module_shape"),
    ],
)
def test_an_order_that_does_not_fit(
    axes: str, shape: tuple[int, ...], module_shape: tuple[int, int] | None, remedy: str
) -> None:
    with pytest.raises(BadData, match=remedy) as caught:
        read_axes(axes, shape, module_shape=module_shape)
    assert caught.value.reason == "axes"


@pytest.mark.parametrize("text", ["", "pulse", "pulse ss fs fs", "pulse y x", "sideways"])
def test_axes_that_cannot_be_meant(text: str) -> None:
    with pytest.raises(ValueError, match=r"axis|axes"):
        parse_axes(text)


def test_axes_as_words() -> None:
    assert parse_axes("  pulse   ss fs ") == "pulse ss fs"
    assert parse_axes("online") == "online"


@settings(deadline=None, max_examples=60)
@given(start=st.integers(0, 50), stop=st.integers(0, 400), step=st.integers(1, 9), ids=st.lists(st.integers(0, 500)))
def test_ranges_of_ids_are_pythons(start: int, stop: int, step: int, ids: list[int]) -> None:
    test = parse_ids(f"{start}:{stop}:{step}")
    assert test is not None
    assert test(np.array(ids, np.uint64)).tolist() == [i in range(start, stop, step) for i in ids]


def test_lists_of_ids() -> None:
    assert parse_ids("all") is None
    test = parse_ids("0, 8,16")
    assert test is not None
    assert test(np.array([0, 1, 8, 9])).tolist() == [True, False, True, False]
    every = parse_ids("::2")
    assert every is not None
    assert every(np.arange(4)).tolist() == [True, False, True, False]
    for wrong in ("some", "1,x", "1:y", "0:10:0", "1:2:3:4", ""):
        with pytest.raises(ValueError, match="write all"):
            parse_ids(wrong)
