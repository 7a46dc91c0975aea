"""A watched folder as a source: what is complete comes out once, what is not waits and says why. The clock is ours."""

from __future__ import annotations

import os
import shutil
import sqlite3
import struct
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from beamsieve.stream.flow.frame import Failure, Incoming, Raw, RunStart
from beamsieve.stream.flow.metrics import Metrics
from beamsieve.stream.flow.yields import Yields
from beamsieve.stream.sources.folder import complete, watchlist
from beamsieve.stream.sources.folder.report import put_back, report
from beamsieve.stream.sources.folder.settings import FolderSettings
from beamsieve.stream.sources.folder.source import FolderSource

SHAPE = (40, 48)
START = 1_000.0
WALL = 1_700_000_000.0


class Clock:
    """Monotonic time; ``wall`` goes beside it unless it is put forward or back."""

    def __init__(self) -> None:
        self.now, self.shift = START, 0.0

    def __call__(self) -> float:
        return self.now

    def wall(self) -> float:
        return WALL + self.now - START + self.shift


class Bell:
    """A bell that nobody waits for: waiting makes time pass."""

    def __init__(self, clock: Clock) -> None:
        self.clock, self.rung, self.listens = clock, False, False

    def ring(self) -> None:
        self.rung = True

    def wait(self, timeout: float) -> bool:
        rang, self.rung = self.rung, False
        if not rang:
            self.clock.now += timeout
        return rang

    def start(self, root: Path, recursive: bool, every_s: float) -> bool:
        self.listens = True
        return True

    def stop(self) -> None:
        self.listens = False


class Facts:
    def __init__(self) -> None:
        self.events: Counter[str] = Counter()
        self.waits: list[tuple[dict[str, int], float]] = []

    def event(self, kind: str, n: int = 1) -> None:
        self.events[kind] += n

    def waiting(self, reasons: Mapping[str, int], oldest_s: float) -> None:
        self.waits.append((dict(reasons), oldest_s))


class Watch:
    """A source on a folder with a clock that only goes when it is told to."""

    def __init__(self, base: Path, clock: Clock | None = None, facts: Any = None, **settings: Any) -> None:
        self.base, self.root = base, base / "in"
        self.root.mkdir(exist_ok=True)
        self.clock, self.facts = clock or Clock(), facts or Facts()
        self.journal = base / "out" / "journal.sqlite"
        settings = {"directory": self.root, "session": "s", **settings}
        self.bell = Bell(self.clock)
        self.source = FolderSource(
            FolderSettings(**settings),
            self.facts,
            journal=self.journal,
            bell=self.bell,
            clock=self.clock,
            wall=self.clock.wall,
        )
        self.source.open()
        (self.start,) = self.source.read(0.1) or ()

    def run(self, seconds: float) -> list[Incoming]:
        """What comes out within so many seconds."""
        until = self.clock.now + seconds
        found: list[Incoming] = []
        while self.clock.now < until:
            found += self.source.read(min(0.25, until - self.clock.now)) or ()
        return found

    def done(self, items: list[Incoming]) -> list[str]:
        """Answer for what came; returns the names."""
        raws = [item for item in items if isinstance(item, Raw)]
        self.source.done([raw.key for raw in raws])
        return [raw.info["name"] for raw in raws]

    def reasons(self) -> dict[str, str]:
        return {file.name: file.reason for file in self.source.waiting()}

    def states(self) -> dict[str, int]:
        return {state: n for state, n in report(self.journal).counts.items() if n}

    def close(self) -> None:
        self.source.finish()


@pytest.fixture
def watching(tmp_path: Path) -> Iterator[Any]:
    opened: list[Watch] = []

    def make(base: Path = tmp_path, **settings: Any) -> Watch:
        opened.append(Watch(base, **settings))
        return opened[-1]

    yield make
    for watch in opened:
        watch.close()


def mrc(value: float = 1.0, frames: int = 1, order: str = "<", extended: int = 0, mode: int = 2) -> bytes:
    """A whole MRC file, made by hand; ``value`` in every pixel."""
    kind = {0: "i1", 1: "i2", 2: "f4", 6: "u2", 12: "f2", 101: "u1"}[mode]
    header = bytearray(1024)
    struct.pack_into(f"{order}4i", header, 0, SHAPE[1], SHAPE[0], frames, mode)
    struct.pack_into(f"{order}3i3f", header, 28, SHAPE[1], SHAPE[0], frames, 50.0, 50.0, 1.0)
    struct.pack_into(f"{order}3i", header, 64, 1, 2, 3)
    struct.pack_into(f"{order}i", header, 92, extended)
    header[208:212] = b"MAP "
    header[212:214] = b"DD" if order == "<" else b"\x11\x11"
    pixels = np.full((frames, *SHAPE), value, f"{order}{kind}").tobytes()
    return bytes(header) + b"e" * extended + pixels


def put(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


# --- complete files ---------------------------------------------------------------------------------------------------


def test_the_run_starts_first_and_a_file_comes_once_it_has_settled(watching: Any) -> None:
    watch = watching()
    assert isinstance(watch.start, RunStart)
    assert watch.start.run == "s"
    path = put(watch.root / "Übung 1" / "a b.mrc", mrc())
    assert watch.run(9.5) == []
    assert watch.reasons() == {"Übung 1/a b.mrc": "settling"}
    (raw,) = watch.run(6)
    assert raw.key.run == "s"
    assert (raw.image.buffer, raw.count) == (b"", 1)
    assert START + 10 <= raw.arrived <= START + 16
    assert raw.info == {
        "path": str(path),
        "name": "Übung 1/a b.mrc",
        "bytes": 1024 + 4 * 40 * 48,
        "revision": 0,
        "attempt": 1,
        "companions": {},
        "flags": (),
        "frames": 1,
    }
    assert watch.run(120) == []
    watch.done([raw])
    assert watch.run(120) == []
    assert watch.states() == {"done": 1}


@pytest.mark.parametrize(
    "data",
    [mrc(order=">"), mrc(extended=4096), mrc(frames=7), *(mrc(mode=mode) for mode in (0, 1, 6, 12))],
    ids=["big endian", "extended header", "stack", "int8", "int16", "uint16", "float16"],
)
def test_every_kind_of_mrc_is_whole_when_it_has_the_bytes_its_header_promises(watching: Any, data: bytes) -> None:
    watch = watching()
    path = put(watch.root / "a.mrc", data[:-1])
    assert watch.run(60) == []
    assert watch.reasons() == {"a.mrc": "truncated"}
    path.write_bytes(data)
    (raw,) = watch.run(16)
    assert raw.info["flags"] == ()


def test_a_file_written_slowly_in_pieces_comes_when_it_is_whole_and_not_before(watching: Any) -> None:
    watch = watching()
    data = mrc()
    with (watch.root / "a.mrc").open("wb") as file:
        for at in range(0, len(data), 1000):
            file.write(data[at : at + 1000])
            file.flush()
            assert watch.run(7) == []
            assert watch.reasons()["a.mrc"] in {"settling", "changing"}
    (raw,) = watch.run(16)
    assert raw.info["bytes"] == len(data)


def test_a_pause_longer_than_settling_does_not_make_half_a_file_whole(watching: Any) -> None:
    watch = watching()
    data = mrc()
    path = put(watch.root / "a.mrc", data[:3000])
    assert watch.run(200) == []
    (wait,) = watch.source.waiting()
    assert wait.reason == "truncated"
    assert "3000 of 8704 bytes" in wait.detail
    assert wait.since_s == pytest.approx(200, abs=6)
    with path.open("ab") as file:
        file.write(data[3000:])
    assert len(watch.run(16)) == 1


def test_an_empty_file_waits_and_is_not_read(watching: Any) -> None:
    watch = watching()
    put(watch.root / "a.mrc", b"")
    assert watch.run(60) == []
    assert watch.reasons() == {"a.mrc": "empty"}


def test_a_file_allocated_in_full_and_not_yet_written_waits_for_its_tail(watching: Any) -> None:
    watch = watching()
    data = mrc()
    path = put(watch.root / "a.mrc", data[:1024] + bytes(len(data) - 1024))
    assert watch.run(60) == []
    assert watch.reasons() == {"a.mrc": "zero_tail"}
    path.write_bytes(data)
    (raw,) = watch.run(16)
    assert raw.info["flags"] == ()


def test_a_tail_that_really_is_zeros_is_taken_in_doubt_after_a_while(watching: Any) -> None:
    watch = watching(doubt_s=100)
    put(watch.root / "a.mrc", mrc(0.0))
    assert watch.run(95) == []
    (raw,) = watch.run(20)
    assert raw.info["flags"] == ("zero_tail",)


def test_only_the_last_block_must_not_be_zeros(watching: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(complete, "BLOCK", 4096)
    watch = watching()
    data = bytearray(mrc(0.0, frames=3))
    data[-4096] = 1
    put(watch.root / "a.mrc", bytes(data))
    data[-4096], data[-4097] = 0, 1
    put(watch.root / "b.mrc", bytes(data))
    assert watch.done(watch.run(60)) == ["a.mrc"]
    assert watch.reasons() == {"b.mrc": "zero_tail"}


def test_a_stack_that_is_longer_than_its_header_says_waits_for_the_header(watching: Any) -> None:
    watch = watching(doubt_s=100)
    stack = mrc(frames=3)
    path = put(watch.root / "a.mrcs", mrc(frames=1)[:1024] + stack[1024:])
    put(watch.root / "b.mrc", mrc() + b"trailing")
    assert watch.run(60) == []
    assert watch.reasons() == {"a.mrcs": "longer", "b.mrc": "longer"}
    path.write_bytes(stack)
    (raw,) = watch.run(20)
    assert (raw.info["frames"], raw.info["flags"]) == (3, ())
    (raw,) = watch.run(40)
    assert (raw.info["name"], raw.info["flags"]) == ("b.mrc", ("longer",))


def test_a_header_that_is_no_header_waits_and_one_we_do_not_read_is_handed_on(watching: Any) -> None:
    watch = watching()
    put(watch.root / "garbage.mrc", b"\xff" * 5000)
    put(watch.root / "packed.mrc", mrc(mode=101))
    (raw,) = watch.run(60)
    assert raw.info["name"] == "packed.mrc"  # the decoder refuses it, with its reason
    assert watch.reasons() == {"garbage.mrc": "header"}


def movie(path: Path, frames: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tifffile.TiffWriter(path) as out:
        for i in range(frames):
            out.write(np.full(SHAPE, i + 1, np.uint8), contiguous=False, metadata=None)
    return path


def test_a_movie_cut_between_two_frames_waits_for_the_frames_that_the_session_has(watching: Any) -> None:
    watch = watching(doubt_s=100)
    for i in range(5):
        movie(watch.root / f"{i}.tif", 6)
    assert len(watch.done(watch.run(20))) == 5
    movie(watch.root / "short.tif", 4)  # opens without complaint
    movie(watch.root / "full.tif", 6)
    assert watch.done(watch.run(20)) == ["full.tif"]
    assert watch.reasons() == {"short.tif": "frames"}
    movie(watch.root / "short.tif", 6)
    assert watch.done(watch.run(20)) == ["short.tif"]
    movie(watch.root / "broken off.tif", 2)
    (raw,) = watch.run(130)
    assert raw.info["flags"] == ("fewer_frames",)


def test_a_movie_without_the_frames_that_are_demanded_is_set_aside(watching: Any) -> None:
    watch = watching(frames=6, incomplete_s=300)
    movie(watch.root / "a.tif", 5)
    movie(watch.root / "b.tif", 7)
    assert watch.done(watch.run(280)) == ["b.tif"]
    (failure,) = watch.run(30)
    assert isinstance(failure, Failure)
    assert failure.reason == "frames"
    assert "5 of 6 frames" in failure.detail


def test_a_truncated_tiff_waits(watching: Any) -> None:
    watch = watching()
    path = movie(watch.root / "a.tif", 6)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert watch.run(60) == []
    assert watch.reasons() == {"a.tif": "truncated"}


# --- companions -------------------------------------------------------------------------------------------------------

EPU = "Images-Disc1/GridSquare_7/Data/FoilHole_4_Data_5_6_20231215_101112"


def test_an_epu_movie_waits_for_its_xml_and_brings_what_its_name_says(watching: Any) -> None:
    watch = watching(layout="epu", take="movies")
    put(watch.root / f"{EPU}_Fractions.mrc", mrc(frames=3))
    assert watch.run(40) == []
    assert watch.reasons() == {f"{EPU}_Fractions.mrc": "companion"}
    xml = put(watch.root / f"{EPU}.xml", b"<a/>")
    (raw,) = watch.run(20)
    assert raw.info["companions"] == {"xml": str(xml)}
    assert raw.info["grid_square"] == "7"
    assert raw.info["flags"] == ()


def test_a_companion_that_comes_with_its_file_costs_no_time(watching: Any) -> None:
    watch = watching(layout="epu")
    put(watch.root / f"{EPU}.mrc", mrc())
    put(watch.root / f"{EPU}.xml", b"<a/>")
    (raw,) = watch.run(16)
    assert "xml" in raw.info["companions"]


def test_a_companion_that_does_not_come_is_waited_for_so_long_and_no_longer(watching: Any) -> None:
    watch = watching(layout="epu", companion_timeout_s=50)
    put(watch.root / f"{EPU}.mrc", mrc())
    assert watch.run(55) == []
    (raw,) = watch.run(20)
    assert raw.info["flags"] == ("no_xml",)
    assert raw.info["companions"] == {}


def test_a_companion_that_is_demanded_is_a_reason_to_set_a_file_aside(watching: Any) -> None:
    watch = watching(layout="serialem", companions="require", incomplete_s=200)
    put(watch.root / "a.mrc", mrc())
    assert watch.run(195) == []
    (failure,) = watch.run(15)
    assert failure.reason == "companion"
    assert "a.mrc.mdoc is not there" in failure.detail


def test_companions_that_are_ignored_are_still_named(watching: Any) -> None:
    watch = watching(layout="serialem", companions="ignore")
    put(watch.root / "a.mrc", mrc())
    mdoc = put(watch.root / "b.mrc.mdoc", b"x")
    put(watch.root / "b.mrc", mrc())
    first, second = watch.run(16)
    assert (first.info["flags"], first.info["companions"]) == ((), {})
    assert second.info["companions"] == {"mdoc": str(mdoc)}


def test_a_companion_still_being_written_is_waited_for_and_a_parallel_tree_is_searched(watching: Any) -> None:
    watch = watching(layout="epu", companion_directory=Path("meta"))
    meta = watch.base / "meta"
    watch.close()
    watch = watching(layout="epu", companion_directory=meta, session="s2")
    put(watch.root / f"{EPU}.mrc", mrc())
    assert watch.run(20) == []
    for size in range(1, 5):
        put(meta / f"{EPU}.xml", b"<" * size)
        assert watch.run(8) == []
    (raw,) = watch.run(20)
    assert raw.info["companions"] == {"xml": str(meta / f"{EPU}.xml")}


def test_frames_are_counted_against_the_mdoc(watching: Any) -> None:
    watch = watching(layout="serialem", frames="mdoc")
    put(watch.root / "a.tif.mdoc", b"[FrameSet = 0]\nNumSubFrames = 6\n")
    movie(watch.root / "a.tif", 5)
    put(watch.root / "b.tif.mdoc", b"[FrameSet = 0]\nNumSubFrames = 5\n")
    movie(watch.root / "b.tif", 5)
    assert watch.done(watch.run(60)) == ["b.tif"]
    assert watch.reasons() == {"a.tif": "frames"}


# --- giving up, trying again ------------------------------------------------------------------------------------------


def test_a_file_that_stays_incomplete_is_a_failure_once_and_is_set_aside_with_its_reason(watching: Any) -> None:
    watch = watching(incomplete_s=300)
    put(watch.root / "x" / "a.mrc", mrc()[:5000])
    assert watch.run(295) == []
    (failure,) = watch.run(20)
    assert isinstance(failure, Failure)
    assert failure.reason == "truncated"
    assert "x/a.mrc: 5000 of 8704 bytes" in failure.detail
    watch.source.failed(failure.key, failure.reason, failure.detail)  # as the metrics do
    assert watch.run(1000) == []
    assert watch.states() == {"set_aside": 1}
    assert watch.reasons() == {}
    reason = watch.journal.parent / "set_aside" / "x" / "a.mrc.json"
    assert '"reason": "truncated"' in reason.read_text()
    put(watch.root / "x" / "a.mrc", mrc())  # it came at last: nobody has to ask for it
    (raw,) = watch.run(60)
    assert raw.info["revision"] == 0
    assert not reason.exists()
    watch.done([raw])
    assert watch.states() == {"done": 1}


def test_a_failed_file_is_tried_again_so_often_and_then_set_aside_until_it_is_put_back(watching: Any) -> None:
    watch = watching(attempts=3, retry_s=60)
    put(watch.root / "a.mrc", mrc())
    (raw,) = watch.run(20)
    for attempt in (1, 2, 3):
        assert raw.info["attempt"] == attempt
        watch.source.failed(raw.key, "decode", f"no good {attempt}")
        if attempt < 3:
            assert watch.run(58) == []
            assert watch.reasons() == {"a.mrc": "retry"}
            (raw,) = watch.run(12)
    assert watch.run(1000) == []
    (aside,) = report(watch.journal).set_aside
    assert (aside.reason, aside.detail, aside.attempts) == ("decode", "no good 3", 3)
    assert put_back(watch.journal, None, "truncated") == []
    assert put_back(watch.journal, None, None) == ["a.mrc"]
    (raw,) = watch.run(10)  # at once: it has settled long ago
    assert raw.info["attempt"] == 1
    watch.done([raw])
    assert watch.states() == {"done": 1}


def test_a_failed_file_that_changes_is_tried_afresh(watching: Any) -> None:
    watch = watching(attempts=1)
    path = put(watch.root / "a.mrc", mrc())
    (raw,) = watch.run(20)
    watch.source.failed(raw.key, "decode", "no")
    path.write_bytes(mrc(2.0))
    (raw,) = watch.run(40)
    assert (raw.info["revision"], raw.info["attempt"]) == (0, 1)


@pytest.mark.parametrize("shift", [-1e9, 1e9])
def test_a_clock_that_is_put_forward_or_back_does_not_stop_anything(watching: Any, shift: float) -> None:
    watch = watching(retry_s=60)
    path = put(watch.root / "a.mrc", mrc())
    os.utime(path, (WALL + shift, WALL + shift))  # the server's clock is not ours
    (raw,) = watch.run(20)
    assert raw.arrived - START < 17
    watch.source.failed(raw.key, "decode", "no")
    watch.run(5)
    watch.clock.shift = shift
    (raw,) = watch.run(80)
    assert raw.info["attempt"] == 2


# --- changes after it was done ----------------------------------------------------------------------------------------


def test_a_file_that_changes_after_it_was_done_is_a_new_revision(watching: Any) -> None:
    watch = watching()
    path = put(watch.root / "a.mrc", mrc())
    (first,) = watch.run(20)
    watch.done([first])
    path.write_bytes(mrc(7.0))
    (second,) = watch.run(60)
    assert second.info["revision"] == 1
    assert second.key != first.key
    watch.done([second])
    assert watch.facts.events["changed_later"] == 1
    assert watch.run(200) == []
    done = report(watch.journal).done
    assert [(file.name, file.revision) for file in done] == [("a.mrc", 1), ("a.mrc", 0)]


def test_a_file_that_is_only_touched_or_copied_over_with_the_same_is_not_done_again(watching: Any) -> None:
    watch = watching()
    path = put(watch.root / "a.mrc", mrc())
    watch.done(watch.run(20))
    os.utime(path)
    assert watch.run(100) == []
    put(watch.base / "copy", mrc()).replace(path)
    assert watch.run(100) == []
    assert watch.reasons() == {}
    assert watch.facts.events["changed_later"] == 0
    put(watch.base / "copy", mrc(3.0)).replace(path)  # another image under the name
    (raw,) = watch.run(60)
    assert raw.info["revision"] == 1


@pytest.mark.parametrize("place", [0, -1], ids=["head", "tail"])
def test_a_large_file_of_the_same_size_is_another_one_where_its_head_or_its_tail_is(watching: Any, place: int) -> None:
    watch = watching()
    data = bytearray(mrc(frames=30))
    assert len(data) > 3 * complete.BLOCK
    path = put(watch.root / "a.mrc", bytes(data))
    watch.done(watch.run(20))
    data[1024 if place == 0 else -1] ^= 1
    path.write_bytes(bytes(data))
    (raw,) = watch.run(60)
    assert raw.info["revision"] == 1


def test_a_file_that_changes_while_it_is_in_work_is_a_revision_once_the_work_is_done(watching: Any) -> None:
    watch = watching()
    path = put(watch.root / "a.mrc", mrc())
    (first,) = watch.run(20)
    path.write_bytes(mrc(7.0))
    assert watch.run(100) == []
    assert watch.reasons() == {"a.mrc": "in_work"}
    watch.done([first])
    (second,) = watch.run(20)
    assert second.info["revision"] == 1


def test_a_file_that_is_replaced_while_it_settles_starts_to_settle_again(watching: Any) -> None:
    watch = watching()
    path = put(watch.root / "a.mrc", mrc())
    watch.run(9)
    stat = path.stat()
    other = put(watch.base / "b", mrc(2.0))
    os.utime(other, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    other.replace(path)  # the same size and time, another inode
    assert watch.run(8) == []
    assert len(watch.run(12)) == 1


# --- the journal across starts ----------------------------------------------------------------------------------------


def test_a_restart_does_nothing_twice_and_takes_what_came_meanwhile(watching: Any) -> None:
    watch = watching()
    put(watch.root / "a.mrc", mrc())
    watch.done(watch.run(20))
    watch.source.close()
    put(watch.root / "b.mrc", mrc())
    put(watch.root / "a.mrc", mrc(5.0))
    watch = watching()
    found = watch.run(20)
    assert sorted((raw.info["name"], raw.info["revision"]) for raw in found) == [("a.mrc", 1), ("b.mrc", 0)]


def test_what_was_not_answered_for_is_given_back_at_the_end_and_taken_at_the_next_start(watching: Any) -> None:
    watch = watching()
    for i in range(3):
        put(watch.root / f"{i}.mrc", mrc())
    found = watch.run(20)
    watch.done(found[:1])
    watch.source.close()
    assert watch.states() == {"done": 1, "claimed": 2}  # still draining
    watch.done(found[1:2])
    watch.source.finish()
    assert watch.states() == {"done": 2, "waiting": 1}
    watch = watching()
    (raw,) = watch.run(6)  # at once: the journal knows that it was complete
    assert raw.info["name"] == found[2].info["name"]
    assert raw.info["attempt"] == 1


def test_the_journal_is_closed_when_the_last_answer_comes_after_the_end(watching: Any) -> None:
    watch = watching()
    put(watch.root / "a.mrc", mrc())
    found = watch.run(20)
    watch.source.close()
    assert watch.source.journal.is_open
    watch.done(found)
    assert not watch.source.journal.is_open
    assert watch.states() == {"done": 1}


def test_files_that_were_there_before_can_be_ignored_until_they_change(watching: Any) -> None:
    for name in ("old.mrc", "older.mrc"):
        put(watching().root / name, mrc())
    shutil.rmtree(watching().journal.parent)
    watch = watching(existing="ignore")
    assert watch.run(40) == []
    put(watch.root / "new.mrc", mrc())
    assert watch.done(watch.run(20)) == ["new.mrc"]
    os.utime(watch.root / "old.mrc")
    assert watch.run(60) == []
    with (watch.root / "old.mrc").open("ab") as file:
        file.write(b"more")
    (raw,) = watch.run(200)
    assert (raw.info["name"], raw.info["revision"]) == ("old.mrc", 1)
    watch.close()
    put(watch.root / "while it was stopped.mrc", mrc())
    watch = watching(existing="ignore")
    assert "while it was stopped.mrc" in watch.done(watch.run(30))
    assert put_back(watch.journal, lambda name: name == "older.mrc", None) == ["older.mrc"]
    assert watch.done(watch.run(30)) == ["older.mrc"]


def test_two_daemons_share_a_folder_without_taking_the_same_file(watching: Any) -> None:
    one, two = watching(), watching()
    for i in range(40):
        put(one.root / f"{i:02}.mrc", mrc())
    names: list[str] = []
    for _ in range(60):
        names += one.done(one.run(1))
        names += two.done(two.run(1))
    assert sorted(names) == [f"{i:02}.mrc" for i in range(40)]


def test_files_of_a_daemon_without_a_heartbeat_are_taken_over_after_the_lease_and_not_before(watching: Any) -> None:
    silent = watching(lease_s=120)
    silent.source._heart.stop()
    put(silent.root / "a.mrc", mrc())
    (first,) = silent.run(20)
    watch = watching(lease_s=120)
    watch.source._heart.stop()
    for _ in range(11):
        assert watch.run(10) == []
        watch.source._beat()
    watch.run(15)
    watch.source._beat()
    (again,) = watch.run(10)
    assert again.key.number == first.key.number
    assert watch.facts.events["taken_over"] == 1
    silent.done([first])  # it lives after all: what it has to say is of no interest any more
    assert silent.facts.events["claim_lost"] == 1
    watch.done([again])
    assert watch.states() == {"done": 1}
    silent.source._beat()
    assert silent.facts.events["lease_lost"] == 1


def test_a_daemon_that_gives_signs_of_life_keeps_its_files_however_long_they_take(watching: Any) -> None:
    slow, watch = watching(lease_s=120), watching(lease_s=120)
    for each in (slow, watch):
        each.source._heart.stop()
    put(slow.root / "a.mrc", mrc())
    (raw,) = slow.run(20)
    for _ in range(50):
        slow.source._beat()
        assert watch.run(20) == []
        watch.source._beat()
    slow.done([raw])
    assert watch.states() == {"done": 1}


# --- bounds, trouble, telling -----------------------------------------------------------------------------------------


def test_no_more_is_taken_than_may_be_in_work_and_the_oldest_come_first(watching: Any) -> None:
    watch = watching(claims=3)
    for i in range(8):
        os.utime(put(watch.root / f"{i}.mrc", mrc()), (WALL - i, WALL - i))
    first = watch.run(40)
    assert [raw.info["name"] for raw in first] == ["7.mrc", "6.mrc", "5.mrc"]
    assert set(watch.reasons().values()) == {"queued"}
    watch.done(first[:2])
    assert [raw.info["name"] for raw in watch.run(1)] == ["4.mrc", "3.mrc"]  # at once, not at the next poll


def test_a_bell_wakes_at_once_but_not_all_the_time(watching: Any) -> None:
    watch = watching(poll_s=50, settle_s=0)
    assert watch.run(1) == []
    put(watch.root / "a.mrc", mrc())
    assert watch.run(5) == []
    watch.source._bell.ring()
    assert len(watch.done(watch.run(1))) == 1
    looks = 0
    look: Any = watch.source._look

    def count(now: float) -> Any:
        nonlocal looks
        looks += 1
        return look(now)

    watch.source._look = count
    for _ in range(200):
        watch.source._bell.ring()
        watch.source.read(0.1)
        watch.clock.now += 0.01
    assert looks <= 5


def test_a_folder_that_vanishes_for_a_while_costs_nothing_but_time(watching: Any) -> None:
    watch = watching()
    put(watch.root / "a.mrc", mrc())
    watch.done(watch.run(20))
    put(watch.root / "b.mrc", mrc())
    watch.run(6)
    watch.root.rename(watch.base / "away")
    assert watch.run(60) == []
    assert watch.facts.events["folder_gone"] == 1
    (watch.base / "away").rename(watch.root)
    assert watch.done(watch.run(20)) == ["b.mrc"]
    assert watch.run(60) == []


def test_a_folder_that_is_not_there_yet_is_waited_for(watching: Any) -> None:
    watch = watching()
    shutil.rmtree(watch.root)
    assert watch.run(30) == []
    put(watch.root / "a.mrc", mrc())
    assert watch.done(watch.run(20)) == ["a.mrc"]
    assert watch.bell.listens


def test_a_file_that_vanishes_while_it_settles_is_forgotten(watching: Any) -> None:
    watch = watching()
    path = put(watch.root / "a.mrc", mrc())
    watch.run(6)
    path.unlink()
    assert watch.run(30) == []
    assert watch.reasons() == {}


def test_a_file_that_may_not_be_read_waits_and_comes_when_it_may(
    watching: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch = watching(incomplete_s=10_000)
    put(watch.root / "a.mrc", mrc())
    real = complete.content_hash

    def denied(path: str, size: int) -> tuple[str, bytes]:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(complete, "content_hash", denied)
    assert watch.run(60) == []
    assert watch.reasons() == {"a.mrc": "unreadable"}
    monkeypatch.setattr(complete, "content_hash", real)
    assert watch.done(watch.run(10)) == ["a.mrc"]


def test_our_own_outputs_below_the_folder_are_never_read(tmp_path: Path) -> None:
    root = tmp_path / "in"
    root.mkdir()
    clock = Clock()
    source = FolderSource(
        FolderSettings(directory=root, settle_s=0),
        Facts(),
        journal=root / "picks" / "journal.sqlite",
        outputs=[root / "particles"],
        bell=Bell(clock),
        clock=clock,
    )
    source.open()
    for name in ("picks/a.mrcs", "particles/b.mrcs", "c.mrc"):
        put(root / name, mrc())
    found: list[Any] = []
    for _ in range(300):
        found += source.read(0.1) or ()
    source.finish()
    assert [item.info["name"] for item in found if isinstance(item, Raw)] == ["c.mrc"]


def test_waiting_files_are_told_to_the_metrics_and_noted_in_the_journal(watching: Any) -> None:
    watch = watching()
    put(watch.root / "a.mrc", mrc()[:2000])
    put(watch.root / "b.mrc", b"")
    watch.run(60)
    reasons, oldest = watch.facts.waits[-1]
    assert reasons == {"truncated": 1, "empty": 1}
    assert oldest == pytest.approx(60, abs=6)
    found = report(watch.journal, wall=watch.clock.wall)
    assert found.waits == reasons
    assert {(file.name, file.reason, round(file.for_s, -1)) for file in found.waiting} == {
        ("a.mrc", "truncated", 60),
        ("b.mrc", "empty", 60),
    }
    yields = Yields()
    other = watching(facts=Metrics("cryoem_picks", yields=yields))
    other.run(30)
    assert yields.waiting().reasons == reasons
    assert yields.waiting().oldest_s == pytest.approx(30, abs=6)


def test_result_numbers_are_kept_with_the_file(watching: Any) -> None:
    watch = watching()
    put(watch.root / "a.mrc", mrc())
    (raw,) = watch.run(20)
    watch.source.record(raw.key, {"picks": 231, "carbon": 0.25})
    watch.done([raw])
    (done,) = report(watch.journal).done
    assert done.numbers == {"picks": 231, "carbon": 0.25}


def test_it_ends_when_everything_is_done_and_nothing_came_for_so_long(watching: Any) -> None:
    watch = watching(end_idle_s=30)
    put(watch.root / "a.mrc", mrc())
    found = watch.run(60)
    assert len(found) == 1  # it does not end while that is in work
    watch.done(found)
    until = watch.clock.now + 100
    while (items := watch.source.read(0.1)) is not None:
        assert not items
        assert watch.clock.now < until
    assert 25 <= watch.clock.now - (until - 100) <= 40


def test_a_journal_that_cannot_be_written_for_a_while_loses_nothing(watching: Any, monkeypatch: Any) -> None:
    watch = watching()
    put(watch.root / "a.mrc", mrc())
    (raw,) = watch.run(20)
    put(watch.root / "b.mrc", mrc())

    def full(database: Any) -> Any:
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr("beamsieve.stream.sources.folder.journal.transaction", full)
    watch.done([raw])
    assert watch.run(60) == []
    assert watch.facts.events["journal_error"] > 1
    monkeypatch.undo()
    assert watch.done(watch.run(20)) == ["b.mrc"]
    assert watch.states() == {"done": 2}


def test_a_backlog_costs_little_per_look(watching: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watchlist, "_MANY", 200)
    watch = watching(claims=4)
    for i in range(300):
        put(watch.root / f"{i:04}.mrc", b"x")
    asked = 0
    real = os.stat

    def stat(path: Any, **options: Any) -> os.stat_result:
        nonlocal asked
        asked += 1
        return real(path, **options)

    watch.run(1)
    monkeypatch.setattr("os.stat", stat)
    monkeypatch.setattr(watch.source._scanner, "_recheck", lambda seen: None)
    watch.run(8)
    assert asked < 50  # none is asked before it may have settled
