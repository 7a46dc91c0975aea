"""A daemon is killed at any moment: its file opens, holds everything up to the last flush, and can be finished."""

from __future__ import annotations

import fcntl
import gc
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py
import hdf5plugin  # noqa: F401 - registers the compression filters
import numpy as np
import pytest
from beamsieve.stream.__main__ import app
from beamsieve.stream.flow.frame import BadData
from beamsieve.stream.sinks.check_cxi import check
from beamsieve.stream.sinks.cxi_contents import open_cxi
from beamsieve.stream.sinks.cxi_disk import claim
from beamsieve.stream.sinks.cxi_flags import AsIfClosed
from beamsieve.stream.sinks.cxi_recover import leftovers, recover
from typer.testing import CliRunner

DATA = "entry_1/instrument_1/detector_1/data"
COUNT = "entry_1/number_of_frames"
PATIENCE_S = 20.0
HDF = b"\x89HDF\r\n\x1a\n"

# Writes frames whose every pixel is their number as fast as it can; says after each flush how many are safe.
WRITER = """
import sys
import numpy as np
from pathlib import Path
from beamsieve.stream.flow.frame import Frame, Key, Outcome, Result, RunStart
from beamsieve.stream.sinks.hdf5 import Hdf5Settings, Hdf5Sink
folder, swmr, masks, limit = Path(sys.argv[1]), sys.argv[2] == "swmr", sys.argv[3], int(sys.argv[4])
out = Hdf5Sink(Hdf5Settings(directory=folder, swmr=swmr, masks=masks, min_free_gb=0, max_frames=10**6))
out.start(RunStart("r", {"energy_J": 1e-15}))
at = 0
while at < limit:
    burst = []
    for _ in range(1 + at % 7):
        frame = Frame(Key("r", at), np.full((32, 48), at, "<u4"), 0.0, 1e9 + at)
        burst.append(Result(frame, Outcome.ACCEPTED, 0.9, weight=1.0, found={"label": 1}))
        at += 1
    assert not out.write(burst)
    if at % 3 == 0:
        out.flush()
        print(at, flush=True)
out.flush()
print(at, "waiting", flush=True)
sys.stdin.read()
"""


@contextmanager
def writer(
    folder: Path, *, swmr: bool = True, masks: str = "static", limit: int = 10**9
) -> Iterator[subprocess.Popen[str]]:
    words = [sys.executable, "-c", WRITER, str(folder), "swmr" if swmr else "plain", masks, str(limit)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment) as process:
        try:
            yield process
        finally:
            process.kill()


def said(process: subprocess.Popen[str]) -> int:
    """The last number a killed writer got out."""
    assert process.stdout is not None
    lines = [line for line in process.stdout.read().split("\n")[:-1] if line]
    return int(lines[-1].split()[0]) if lines else 0


def until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < end, "took too long"


def holds(file: h5py.File, count: int) -> None:
    """Every column of the first ``count`` entries is right."""
    numbers = np.arange(count)
    assert np.array_equal(file["entry_1/result_1/number"][:count], numbers)
    assert np.array_equal(file["entry_1/result_1/timestamp"][:count], 1e9 + numbers)
    assert file["entry_1/experiment_identifier"][:count].tolist() == [f"r:{at}".encode() for at in range(count)]
    assert np.array_equal(file[DATA][:count].min(axis=(1, 2)), numbers)
    assert np.array_equal(file[DATA][:count].max(axis=(1, 2)), numbers)
    if file["entry_1/data_1/mask"].ndim == 3:
        assert file["entry_1/data_1/mask"].shape[0] >= count


@pytest.mark.parametrize("masks", ["static", "per_frame"])
def test_killed_at_any_moment(tmp_path: Path, masks: str) -> None:
    chance = random.Random(5)
    for turn in range(6):
        folder = tmp_path / str(turn)
        with writer(folder, masks=masks) as process:
            assert process.stdout is not None
            lines = [process.stdout.readline() for _ in range(chance.randrange(1, 60))]
            pause = chance.random() * 0.02
            end = time.monotonic() + pause
            while time.monotonic() < end:
                pass
            process.send_signal(signal.SIGKILL)
            process.wait()
            safe = max(int(lines[-1]), said(process))
        left = folder / "r_0001.cxi.inprogress"
        with h5py.File(left, "r", swmr=True) as file:
            count = int(file[COUNT][()])
            assert count >= safe > 0
            holds(file, count)
        assert leftovers(folder) == [left]
        done = recover(left)
        assert (done.path, done.frames, done.flushed) == (folder / "r_0001.cxi", count, count)
        assert list(folder.iterdir()) == [done.path]
        broken = [finding for finding in check(done.path) if not finding.ok]
        assert not broken, broken
        with h5py.File(done.path) as file:
            assert file[DATA].shape[0] == count
            assert file["entry_1/end_reason"][()] == b"recovered"
            holds(file, count)


def test_without_swmr_the_last_flush_can_be_recovered_too(tmp_path: Path) -> None:
    with writer(tmp_path, swmr=False, limit=300) as process:
        assert process.stdout is not None
        until(lambda: process.stdout is not None and "waiting" in process.stdout.readline())
        left = tmp_path / "r_0001.cxi.inprogress"
        assert leftovers(tmp_path) == []
        process.send_signal(signal.SIGKILL)
        process.wait()
    with pytest.raises(OSError, match="already open for write"):
        h5py.File(left, "r")
    done = recover(left, keep=True)
    assert left.exists()
    with h5py.File(done.path) as file:
        assert file[COUNT][()] >= 300
        holds(file, int(file[COUNT][()]))


def test_a_reader_follows_live_and_sees_equal_lengths(tmp_path: Path) -> None:
    with writer(tmp_path, limit=4000) as process:
        assert process.stdout is not None
        process.stdout.readline()
        path = tmp_path / "r_0001.cxi.inprogress"
        with h5py.File(path, "r", swmr=True) as file:
            count, data = file[COUNT], file[DATA]
            columns = [file[f"entry_1/result_1/{name}"] for name in ("number", "timestamp", "hit_score", "model_id")]
            identifier = file["entry_1/experiment_identifier"]
            seen: list[int] = []
            while not seen or seen[-1] < 4000:
                assert process.poll() is None
                count.refresh()
                now = int(count[()])
                if seen and now == seen[-1]:
                    continue
                seen.append(now)
                for dataset in (data, identifier, *columns):
                    dataset.refresh()
                    assert dataset.shape[0] >= now
                assert columns[0][now - 1] == now - 1
                assert identifier[now - 1] == f"r:{now - 1}".encode()
                assert (data[now - 1] == now - 1).all()
        assert len(seen) > 3
        assert seen == sorted(seen)
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait() == 0


def test_what_is_being_written_can_be_inspected_and_is_not_recovered(tmp_path: Path) -> None:
    with writer(tmp_path, limit=20) as process:
        assert process.stdout is not None
        until(lambda: process.stdout is not None and "waiting" in process.stdout.readline())
        path = tmp_path / "r_0001.cxi.inprogress"
        assert leftovers(tmp_path) == []
        with pytest.raises(BadData, match="is being written") as caught:
            recover(path)
        assert caught.value.reason == "in_use"
        told = CliRunner().invoke(app, ["recover", str(path)])
        assert told.exit_code == 1
        told = CliRunner().invoke(app, ["inspect", str(path)])
        assert "is being written" in told.output
        assert [finding.rule for finding in check(path) if not finding.ok] == ["file"]
    assert leftovers(tmp_path) == [path]


def test_the_command_finishes_what_is_left(tmp_path: Path) -> None:
    with writer(tmp_path, limit=20) as process:
        assert process.stdout is not None
        until(lambda: process.stdout is not None and "waiting" in process.stdout.readline())
    path = tmp_path / "r_0001.cxi.inprogress"
    (tmp_path / "r_0001.cxi").write_bytes(b"somebody's")
    told = CliRunner().invoke(app, ["recover", str(path)])
    assert told.exit_code == 0, told.output
    assert (tmp_path / "r_0001-1.cxi").exists()
    assert (tmp_path / "r_0001.cxi").read_bytes() == b"somebody's"
    assert not path.exists()


def test_a_damaged_index_costs_only_what_lies_behind_it(tmp_path: Path) -> None:
    with writer(tmp_path, limit=2000) as process:
        assert process.stdout is not None
        until(lambda: process.stdout is not None and "waiting" in process.stdout.readline())
    path = tmp_path / "r_0001.cxi.inprogress"
    content = bytearray(path.read_bytes())
    # The last data block of the index of frames ("EADB": extensible array, data block) is torn.
    at = content.rfind(b"EADB")
    content[at + 20 : at + 40] = b"\xff" * 20
    path.write_bytes(content)
    done = recover(path)
    assert path.exists(), "what could not all be saved is kept"
    assert 0 < done.frames < done.flushed
    with h5py.File(done.path) as file:
        holds(file, done.frames)


@pytest.mark.parametrize("content", [b"", HDF, b"not HDF5" * 100, HDF + b"\x03\x08\x08\x05" + b"\0" * 100])
def test_rubbish_is_refused_with_its_name(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.cxi.inprogress"
    path.write_bytes(content)
    with pytest.raises(BadData, match=r"x\.cxi\.inprogress") as caught:
        recover(path)
    assert caught.value.reason == "format"
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(BadData, match=r"end in \.inprogress"):
        recover(tmp_path / "x.cxi")
    told = CliRunner().invoke(app, ["recover", str(path), str(tmp_path / "missing.cxi.inprogress")])
    assert told.exit_code == 1


def test_every_cut_of_a_left_file_is_refused_or_right(tmp_path: Path) -> None:
    """A file cut short (a copy that broke off) never gives wrong frames."""
    with writer(tmp_path, limit=40) as process:
        assert process.stdout is not None
        until(lambda: process.stdout is not None and "waiting" in process.stdout.readline())
    whole = (tmp_path / "r_0001.cxi.inprogress").read_bytes()
    chance = random.Random(1)
    for turn in range(25):
        path = tmp_path / f"cut{turn}.cxi.inprogress"
        path.write_bytes(whole[: chance.randrange(len(whole))])
        try:
            done = recover(path)
        except BadData:
            continue
        with h5py.File(done.path) as file:
            holds(file, done.frames)


def test_a_claim_is_exclusive_until_it_is_let_go(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text("")
    mine = claim(path, fcntl.LOCK_SH)
    with pytest.raises(BlockingIOError):
        claim(path, fcntl.LOCK_EX)
    os.close(mine)
    again = claim(path, fcntl.LOCK_EX)
    assert again >= 0
    os.close(again)


def test_open_cxi_says_what_is_unfinished(tmp_path: Path) -> None:
    from contextlib import ExitStack

    with writer(tmp_path, limit=10) as process:
        assert process.stdout is not None
        until(lambda: process.stdout is not None and "waiting" in process.stdout.readline())
    with ExitStack() as stack:
        file, state = open_cxi(tmp_path / "r_0001.cxi.inprogress", stack)
        assert "beamsieve recover" in state
        holds(file, 10)


def test_a_file_that_is_none_is_closed_once(tmp_path: Path) -> None:
    """A second close, when the half-made reader is collected, would close whatever has its number by then."""
    path = tmp_path / "no.cxi.inprogress"
    path.write_bytes(b"no HDF5 file" * 10)
    with pytest.raises(BadData) as caught:
        AsIfClosed(path)
    mine = os.open(path, os.O_RDONLY)
    del caught
    gc.collect()
    os.fstat(mine)
    os.close(mine)
    with pytest.raises(FileNotFoundError):
        AsIfClosed(tmp_path / "nowhere")
    gc.collect()
