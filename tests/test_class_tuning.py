"""Training on the session's own particles, in a process of its own: begun, adopted or not, killed, gone on with."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from beamsieve.stream.beamlines.class_tuning import Outcome, Tuning
from beamsieve.tests.class_sessions import Blur, Session, particles, write_record

# Takes the place of ``beamsieve finetune classes2d``: the same options, files and exit codes.
FAKE = """
import json, os, signal, sys, time
from pathlib import Path
how, args = sys.argv[1], sys.argv[2:]
options = dict(zip(args[1:-1:2], args[2::2]))
out = Path(options["--out"])
with (out / "began").open("a") as file:
    file.write(f"{os.getpid()} {os.environ['OMP_NUM_THREADS']} {os.getpriority(os.PRIO_PROCESS, 0)} {args[-1]}\\n")
print("12:00:00  train: block 1, epoch 2  3/18", file=sys.stderr, flush=True)
if how == "wait":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    (out / "waits").touch()
    time.sleep(60)
if how == "broken":
    sys.exit("session: no particles in it")
better = how == "better"
path = str(out / "new-tuned.pt") if better else None
report = {"before": 0.5, "after": 0.6, "error": 0.01, "better": better, "path": path, "images": 60,
          "base_sha256": ("blur" * 64)[:64]}
(out / "tuning.json").write_text(json.dumps(report))
sys.exit(0 if better else 1)
"""


def tuning(directory: Path, how: str, **options: Any) -> Tuning:
    return Tuning(directory, **{"at": 60, "most": 400, **options}, command=("-c", FAKE, how))


def ended(one: Tuning) -> Outcome:
    end = time.monotonic() + 30
    while (found := one.poll()) is None:
        assert time.monotonic() < end
        time.sleep(0.01)
    return found


def until(true: Callable[[], Any]) -> Any:
    end = time.monotonic() + 30
    while not (found := true()):
        assert time.monotonic() < end
        time.sleep(0.01)
    return found


def is_alive(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def test_a_training_that_is_better_gives_its_bundle_and_another_waits_for_twice_as_many(tmp_path: Path) -> None:
    one = tuning(tmp_path, "better")
    assert not one.due(59)
    assert one.due(60)
    one.start(Path("/models/base.pt"))
    assert one.running
    assert not one.due(1000), "never two at once"
    found = ended(one)
    out = tmp_path / "classes" / "model-1"
    assert (found.kind, found.path) == ("better", out / "new-tuned.pt")
    assert "0.5000 before, 0.6000 after" in found.text
    process, threads, nice, last = (out / "began").read_text().split()
    assert (threads, nice, last) == ("1", "19", "--resume")
    assert not is_alive(int(process))
    assert not one.due(119)
    assert one.due(120)
    assert one.left_over(("blur" * 64)[:64]) == found
    assert one.left_over("f" * 64) is None, "it is of another network"
    one.start(Path("/models/base.pt"))
    ended(one)
    assert (tmp_path / "classes" / "model-2" / "tuning.json").exists()


def test_one_that_is_no_better_says_so(tmp_path: Path) -> None:
    one = tuning(tmp_path, "worse")
    one.start(Path("base.pt"))
    found = ended(one)
    assert (found.kind, found.path) == ("worse", None)
    assert one.left_over(("blur" * 64)[:64]) is None
    state = one.state()
    assert state is not None
    assert state[0] == "done"


def test_one_that_fails_is_told_with_its_last_words_and_not_tried_again_and_again(tmp_path: Path) -> None:
    one = tuning(tmp_path, "broken")
    one.start(Path("base.pt"))
    found = ended(one)
    assert found.kind == "failed"
    assert "no particles in it" in found.text
    assert "finetune.log" in found.text
    assert not one.due(100_000)
    again = tuning(tmp_path, "better")
    assert again.due(60)
    again.start(Path("base.pt"))
    ended(again)
    assert (tmp_path / "classes" / "model-2" / "tuning.json").exists(), "not on top of what failed"


def test_one_that_is_ended_with_the_daemon_is_gone_on_with(tmp_path: Path) -> None:
    one, out = tuning(tmp_path, "wait"), tmp_path / "classes" / "model-1"
    one.start(Path("base.pt"))
    until((out / "waits").exists)
    assert one.state() == ("training", 3, 18, "train: block 1, epoch 2")
    process = int((out / "began").read_text().split()[0])
    one.close()
    assert not is_alive(process)
    assert not one.running
    again = tuning(tmp_path, "better")
    assert again.due(60)
    again.start(Path("base.pt"))
    assert ended(again).path == out / "new-tuned.pt", "in the same folder"
    assert len((out / "began").read_text().splitlines()) == 2


def test_one_that_somebody_stops_is_left_for_the_next_start(tmp_path: Path) -> None:
    one, out = tuning(tmp_path, "wait"), tmp_path / "classes" / "model-1"
    one.start(Path("base.pt"))
    until((out / "waits").exists)
    os.kill(int((out / "began").read_text().split()[0]), signal.SIGTERM)
    assert ended(one).kind == "failed"
    assert not one.due(1000)
    assert not (out / "failed").exists()


DAEMON = """
import sys, threading, time
from pathlib import Path
from beamsieve.stream.beamlines.class_tuning import Tuning
def run():
    Tuning(Path(sys.argv[1]), at=60, most=400, command=("-c", sys.argv[2], "wait")).start(Path("base.pt"))
    time.sleep(60)
threading.Thread(target=run).start()
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux ends children with their parent")
def test_a_daemon_that_is_killed_leaves_no_training_behind(tmp_path: Path) -> None:
    daemon = subprocess.Popen([sys.executable, "-c", DAEMON, str(tmp_path), FAKE])
    try:
        out = tmp_path / "classes" / "model-1"
        until((out / "waits").exists)
        process = int((out / "began").read_text().split()[0])
        assert is_alive(process)
    finally:
        daemon.kill()
        daemon.wait()
    until(lambda: not is_alive(process))


# In a session


def session(directory: Path, how: str, **more: Any) -> Session:
    for at in range(3):
        write_record(directory, f"m{at}.mrc", particles(30, at)[0])
    return Session(directory, tuning=tuning(directory, how), **more)


def test_a_better_network_is_adopted_and_labels_say_which_made_them(tmp_path: Path) -> None:
    path = str(tmp_path / "classes" / "model-1" / "new-tuned.pt")
    one = session(tmp_path, "better", loads={path: Blur(3.0, "tuned")}).begin()
    one.settle()
    until(lambda: one.work.step() or one.facts.passes()["model"])
    one.settle()
    assert one.networks.tuned
    current = one.keeping.current()
    assert (current.model, current.tuned, current.particles) == ("tuned", True, 90)
    texts = [text for _, text in current.events]
    assert any("it is adopted" in text for text in texts)
    assert any("has begun" in text for text in texts)
    assert current.tuning is not None
    one.end()


def test_a_network_that_a_killed_daemon_did_not_adopt_is_adopted_by_the_next(tmp_path: Path) -> None:
    one = session(tmp_path, "wait").begin()
    one.settle()
    one.keeping.save()
    one.die()
    out = tmp_path / "classes" / "model-1"
    report = {"before": 0.5, "after": 0.6, "error": 0.01, "better": True, "path": str(out / "b.pt"), "images": 60}
    (out / "tuning.json").write_text(json.dumps(report | {"base_sha256": one.denoiser.sha256}))
    again = Session(tmp_path, tuning=tuning(tmp_path, "wait"), loads={str(out / "b.pt"): Blur(3.0, "tuned")}).begin()
    again.settle()
    assert again.networks.tuned
    assert again.facts.passes()["model"] == 1
    again.end()
    last = Session(tmp_path, tuning=tuning(tmp_path, "wait"), loads={str(out / "b.pt"): Blur(3.0, "tuned")}).begin()
    last.settle()
    assert last.facts.passes()["model"] == 0, "once"
    last.end()


def test_what_was_trained_and_cannot_be_used_changes_nothing(tmp_path: Path) -> None:
    one = session(tmp_path, "better").begin()
    one.settle()
    until(lambda: one.work.step() or one.facts.failures())
    assert one.facts.failures() == {"tuning": 1}
    assert not one.networks.tuned
    assert any("no such bundle" in text for _, text in one.work.kept.events)
    one.end()


def test_a_training_that_cannot_be_started_is_told_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise OSError("no more processes")

    one = session(tmp_path, "better").begin()
    monkeypatch.setattr(one.tuning, "start", refuse)
    one.settle()
    one.settle()
    assert one.facts.failures() == {"tuning": 1}
    one.end()


def test_no_thread_is_left() -> None:
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("class")]
