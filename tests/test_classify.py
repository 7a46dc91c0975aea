"""``beamsieve classify`` and ``beamsieve models``: every kind of file, and every way a file can be bad."""

from __future__ import annotations

import csv
import json
import zipfile
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin
import numpy as np
import numpy.typing as npt
import pytest
import torch
import typer
from beamsieve.models.bundle import quiet_torchscript, save_bundle
from beamsieve.stream.commands.classify import classify
from beamsieve.stream.commands.models import app as models
from beamsieve.stream.commands.stack_files import StackError, open_stack
from torch import nn
from typer.testing import CliRunner, Result

SIZE = 16
Array = npt.NDArray[Any]


class Hundreds(nn.Module):
    """As many particles as there are hundreds of photons, surer the nearer."""

    def forward(self, photons: torch.Tensor) -> torch.Tensor:
        hundreds = photons.sum(dim=(1, 2)).unsqueeze(1) / 100
        return torch.softmax(-4 * (hundreds - torch.arange(5, device=photons.device)) ** 2, dim=1)


def expected(frames: Array) -> Array:
    hundreds = frames.astype(np.float64).sum(axis=(1, 2))[:, None] / 100
    weights = np.exp(-4 * (hundreds - np.arange(5)) ** 2)
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))


def save(folder: Path, name: str = "tiny", task: str = "hits", module: nn.Module | None = None) -> Path:
    with quiet_torchscript():
        script = torch.jit.script((module or Hundreds()).eval())
    card = {
        "version": "7",
        "task": task,
        "input": {"name": "photons", "shape": [SIZE, SIZE], "dtype": "float32", "normalisation": "none"},
        "output": {"classes": ["0", "1", "2", "3", "4+"], "kind": "probabilities"},
        "threshold": 0.5,
        "training": {},
        "scores": {},
        "trained_by": "a test",
        "licence": "Apache-2.0",
        "tolerance": {"bfloat16": 0},
    }
    return save_bundle(folder, name, script, card)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("bundle"))


@pytest.fixture(scope="module")
def frames() -> Array:
    """23 frames with 0 to 430 photons."""
    rng = np.random.default_rng(5)
    counts = [rng.multinomial(n, np.ones(SIZE**2) / SIZE**2) for n in rng.integers(0, 430, 23)]
    return np.stack(counts).reshape(-1, SIZE, SIZE).astype(np.uint16)


class Shell:
    """Calls the command, and reads the table and the summary that it wrote."""

    def __init__(self, folder: Path, bundle: Path) -> None:
        self.folder, self.bundle = folder, bundle
        self.out, self.json = folder / "scores.csv", folder / "summary.json"
        self.app = typer.Typer(pretty_exceptions_enable=False)
        self.app.command()(classify)
        self.app.add_typer(models, name="models")

    def __call__(self, *arguments: str | Path) -> Result:
        words = [str(word) for word in arguments]
        result: Result = CliRunner().invoke(self.app, words, catch_exceptions=False)
        return result

    def classify(self, *arguments: str | Path, code: int = 0) -> str:
        common = ("--bundle", self.bundle, "--out", self.out, "--json", self.json, "--batch", "4", "--device", "cpu")
        result = self("classify", *arguments, *common)
        assert result.exit_code == code, result.output
        return result.output

    @property
    def rows(self) -> list[list[str]]:
        with self.out.open(newline="") as stream:
            head, *rows = csv.reader(stream)
        assert head == ["file", "index", "p0", "p1", "p2", "p3", "p4", "label"]
        return rows

    @property
    def summary(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.json.read_text())
        return found

    def check(self, path: Path, frames: Array, indices: list[int] | None = None) -> None:
        """The rows of a file are what the model says of these frames."""
        rows = [row for row in self.rows if row[0] == str(path)]
        assert [int(row[1]) for row in rows] == (list(range(len(frames))) if indices is None else indices)
        found = np.array([[float(p) for p in row[2:7]] for row in rows]).reshape(-1, 5)
        np.testing.assert_allclose(found, expected(frames), atol=1e-5)
        assert [int(row[7]) for row in rows] == expected(frames).argmax(axis=1).tolist()


@pytest.fixture
def shell(tmp_path: Path, bundle: Path) -> Shell:
    return Shell(tmp_path, bundle)


def hdf5(path: Path, frames: Array, dataset: str = "/entry/data/data", **more: Any) -> Path:
    with h5py.File(path, "w") as file:
        file.create_dataset(dataset, data=frames, chunks=(1, *frames.shape[1:]), **more)
    return path


@pytest.mark.parametrize(
    "dataset",
    [
        "/entry_1/data_1/data",
        "/entry_1/instrument_1/detector_1/data",
        "/entry/data/data",
        "/data/data",
        "/some/where/else",
    ],
)
def test_hdf5_in_the_usual_places(shell: Shell, frames: Array, dataset: str) -> None:
    path = hdf5(shell.folder / "a.h5", frames, dataset, **hdf5plugin.Bitshuffle(cname="lz4"))
    shell.classify(path)
    shell.check(path, frames)
    report = {"file": str(path), "dataset": dataset, "frames": 23, "failed": 0, "errors": []}
    assert shell.summary["files"] == [report]


@pytest.mark.parametrize("save_as", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("name", ["patterns", "images", "data", "whatever"])
def test_npz(shell: Shell, frames: Array, save_as: Any, name: str) -> None:
    path = shell.folder / "a.npz"
    save_as(path, labels=np.arange(23), **{name: frames})
    shell.classify(path)
    shell.check(path, frames)


def test_npy(shell: Shell, frames: Array) -> None:
    path = shell.folder / "a.npy"
    np.save(path, frames.astype(np.float64))
    shell.classify(path)
    shell.check(path, frames)


def test_several_files_make_one_table(shell: Shell, frames: Array) -> None:
    paths = [hdf5(shell.folder / f"{i}.cxi", frames[i:], "/entry_1/data_1/data") for i in range(3)]
    shell.classify(*paths)
    for i, path in enumerate(paths):
        shell.check(path, frames[i:])
    labels = expected(np.concatenate([frames[i:] for i in range(3)])).argmax(axis=1)
    summary = shell.summary
    assert summary["frames"] == 23 + 22 + 21
    assert summary["labels"] == {name: int((labels == i).sum()) for i, name in enumerate(["0", "1", "2", "3", "4+"])}
    assert summary["threshold"] == 0.5
    assert summary["hits"] == sum(float(row[3]) >= 0.5 for row in shell.rows)
    assert summary["hit_rate"] == pytest.approx(summary["hits"] / 66)


def test_dataset_is_chosen_by_name(shell: Shell, frames: Array) -> None:
    path = shell.folder / "a.h5"
    with h5py.File(path, "w") as file:
        file["one"], file["deep/two"], file["flat"] = frames, frames[:5], np.zeros((3, 3))
        file["again"] = h5py.SoftLink("/one")
        file["broken"] = h5py.SoftLink("/nowhere")
    said = shell.classify(path, code=2)
    assert str(path) in said
    assert "--dataset: /again, /deep/two" in said  # the same dataset is listed once
    shell.classify(path, "--dataset", "deep/two")
    shell.check(path, frames[:5])
    assert "has no dataset nothing; it has" in shell.classify(path, "--dataset", "nothing", code=2)
    assert "shape (3, 3)" in shell.classify(path, "--dataset", "flat", code=2)


def test_array_is_chosen_by_name(shell: Shell, frames: Array) -> None:
    path = shell.folder / "a.npz"
    np.savez(path, one=frames, two=frames[:5], flat=np.zeros(3))
    assert "--dataset: one, two" in shell.classify(path, code=2)
    shell.classify(path, "--dataset", "two")
    shell.check(path, frames[:5])
    assert "has no array three; it has one, two, flat" in shell.classify(path, "--dataset", "three", code=2)


def test_masks(shell: Shell, frames: Array) -> None:
    """The mask beside CXI frames, another one, or none; in other files, nobody knows what 1 means."""
    mask = np.random.default_rng(1).choice(np.array([0, 1, 2, 0x80], np.uint32), (SIZE, SIZE))
    masked = np.where((mask & 0x81) != 0, 0, frames)
    path = hdf5(shell.folder / "a.cxi", frames, "/entry_1/instrument_1/detector_1/data")
    with h5py.File(path, "a") as file:
        file["/entry_1/instrument_1/detector_1/mask"] = mask
        file["/entry_1/data_1"] = h5py.SoftLink("/entry_1/instrument_1/detector_1")
        file["other"] = (np.arange(SIZE**2).reshape(SIZE, SIZE) < 100).astype(np.uint8)
    shell.classify(path)
    shell.check(path, masked)
    shell.classify(path, "--no-mask")
    shell.check(path, frames)
    shell.classify(path, "--mask", f"{path}:other")
    shell.check(path, np.where(np.arange(SIZE**2).reshape(SIZE, SIZE) < 100, 0, frames))
    with h5py.File(path, "a") as file:
        del file["/entry_1/instrument_1/detector_1/mask"]
        each = np.broadcast_to(mask, frames.shape) * (np.arange(23)[:, None, None] % 2).astype(np.uint32)
        file["/entry_1/instrument_1/detector_1/mask"] = each
    shell.classify(path)
    shell.check(path, np.where((each & 0x81) != 0, 0, frames))
    elsewhere = hdf5(shell.folder / "b.h5", frames, "/data/data")
    with h5py.File(elsewhere, "a") as file:
        file["/data/mask"] = np.ones((SIZE, SIZE), np.uint8)
    shell.classify(elsewhere)
    shell.check(elsewhere, frames)


def test_only_complete_frames_of_a_file_that_was_being_written(shell: Shell, frames: Array) -> None:
    path = hdf5(shell.folder / "a.cxi", frames, "/entry_1/instrument_1/detector_1/data")
    with h5py.File(path, "a") as file:
        file["/entry_1/number_of_frames"] = np.int64(9)
    shell.classify(path)
    shell.check(path, frames[:9])


def test_centre_and_binning(shell: Shell, frames: Array) -> None:
    wide = np.random.default_rng(0).poisson(0.2, (6, 50, 60)).astype(np.uint16)
    path = hdf5(shell.folder / "a.h5", wide)
    shell.classify(path)
    shell.check(path, wide[:, 17:33, 22:38])
    shell.classify(path, "--centre", "20,30.4")
    shell.check(path, wide[:, 12:28, 22:38])
    shell.classify(path, "--bin", "2", "--centre", "20,30")
    shell.check(path, wide[:, 4:36, 14:46])
    assert "misses" in shell.classify(path, "--centre", "500,20", code=2)
    assert "--centre 5: write" in shell.classify(path, "--centre", "5", code=2)


GEOMETRY = """
clen = 0.1
res = 10000
fs = x
a/dim0 = %
a/dim1 = 0
a/dim2 = ss
a/dim3 = fs
b/dim0 = %
b/dim1 = 1
b/dim2 = ss
b/dim3 = fs
a/min_fs = 0
a/max_fs = 7
a/min_ss = 0
a/max_ss = 15
a/corner_x = -8
a/corner_y = -8
a/fs = x
a/ss = y
b/min_fs = 0
b/max_fs = 7
b/min_ss = 0
b/max_ss = 15
b/corner_x = 0
b/corner_y = -8
b/fs = x
b/ss = y
"""


def test_modules_are_assembled(shell: Shell, frames: Array) -> None:
    modules = np.stack([frames[:, :, :8], frames[:, :, 8:]], axis=1)
    path = hdf5(shell.folder / "a.cxi", modules, "/entry_1/data_1/data")
    geometry = shell.folder / "d.geom"
    geometry.write_text(GEOMETRY)
    shell.classify(path, "--geometry", geometry)
    shell.check(path, frames)
    assert "--geometry" in shell.classify(path, code=2)
    geometry.write_text("nonsense")
    assert str(path) in shell.classify(path, "--geometry", geometry, code=2)


def test_chunks_of_many_frames_and_blocks_smaller_than_a_batch(
    shell: Shell, frames: Array, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("beamsieve.stream.commands.scoring._BLOCK_BYTES", 3 * SIZE * SIZE * 2)
    path = shell.folder / "a.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("data/data", data=frames, chunks=(10, SIZE, SIZE), compression="gzip")
    shell.classify(path)
    shell.check(path, frames)


def test_one_damaged_frame_costs_one_frame(shell: Shell, frames: Array) -> None:
    path = hdf5(shell.folder / "a.h5", frames, compression="gzip")
    with h5py.File(path, "a") as file:
        file["/entry/data/data"].id.write_direct_chunk((5, 0, 0), b"not gzip")
    said = shell.classify(path, code=2)
    assert f"{path}: /entry/data/data: frame 5 cannot be read" in said
    shell.check(path, np.delete(frames, 5, axis=0), [i for i in range(23) if i != 5])
    assert shell.summary["failed"] == 1


def damage(kind: str, path: Path, frames: Array) -> Path:
    """A file that cannot be read, in one of many ways."""
    if kind == "missing":
        return path.with_suffix(".h5")
    if kind == "text":
        (path := path.with_suffix(".cxi")).write_text("not HDF5")
    elif kind == "empty":
        (path := path.with_suffix(".h5")).touch()
    elif kind == "cut HDF5":
        whole = hdf5(path.with_suffix(".h5"), frames)
        whole.write_bytes(whole.read_bytes()[:-2000])
        return whole
    elif kind == "no frames":
        return hdf5(path.with_suffix(".h5"), np.zeros((1, 1)))
    elif kind == "strings":
        with h5py.File(path := path.with_suffix(".h5"), "w") as file:
            file["/data/data"] = np.full((2, 2, 2), b"x")
    elif kind == "text as npz":
        (path := path.with_suffix(".npz")).write_text("not a zip")
    elif kind == "objects":
        np.savez(path := path.with_suffix(".npz"), data=np.full((2, 2, 2), None, object))
    elif kind == "fortran":
        np.savez(path := path.with_suffix(".npz"), data=np.asfortranarray(frames))
    elif kind == "cut npy":
        np.save(path := path.with_suffix(".npy"), frames)
        path.write_bytes(path.read_bytes()[:-10])
    elif kind == "pickled npy":
        np.save(path := path.with_suffix(".npy"), np.full((2, 2, 2), None, object), allow_pickle=True)
    return path


KINDS = ["missing", "text", "empty", "cut HDF5", "no frames", "strings", "text as npz", "objects", "fortran", "cut npy"]


@pytest.mark.parametrize("kind", [*KINDS, "pickled npy"])
def test_a_bad_file_is_named_and_costs_no_other(shell: Shell, frames: Array, kind: str) -> None:
    good = hdf5(shell.folder / "good.h5", frames)
    bad = damage(kind, shell.folder / "bad", frames)
    last = hdf5(shell.folder / "last.h5", frames[:3])
    said = shell.classify(good, bad, last, code=2)
    assert str(bad) in said
    assert "Traceback" not in said
    shell.check(good, frames)
    shell.check(last, frames[:3])
    assert shell.summary["frames"] == 26
    assert [len(found["errors"]) for found in shell.summary["files"]] == [0, 1, 0]


def test_an_npz_that_breaks_off_gives_what_came_before(shell: Shell, frames: Array) -> None:
    path = shell.folder / "a.npz"
    np.savez(path, data=frames)
    data = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        header = archive.infolist()[0].header_offset
    data[header + 3000 : header + 3004] = b"\xff\xff\xff\xff"  # the checksum is wrong at the end
    path.write_bytes(data)
    said = shell.classify(path, code=2)
    assert "of 23 frames were not scored" in said
    summary = shell.summary["files"][0]
    assert summary["frames"] + summary["failed"] == 23
    assert len(shell.rows) == summary["frames"]


def test_frames_of_another_kind_than_the_mask(shell: Shell, frames: Array) -> None:
    path = hdf5(shell.folder / "a.h5", frames)
    np.save(shell.folder / "mask.npy", np.zeros((3, 3)))
    said = shell.classify(path, "--mask", shell.folder / "mask.npy", code=2)
    assert "23 of 23 frames were not scored: mask: has shape (3, 3)" in said
    assert "no such file" in shell.classify(path, "--mask", shell.folder / "none.npy", code=2)


def test_a_table_that_cannot_be_written(shell: Shell, frames: Array) -> None:
    path = hdf5(shell.folder / "a.h5", frames)
    shell.out = shell.folder / "a.h5" / "scores.csv"
    assert "cannot be written" in shell.classify(path, code=2)


def test_the_table_appears_when_it_is_complete(shell: Shell, frames: Array) -> None:
    shell.classify(hdf5(shell.folder / "a.h5", frames))
    assert sorted(path.name for path in shell.folder.iterdir()) == ["a.h5", "scores.csv", "summary.json"]


@pytest.mark.parametrize("name", ["tinny", "poem", "/no/such.pt"])
def test_a_model_that_does_not_fit(shell: Shell, frames: Array, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    save(shell.folder, "tiny")
    save(shell.folder, "poem", task="particles")
    monkeypatch.setenv("BEAMSIEVE_MODELS", str(shell.folder))
    result = shell("classify", hdf5(shell.folder / "a.h5", frames), "--bundle", name, "--out", shell.out)
    assert result.exit_code == 2
    says = {
        "tinny": "did you mean tiny?",
        "poem": "its task is particles, needed is hits",
        "/no/such.pt": "no such bundle",
    }
    assert says[name] in result.output
    assert not shell.out.exists()


def test_blocks_of_an_npz_come_in_order(tmp_path: Path, frames: Array) -> None:
    np.savez_compressed(tmp_path / "a.npz", data=frames)
    with open_stack(tmp_path / "a.npz") as stack:
        blocks = [stack.read(first, min(first + 5, 23)) for first in range(0, 23, 5)]
    np.testing.assert_array_equal(np.concatenate(blocks), frames)
    with pytest.raises(StackError, match="no such file"), open_stack(tmp_path):
        pass


def test_models_list(shell: Shell) -> None:
    save(shell.folder, "good")
    save(shell.folder, "bad").with_suffix(".json").write_text("{}")
    result = shell("models", "list", "--models", shell.folder, "--json", shell.json)
    assert result.exit_code == 0
    assert "good" in result.output
    assert "unusable" in result.output
    rows = {row["name"]: row for row in json.loads(shell.json.read_text())}
    assert rows["good"]["version"] == "7"
    assert "sha256: missing" in rows["bad"]["error"]


def test_models_show(shell: Shell) -> None:
    path = save(shell.folder)
    result = shell("models", "show", "tiny", "--models", shell.folder, "--json", shell.json)
    assert result.exit_code == 0
    assert "trained_by: a test" in result.output
    assert json.loads(shell.json.read_text())["path"] == str(path)
    wrong = shell("models", "show", "tinny", "--models", shell.folder)
    assert wrong.exit_code == 2
    assert "did you mean tiny?" in wrong.output


def test_models_verify(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    save(shell.folder, "good")
    broken = save(shell.folder, "broken")
    broken.write_bytes(broken.read_bytes() + b"more")
    common = ("--models", shell.folder, "--device", "cpu", "--batch", "2", "--json", shell.json)
    result = shell("models", "verify", "good", "broken", *common)
    assert result.exit_code == 2
    assert "good: holds" in result.output
    assert "broken: FAILED" in result.output
    found = json.loads(shell.json.read_text())
    assert found["good"]["ok"] is True
    assert found["broken"]["reason"] == "sha256"
    assert shell("models", "verify", "good", *common).exit_code == 0
