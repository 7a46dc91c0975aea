"""The journal: every file has one fate, whoever asks, whatever dies, and what it says can be read and undone."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import tempfile
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import typer
from beamsieve.stream.commands.journal import retry, status
from beamsieve.stream.sources.folder import database, owners, set_aside
from beamsieve.stream.sources.folder.database import JournalError
from beamsieve.stream.sources.folder.journal import Journal
from beamsieve.stream.sources.folder.owners import Owner
from beamsieve.stream.sources.folder.policy import Policy
from beamsieve.stream.sources.folder.report import put_back, report
from beamsieve.stream.sources.folder.rows import Found, Row, Stat
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from typer.testing import CliRunner

WALL = 1_700_000_000.0


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now

    def wall(self) -> float:
        return WALL + self.now


def file(name: str = "a.mrc", content: int = 1, mtime: int = 1) -> Found:
    return Found(name, Stat(100 + content, mtime, 7), f"hash {content}")


def opened(path: Path, clock: Clock | None = None, **options: Any) -> Journal:
    clock = clock or Clock()
    options = {"lease_s": 100.0, **options}
    journal = Journal(path, clock=clock, wall=clock.wall, **options)
    journal.open({"directory": "/data/in", "session": "night"})
    return journal


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "out" / "journal.sqlite"


# --- one process ------------------------------------------------------------------------------------------------------


def test_a_file_is_taken_once_and_never_again_when_it_is_done(path: Path) -> None:
    journal, other = opened(path), opened(path)
    (row,) = journal.claim([file()])
    assert (row.name, row.revision, row.state) == ("a.mrc", 0, "claimed")
    assert journal.claim([file()]) == other.claim([file()]) == []
    journal.done([row.number])
    assert journal.claim([file()]) == other.claim([file()]) == []
    assert other.claim([file(mtime=5)]) == []
    other.refresh()
    touched = other.get("a.mrc")
    assert touched is not None
    assert (touched.stat.mtime_ns, touched.state) == (5, "done")
    (again,) = other.claim([file(content=2)])
    assert (again.revision, again.number > row.number) == (1, True)
    for each in (journal, other):
        each.close()


def test_several_are_taken_at_once_or_none_at_all(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = opened(path)
    insert = journal._claim

    def fail(base: sqlite3.Connection, found: Found, change: int) -> Row | None:
        if found.name == "c":
            raise sqlite3.OperationalError("database or disk is full")
        return insert(base, found, change)

    monkeypatch.setattr(journal, "_claim", fail)
    with pytest.raises(JournalError, match="make room"):
        journal.claim([file("a"), file("b"), file("c")])
    monkeypatch.undo()
    assert journal.held == set()
    assert [row.name for row in journal.claim([file("a"), file("b"), file("c")])] == ["a", "b", "c"]
    journal.close()


def test_a_failure_waits_for_its_next_attempt_and_is_set_aside_after_the_last(path: Path) -> None:
    clock = Clock()
    journal = opened(path, clock, policy=Policy(attempts=2, retry_s=60))
    (row,) = journal.claim([file()])
    journal.failed(row.number, "decode", "no good")
    journal.failed(row.number, "decode", "told again by somebody else")
    assert journal.claim([file()]) == []
    clock.now += 61
    (row,) = journal.claim([file()])
    assert row.attempts == 1
    journal.failed(row.number, "decode", "still no good")
    clock.now += 1000
    assert journal.claim([file()]) == []
    (aside,) = report(path).set_aside
    assert (aside.attempts, aside.reason, aside.detail) == (2, "decode", "still no good")
    said = json.loads((path.parent / "set_aside" / "a.mrc.json").read_text())
    assert said["remedy"] == f"beamsieve retry {path} a.mrc"
    assert (said["attempts"], said["reason"], said["bytes"]) == (2, "decode", 101)
    journal.close()


def test_a_retry_that_would_be_too_far_away_is_due(path: Path) -> None:
    policy = Policy(retry_s=60)
    row = Row(1, "a", 0, Stat(1, 1, 1), "h", "failed", retry_at=1000.0)
    assert [policy.is_due(row, wall) for wall in (939.0, 940.0, 999.0, 1000.0, 5000.0)] == [
        True,
        False,
        False,
        True,
        True,
    ]
    assert policy.is_due(replace(row, state="waiting"), 0)
    assert not any(policy.is_due(replace(row, state=s), 5000) for s in ("done", "claimed", "set_aside", "ignored"))


def test_what_is_owed_is_written_with_the_next_transaction_and_not_lost(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = opened(path)
    first, second = journal.claim([file("a"), file("b")])

    def locked(base: sqlite3.Connection) -> Any:
        raise sqlite3.OperationalError("database is locked")

    monkeypatch.setattr("beamsieve.stream.sources.folder.journal.transaction", locked)
    journal.done([first.number])
    journal.record(first.number, {"picks": 3})
    journal.failed(second.number, "decode", "no")
    assert journal.held == {first.number, second.number}
    assert report(path).counts["claimed"] == 2
    monkeypatch.undo()
    journal.beat()
    assert journal.held == set()
    found = report(path)
    assert (found.counts["done"], found.counts["failed"]) == (1, 1)
    assert found.done[0].numbers == {"picks": 3}
    journal.close()


@pytest.mark.parametrize(
    "name", ["ü/ß 1.mrc", "x" * 250 + ".mrc", "é" * 120 + ".mrc", "a\nb.mrc", "'; DROP TABLE files.mrc"]
)
def test_any_name_can_be_set_aside_and_put_back(path: Path, name: str) -> None:
    journal = opened(path)
    (row,) = journal.claim([file(name)])
    journal.give_up(row.number, "truncated", "half of it")
    place = set_aside.place(path, name)
    assert json.loads(place.read_text(encoding="utf-8"))["name"] == name
    assert place.is_relative_to(path.parent / "set_aside")
    assert put_back(path, None, None) == [name]
    assert not place.exists()
    journal.refresh()
    (again,) = journal.claim([file(name)])
    assert (again.number, again.attempts) == (row.number, 0)
    journal.close()


def test_two_long_names_have_two_reasons(path: Path) -> None:
    names = ["é" * 120 + f"{i}.mrc" for i in range(2)]
    assert set_aside.place(path, names[0]) != set_aside.place(path, names[1])


def test_a_disk_without_room_for_the_reason_costs_only_the_copy(path: Path) -> None:
    journal = opened(path)
    (row,) = journal.claim([file()])
    (path.parent / "set_aside").write_text("in the way")
    journal.give_up(row.number, "truncated", "half of it")
    assert report(path).counts["set_aside"] == 1
    journal.close()


# --- several processes ------------------------------------------------------------------------------------------------


def test_many_threads_opening_one_new_journal_share_it_and_its_files(path: Path) -> None:
    taken: list[str] = []
    problems: list[BaseException] = []
    ready = threading.Barrier(6)

    def work() -> None:
        try:
            ready.wait()
            journal = opened(path)
            for i in range(30):
                rows = journal.claim([file(f"{i}")])
                taken.extend(row.name for row in rows)
                journal.done([row.number for row in rows])
            journal.close()
        except BaseException as error:
            problems.append(error)

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
    assert sorted(taken, key=int) == [str(i) for i in range(30)]
    assert report(path).counts["done"] == 30


def test_the_dead_are_known_on_this_host_and_waited_for_on_others(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    gone, far = opened(path, clock), opened(path, clock)
    (lost,) = gone.claim([file("lost")])
    far.claim([file("far")])
    watch = opened(path, clock)
    assert watch.beat() == []  # all of them are this process, and it lives
    base = sqlite3.connect(path)
    base.execute("UPDATE owners SET pid=4194304 WHERE owner=?", (gone._leases.us.owner,))  # above the largest there is
    base.execute("UPDATE owners SET place='another host', pid=1 WHERE owner=?", (far._leases.us.owner,))
    base.commit()
    base.close()
    assert [row.name for row in watch.beat()] == ["lost"]
    assert [daemon.alive for daemon in report(path).daemons].count(None) == 1
    clock.now += 99
    assert watch.beat() == []
    clock.now += 2
    assert [row.name for row in watch.beat()] == ["far"]
    watch.refresh()
    (row,) = watch.claim([file("lost")])
    assert (row.number, row.deaths) == (lost.number, 1)
    for each in (gone, far, watch):
        each.close()


def test_a_process_of_the_same_number_that_began_later_is_another_one() -> None:
    us = Owner.ourselves()
    assert us.is_alive() is True
    assert replace(us, started="1").is_alive() is False
    assert replace(us, pid=4194304).is_alive() is False
    assert replace(us, place="elsewhere").is_alive() is None
    assert replace(us, place="").is_alive() is None


def test_a_process_that_proc_hides_is_not_taken_for_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    parent = replace(Owner.ourselves(), pid=os.getppid())
    monkeypatch.setattr(owners, "_state", lambda pid: None)
    assert parent.is_alive() is None
    assert replace(parent, pid=4194304).is_alive() is False


# --- the file ---------------------------------------------------------------------------------------------------------


def test_every_change_is_synced_and_readers_do_not_wait(path: Path) -> None:
    journal = opened(path)
    assert journal._open.execute("PRAGMA journal_mode").fetchone()[0] == "wal"
    assert journal._open.execute("PRAGMA synchronous").fetchone()[0] == 2
    journal._open.execute("BEGIN IMMEDIATE")
    assert report(path).counts["done"] == 0
    journal._open.execute("ROLLBACK")
    journal.close()
    assert [entry.name for entry in path.parent.iterdir()] == ["journal.sqlite"]


def test_on_a_network_file_system_there_is_no_wal(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened(path).close()
    monkeypatch.setattr(database, "is_network", lambda path: True)
    for _ in range(2):  # one made here before, and one made there
        journal = opened(path)
        assert journal._open.execute("PRAGMA journal_mode").fetchone()[0] == "delete"
        assert len(journal.claim([file()])) == 1
        journal.close()
        shutil.rmtree(path.parent)
    local = opened(path)
    local._open.execute("PRAGMA journal_mode=WAL")
    monkeypatch.setattr(database, "_switch", lambda base, mode: "")
    with pytest.raises(JournalError, match="cannot be shared over a network") as problem:
        opened(path)
    assert "name a journal" in str(problem.value)
    local.close()


def test_file_systems_are_known_from_the_mounts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    mounts = tmp_path / "mounts"
    mounts.write_text(
        "/dev/sda / ext4 rw 0 0\nserver:/x /data nfs4 rw 0 0\n/dev/sdb /data/local\\040disk xfs rw 0 0\n"
        "s /mnt/sshfs fuse.sshfs rw 0 0\n"
    )
    real = open
    monkeypatch.setattr(
        "builtins.open", lambda name, *a, **k: real(mounts if name == "/proc/self/mounts" else name, *a, **k)
    )
    answers = {
        name: database.is_network(Path(name))
        for name in ("/home/j", "/data/j", "/data/local disk/j", "/database/j", "/mnt/sshfs/j")
    }
    assert answers == {
        "/home/j": False,
        "/data/j": True,
        "/data/local disk/j": False,
        "/database/j": False,
        "/mnt/sshfs/j": True,
    }


def _text(path: Path) -> None:
    path.write_text("not a database at all\n" * 100)


def _truncated(path: Path) -> None:
    opened(path).close()
    path.write_bytes(path.read_bytes()[:300])


def _foreign(path: Path) -> None:
    base = sqlite3.connect(path)
    base.execute("CREATE TABLE theirs (x)")
    base.commit()
    base.close()


def _newer(path: Path) -> None:
    opened(path).close()
    base = sqlite3.connect(path)
    base.execute("PRAGMA user_version=99")
    base.commit()
    base.close()


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (_text, "is not a journal of beamsieve"),
        (_foreign, "a database, but not a journal"),
        (_newer, "written by a newer beamsieve"),
        (_truncated, "journal is damaged|malformed|not a database"),
    ],
)
def test_what_is_no_journal_is_refused_with_a_remedy_and_left_as_it_is(
    path: Path, make: Callable[[Path], None], says: str
) -> None:
    path.parent.mkdir()
    make(path)
    before = path.read_bytes()
    for use in (opened, report):
        with pytest.raises(JournalError, match=says) as problem:
            use(path)
        assert str(path) in str(problem.value)
        assert ";" in str(problem.value)
    assert path.read_bytes() == before


def test_a_journal_where_nothing_can_be_written_is_an_error_with_its_place(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    with pytest.raises(JournalError, match="name a journal that can be written"):
        opened(tmp_path / "out" / "journal.sqlite")


def test_a_lock_that_is_never_given_is_an_error_with_a_remedy(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "BUSY_S", 0.05)
    journal = opened(path)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(JournalError, match="put the journal on a local disk"):
        journal.claim([file()])
    other.execute("ROLLBACK")
    other.close()
    assert len(journal.claim([file()])) == 1
    journal.close()


def test_a_journal_in_a_folder_that_may_only_be_read_can_be_reported(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = opened(path)
    journal.claim([file()])
    journal.close()
    real: Any = sqlite3.connect

    def connect(name: Any, **options: Any) -> Any:
        if "immutable" not in str(name):
            raise sqlite3.OperationalError("unable to open database file")
        return real(name, **options)

    monkeypatch.setattr(sqlite3, "connect", connect)
    assert report(path).counts["waiting"] == 1


# --- any order of events ----------------------------------------------------------------------------------------------

NAMES = st.sampled_from(["a", "b/c", "d"])


class Fates(RuleBasedStateMachine):
    """Two daemons and an operator do anything in any order; the journal agrees with a dictionary."""

    @initialize()
    def begin(self) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.path = self.folder / "journal.sqlite"
        self.clock = Clock()
        self.policy = Policy(attempts=2, retry_s=60, deaths=3)
        self.daemons = [self.open() for _ in range(2)]
        self.content = dict.fromkeys(["a", "b/c", "d"], 1)
        self.done: dict[tuple[str, int], int] = {}
        self.held: dict[int, tuple[int, str, int]] = {}

    def open(self) -> Journal:
        return opened(self.path, self.clock, policy=self.policy)

    @rule(name=NAMES)
    def change(self, name: str) -> None:
        self.content[name] += 1

    @rule(seconds=st.sampled_from([1, 70]))
    def time_passes(self, seconds: int) -> None:
        self.clock.now += seconds
        for daemon in self.daemons:
            daemon.beat()

    @rule(which=st.integers(0, 1), names=st.lists(NAMES, unique=True))
    def claim(self, which: int, names: list[str]) -> None:
        daemon = self.daemons[which]
        before = {name: self.held_name(name) for name in names}
        for row in daemon.claim([file(name, self.content[name]) for name in names]):
            assert before[row.name] is None, "taken by two"
            assert self.done.get((row.name, self.content[row.name])) is None, "done twice"
            self.held[row.number] = (which, row.name, self.content[row.name])

    def held_name(self, name: str) -> int | None:
        return next((number for number, (_, held, _) in self.held.items() if held == name), None)

    @precondition(lambda self: self.held)
    @rule(data=st.data(), fate=st.sampled_from(["done", "done", "failed", "give_up"]))
    def answer(self, data: st.DataObject, fate: str) -> None:
        number = data.draw(st.sampled_from(sorted(self.held)))
        which, name, content = self.held.pop(number)
        if fate == "done":
            self.daemons[which].done([number])
            self.done[name, content] = number
        else:
            getattr(self.daemons[which], fate)(number, "decode", "no")

    @rule(which=st.integers(0, 1), clean=st.booleans())
    def restart(self, which: int, clean: bool) -> None:
        old = self.daemons[which]
        if clean:
            old.close()
        else:  # as if it were killed: nothing is said, and the connection is gone
            base = sqlite3.connect(self.path)
            base.execute("UPDATE owners SET pid=4194304 WHERE owner=?", (old._leases.us.owner,))
            base.commit()
            base.close()
            old._close()
        self.daemons[which] = self.open()
        self.held = {number: held for number, held in self.held.items() if held[0] != which}

    @rule()
    def operator(self) -> None:
        put_back(self.path, None, None)

    @invariant()
    def adds_up(self) -> None:
        base = sqlite3.connect(self.path)
        claimed = {number for (number,) in base.execute("SELECT id FROM files WHERE state='claimed'")}
        done = base.execute("SELECT name, revision, size FROM files WHERE state='done'").fetchall()
        revisions = base.execute("SELECT name, count(*), max(revision) FROM files GROUP BY name").fetchall()
        base.close()
        assert claimed == set(self.held)
        assert claimed == {number for daemon in self.daemons for number in daemon.held}
        assert {(name, size - 100) for name, _, size in done} == set(self.done)
        assert all(count == most + 1 for _, count, most in revisions)

    def teardown(self) -> None:
        for daemon in getattr(self, "daemons", ()):
            daemon.close()
        if hasattr(self, "folder"):
            shutil.rmtree(self.folder)


TestFates = Fates.TestCase
TestFates.settings = settings(max_examples=15, stateful_step_count=25, deadline=None)


# --- the commands -----------------------------------------------------------------------------------------------------

app = typer.Typer()
app.command()(status)
app.command()(retry)


def invoke(*arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, list(arguments), env={"COLUMNS": "200"})
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    assert "Traceback" not in done.output
    return done.exit_code, done.output


@pytest.fixture
def journal(path: Path) -> Journal:
    """A journal with a file of every fate, of a daemon that has ended but for one."""
    ended = opened(path, policy=Policy(attempts=2, retry_s=60))
    names = ["done.mrc", "sub/failed.mrc", "[cut] ü\x1b[31m.mrc", "deadly.mrc"]
    rows = ended.claim([file(name) for name in names])
    ended.record(rows[0].number, {"picks": 231, "carbon": 0.123456})
    ended.done([rows[0].number])
    ended.failed(rows[1].number, "decode", "no good")
    ended.give_up(rows[2].number, "truncated", "half of it")
    ended.give_up(rows[3].number, "killed", "boom")
    ended.claim([file("in work.mrc")])
    ended.wait([("slow.mrc", "settling", "1 byte by now", WALL)], {"settling": 12})
    return ended


def test_status_says_what_became_of_the_files(journal: Journal) -> None:
    code, text = invoke("status", str(journal.path))
    assert code == 0
    for words in (
        "night: /data/in",
        "1 done, 1 in work, 1 to be tried again, 2 set aside",
        f"process {os.getpid()}",
        "12 not complete yet: 12 settling",
        "1 byte by now",
        "picks 231, carbon 0.1235",
        "truncated (1 attempts)",
        "half of it",
    ):
        assert words in text, words
    assert "[cut] ü\\x1b[31m.mrc" in text  # shown, and not obeyed
    assert "\x1b[31m" not in text
    journal.close()


def test_what_a_dead_daemon_said_of_waiting_files_is_not_repeated(journal: Journal) -> None:
    base = sqlite3.connect(journal.path)
    base.execute("UPDATE owners SET pid=4194304")
    base.commit()
    base.close()
    found = report(journal.path)
    assert (found.waiting, found.waits) == ([], {})
    assert [daemon.alive for daemon in found.daemons] == [False]
    assert "is gone: its files are taken over" in invoke("status", str(journal.path))[1]
    journal.close()


def test_status_is_found_by_folder_and_by_configuration_and_is_written_as_json(
    journal: Journal, tmp_path: Path
) -> None:
    config, out = tmp_path / "c.yaml", tmp_path / "s.json"
    for text in ("files: {directory: out}", "source: {journal: out/journal.sqlite}"):
        config.write_text(text)
        for where in (str(journal.path), str(tmp_path / "out"), str(tmp_path), str(config)):
            assert invoke("status", where, "--json", str(out))[0] == 0
            found = json.loads(out.read_text())
            assert found["counts"]["set_aside"] == 2
            assert found["waiting"][0]["reason"] == "settling"
    code, text = invoke("status", str(config), "--json", "-")
    assert (code, json.loads(text)["about"]["session"]) == (0, "night")
    journal.close()


def test_status_of_what_is_no_journal_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("hello hello hello hello")
    (tmp_path / "empty").mkdir()
    (tmp_path / "nothing.yaml").write_text("beamline: cryoem_picks\n")
    (tmp_path / "early.yaml").write_text("files: {directory: out}\n")
    (tmp_path / "two").mkdir()
    for name in ("a.sqlite", "b.sqlite"):
        opened(tmp_path / "two" / name).close()
    for where, expected, says in (
        (tmp_path / "text", 1, "is not a journal"),
        (tmp_path / "empty", 1, "no journal in it"),
        (tmp_path / "two", 1, "several journals, a.sqlite, b.sqlite"),
        (tmp_path / "nothing.yaml", 1, "names no journal"),
        (tmp_path / "early.yaml", 1, "has the daemon"),
        (tmp_path / "missing.sqlite", 1, "no such file"),
        (tmp_path / "missing.yaml", 2, "name an existing YAML file"),
    ):
        code, text = invoke("status", str(where))
        assert (code, text.count("\n")) == (expected, 1), text
        assert says in text


@pytest.mark.parametrize(
    ("arguments", "back"),
    [
        (["--all"], {"sub/failed.mrc", "[cut] ü\\x1b[31m.mrc", "deadly.mrc"}),
        (["--reason", "killed"], {"deadly.mrc"}),
        (["failed.mrc"], {"sub/failed.mrc"}),
        (["sub/*", "[cut] ü\x1b[31m.mrc"], {"sub/failed.mrc", "[cut] ü\\x1b[31m.mrc"}),
        (["*.mrc", "--reason", "decode"], {"sub/failed.mrc"}),
    ],
)
def test_retry_puts_back_what_is_meant(journal: Journal, arguments: list[str], back: set[str]) -> None:
    code, text = invoke("retry", str(journal.path), *arguments)
    assert code == 0
    lines = text.splitlines()
    assert set(lines[:-1]) == back
    assert lines[-1] == f"{len(back)} files are tried again"
    assert report(journal.path).counts["waiting"] == len(back)
    journal.close()


def test_retry_of_nothing_is_a_mistake(journal: Journal) -> None:
    for arguments, says in (
        ([], "--all"),
        (["done.mrc"], "no file of that name"),
        (["in work.mrc"], "no file of that name"),
        (["--reason", "unknown"], "no file of that name or reason"),
    ):
        code, text = invoke("retry", str(journal.path), *arguments)
        assert (code, text.count("\n")) == (2, 1), text
        assert says in text
    assert invoke("retry", str(journal.path), "--all")[0] == 0
    code, text = invoke("retry", str(journal.path), "--all")
    assert (code, text) == (0, "0 files are tried again\n")
    journal.close()
