"""Marks of reviewers and the append-only file they are kept in."""

from __future__ import annotations

import csv
import errno
import fcntl
import json
import logging
import math
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from beamsieve.stream.commands.marks import marks as marks_command
from beamsieve.stream.flow.frame import BadData
from beamsieve.stream.formats.lines import read_lines
from beamsieve.stream.formats.marks import is_marks, mark_of, pixels_path, read_marks, read_pixels
from beamsieve.stream.live import marks as marks_module
from beamsieve.stream.live.history import Lines
from beamsieve.stream.live.marks import Mark, Marks
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner, Result


def mark(name: str = "7:12", truth: bool | None = True, **other: Any) -> Mark:
    return Mark(name, "frame", truth, **{"by": "Ada", "time": 1.7e9, "score": 0.97, "threshold": 0.9, **other})


def test_lines_survive_what_a_kill_leaves(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    lines = Lines(tmp_path / "new" / "folder" / "changes.jsonl")
    assert lines.read() == []
    lines.append({"what": "threshold", "old": 0.9, "new": 0.8})
    with lines.path.open("ab") as file:
        file.write(b'{"what": "pau')
    lines.append({"what": "run", "new": "Käfig"})
    with caplog.at_level(logging.WARNING):
        assert [line["what"] for line in lines.read()] == ["threshold", "run"]
        lines.read()
    assert lines.mended == 1
    assert [record.getMessage() for record in caplog.records] == [
        f"{lines.path}:2: not a line of JSON (cut short by a kill or a full disk?); left out"
    ]
    assert Lines(lines.path).read() == lines.read()
    assert "Käfig" in lines.path.read_text("utf-8")


@settings(deadline=None, max_examples=40)  # every line waits for the disk
@given(at=st.integers(0, 60), text=st.text(max_size=10))
def test_a_cut_anywhere_costs_one_line_at_most(tmp_path_factory: pytest.TempPathFactory, at: int, text: str) -> None:
    path = tmp_path_factory.mktemp("cut") / "x.jsonl"
    lines = Lines(path)
    before = [{"n": 1, "text": "a\nb"}, {"n": 2, "text": text}]
    for line in before:
        lines.append(line)
    whole = path.read_bytes()
    path.write_bytes(whole[: max(0, len(whole) - at)])
    kept = before[: path.read_bytes().count(b"\n")]
    lines.append({"n": 3})
    found = lines.read()
    # Cut just before its newline, a line is whole, and is ended.
    assert found[:-1] in (kept, before[: len(kept) + 1])
    assert found[-1] == {"n": 3}


@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_the_file_may_be_read_by_others(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        Lines(tmp_path / "a.jsonl").append({})
    finally:
        os.umask(before)
    assert (tmp_path / "a.jsonl").stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("value", [math.nan, np.zeros(2), {1, 2}, np.float32(1)])
def test_what_json_cannot_hold_is_refused(tmp_path: Path, value: object) -> None:
    lines = Lines(tmp_path / "a.jsonl")
    with pytest.raises(ValueError, match="cannot hold"):
        lines.append({"x": value})
    assert not lines.path.exists()


MANY = """
import sys
from pathlib import Path
from beamsieve.stream.live.history import Lines

lines = Lines(Path(sys.argv[1]))
for number in range(int(sys.argv[3])):
    lines.append({"who": int(sys.argv[2]), "number": number, "long": "x" * 300})
"""


def _many(path: Path, who: int, count: int) -> None:
    subprocess.run([sys.executable, "-c", MANY, str(path), str(who), str(count)], check=True)


def test_processes_do_not_interleave(tmp_path: Path) -> None:
    path, count = tmp_path / "shared.jsonl", 60
    workers = [threading.Thread(target=_many, args=(path, who, count)) for who in range(4)]
    for one in workers:
        one.start()
    for one in workers:
        one.join()
    found, damaged = read_lines(path)
    assert damaged == []
    for who in range(4):
        assert [line["number"] for _, line in found if line["who"] == who] == list(range(count))


def test_who_writes_waits_for_who_mends(tmp_path: Path) -> None:
    lines = Lines(tmp_path / "a.jsonl")
    lines.append({"n": 1})
    with lines.path.open("ab") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        waiting = threading.Thread(target=lines.append, args=({"n": 3},))
        waiting.start()
        waiting.join(0.1)
        assert waiting.is_alive()
        other.write(b'{"n":2}\n')
        other.flush()
        fcntl.flock(other, fcntl.LOCK_UN)
        waiting.join(10)
    assert [line["n"] for line in lines.read()] == [1, 2, 3]


def test_a_full_disk_leaves_no_half_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = Lines(tmp_path / "a.jsonl")
    lines.append({"n": 1})
    real = os.write

    def short(handle: int, data: bytes) -> int:
        return real(handle, data[:5])

    def full(handle: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "write", short)
    with pytest.raises(OSError, match="No space left on device; free space"):
        lines.append({"n": 2})
    monkeypatch.setattr(os, "write", real)
    assert lines.path.read_text() == '{"n":1}\n'
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"a\.jsonl: cannot be added to: Input/output error"):
        lines.append({"n": 2})
    assert lines.path.read_text() == '{"n":1}\n'


def test_damage_of_every_kind_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"n":1}\n\xff\xfe\n[1,2]\n3\n\n' + b"[" * 100_000 + b'\n{"n":2}\n')
    found, damaged = read_lines(path)
    assert found == [(1, {"n": 1}), (7, {"n": 2})]
    assert damaged == [2, 3, 4, 6]


def test_marks_survive_a_restart_and_the_last_one_counts(tmp_path: Path) -> None:
    marks = Marks(tmp_path)
    image = np.arange(12, dtype=np.float32).reshape(3, 4)
    marks.add(mark("a", True, extra={"group": "accepted", "key": "7:1"}), image)
    marks.add(mark("b", False), image)
    marks.add(mark("c", True, accepted=False, weight=100.0), image.astype(np.uint16))
    assert marks.counts() == (1, 2)
    marks.add(mark("a", False, by="Bo"))
    marks.add(mark("b", None))
    assert marks.counts() == (0, 2)
    again = Marks(tmp_path)
    assert again.latest() == marks.latest()
    assert list(again.latest()) == ["c", "a"]
    assert (again.latest()["a"].by, again.latest()["a"].truth, again.counts()) == ("Bo", False, (0, 2))
    assert read_marks(tmp_path) == read_marks(marks.path) == again.latest()
    kept = read_pixels(pixels_path(tmp_path, "c"))
    assert kept.dtype == np.uint16
    np.testing.assert_array_equal(kept, image)
    assert len(marks.path.read_text().splitlines()) == 5


def test_what_is_given_is_a_copy(tmp_path: Path) -> None:
    marks = Marks(tmp_path)
    marks.add(mark("a"))
    before = marks.latest()
    marks.add(mark("b"))
    assert list(before) == ["a"]


@pytest.mark.parametrize(
    ("kind", "truth", "accepted", "right"),
    [
        ("frame", True, True, True),
        ("frame", False, True, False),
        ("frame", False, False, True),
        ("frame", True, False, False),
        ("pick", True, False, True),
        ("pick", False, True, False),
        ("frame", None, True, None),
    ],
)
def test_what_right_means(kind: str, truth: bool | None, accepted: bool, right: bool | None) -> None:
    assert Mark("a", kind, truth, accepted=accepted).right is right


NAMES = ["../../etc/passwd", "/abs", "a/b", "..", ".", "", "\0", "a" * 5000, "run 7:12", "Größe", "-rf", "con"]


@pytest.mark.parametrize("name", NAMES)
def test_no_id_leads_out_of_the_folder(tmp_path: Path, name: str) -> None:
    path = pixels_path(tmp_path, name)
    assert path.parent == tmp_path / "marks"
    assert path.resolve().parent == (tmp_path / "marks").resolve()
    assert len(path.name) < 100
    assert path.name.isascii()


def test_ids_that_read_alike_stay_apart(tmp_path: Path) -> None:
    names = ["7:12", "7-12", "7/12", "7 12", "A", "a"]
    assert len({pixels_path(tmp_path, name).name.lower() for name in names}) == len(names)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (np.zeros((2, 2), np.float64), "float64; give float32 or uint16"),
        (np.zeros(4, np.float32), r"shape \(4,\)"),
        (np.zeros((0, 4), np.float32), "shape"),
        (np.zeros((1, 1), object), "object"),
    ],
)
def test_pixels_of_another_kind_are_refused(tmp_path: Path, wrong: Any, said: str) -> None:
    marks = Marks(tmp_path)
    with pytest.raises(ValueError, match=said):
        marks.add(mark(), wrong)
    assert list(tmp_path.rglob("*")) == []
    assert marks.latest() == {}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"kind": "shot"}, "kind: 'shot' is not one of frame, pick"),
        ({"truth": 1}, "truth: 1 is not true, false or null"),
        ({"weight": 0}, "weight: 0.0 is not above 0"),
        ({"id": ""}, "id: '' is not a name"),
        ({"score": "high"}, "score: 'high' is not a number"),
        ({"by": 3}, "by: 3 is not text"),
        ({"accepted": "yes"}, "accepted: 'yes' is not true or false"),
        ({"extra": [1]}, "is not a mapping"),
    ],
)
def test_a_line_that_is_no_mark_is_told(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    line = {**mark().to_json(), **change}
    with pytest.raises(ValueError, match=said):
        mark_of(line)
    path = tmp_path / "marks.jsonl"
    path.write_text(json.dumps(mark("ok").to_json()) + "\n" + json.dumps(line) + "\n")
    with pytest.raises(BadData, match=f"marks.jsonl:2: .*{said}"):
        read_marks(path)
    # The daemon starts all the same.
    assert list(Marks(tmp_path).latest()) == ["ok"]


def test_a_time_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="time"):
        Marks(tmp_path).add(mark(time=math.inf))


@given(
    st.builds(
        Mark,
        st.text(min_size=1),
        st.sampled_from(["frame", "pick"]),
        st.sampled_from([True, False, None]),
        by=st.text(),
        time=st.floats(0, 2e9),
        score=st.floats(0, 1) | st.just(math.nan),
        accepted=st.booleans(),
        weight=st.floats(1, 1e6),
        model=st.text(),
        extra=st.dictionaries(st.text(), st.integers() | st.text()),
    )
)
def test_a_mark_goes_through_json(one: Mark) -> None:
    again = mark_of(json.loads(json.dumps(one.to_json(), allow_nan=False)))
    assert repr(again) == repr(one)  # NaN is not equal to itself


def test_a_full_disk_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    marks = Marks(tmp_path)
    image = np.ones((4, 4), np.float32)
    marks.add(mark("a"), image)
    before = (marks.path.read_bytes(), dict(marks.latest()), marks.counts())

    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr(np, "save", full)
        with pytest.raises(OSError, match=r"\.npy: cannot be written: No space left on device; free space"):
            marks.add(mark("a", False), 2 * image)
    with monkeypatch.context() as broken:
        broken.setattr(os, "write", full)
        with pytest.raises(OSError, match="cannot be added to"):
            marks.add(mark("b", False))
    assert (marks.path.read_bytes(), dict(marks.latest()), marks.counts()) == before
    np.testing.assert_array_equal(read_pixels(pixels_path(tmp_path, "a")), image)
    assert not list(tmp_path.rglob("*.inprogress"))
    marks.add(mark("b", False), image)
    assert list(Marks(tmp_path).latest()) == ["a", "b"]


def test_memory_is_bounded_and_the_file_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(marks_module, "MOST", 3)
    marks = Marks(tmp_path)
    for number in range(5):
        marks.add(mark(str(number), number % 2 == 0))
    assert list(marks.latest()) == ["2", "3", "4"]
    assert marks.counts() == (2, 1)
    assert len(read_marks(marks.path)) == 5
    assert Marks(tmp_path).latest() == marks.latest()


def test_many_reviewers_at_once(tmp_path: Path) -> None:
    marks = Marks(tmp_path)

    def review(who: int) -> None:
        for number in range(20):
            marks.add(mark(f"{who}-{number}", number % 4 != 0, by=str(who)))

    threads = [threading.Thread(target=review, args=(who,)) for who in range(4)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert marks.counts() == (60, 20)
    assert Marks(tmp_path).counts() == (60, 20)


def test_pixels_that_are_no_array_are_told(tmp_path: Path) -> None:
    path = tmp_path / "x.npy"
    np.save(path, np.array([{"a": 1}]), allow_pickle=True)
    with pytest.raises(BadData, match=r"x\.npy: is no array"):
        read_pixels(path)
    path.write_bytes(b"")
    with pytest.raises(BadData, match="is no array"):
        read_pixels(path)


def test_marks_are_known_by_their_content(tmp_path: Path) -> None:
    marks = Marks(tmp_path)
    marks.add(mark())
    (tmp_path / "changes.jsonl").write_text('{"time":1,"what":"threshold"}\n')
    (tmp_path / "eman.json").write_text('{"boxes": [[1, 2, "manual"]]}')
    assert [is_marks(tmp_path / n) for n in ("marks.jsonl", "changes.jsonl", "eman.json")] == [True, False, False]


def shown(*words: object) -> Result:
    alone = typer.Typer()
    alone.command()(marks_command)
    return CliRunner().invoke(alone, [str(word) for word in words])


@pytest.fixture
def session(tmp_path: Path) -> Path:
    marks = Marks(tmp_path)
    for number in range(20):
        one = mark(f"a{number}", number > 0, run="7" if number < 10 else "8", extra={"group": "accepted", "key": "k"})
        marks.add(one, np.zeros((2, 2), np.float32) if number == 3 else None)
    for number in range(10):
        extra = {"group": "random_miss"}
        miss = mark(f"m{number}", number == 0, by="Bo", score=0.1, accepted=False, weight=50.0, run="8", extra=extra)
        marks.add(miss)
    return tmp_path


def test_the_table_of_marks(session: Path) -> None:
    found = shown(session)
    assert found.exit_code == 0, found.output
    rows = {line[:8].strip(): line.split()[1:] for line in found.stdout.splitlines()[1:]}
    assert rows["all"][:3] == ["28", "2", "20"]
    assert rows["all"][3] == "0.950"
    assert found.stdout.splitlines()[2].split()[:5] == ["run", "7", "9", "1", "9"]
    assert any(line.split()[:5] == ["by", "Bo", "9", "1", "1"] for line in found.stdout.splitlines())
    assert "recall needs --accepted and --rejected" in found.stdout
    told = shown(session / "marks.jsonl", "--accepted", 100, "--rejected", 400)
    # 95 true ones of 100 accepted, one of ten rejected: 40.
    assert f"{95 / 135:.3f} [" in told.stdout
    assert "recall needs" not in told.stdout
    assert "19" in shown(session, "--run", "8").stdout


def test_marks_as_csv(session: Path) -> None:
    out = session / "marks.csv"
    assert shown(session, "--csv", out).exit_code == 0
    with out.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 30
    assert (rows[0]["verdict"], rows[0]["truth"], rows[0]["key"], rows[0]["by"]) == ("wrong", "False", "k", "Ada")
    assert rows[0]["time"] == "2023-11-14T22:13:20+00:00"
    assert Path(rows[3]["pixels"]).exists()
    assert rows[4]["pixels"] == ""
    assert rows[-1]["weight"] == "50.0"


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["nowhere"], 2, "marks.jsonl"),
        ([".", "--accepted", "3"], 2, "give both, or neither"),
        ([".", "--run", "9"], 2, "holds no marks of run 9 (there are: 7, 8)"),
        ([".", "--csv", "no/such/folder.csv"], 1, "folder.csv: cannot be written"),
    ],
)
def test_mistakes_with_marks(
    session: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], code: int, said: str
) -> None:
    monkeypatch.chdir(session)
    (session / "nowhere").mkdir()
    found = shown(*words)
    assert found.exit_code == code
    assert said in found.stderr
    assert len(found.stderr.splitlines()) == 1
