"""What users get wrong is answered with one line: what, where, and what to do instead."""

from __future__ import annotations

import io
import logging
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
import yaml
import zmq.auth
from beamsieve.models.bundle import BundleError
from beamsieve.models.hits.recipes import parse_mix
from beamsieve.models.hits.training_data import choose_device
from beamsieve.stream.__main__ import app
from beamsieve.stream.beamlines import xfel_hits
from beamsieve.stream.commands import demo_hits, run
from beamsieve.stream.commands.demo import complaint
from beamsieve.stream.commands.demo_processes import Ended, Side, too_early
from beamsieve.stream.commands.evaluate import check_real
from beamsieve.stream.emulators.dectris import DectrisEmulator
from beamsieve.stream.emulators.servers import Server
from beamsieve.stream.flow.frame import Failure, Frame, Key, Outcome, Result
from beamsieve.stream.flow.metrics import Metrics
from beamsieve.stream.flow.settings import ConfigError
from beamsieve.stream.recording import Writer
from beamsieve.stream.sinks.failures import FailureLog
from beamsieve.stream.terminal import LiveLine
from typer.testing import CliRunner

SHOT = Frame(Key("r", 1), np.zeros((2, 2)), 0.0, 0.0)


def invoke(*arguments: str) -> tuple[int, str]:
    """Exit code and everything printed; anything but an exit is an error of the test."""
    done = CliRunner().invoke(app, list(arguments))
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    assert "Traceback" not in done.output
    assert "[Errno" not in done.output
    return done.exit_code, done.output


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return save(tmp_path / "ok.yaml")


def save(path: Path, **blocks: Any) -> Path:
    settings = {
        "beamline": "xfel_hits",
        "source": {"kind": "dectris", "endpoint": "tcp://127.0.0.1:1"},
        "model": None,
        "screen": {},
        "files": {"directory": "out"},
        "service": {"port": 0},
    }
    path.write_text(yaml.safe_dump(settings | blocks))
    return path


def recording(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = Writer(path, {})
    writer.write([b"x"], 1, 1)
    writer.close()
    return path


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("service.port={a:", "--set service.port={a:: the value is not YAML"),
        ("service.port", "--set service.port: give it as field=value"),
        ("flaw=1", "--set flaw=1: flaw: unknown; did you mean flow?"),
        ("source.endpont=x", "--set source.endpont=x: source.endpont: unknown; did you mean endpoint?"),
        ("flow={burst: 0}", "--set flow={burst: 0}: flow.burst: input should be greater"),
        ("source.curve={}", "source.curve: names no key"),
        ("source.curve.key_file=none.key_secret", "source.curve.key_file: "),
        ("model={device: 'cuda:99'}", "model.device: 'cuda:99': there are "),
        ("model={bundle: none.pt}", "model.bundle: "),
    ],
)
def test_mistakes_of_set_are_blamed_on_it(config: Path, change: str, said: str) -> None:
    code, output = invoke("check", str(config), "--set", "flow.queue=8", "--set", change)
    assert code == 2
    assert said in output
    assert output.startswith("--set ")
    assert len(output.splitlines()) == 1


def test_mistakes_of_the_file_keep_their_line(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text("beamline: xfel_hits\nsource: {kind: dectris, endpoint: x}\nfiles: {directory: out}\nflaw: 1\n")
    code, output = invoke("check", str(path), "--set", "service.prt=1")
    assert code == 2
    assert output.splitlines() == [
        "--set service.prt=1: service.prt: unknown; did you mean port?",
        f"{path}:4: flaw: unknown; did you mean flow?",
    ]


def test_a_name_that_does_not_ship_lists_those_that_do() -> None:
    code, output = invoke("check", "xfel_hit")
    assert code == 2
    assert "did you mean xfel_hits?" in output
    assert all(path.stem in output for path in Path(__file__).parents[1].glob("config/*.yaml"))


def test_modules_without_a_geometry_are_a_mistake_where_a_network_wants_pictures(tmp_path: Path) -> None:
    np.save(tmp_path / "dark.npy", np.zeros((2, 8, 8), np.float32))
    calibrate = {"kind": "standard", "dark": "dark.npy"}
    assert invoke("check", str(save(tmp_path / "a.yaml", calibrate=calibrate)))[0] == 0
    code, output = invoke("check", str(save(tmp_path / "b.yaml", calibrate=calibrate, model={})))
    assert code == 2
    assert "detector.geometry.file: missing; frames of (2, 8, 8) have modules" in output


def test_names_in_a_configuration_start_at_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "beamtime"
    recording(folder / "raw" / "run1.bsrec")
    (folder / "keys").mkdir()
    zmq.auth.create_certificates(folder / "keys", "daemon")
    monkeypatch.chdir(tmp_path)
    replay = {"kind": "replay", "files": ["raw/run1.bsrec"], "stream": {"kind": "dectris"}}
    assert invoke("check", str(save(folder / "replay.yaml", source=replay)))[0] == 0
    live = {"kind": "dectris", "endpoint": "tcp://x:1", "curve": {"key_file": "keys/daemon.key_secret"}}
    settings, where = run.read(str(save(folder / "live.yaml", source=live)), [])
    curve = settings.source.at(where.base).model_dump()["curve"]
    assert curve["key_file"] == folder / "keys/daemon.key_secret"
    run.build(settings, where)
    asked: list[str | Path] = []

    def load_bundle(name: str | Path) -> Any:
        asked.append(name)
        raise BundleError("unknown", "?")

    monkeypatch.setattr(xfel_hits, "load_bundle", load_bundle)
    for name in ("mine", "mine.pt", "sub/mine"):
        with pytest.raises(ConfigError, match=r"model\.bundle"):
            run.build(*run.read(str(save(folder / "m.yaml", model={"bundle": name})), []))
    assert asked == ["mine", folder / "mine.pt", folder / "sub/mine"]


@pytest.mark.parametrize("command", ["check", "run"])
def test_a_replay_of_something_else_is_a_wrong_configuration(tmp_path: Path, command: str) -> None:
    (tmp_path / "notes.txt").write_text("not a recording")
    source = {"kind": "replay", "files": ["notes.txt", "gone.bsrec"], "stream": {"kind": "dectris"}}
    code, output = invoke(command, str(save(tmp_path / "x.yaml", source=source)))
    assert code == 2
    first, second = output.splitlines()
    assert "source.files.0: " in first
    assert "notes.txt: neither a recording nor" in first
    assert "source.files.1: " in second
    assert "gone.bsrec: No such file" in second


def test_a_daemon_that_never_began_has_no_summary(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code, output = invoke("run", str(config), "--set", "files.directory=/proc/none")
    assert code == 1
    assert "shots read" not in output
    monkeypatch.setenv("BEAMSIEVE_LOG", "loud")
    code, output = invoke("run", str(config))
    assert code == 2
    assert output == "BEAMSIEVE_LOG=LOUD: unknown; set it to one of DEBUG, INFO, WARNING, ERROR, CRITICAL\n"


def test_a_summary_that_cannot_be_written_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(typer.Exit):
        run.write_json(tmp_path / "file" / "x.json", {})
    assert capsys.readouterr().err.startswith(f"{tmp_path}/file/x.json: cannot be written: ")


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["train", "hits", "--out", "/proc/none"], 1, "/proc/none: cannot be written: "),
        (["train", "hits", "--out", "x", "--mix", "paper:x"], 2, "--mix paper:x: share 'x' is no positive number"),
        (["train", "hits", "--out", "x", "--mix", "papr"], 2, "--mix papr: conditions 'papr': unknown"),
        (["train", "hits", "--out", "x", "--device", "cuda:99"], 2, "--device cuda:99: there are "),
        (["evaluate", "hits", "--device", "cuda:99"], 2, "--device cuda:99: there are "),
        (["evaluate", "hits", "--device", "abacus"], 2, "--device abacus: unknown; choose"),
        (["evaluate", "hits", "--real", "nosuch.npz"], 2, "--real nosuch.npz: No such file"),
        (["inspect", "nosuch.cxi"], 2, "nosuch.cxi: no such file"),
        (["recover", "nosuch.inprogress"], 1, "nosuch.inprogress: no such file"),
        (["models", "show", "nosuch"], 2, "no bundle named nosuch"),
        (["schema", "--out", "/proc/none/x"], 1, "/proc/none/x: cannot be written: "),
        (["inspect", __file__], 1, "cannot be opened as HDF5"),
        (["emulate", "dectris", "--from", __file__, "--endpoint", "tcp://x:1"], 1, "no such address on this machine"),
        (["replay", "nosuch", "--endpoint", "tcp://127.0.0.1:0"], 2, "error: nosuch: No such file"),
    ],
)
def test_mistakes_on_the_command_line_are_one_line(
    arguments: list[str], code: int, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    exited, output = invoke(*arguments)
    assert exited == code, output
    assert said in output
    assert len(output.splitlines()) == 1


def test_shares_and_devices() -> None:
    assert parse_mix("paper:0.5, mixed") == (("paper", 0.5), ("mixed", 1.0))
    assert choose_device("cpu").type == "cpu"
    for share in ("-1", "0", "inf", "nan"):
        with pytest.raises(ValueError, match="positive number"):
            parse_mix(f"paper:{share}")


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"patterns": np.zeros((2, 128, 128))}, "has no mask_bad, single"),
        ({"patterns": np.zeros((2, 64, 64)), "single": np.ones(2), "mask_bad": np.ones((64, 64))}, "needed are"),
        ({"patterns": np.zeros((2, 128, 128)), "single": np.ones(2), "mask_bad": np.ones((128, 128))}, None),
    ],
)
def test_real_patterns_are_checked_before_anything_is_computed(
    arrays: dict[str, Any], said: str | None, tmp_path: Path
) -> None:
    np.savez(tmp_path / "real.npz", **arrays)
    if said is None:
        check_real(tmp_path / "real.npz")
        return
    with pytest.raises(ValueError, match=said):
        check_real(tmp_path / "real.npz")


@pytest.mark.parametrize("bind", [True, False])
def test_endpoints_that_are_not_ours_say_what_to_do(bind: bool) -> None:
    endpoint = "tcp://nosuch.invalid:9" if bind else "nowhere"
    said = "or connect to the receiver" if bind else "tcp://HOST:PORT"
    with pytest.raises(OSError, match=said):
        Server(endpoint, "push", bind)
    with pytest.raises(OSError, match=said):
        DectrisEmulator(endpoint, [], bind=bind).open()


def test_an_emulator_that_nobody_listens_to_says_where_it_waits(tmp_path: Path) -> None:
    np.save(tmp_path / "frames.npy", np.zeros((2, 8, 8), np.uint16))
    frames = str(tmp_path / "frames.npy")
    arguments = ["emulate", "dectris", "--seconds", "1", "--endpoint", "tcp://127.0.0.1:0", "--from", frames]
    process = subprocess.Popen(
        [sys.executable, "-m", "beamsieve.stream", *arguments],
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    try:
        line = process.stderr.readline()
        assert line.startswith("waiting for a receiver at tcp://127.0.0.1:")
        assert ":0 " not in line
    finally:
        process.send_signal(signal.SIGINT)
        process.stderr.close()
        process.wait(20)


def test_the_models_are_one_line_each_in_a_pipe(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 100) / ("e" * 100)
    deep.mkdir(parents=True)
    (deep / "m.json").write_text("{}")
    code, output = invoke("models", "list", "--models", str(deep))
    assert code == 0
    shipped = [line for line in output.splitlines() if line.strip().startswith("hits-resnet10")]
    assert len(shipped) == 2
    assert all(line.rstrip().endswith(".pt") for line in shipped)


def test_only_the_first_failures_of_a_reason_are_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    kept = FailureLog(tmp_path, limit=8)
    with caplog.at_level(logging.WARNING):
        for i in range(10):
            kept(Failure(Key("r", i), "decompress", f"cut {i}"))
        kept(Failure(Key("r", 10), "shape", "other"))
    kept.close()
    assert [record.getMessage() for record in caplog.records] == [
        "decompress: cut 0",
        "decompress: cut 1",
        "decompress: cut 2; further ones are only counted",
        "shape: other",
    ]
    assert len(kept.paths[0].read_text().splitlines()) == 8


class Over:
    """A pipeline that has ended, or has not."""

    def __init__(self, over: bool) -> None:
        self.finished = threading.Event()
        if over:
            self.finished.set()


def test_the_live_line_tells_only_what_there_is_to_tell() -> None:
    metrics, out = Metrics("t", ("0", "1")), io.StringIO()
    line: Any = LiveLine(metrics, out, every_s=0)
    metrics.judged([Result(SHOT, Outcome.REJECTED, 0.0, "prescreen", found={"lit": 3})])
    line(Over(False), ["source silent"])
    line(Over(True), ["stopped"])
    first, last = out.getvalue().splitlines()
    assert first.endswith("NOT READY: source silent")
    assert "NOT READY" not in last
    assert "particles" not in first
    metrics.judged([Result(SHOT, Outcome.ACCEPTED, 1.0, found={"label": 1})])
    assert "particles 0:0 1:1" in line.text(time.monotonic())


def test_the_demo_says_what_it_could_not_measure_and_who_ended_early() -> None:
    nothing = {"judged": 0, "measured_hits": 0, "measured_hit_rate": None, "true_hit_rate": None}
    assert demo_hits.hit_rate(nothing) == "unknown: no shot was judged"
    some = {"judged": 100, "measured_hits": 5, "measured_hit_rate": 0.05, "true_hit_rate": 0.04}
    assert demo_hits.hit_rate(some) == "5.00 % measured [2.15, 11.18], 4.00 % true"
    assert too_early(Ended(0, 0, "source"), 10.2, 10) is None
    assert too_early(Ended(0, 0, "user"), 1, 10) is None
    killed = too_early(Ended(0, -9, "source"), 0, 10)
    assert killed == "the detector ended early, before 10 s were over: exit code -9, killed by SIGKILL"
    assert too_early(Ended(2, 0, "daemon"), 0, 10) == "the daemon ended early: exit code 2"


def test_a_microscope_that_wrote_all_it_should_did_not_end_early(tmp_path: Path) -> None:
    for name in ("shots.json", "micrographs.json"):
        (tmp_path / name).write_text('{"seconds": 50}')
    over = Ended(0, 0, "source")
    microscope = Side("cryoem_picks", "microscope", [], [])
    assert complaint(microscope, over, tmp_path, 60) is None
    assert "ended early" in str(complaint(Side("xfel_hits", "detector", [], []), over, tmp_path, 60))
    assert "exit code 1" in str(
        complaint(Side("cryoem_picks", "microscope", [], []), Ended(0, 1, "source"), tmp_path, 60)
    )
