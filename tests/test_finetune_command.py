"""``beamsieve finetune classes2d``: particles of stacks and sessions, signals, and bad input in one line each."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import mrcfile
import numpy as np
import pytest
import torch
from beamsieve.models.bundle import load_bundle
from beamsieve.models.particles.candidates import Candidates
from beamsieve.stream.__main__ import app
from beamsieve.stream.commands.finetune import IMAGES
from beamsieve.stream.commands.particle_sample import draw
from beamsieve.stream.commands.particle_stacks import stacks
from beamsieve.stream.sinks.picks.micrograph import PickedMicrograph
from beamsieve.stream.sinks.picks.places import Places
from beamsieve.stream.sinks.picks.record import Images, Record, encode, now
from beamsieve.tests.blob_particles import Floats, particles, write_beginner
from typer.testing import CliRunner, Result

COUNT = 210
WORDS = ("--epochs", 1, "--k", 10, "--no-aligned", "--target", "images", "--threads", 1, "--device", "cpu")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_beginner(tmp_path_factory.mktemp("base"))


def stack_of(path: Path, images: Floats, pixel_a: float = 4.0) -> Path:
    with mrcfile.new(path) as file:
        file.set_data(images)
        file.set_image_stack()
        file.voxel_size = pixel_a
    return path


def session(folder: Path, images: Floats, micrographs: int) -> Path:
    """A session whose particles these are, shared out among its micrographs."""
    for number, part in enumerate(np.array_split(images, micrographs)):
        n = len(part)
        x, score = np.linspace(100, 900, n, dtype=np.float32), np.linspace(1, 0.6, n, dtype=np.float32)
        name = f"grid/{number}.mrc"
        found = PickedMicrograph(
            name, Path("/data") / name, (1000, 1000), 2.0, Candidates(x, x, score, np.ones(n, np.float32)),
            np.ones(n, bool), 0.5, "tiny", "ab" * 32, diameter_a=120.0, box_px=128, quality={}, particle_pixel_a=4.0,
        )  # fmt: skip
        path = Places(folder).record(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode(Record(found, f"grid/{number}", 0.5), Images(part, x, x, score, 4.0), now()))
    return folder


def finetune(*words: object) -> Result:
    return CliRunner().invoke(app, ["finetune", "classes2d", *map(str, words)])


def test_a_session_makes_the_denoiser_better(tmp_path: Path, base: Path) -> None:
    folder = session(tmp_path / "night", particles(COUNT)[0], 3)
    out, told = tmp_path / "out", tmp_path / "told.json"
    done = finetune(folder, "--from", base, "-o", out, "--name", "night", "--json", told, *WORDS, "--epochs", 2)
    assert done.exit_code == 0, done.output
    assert f"{out}/night.pt: use it with --bundle" in done.stdout
    card = load_bundle(out / "night.pt").card
    assert card.training["base"]["name"] == "beginner"
    assert card.training["images"]["count"] == COUNT
    assert str(folder) in card.training["images"]["source"]
    result = json.loads(told.read_text())
    assert result["outcome"] == "better"
    assert result["after"] - result["before"] > result["error"]
    assert (result["path"], result["particles"], result["left_out"]) == (str(out / "night.pt"), COUNT, 0)
    assert {path.name for path in out.iterdir()} == {
        *("night.pt", "night.json", "tuning.json", "checkpoint.pt", "tuned.png", "losses.png")
    }
    again = finetune(folder, "--from", base, "-o", out, "--resume")
    assert again.exit_code == 2
    assert "finished; name another folder" in again.stderr


def test_what_is_no_better_is_not_kept(tmp_path: Path, base: Path) -> None:
    """Means over nearly all particles teach that all look alike."""
    stack = stack_of(tmp_path / "a.mrcs", particles(COUNT)[0])
    told = tmp_path / "told.json"
    done = finetune(stack, "--from", base, "-o", tmp_path / "out", *WORDS, "--k", 160, "--json", told)
    assert done.exit_code == 1, done.output
    assert done.stderr.splitlines()[-1].startswith("no bundle was written")
    assert json.loads(told.read_text())["outcome"] == "not better"
    assert not (tmp_path / "out/beginner-tuned.pt").exists()
    assert (tmp_path / "out/tuned.png").exists()


# --- the sample -----------------------------------------------------------------------------------------------------


def test_a_sample_is_drawn_evenly_and_bad_images_are_left_out(tmp_path: Path) -> None:
    """Each image carries its number as a pixel, so that it is known which were drawn."""
    images = np.random.default_rng(0).normal(size=(600, 8, 8)).astype(np.float32)
    images[5] = 3
    images[400, 2, 2] = np.nan
    with h5py.File(tmp_path / "all.h5", "w") as file:
        file["particles/images"] = images
    told: list[tuple[int, int]] = []
    whole = draw(stacks([tmp_path / "all.h5"]), 5000, 1, lambda done, of: told.append((done, of)))
    assert (len(whole.images), whole.seen, whole.bad) == (598, 600, 2)
    assert told[-1] == (600, 600)
    assert len(told) > 1
    counts = np.zeros(598)
    for seed in range(6):
        part = draw(stacks([tmp_path / "all.h5"]), 150, seed, lambda done, of: None)
        assert part.images.shape == (150, 64, 64)
        drawn = (part.images[:, None, 3, 9] == whole.images[None, :, 3, 9]).argmax(1)
        assert len(set(drawn.tolist())) == 150
        counts[drawn] += 1
    # 6 draws of a quarter: each half of the file has its half, to five standard deviations.
    halves = counts.reshape(2, -1).sum(1)
    assert np.abs(halves - 450).max() < 5 * np.sqrt(6 * 150 / 4)


# --- signals --------------------------------------------------------------------------------------------------------


class Process:
    """The command as a process of its own."""

    def __init__(self, *words: object) -> None:
        command = [sys.executable, "-m", "beamsieve.stream", "finetune", "classes2d", *map(str, words)]
        self.process = subprocess.Popen(
            command,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )

    def send_once_there_is(self, path: Path, number: int) -> tuple[int, str]:
        """Send a signal as soon as a file exists; the exit code, and what was said."""
        ends = time.monotonic() + 50
        while not path.exists() and self.process.poll() is None and time.monotonic() < ends:
            time.sleep(0.01)
        self.process.send_signal(number)
        said = self.process.communicate(timeout=30)[1]
        return self.process.returncode, said


def test_sigterm_stops_it_and_keeps_the_checkpoint(tmp_path: Path, base: Path) -> None:
    stack, out, told = stack_of(tmp_path / "a.mrcs", particles(COUNT)[0]), tmp_path / "out", tmp_path / "told.json"
    words = (stack, "--from", base, "-o", out, *WORDS, "--epochs", 200, "--json", told)
    code, said = Process(*words).send_once_there_is(out / "checkpoint.pt", signal.SIGTERM)
    assert code == 143, said
    assert said.splitlines()[-1] == f"stopped; {out} keeps what was done: go on with --resume"
    assert "Traceback" not in said
    assert json.loads(told.read_text())["outcome"] == "stopped"
    assert torch.load(out / "checkpoint.pt", weights_only=True)["history"]
    assert "go on with --resume" in finetune(*words).stderr


def test_a_killed_run_goes_on_with_the_particles_it_began_with(tmp_path: Path, base: Path) -> None:
    stack, out = stack_of(tmp_path / "a.mrcs", particles(COUNT)[0]), tmp_path / "out"
    words = ("--from", base, "-o", out, *WORDS, "--anyway")
    code, _ = Process(stack, *words).send_once_there_is(out / "checkpoint.pt", signal.SIGKILL)
    assert code == -signal.SIGKILL
    before = torch.load(out / "checkpoint.pt", weights_only=True)["history"]
    assert before
    assert not list(out.glob("beginner-tuned*"))
    # More particles have come since, and others are gone.
    stack_of(tmp_path / "more.mrcs", particles(40, 5)[0])
    done = finetune(tmp_path / "more.mrcs", *words, "--resume")
    assert done.exit_code == 0, done.output
    after = json.loads((out / "tuning.json").read_text())
    assert after["history"][: len(before)] == before
    assert len(after["history"]) == 3
    assert after["images"] == COUNT
    assert load_bundle(out / "beginner-tuned.pt").card.training["images"]["count"] == COUNT


def test_a_signal_while_particles_are_read_is_not_said_to_have_kept_any(
    tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``draw`` tells of each block; the signal comes with the first."""
    stack, out = stack_of(tmp_path / "a.mrcs", particles(COUNT)[0]), tmp_path / "out"

    def drawn(found: Any, most: int, seed: int, each: Callable[[int, int], None]) -> None:
        signal.raise_signal(signal.SIGTERM)
        each(1, 2)

    monkeypatch.setattr("beamsieve.stream.commands.particle_sample.draw", drawn)
    done = finetune(stack, "--from", base, "-o", out, *WORDS)
    assert done.exit_code == 143
    assert done.stderr.splitlines()[-1] == "stopped; nothing was done yet: begin anew"
    assert not out.exists()


def test_a_pixel_size_that_is_none_is_refused(tmp_path: Path, base: Path) -> None:
    stack = stack_of(tmp_path / "a.mrcs", particles(COUNT)[0])
    for size in ("0", "-4", "nan"):
        done = finetune(stack, "--from", base, "-o", tmp_path / "out", "--pixel-size", size, *WORDS)
        assert done.exit_code == 2, size
        assert "--pixel-size" in done.stderr


# --- bad input ------------------------------------------------------------------------------------------------------


def few(path: Path) -> Path:
    images = particles(COUNT)[0].copy()
    images[50:60] = 1
    images[60:70, 5, 5] = np.nan
    with h5py.File(path / "bad.h5", "w") as file:
        file["particles/images"] = images
    return path / "bad.h5"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((few,), "190 usable particles (20 of 210 are constant or hold NaN); 200 or more are needed"),
        ((lambda path: path / "none.mrcs",), "none.mrcs: no such file"),
        ((few, "--from", "classes-general"), "no bundle named classes-general"),
        ((few, "--from", "hits-resnet10"), "its task is hits"),
        ((few, "--target", "truth"), "target: truth; give one of outputs, images"),
        ((few, "--device", "tpu"), "tpu"),
        ((few, "--epochs", 0), "--epochs"),
    ],
)
def test_bad_input_is_named_in_one_line(tmp_path: Path, base: Path, words: tuple[Any, ...], said: str) -> None:
    source, *rest = words
    done = finetune(source(tmp_path), "-o", tmp_path / "out", "--from", base, *WORDS, *rest)
    assert done.exit_code == 2
    assert said in " ".join(done.stderr.replace("│", " ").split())
    assert "Traceback" not in done.output


def test_particles_of_several_sizes_are_refused(tmp_path: Path, base: Path) -> None:
    one = stack_of(tmp_path / "a.mrcs", particles(COUNT)[0])
    other = stack_of(tmp_path / "b.mrcs", particles(COUNT)[0][:, :48, :48].copy())
    done = finetune(one, other, "--from", base, "-o", tmp_path / "out")
    assert done.exit_code == 2
    assert "boxes of 256 and 192 Å" in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_written_is_exit_1(tmp_path: Path, base: Path) -> None:
    stack = stack_of(tmp_path / "a.mrcs", particles(COUNT)[0])
    (tmp_path / "file").write_text("")
    done = finetune(stack, "--from", base, "-o", tmp_path / "file/out", *WORDS)
    assert done.exit_code == 1
    assert "Not a directory" in done.stderr


def test_a_damaged_sample_is_named(tmp_path: Path, base: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / IMAGES).write_bytes(b"\x93NUMPY cut short")
    done = finetune(tmp_path / "gone.mrcs", "--from", base, "-o", out, "--resume", *WORDS)
    assert done.exit_code == 2
    assert f"{out / IMAGES}: is damaged" in done.stderr
