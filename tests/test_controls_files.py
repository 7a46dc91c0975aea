"""What people changed, in the files: however many and long the changes are, across parts, and after a kill."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import pytest
from beamsieve.stream.flow.frame import RunEnd, RunStart
from beamsieve.stream.flow.operation import Operation
from beamsieve.stream.live.changes import Changes
from beamsieve.stream.sinks.check_cxi import check
from beamsieve.stream.sinks.cxi import CHANGE_BYTES, CHANGES, MOST_CHANGES
from beamsieve.stream.sinks.cxi_recover import recover
from beamsieve.stream.sinks.hdf5 import Hdf5Settings, Hdf5Sink
from beamsieve.stream.sinks.picks.session import write_session
from beamsieve.tests.test_hdf5_sink import result

BY = "Ana"


def made(folder: Path, **words: Any) -> tuple[Hdf5Sink, Changes]:
    changes = Changes(folder, Operation())
    sink = Hdf5Sink(Hdf5Settings(directory=folder, **{"min_free_gb": 0.0} | words), changes=changes)
    sink.open()
    return sink, changes


def noted(path: Path) -> list[dict[str, Any]]:
    """The changes of a file, which holds to the format."""
    broken = [finding for finding in check(path) if not finding.ok]
    assert not broken, broken
    with h5py.File(path) as file:
        return [json.loads(line) for line in file[CHANGES].asstr()[()] if line]


def test_a_file_with_more_changes_than_places_ends_with_the_last(tmp_path: Path) -> None:
    sink, changes = made(tmp_path)
    sink.start(RunStart("r1", {"title": 'a "quoted" title, µm'}))
    sink.write([result(0)])
    for at in range(MOST_CHANGES + 50):
        changes.note("threshold", BY, at, at + 1)
        if at % 7 == 0:
            sink.flush()
    sink.end(RunEnd("r1"))
    found = [change["new"] for change in noted(sink.files[0])]
    assert found[:-1] == list(range(1, MOST_CHANGES))
    assert found[-1] == MOST_CHANGES + 50
    with h5py.File(sink.files[0]) as file:
        assert file["entry_1/title"].asstr()[()] == 'a "quoted" title, µm'


def test_a_change_too_long_for_its_place_keeps_what_came_into_force(tmp_path: Path) -> None:
    sink, changes = made(tmp_path)
    sink.start(RunStart("r1"))
    sink.write([result(0)])
    old, new = 79 * "語" + "1", 79 * "語" + "2"
    changes.note("run", BY, old, new)
    changes.note("threshold", BY, 0.5, 0.4)
    sink.end(RunEnd("r1"))
    assert len(json.dumps(old + new, ensure_ascii=False).encode()) > CHANGE_BYTES - 40
    assert [(change["old"], change["new"]) for change in noted(sink.files[0])] == [(None, new), (0.5, 0.4)]


def test_the_master_has_the_changes_of_all_its_parts_once(tmp_path: Path) -> None:
    sink, changes = made(tmp_path, max_frames=2)
    changes.note("pause", BY, True, False)
    sink.start(RunStart("r1"))
    for at in range(3):
        sink.write([result(2 * at)])
        changes.note("threshold", BY, at, at + 1)
        sink.write([result(2 * at + 1)])
    sink.end(RunEnd("r1"))
    *parts, master = sink.files
    assert len(parts) == 3
    assert [change["new"] for change in noted(master)] == [False, 1, 2, 3]
    assert [change["new"] for change in noted(parts[1])] == [False, 1, 2]


KILLED = """
import os, sys
from pathlib import Path
from beamsieve.stream.flow.frame import RunStart
from beamsieve.tests.test_controls_files import made
from beamsieve.tests.test_hdf5_sink import result
import h5py
sink, changes = made(Path(sys.argv[1]))
sink.start(RunStart("r1"))
sink.write([result(0)])
sink.flush()
changes.note("threshold", "Ana", 0.5, 0.4)
sink.flush()
os._exit(9)
"""


def test_a_change_that_was_flushed_survives_a_kill(tmp_path: Path) -> None:
    """The first change of a file gives its dataset a place on the disk, while the file is open for readers."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    run = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], env=environment, check=False)
    assert run.returncode == 9
    (left,) = tmp_path.glob("*.inprogress")
    assert [change["new"] for change in noted(recover(left).path)] == [0.4]


def test_a_live_reader_sees_a_change(tmp_path: Path) -> None:
    sink, changes = made(tmp_path)
    sink.start(RunStart("r1"))
    sink.write([result(0)])
    sink.flush()
    changes.note("threshold", BY, 0.5, 0.4)
    sink.flush()
    assert sink.writing is not None
    reads = f"import h5py; print(h5py.File({str(sink.writing)!r}, 'r', swmr=True)[{CHANGES!r}][0].decode())"
    said = subprocess.run([sys.executable, "-c", reads], capture_output=True, text=True, check=True).stdout
    assert json.loads(said)["new"] == 0.4
    sink.close()


@pytest.mark.parametrize("end", [b"", b"\n", b'{"wh\0\0\0\0', b"\xff\xfe\n"])
def test_a_damaged_log_does_not_stop_the_tables(tmp_path: Path, end: bytes) -> None:
    """As a power cut leaves it: HDF5 refuses strings that hold zeros."""
    (tmp_path / "changes.jsonl").write_bytes(b'{"what":"run"}\n' + end)
    write_session(tmp_path / "session.h5", [])
    with h5py.File(tmp_path / "session.h5") as file:
        assert json.loads(file["changes"].asstr()[0]) == {"what": "run"}
