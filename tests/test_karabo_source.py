"""The karabo source without a socket: runs, gaps, duplicates, modules, pulses; and what no message may do to it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from beamsieve.stream.decode.trains import MISSING, split_mask, split_train
from beamsieve.stream.emulators import hostile
from beamsieve.stream.emulators.hostile_karabo import SOURCE, good_message, karabo_corpus
from beamsieve.stream.emulators.karabo import encode, metadata_of
from beamsieve.stream.flow.frame import Discard, Encoded, Failure, Incoming, Raw, RunEnd, RunStart
from beamsieve.stream.sources.karabo import KaraboSettings, KaraboSource
from beamsieve.stream.sources.runs import RunClock
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

TID = 10_000_000_000
MODULE = "SPB_DET_AGIPD1M-1/DET/{}CH0:xtdf"


class Told:
    def __init__(self) -> None:
        self.events: Counter[str] = Counter()

    def event(self, kind: str, n: int = 1) -> None:
        self.events[kind] += n


def source_of(**changes: Any) -> tuple[KaraboSource, Told]:
    told = Told()
    values = {"endpoint": "tcp://nowhere:1", "source": "DET", "axes": "file", **changes}
    return KaraboSource(KaraboSettings.model_validate(values), told), told


def message(train_id: int, data: dict[str, dict[str, Any]]) -> list[bytes]:
    return [bytes(part) for part in encode(data, metadata_of(data, train_id, 1.7e9))]


def images(pulses: int = 4, ids: Sequence[int] | None = None, /, **more: Any) -> dict[str, Any]:
    pixels = np.arange(pulses * 6 * 2, dtype=np.uint16).reshape(pulses, 6, 2)
    names = np.arange(pulses) if ids is None else np.array(ids)
    return {"image.data": pixels, "image.pulseId": names.astype(np.uint64), **more}


def feed(source: KaraboSource, train_id: int, now: float = 0.0, /, **data: Any) -> list[Incoming]:
    return source.feed(message(train_id, {"DET": data or images()}), now, 1.7e9 + now)


def only_raw(items: list[Incoming]) -> Raw:
    (raw,) = [item for item in items if isinstance(item, Raw)]
    return raw


def array_of(encoded: Encoded) -> np.ndarray:
    return np.frombuffer(encoded.buffer, encoded.dtype).reshape(encoded.shape)


def shots_of(raw: Raw) -> list[np.ndarray]:
    return split_train(raw, array_of(raw.image))


def run_of(item: Incoming) -> str:
    assert isinstance(item, RunStart | RunEnd)
    return item.run


def kinds(items: list[Incoming]) -> list[str]:
    return [type(item).__name__ for item in items]


def test_a_train_opens_a_run_and_names_its_pulses() -> None:
    source, _ = source_of()
    start, raw = feed(source, TID, **images(4, (0, 8, 16, 24), **{"image.cellId": np.arange(4, dtype=np.uint16)}))
    assert isinstance(start, RunStart)
    assert isinstance(raw, Raw)
    assert raw.key.run == run_of(start) == "20231114T221320Z-t10000000000"
    assert raw.key.number == TID
    assert (raw.count, raw.pulses, raw.arrived) == (4, (0, 8, 16, 24), 0.0)
    assert raw.info["cells"] == (0, 1, 2, 3)
    assert start.info["image_size"] == (6, 2)
    assert start.info["axes"] == ("pulse", "ss", "fs")
    np.testing.assert_array_equal(shots_of(raw)[1], np.arange(12, 24).reshape(6, 2))


def test_gaps_duplicates_and_late_trains() -> None:
    source, told = source_of()
    feed(source, TID)
    assert kinds(feed(source, TID + 1)) == ["Raw"]
    assert kinds(feed(source, TID + 5)) == ["Raw"]
    assert told.events == {"missing": 3}
    (twice,) = feed(source, TID + 5)
    assert isinstance(twice, Discard)
    assert (twice.reason, twice.count) == ("duplicate", 4)
    assert kinds(feed(source, TID + 3)) == ["Raw"]
    assert told.events == {"missing": 3, "late": 1}


def test_every_second_train_by_configuration() -> None:
    source, told = source_of(train_step=2)
    for n in (0, 2, 4, 10):
        feed(source, TID + n)
    assert told.events == {"missing": 2}


def test_a_restarted_sender_begins_a_new_run() -> None:
    source, told = source_of()
    first, _ = feed(source, TID + 500)
    end, start, raw = feed(source, TID)
    assert end == RunEnd(run_of(first), "aborted")
    assert isinstance(start, RunStart)
    assert run_of(start) != run_of(first)
    assert isinstance(raw, Raw)
    assert raw.key.run == run_of(start)
    assert told.events == {"restart": 1}
    assert kinds(feed(source, TID + 1)) == ["Raw"]


def test_a_file_played_again_restarts_although_its_trains_were_seen() -> None:
    source, told = source_of()
    found = [kinds(feed(source, TID + n % 3)) for n in range(7)]
    again = ["RunEnd", "RunStart", "Raw"]
    assert found == [["RunStart", "Raw"], ["Raw"], ["Raw"], again, ["Raw"], ["Raw"], again]
    assert told.events == {"restart": 2}


def test_runs_that_begin_in_the_same_second_have_names_of_their_own() -> None:
    source, _ = source_of()
    names = [item.run for n in range(6) for item in feed(source, TID + n % 2) if isinstance(item, RunStart)]
    assert len(names) == len(set(names)) == 3


def test_one_corrupt_train_id_is_not_a_million_missing_trains() -> None:
    source, told = source_of()
    feed(source, TID)
    feed(source, 1 << 62)
    feed(source, TID + 1)
    assert told.events["missing"] == 0
    assert told.events["restart"] == 2


def test_silence_ends_a_run() -> None:
    source, _ = source_of(idle_s=5)
    first, _ = feed(source, TID, 100.0)
    assert kinds(feed(source, TID + 1, 104.9)) == ["Raw"]
    end, start, _ = feed(source, TID + 2, 110.0)
    assert end == RunEnd(run_of(first), "idle")
    assert isinstance(start, RunStart)
    assert source.finish() == [RunEnd(run_of(start))]
    assert source.finish() == []


def test_the_run_number_names_and_ends_runs() -> None:
    source, _ = source_of(run_source="RUN", run_key="number.value", idle_s=5)

    def numbered(train_id: int, number: object, now: float = 0.0) -> list[Incoming]:
        return source.feed(message(train_id, {"DET": images(), "RUN": {"number.value": number}}), now, 1.7e9)

    assert run_of(numbered(TID, 12)[0]) == "r0012"
    end, start, _ = numbered(TID + 1, 13)
    assert (end, run_of(start)) == (RunEnd("r0012", "superseded"), "r0013")
    assert kinds(numbered(TID + 2, 13)) == ["Raw"]
    end, start, _ = numbered(TID + 3, 13, now=9.0)
    assert (end, run_of(start)) == (RunEnd("r0013", "idle"), "r0013-2")
    assert kinds(numbered(TID + 4, float("inf"), now=9.0)) == ["Raw"]
    assert kinds(numbered(TID + 5, "thirteen", now=9.0)) == ["Raw"]


@settings(deadline=None, max_examples=80)
@given(st.lists(st.integers(0, 40), min_size=1, max_size=60))
def test_every_run_that_opens_closes_and_every_train_ends_once(ids: list[int]) -> None:
    source, _ = source_of()
    open_run, frames = "", 0
    for n in ids:
        for item in feed(source, TID + n):
            if isinstance(item, RunStart):
                assert not open_run
                open_run = item.run
            elif isinstance(item, RunEnd):
                assert item.run == open_run
                open_run = ""
            else:
                assert isinstance(item, Raw | Discard)
                assert item.key.run == open_run
                frames += item.count
    assert frames == 4 * len(ids)


@settings(deadline=None, max_examples=60)
@given(st.sets(st.integers(0, 300), min_size=1, max_size=60))
def test_missing_counts_the_numbers_skipped(ids: set[int]) -> None:
    clock = RunClock()
    missing = sum(clock.see(n, 0.0, 0.0).missing for n in sorted(ids))
    assert missing == max(ids) - min(ids) + 1 - len(ids)


def test_pulses_and_cells_are_selected_before_they_count() -> None:
    source, told = source_of(pulses="0:100:2", cells="0,1,2")
    cells = {"image.cellId": np.array([0, 1, 2, 3], np.uint16)}
    raw = only_raw(feed(source, TID, **images(4, (0, 1, 2, 4), **cells)))
    assert (raw.count, raw.pulses, raw.info["cells"], raw.info["select"]) == (2, (0, 2), (0, 2), (0, 2))
    np.testing.assert_array_equal([s[0, 0] for s in shots_of(raw)], [0, 24])
    assert feed(source, TID + 1, **images(4, (1, 3, 5, 7), **cells)) == []
    assert told.events == {"no_pulses": 1}
    (bad,) = feed(source, TID + 2)
    assert isinstance(bad, Failure)
    assert bad.reason == "key"
    assert "cell_key" in bad.detail


def test_pulse_ids_that_do_not_tell_pulses_apart_are_replaced() -> None:
    source, _ = source_of()
    assert only_raw(feed(source, TID, **images(4, (7, 7, 7, 7)))).pulses == (0, 1, 2, 3)
    without = {"image.data": images()["image.data"]}
    assert only_raw(feed(source, TID + 1, **without)).pulses == (0, 1, 2, 3)


def test_a_train_without_pulses_is_no_frame() -> None:
    source, told = source_of()
    assert kinds(feed(source, TID, **images(0))) == ["RunStart"]
    assert told.events == {"no_pulses": 1}


def test_cameras_send_one_shot() -> None:
    source, _ = source_of(axes="camera", image_key="data.image")
    raw = only_raw(feed(source, TID, **{"data.image": np.arange(12, dtype=np.uint16).reshape(3, 4, 1)}))
    assert (raw.count, raw.pulses) == (1, ())
    assert shots_of(raw)[0].tolist() == np.arange(12).reshape(3, 4).tolist()


def test_both_orders_of_a_stacked_train_give_the_same_shots() -> None:
    pixels = np.random.default_rng(1).integers(0, 99, (4, 3, 6, 2)).astype(np.uint16)
    common = {"image.pulseId": np.arange(4, dtype=np.uint64)}
    shots = []
    for axes, data in (("file", pixels), ("online", pixels.transpose(1, 3, 2, 0))):
        source, _ = source_of(axes=axes, modules=3, module_shape=(6, 2))
        shots.append(shots_of(only_raw(feed(source, TID, **{"image.data": data, **common}))))
    np.testing.assert_array_equal(shots[0], pixels)
    np.testing.assert_array_equal(shots[1], pixels)


@pytest.mark.parametrize(
    ("changes", "reason", "remedy"),
    [
        ({"axes": "online"}, "pulses", "axes in another order"),
        ({"modules": 2}, "axes", "correct axes or modules"),
        ({"module_shape": (2, 6)}, "axes", "module_shape"),
        ({"image_key": "image.pixels"}, "key", "image.data, image.pulseId"),
        ({"axes": "pulse gain module ss fs"}, "axes", "cannot be read"),
    ],
)
def test_a_wrong_setting_says_what_to_correct(changes: dict[str, Any], reason: str, remedy: str) -> None:
    source, _ = source_of(**changes)
    (bad,) = feed(source, TID)
    assert isinstance(bad, Failure)
    assert (bad.reason, bad.key.number) == (reason, TID)
    assert remedy in bad.detail


def test_a_module_shape_once_seen_is_held() -> None:
    source, _ = source_of()
    feed(source, TID)
    (bad,) = feed(source, TID + 1, **{"image.data": np.zeros((4, 2, 6), np.uint16)})
    assert isinstance(bad, Failure)
    assert bad.reason == "axes"


def test_masks_come_along_or_are_refused() -> None:
    source, _ = source_of()
    bad_pixels = np.zeros((4, 6, 2), np.uint32)
    bad_pixels[1, 2, 1] = 9
    raw = only_raw(feed(source, TID, **images(**{"image.mask": bad_pixels})))
    assert raw.mask is not None
    masks = split_mask(raw, array_of(raw.mask), (6, 2))
    np.testing.assert_array_equal(masks, bad_pixels)
    (bad,) = feed(source, TID + 1, **images(**{"image.mask": bad_pixels[0]}))
    assert isinstance(bad, Failure)
    assert bad.reason == "mask"
    assert "mask_key to null" in bad.detail
    without, _ = source_of(mask_key=None)
    assert only_raw(feed(without, TID, **images(**{"image.mask": bad_pixels[0]}))).mask is None


def modules_of(numbers: Sequence[int], **more: Any) -> dict[str, dict[str, Any]]:
    return {MODULE.format(n): images(**more) | {"image.data": images()["image.data"] + 100 * n} for n in numbers}


def test_modules_are_stacked_by_number_and_missing_ones_marked() -> None:
    source, _ = source_of(source=MODULE.format("*"), modules=12)
    raw = only_raw(source.feed(message(TID, modules_of([11, 2, 0])), 0.0, 0.0))
    assert raw.info["missing_modules"] == (1, 3, 4, 5, 6, 7, 8, 9, 10)
    shot = shots_of(raw)[1]
    assert shot.shape == (12, 6, 2)
    assert [int(m[0, 0]) for m in shot] == [12, 0, 212, *[0] * 8, 1112]
    masks = split_mask(raw, None, shot.shape)
    assert masks is not None
    assert [bool((m == MISSING).all()) for m in masks[0]] == [n not in (0, 2, 11) for n in range(12)]


def test_missing_modules_of_floats_are_nan_and_masks_are_stacked_too() -> None:
    source, _ = source_of(source=MODULE.format("*"), modules=2, axes="online")
    data = {
        MODULE.format(1): {
            "image.data": np.ones((2, 6, 4), np.float32),
            "image.mask": np.full((2, 6, 4), 3, np.uint32),
            "image.pulseId": np.arange(4, dtype=np.uint64),
        }
    }
    raw = only_raw(source.feed(message(TID, data), 0.0, 0.0))
    shot = shots_of(raw)[3]
    assert shot.shape == (2, 6, 2)
    assert np.isnan(shot[0]).all()
    assert (shot[1] == 1).all()
    assert raw.mask is not None
    masks = split_mask(raw, array_of(raw.mask), shot.shape)
    assert masks is not None
    assert (masks[0][0] == MISSING).all()
    assert (masks[0][1] == 3).all()


def test_modules_of_another_train_or_shape_count_as_missing() -> None:
    source, _ = source_of(source=MODULE.format("*"), modules=4)
    data = modules_of([0, 1, 2, 3])
    data[MODULE.format(3)]["image.data"] = np.zeros((0, 6, 2), np.uint16)
    metadata = metadata_of(data, TID, 0.0)
    metadata[MODULE.format(1)]["timestamp.tid"] = TID - 1
    raw = only_raw(source.feed([bytes(p) for p in encode(data, metadata)], 0.0, 0.0))
    assert raw.key.number == TID
    assert raw.info["missing_modules"] == (1, 3)


def test_modules_that_cannot_be_numbered() -> None:
    source, _ = source_of(source=MODULE.format("*"), modules=2)
    (bad,) = source.feed(message(TID, modules_of([0, 7])), 0.0, 0.0)
    assert isinstance(bad, Failure)
    assert bad.reason == "modules"
    receivers, _ = source_of(source="JF/DET/RECEIVER-*", modules=2, first_module=1, axes="file")
    data = {f"JF/DET/RECEIVER-{n}": images() for n in (1, 2)}
    assert "missing_modules" not in only_raw(receivers.feed(message(TID, data), 0.0, 0.0)).info


def test_raw_modules_carry_their_gain_beside_the_signal() -> None:
    source, _ = source_of(modules=1)
    pixels = np.stack([np.full((4, 6, 2), 5), np.full((4, 6, 2), 9)], axis=1).astype(np.uint16)
    raw = only_raw(feed(source, TID, **images() | {"image.data": pixels}))
    assert raw.info["axes"] == ("pulse", "gain", "ss", "fs")
    assert {int(s.max()) for s in shots_of(raw)} == {5}


def test_further_values_are_kept_with_the_train() -> None:
    source, _ = source_of(values={"pulse_energy_mJ": "XGM intensity.value", "delay": "MOTOR x", "none": "XGM no"})
    data = {"DET": images(), "XGM": {"intensity.value": 1.25}, "MOTOR": {"x": np.array([3.0])}}
    info = only_raw(source.feed(message(TID, data), 0.0, 0.0)).info
    assert (info["pulse_energy_mJ"], info["delay"]) == (1.25, 3.0)
    assert "none" not in info


def test_trains_of_other_sources_are_foreign(caplog: pytest.LogCaptureFixture) -> None:
    source, told = source_of()
    for _ in range(2):
        assert source.feed(message(TID, {"XGM": {"x": 1}}), 0.0, 0.0) == []
    assert told.events == {"foreign": 2}
    assert [r.getMessage() for r in caplog.records] == ["no source in the train matches 'DET'; it holds: XGM"]


@pytest.mark.parametrize(
    "changes",
    [
        {"source": "*/DET/*"},
        {"axes": "sideways"},
        {"pulses": "many"},
        {"bind": True},
        {"values": {"energy": "XGM"}},
        {"module_pattern": "("},
        {"module_pattern": "CH"},
        {"idle_s": 0},
        {"endpont": "tcp://x:1"},
    ],
)
def test_settings_that_cannot_work_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        source_of(**changes)


HOSTILE = karabo_corpus()


@pytest.mark.parametrize("hostile_message", HOSTILE, ids=[m.name for m in HOSTILE])
def test_no_hostile_message_becomes_a_frame(hostile_message: hostile.HostileMessage) -> None:
    source, _ = source_of(source=SOURCE, axes="file", module_shape=(16, 8))
    found = source.feed([memoryview(part) for part in hostile_message.parts], 0.0, 0.0)
    assert set(kinds(found)) <= {"Failure"}
    assert kinds(source.feed(good_message(), 0.0, 0.0)) == ["RunStart", "Raw"]


def test_the_corpus_is_part_of_the_shared_one() -> None:
    assert "karabo" in hostile.kinds()
    assert {m.name for m in HOSTILE} < {m.name for m in hostile.corpus("karabo")}
    source, _ = source_of(source=SOURCE, axes="file", module_shape=(16, 8))
    for kind in hostile.kinds():
        for m in hostile.corpus(kind):
            assert "Raw" not in kinds(source.feed(m.parts, 0.0, 0.0)), m.name


@settings(deadline=None, max_examples=300)
@given(
    protocol=st.sampled_from(["1.0", "2.0", "2.1", "2.2"]),
    changes=st.lists(st.tuples(st.integers(0, 40), st.integers(0, 4000), st.integers(0, 255)), max_size=6),
    cut=st.integers(0, 2000) | st.none(),
)
def test_no_changed_byte_raises(protocol: str, changes: list[tuple[int, int, int]], cut: int | None) -> None:
    parts = [bytearray(part) for part in good_message(protocol)]
    for part, at, value in changes:
        target = parts[part % len(parts)]
        if target:
            target[at % len(target)] = value
    if cut is not None:
        del parts[cut % len(parts)][cut // 2 :]
    source, _ = source_of(source=SOURCE, axes="file", values={"x": f"{SOURCE} modulesPresent"}, run_source=SOURCE)
    for item in source.feed([bytes(p) for p in parts], 0.0, 1.7e9):
        if isinstance(item, Raw):
            assert len(shots_of(item)) == item.count
