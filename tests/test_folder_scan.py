"""Looking into a folder: everything is found, nothing is asked twice without need, and no trouble ends it."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from beamsieve.stream.sources.folder.layouts import chooser
from beamsieve.stream.sources.folder.rows import Stat
from beamsieve.stream.sources.folder.scan import Scanner
from beamsieve.stream.sources.folder.settings import EXCLUDE
from hypothesis import given, settings
from hypothesis import strategies as st


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


class Events(Counter[str]):
    def event(self, kind: str, n: int = 1) -> None:
        self[kind] += n


class Asked:
    """Counts what the scanner asks of the file system."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.listed: list[str] = []
        self.stats: list[str] = []
        self._scandir, self._stat = os.scandir, os.stat
        patch.setattr("os.scandir", self.scandir)
        patch.setattr("os.stat", self.stat)

    def scandir(self, path: Any) -> Any:
        self.listed.append(os.path.basename(os.path.normpath(path)))
        return self._scandir(path)

    def stat(self, path: Any, **options: Any) -> os.stat_result:
        self.stats.append(os.path.basename(os.path.normpath(path)))
        return self._stat(path, **options)

    def clear(self) -> None:
        self.listed.clear()
        self.stats.clear()


def scanner(root: Path, clock: Clock | None = None, facts: Events | None = None, **options: Any) -> Scanner:
    wanted, excluded = chooser("flat", "micrographs", (), EXCLUDE)
    return Scanner(root, wanted, excluded, Events() if facts is None else facts, clock=clock or Clock(), **options)


def put(path: Path, content: bytes = b"x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def test_files_at_any_depth_are_found_with_what_they_are_recognised_by(tmp_path: Path) -> None:
    path = put(tmp_path / "a" / "b c" / "ü.mrc", b"123")
    put(tmp_path / "top.tif")
    look = scanner(tmp_path)
    seen = look.look()
    assert seen.changed == look.files == {"a/b c/ü.mrc": Stat.of(path.stat()), "top.tif": look.files["top.tif"]}
    assert seen.changed["a/b c/ü.mrc"].size == 3
    assert not seen.gone
    assert look.path("a/b c/ü.mrc") == str(path)


def test_what_is_no_image_is_hidden_or_is_ours_is_left_out(tmp_path: Path) -> None:
    for name in ("a.txt", ".b.mrc", "c.mrc.tmp", ".hidden/d.mrc", "gain.mrc", "out/e.mrc", "sub/out/f.mrc"):
        put(tmp_path / name)
    os.mkfifo(tmp_path / "pipe.mrc")
    (tmp_path / "folder.mrc").mkdir()
    assert list(scanner(tmp_path, skip=[tmp_path / "out"]).look().changed) == ["sub/out/f.mrc"]


def test_without_recursion_only_the_folder_itself_is_looked_into(tmp_path: Path) -> None:
    put(tmp_path / "a.mrc")
    put(tmp_path / "sub" / "b.mrc")
    assert list(scanner(tmp_path, recursive=False).look().changed) == ["a.mrc"]


def test_a_quiet_folder_is_not_listed_again_and_a_new_file_is_found_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a/1.mrc", "b/2.mrc", "b/3.mrc"):
        put(tmp_path / name)
    clock = Clock()
    look = scanner(tmp_path, clock, recheck_s=-1)
    asked = Asked(monkeypatch)
    look.look()
    assert sorted(asked.stats)[:3] == ["1.mrc", "2.mrc", "3.mrc"]
    for _ in range(2):  # once more, because what came within the clock's tick may have left the time as it was
        clock.now += 5
        asked.clear()
        look.look()
        listed = asked.listed[1:]  # the first is whether the folder is there
    assert listed == []
    assert not [name for name in asked.stats if name.endswith(".mrc")]
    put(tmp_path / "b" / "4.mrc")
    clock.now += 5
    asked.clear()
    assert list(look.look().changed) == ["b/4.mrc"]
    assert asked.listed[1:] == ["b"]
    assert [name for name in asked.stats if name.endswith(".mrc")] == ["4.mrc"]


def test_a_file_that_comes_within_a_tick_of_a_listing_is_found(tmp_path: Path) -> None:
    put(tmp_path / "1.mrc")
    before = tmp_path.stat()
    clock = Clock()
    look = scanner(tmp_path, clock)
    look.look()
    put(tmp_path / "2.mrc")
    os.utime(tmp_path, ns=(before.st_atime_ns, before.st_mtime_ns))  # a coarse clock: the same time as before
    clock.now += 5
    assert list(look.look().changed) == ["2.mrc"]


def test_folders_whose_times_never_change_are_listed_once_a_minute(tmp_path: Path) -> None:
    put(tmp_path / "1.mrc")
    before = tmp_path.stat()
    clock = Clock()
    look = scanner(tmp_path, clock)
    for _ in range(3):
        look.look()
        clock.now += 5
    put(tmp_path / "2.mrc")
    os.utime(tmp_path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert not look.look().changed
    clock.now += 61
    assert list(look.look().changed) == ["2.mrc"]


def test_a_file_that_changes_in_place_is_found_in_its_turn_and_a_replaced_one_by_its_inode(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = put(tmp_path / "1.mrc"), put(tmp_path / "2.mrc")
    clock = Clock()
    look = scanner(tmp_path, clock)
    for _ in range(3):
        look.look()
        clock.now += 5
    with first.open("ab") as file:
        file.write(b"more")
    assert list(look.look().changed) == ["1.mrc"]
    assert look.files["1.mrc"].size == 5
    # Without asking known files at all, a new inode in the listing is enough.
    monkeypatch.setattr(look, "_recheck", lambda seen: None)
    put(tmp_path / "new").replace(second)
    clock.now += 5
    assert list(look.look().changed) == ["2.mrc"]


def test_known_files_are_asked_in_turn_within_the_time_of_a_look(tmp_path: Path) -> None:
    for i in range(100):
        put(tmp_path / f"{i:03}.mrc")

    class Slow(Clock):
        def __call__(self) -> float:
            self.now += 0.001
            return self.now

    look = scanner(tmp_path, Slow(), recheck_s=0.0305)
    look.look()
    for path in tmp_path.iterdir():
        path.write_bytes(b"changed")
    found: list[str] = []
    for turn in range(4):
        found += look.look().changed
        assert len(found) <= (turn + 1) * 31
    assert 100 * 0.9 < len(found) <= 100
    assert len(set(found)) == len(found)


def test_what_is_gone_is_told_and_what_comes_back_is_new(tmp_path: Path) -> None:
    path, other = put(tmp_path / "a" / "1.mrc"), tmp_path / "away"
    put(tmp_path / "a" / "sub" / "2.mrc")
    clock = Clock()
    look = scanner(tmp_path, clock)
    look.look()
    path.rename(other)
    clock.now += 5
    assert look.look().gone == ["a/1.mrc"]
    other.rename(path)  # with the inode it had
    clock.now += 5
    assert list(look.look().changed) == ["a/1.mrc"]
    shutil.rmtree(tmp_path / "a")
    clock.now += 5
    assert sorted(look.look().gone) == ["a/1.mrc", "a/sub/2.mrc"]
    assert look.files == {}


def test_a_file_that_vanishes_between_looks_and_comes_back_under_its_inode_is_new_again(tmp_path: Path) -> None:
    path = put(tmp_path / "1.mrc")
    before = tmp_path.stat()
    clock = Clock()
    look = scanner(tmp_path, clock)
    for _ in range(3):
        look.look()
        clock.now += 5

    def hide(hidden: bool) -> None:
        path.rename(tmp_path / "x.tmp") if hidden else (tmp_path / "x.tmp").rename(path)
        os.utime(tmp_path, ns=(before.st_atime_ns, before.st_mtime_ns))

    hide(True)
    assert look.look().gone == ["1.mrc"]  # asked for in its turn, while the folder looks as before
    hide(False)
    clock.now += 61
    assert list(look.look().changed) == ["1.mrc"]


def test_a_folder_that_vanishes_and_comes_back_loses_nothing(tmp_path: Path) -> None:
    root = tmp_path / "mount"
    put(root / "1.mrc")
    clock, facts = Clock(), Events()
    look = scanner(root, clock, facts)
    assert look.look().present
    root.rename(tmp_path / "gone")
    for _ in range(3):
        clock.now += 5
        seen = look.look()
        assert not seen.present
        assert seen.gone == []
    assert dict(facts) == {"folder_gone": 1}
    (tmp_path / "gone").rename(root)
    put(root / "2.mrc")
    clock.now += 5
    seen = look.look()
    assert seen.present
    assert list(seen.changed) == ["2.mrc"]
    assert seen.gone == []
    assert dict(facts) == {"folder_gone": 1, "folder_back": 1}


def test_a_folder_that_may_not_be_read_is_counted_once_and_does_not_hide_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path / "closed" / "1.mrc")
    put(tmp_path / "open" / "2.mrc")
    real: Callable[..., Any] = os.scandir
    closed = True

    def scandir(path: Any) -> Any:
        if closed and "closed" in str(path):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr("os.scandir", scandir)
    clock, facts = Clock(), Events()
    look = scanner(tmp_path, clock, facts)
    assert list(look.look().changed) == ["open/2.mrc"]
    clock.now += 5
    look.look()
    assert dict(facts) == {"unreadable_folder": 1}
    closed = False
    clock.now += 5
    assert list(look.look().changed) == ["closed/1.mrc"]


def test_a_file_that_may_not_be_asked_for_is_named_and_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path / "1.mrc")
    real: Callable[..., os.stat_result] = os.stat
    monkeypatch.setattr("os.stat", lambda path, **o: _deny(path) if str(path).endswith("1.mrc") else real(path, **o))
    look = scanner(tmp_path)
    assert look.look().changed == {}
    assert look.unusable == {"1.mrc": "Permission denied"}
    monkeypatch.undo()
    assert list(look.look().changed) == ["1.mrc"]
    assert look.unusable == {}


def _deny(path: Any) -> os.stat_result:
    raise PermissionError(13, "Permission denied", str(path))


def test_links_are_left_alone_unless_they_are_asked_for_and_loops_end(tmp_path: Path) -> None:
    root = tmp_path / "in"
    put(root / "a" / "1.mrc")
    put(tmp_path / "elsewhere" / "2.mrc")
    (root / "a" / "up").symlink_to(root)
    (root / "self").symlink_to("self")
    (root / "other").symlink_to(tmp_path / "elsewhere")
    (root / "l.mrc").symlink_to(root / "a" / "1.mrc")
    (root / "broken.mrc").symlink_to(tmp_path / "nothing")
    assert sorted(scanner(root).look().changed) == ["a/1.mrc"]
    assert sorted(scanner(root, follow=True).look().changed) == ["a/1.mrc", "l.mrc", "other/2.mrc"]


def test_a_name_that_is_no_text_is_said_and_does_not_stop_the_others(tmp_path: Path) -> None:
    put(tmp_path / "1.mrc")
    with open(os.fsencode(tmp_path) + b"/caf\xe9.mrc", "wb"):
        pass
    facts = Events()
    look = scanner(tmp_path, facts=facts)
    assert list(look.look().changed) == ["1.mrc"]
    assert dict(facts) == {"bad_name": 1}
    (name,) = look.unusable
    assert name == "'caf\\udce9.mrc'"


def test_numbers_of_the_file_system_fit_into_the_journal() -> None:
    huge: Any = SimpleNamespace(st_ino=(1 << 64) - 1, st_size=5, st_mtime_ns=-(1 << 70))
    found = Stat.of(huge)
    assert abs(found.mtime_ns) < 1 << 63
    assert 0 <= found.inode < 1 << 63
    assert found.size == 5


NAMES = st.sampled_from(["1.mrc", "2.mrc", "s/1.mrc", "s/t/3.mrc", "u/4.tif"])
ACTIONS = st.lists(st.tuples(st.sampled_from(["write", "append", "remove", "replace", "look"]), NAMES), max_size=25)


@settings(deadline=None, max_examples=60)
@given(actions=ACTIONS)
def test_whatever_happens_in_a_folder_the_looks_add_up_to_it(
    actions: list[tuple[str, str]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    root = tmp_path_factory.mktemp("in")
    clock = Clock()
    look = scanner(root, clock)
    told: dict[str, Stat] = {}

    def hear() -> None:
        clock.now += 70
        seen = look.look()
        for name in seen.gone:
            del told[name]
        told.update(seen.changed)

    for action, name in actions:
        path = root / name
        if action == "write":
            put(path)
        elif action == "append" and path.exists():
            with path.open("ab") as file:
                file.write(b"more")
        elif action == "remove":
            path.unlink(missing_ok=True)
        elif action == "replace":
            put(root / "x.tmp", b"other").replace(put(path))
        else:
            hear()
    hear()
    there = {str(p.relative_to(root)): Stat.of(p.stat()) for p in root.rglob("*") if p.suffix in {".mrc", ".tif"}}
    assert told == look.files == there
