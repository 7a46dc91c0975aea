"""``beamsieve classify2d``: classes, labels and files of other programs from stacks; every bad stack in one line."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any, Literal, get_args

import h5py
import mrcfile
import numpy as np
import numpy.typing as npt
import pytest
import starfile
import torch
from beamsieve.models.bundle import quiet_torchscript, save_bundle
from beamsieve.models.classes2d.averages import turned
from beamsieve.models.evaluate import cluster_scores
from beamsieve.models.particles.candidates import Candidates
from beamsieve.stream.__main__ import app
from beamsieve.stream.commands.classify2d_run import darker
from beamsieve.stream.commands.particle_stacks import stacks
from beamsieve.stream.commands.stack_files import StackError
from beamsieve.stream.sinks.picks.classes_file import read_classes
from beamsieve.stream.sinks.picks.files import write_whole
from beamsieve.stream.sinks.picks.micrograph import PickedMicrograph
from beamsieve.stream.sinks.picks.places import Places
from beamsieve.stream.sinks.picks.record import Images, Record, encode, now
from beamsieve.stream.sinks.picks.settings import SETTINGS, PickSettings
from cryosparc.dataset import Dataset
from scipy import ndimage
from typer.testing import CliRunner, Result

Floats = npt.NDArray[np.float32]
EDGE, EACH = 64, 24
#: Three shapes without symmetry: blobs (x, y from the middle, s.d.).
SHAPES = (
    ((12, 0, 5), (-10, 6, 3), (2, -8, 3)),
    ((0, 14, 3), (0, -14, 3), (8, -10, 3)),
    ((-9, -9, 6), (10, 2, 4), (9, 13, 2)),
)


class Blur(torch.nn.Module):
    """A denoiser of the simplest kind."""

    def __init__(self) -> None:
        super().__init__()
        line = torch.exp(-(torch.arange(-6.0, 7.0) ** 2) / 8)
        self.blur = torch.nn.Conv2d(1, 1, 13, padding=6, bias=False)
        self.blur.weight = torch.nn.Parameter((line[:, None] * line)[None, None] / line.sum() ** 2, False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        blurred: torch.Tensor = self.blur(x)
        return blurred


@pytest.fixture(autouse=True)
def _quick_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda _: None)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with quiet_torchscript():
        module = torch.jit.script(Blur().eval())
    card: dict[str, Any] = {
        "version": "1",
        "task": "classes2d",
        "input": {"name": "particle", "shape": [1, EDGE, EDGE], "dtype": "float32", "normalisation": "working image"},
        "output": {"classes": ["denoised"], "kind": "images"},
        "threshold": 0,
        "training": {},
        "scores": {},
        "trained_by": "a test",
        "licence": "Apache-2.0",
        "tolerance": {"float32": 1e-3, "bfloat16": 0.1},
    }
    return save_bundle(tmp_path_factory.mktemp("model"), "blur", module, card)


def shape(blobs: tuple[tuple[float, float, float], ...]) -> Floats:
    y, x = np.mgrid[:EDGE, :EDGE] - EDGE // 2
    drawn = sum(np.exp(-((x - px) ** 2 + (y - py) ** 2) / (2 * sd**2)) for px, py, sd in blobs)
    return np.asarray(drawn, np.float32)


def particles(each: int = EACH, seed: int = 0) -> tuple[Floats, npt.NDArray[np.int64]]:
    """Noisy particles in any in-plane angle, a little off the middle, and the shape of each."""
    rng = np.random.default_rng(seed)
    truth = rng.permutation(np.repeat(np.arange(3), each))
    drawn = np.stack([shape(blobs) for blobs in SHAPES])[truth]
    angle, shift = rng.uniform(-180, 180, len(truth)), rng.uniform(-3, 3, (len(truth), 2))
    images = turned(drawn, angle, shift) + rng.normal(0, 0.25, drawn.shape)
    return images.astype(np.float32), truth


def stack_of(
    path: Path,
    images: npt.NDArray[Any],
    pixel_a: float = 4.0,
    *,
    image_stack: bool = True,
    order: Literal["<", ">"] | None = None,
) -> Path:
    with warnings.catch_warnings(), mrcfile.new(path, overwrite=True) as file:
        warnings.simplefilter("ignore", RuntimeWarning)  # of NaN
        file.set_data(images if order is None else images.astype(images.dtype.newbyteorder(order)))
        if image_stack:
            file.set_image_stack()
        file.voxel_size = pixel_a
    return path


def run(*words: object) -> Result:
    return CliRunner().invoke(app, ["classify2d", *map(str, words)])


def labels(out: Path) -> list[dict[str, str]]:
    with (out / "labels.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory, bundle: Path) -> tuple[Path, Floats, npt.NDArray[np.int64]]:
    """One whole run over a stack with two images that are none."""
    folder = tmp_path_factory.mktemp("run")
    images, truth = particles()
    images[5], images[40, 3, 3] = 1.0, np.nan
    truth[[5, 40]] = -1
    stack_of(folder / "all.mrcs", images)
    found = run(
        folder / "all.mrcs", "-o", folder / "out", "--bundle", bundle, "-n", 3, "--voltage", 300, "--cs", 2.7,
        "--project", folder, "--json", folder / "summary.json", "--threads", 1,
    )  # fmt: skip
    assert found.exit_code == 0, found.output
    assert "2 of 72 images are constant, or hold NaN or infinity (6, 41)" in found.output
    return folder, images, truth


def test_classes_are_the_shapes_and_bad_images_are_in_none(
    done: tuple[Path, Floats, npt.NDArray[np.int64]],
) -> None:
    folder, images, truth = done
    rows = labels(folder / "out")
    assert [row["index"] for row in rows] == [str(at) for at in range(1, len(images) + 1)]
    label = np.array([int(row["class"]) for row in rows])
    assert label[[5, 40]].tolist() == [0, 0]
    assert rows[5]["angle"] == ""
    good = truth >= 0
    assert cluster_scores(truth[good], label[good]).rand.value > 0.9


def test_relions_angles_and_shifts_make_the_averages_again(
    done: tuple[Path, Floats, npt.NDArray[np.int64]],
) -> None:
    folder, _, _ = done
    found = starfile.read(folder / "out/relion/run_it001_data.star")["particles"]
    with mrcfile.open(folder / "out/relion/run_it001_classes.mrcs") as averages:
        for number in (1, 2, 3):
            mine = found[found["rlnClassNumber"] == number]
            total = np.zeros((EDGE, EDGE))
            for row in mine.to_dict("records"):
                at, _, file = row["rlnImageName"].partition("@")
                with mrcfile.open(folder / file) as source:
                    image = source.data[int(at) - 1]
                c, s = np.cos(np.radians(row["rlnAnglePsi"])), np.sin(np.radians(row["rlnAnglePsi"]))
                move = np.array([row["rlnOriginYAngst"], row["rlnOriginXAngst"]]) / 4.0
                # RELION: out = R(psi) (in + origin) from pixel size / 2; here from (y, x) out to (y, x) in.
                back = np.array([[c, -s], [s, c]])
                middle = np.full(2, EDGE // 2)
                total += ndimage.affine_transform(image, back, middle - move - back @ middle, order=3)
            assert np.corrcoef(total.ravel(), averages.data[number - 1].ravel())[0, 1] > 0.98


def test_all_files_read_and_agree(done: tuple[Path, Floats, npt.NDArray[np.int64]]) -> None:
    folder, images, _ = done
    out = folder / "out"
    names = {"labels.csv", "classes.mrcs", "classes.png", "classes.h5", "classify2d.json", "denoised.mrcs"}
    assert {path.name for path in out.iterdir()} == names | {"relion", "cryosparc"}
    label = np.array([int(row["class"]) for row in labels(out)])
    tables = read_classes(out / "classes.h5")
    assert tables.particles["class"].tolist() == label.tolist()
    assert tables.models[0].name == "blur"
    assert tables.centres.shape[0] == 3
    particles = Dataset.load(out / "cryosparc/particles.cs")
    assert particles["alignments2D/class"].tolist() == (label[label > 0] - 1).tolist()
    assert particles["blob/path"].tolist() == ["all.mrcs"] * (len(images) - 2)
    with mrcfile.open(out / "denoised.mrcs") as file:
        assert file.is_image_stack()
        assert file.data.shape == images.shape
        assert file.voxel_size.x == pytest.approx(4)
        assert float(file.header.rms) == pytest.approx(file.data.std(), rel=1e-4)
    assert (out / "classes.png").read_bytes().startswith(b"\x89PNG")
    summary = json.loads((folder / "summary.json").read_text())
    assert (summary["particles"], summary["classified"], len(summary["classes"])) == (72, 70, 3)
    assert summary == json.loads((out / "classify2d.json").read_text())


def test_a_repeat_is_the_same_and_takes_the_place_of_its_own_files(
    done: tuple[Path, Floats, npt.NDArray[np.int64]], bundle: Path
) -> None:
    folder, _, _ = done
    before = (folder / "out/labels.csv").read_text()
    again = run(folder / "all.mrcs", "-o", folder / "out", "--bundle", bundle, "-n", 3, "--threads", 1, "--no-denoised")
    assert again.exit_code == 0, again.output
    assert (folder / "out/labels.csv").read_text() == before
    assert "voltage and spherical aberration are not known" in again.output


def test_several_stacks_of_one_box_and_half_precision(tmp_path: Path, bundle: Path) -> None:
    """Twice the pixels of half the size, integers, and an odd edge of a third."""
    images, truth = particles(8)
    large = ndimage.zoom(images[:12], (1, 2, 2), order=1)
    stack_of(tmp_path / "a.mrcs", (large * 100).astype(np.int16), 2.0)
    odd = np.pad(images[12:18], ((0, 0), (0, 1), (0, 1)))
    stack_of(tmp_path / "b.mrcs", odd, 4.0)
    with h5py.File(tmp_path / "c.h5", "w") as file:
        file["images"] = images[18:]
        file["images"].attrs["pixel_a"] = 4.0
    out = tmp_path / "out"
    sources = [tmp_path / name for name in ("a.mrcs", "b.mrcs", "c.h5")]
    found = run(*sources, "-o", out, "--bundle", bundle, "-n", 30, "--float16", "--threads", 1, "--method", "ward")
    assert found.exit_code == 0, found.output
    assert "edge of 65 pixels is odd" in found.output
    assert "24 images make at most 24 classes, not 30" in found.output
    assert "not all particles lie in .mrcs stacks" in found.output
    rows = labels(out)
    assert [row["source"] for row in rows[::6]] == [str(sources[at]) for at in (0, 0, 1, 2)]
    assert rows[12]["index"] == "1"
    # Shifts are in pixels of the source: the same in ångström everywhere.
    working = read_classes(out / "classes.h5").particles["shift"] * 4.0
    pixels = np.array([(float(row["shift_x"]), float(row["shift_y"])) for row in rows])
    sizes = np.repeat([2.0, 4.0, 4.0], [12, 6, 6])[:, None]
    assert pixels * sizes == pytest.approx(working, abs=0.01)
    relion = starfile.read(out / "relion/run_it001_data.star")["particles"]
    assert relion[["rlnOriginXAngst", "rlnOriginYAngst"]].to_numpy() == pytest.approx(-working, abs=0.01)
    assert np.abs(working).max() > 2
    with mrcfile.open(out / "denoised.mrcs") as file:
        assert int(file.header.mode) == 12
    assert "rlnImageName" not in (out / "relion/run_it001_data.star").read_text()
    assert len(truth) == 24


def test_without_a_pixel_size_resolutions_are_in_pixels_and_black_particles_are_noticed(
    tmp_path: Path, bundle: Path
) -> None:
    images, _ = particles(8)
    np.save(tmp_path / "black.npy", -images)
    out = tmp_path / "out"
    found = run(tmp_path / "black.npy", "-o", out, "--bundle", bundle, "-n", 2, "--threads", 1, "--no-align")
    assert found.exit_code == 0, found.output
    assert "darker in the middle than at the rim; if particles are black, add --invert" in found.output
    assert "says no pixel size" in found.output
    assert "give --pixel-size to have them" in found.output
    assert not (out / "relion").exists()
    assert json.loads((out / "classify2d.json").read_text())["resolution_unit"] == "pixels"
    turned_white = run(tmp_path / "black.npy", "-o", out, "--bundle", bundle, "-n", 2, "--invert", "--pixel-size", 3)
    assert turned_white.exit_code == 0, turned_white.output
    assert "darker in the middle" not in turned_white.output
    assert (out / "relion/run_it001_data.star").exists()


def session(folder: Path, images: Floats, *, mrcs: bool) -> Path:
    """A session with one micrograph whose particles these are."""
    n = len(images)
    x = np.linspace(100, 900, n, dtype=np.float32)
    score = np.linspace(1, 0.6, n, dtype=np.float32)
    found = PickedMicrograph(
        "grid/a.mrc", Path("/data/grid/a.mrc"), (1000, 1000), 2.0, Candidates(x, x, score, np.ones(n, np.float32)),
        np.ones(n, bool), 0.5, "tiny", "ab" * 32, diameter_a=120.0, box_px=128, quality={}, particle_pixel_a=4.0,
    )  # fmt: skip
    settings = PickSettings.model_validate({"directory": folder, "particles": {"mrcs": mrcs}, "voltage_kv": 200})
    places = Places(folder)
    kept = Images(images, x, x, score, 4.0)
    write_whole(places.record("grid/a.mrc"), encode(Record(found, "grid/a", 0.5), kept, now()))
    (folder / SETTINGS).write_text(settings.model_dump_json())
    if mrcs:
        places.of("mrcs", "grid/a").parent.mkdir(parents=True)
        stack_of(places.of("mrcs", "grid/a"), images)
    return folder


def test_a_session_and_one_of_its_records_say_where_particles_were(tmp_path: Path, bundle: Path) -> None:
    images, _ = particles(6)
    folder = session(tmp_path / "night", images, mrcs=True)
    words = ("--bundle", bundle, "-n", 3, "--threads", 1, "--cs", 2.7, "--project", tmp_path)
    whole_session = run(folder, "-o", tmp_path / "a", *words)
    assert whole_session.exit_code == 0, whole_session.output
    assert "RELION asks for them" not in whole_session.output
    data = starfile.read(tmp_path / "a/relion/run_it001_data.star")
    assert data["particles"]["rlnImageName"].tolist()[17] == "000018@night/particles/grid/a.mrcs"
    assert data["particles"]["rlnCoordinateX"].tolist()[::17] == [100, 900]
    assert data["optics"][["rlnVoltage", "rlnSphericalAberration"]].to_numpy().tolist() == [[200, 2.7]]
    particles_cs = Dataset.load(tmp_path / "a/cryosparc/particles.cs")
    assert particles_cs["location/center_x_frac"].tolist()[::17] == pytest.approx([0.1, 0.9])
    assert particles_cs["blob/path"][0] == "night/particles/grid/a.mrcs"
    tables = read_classes(tmp_path / "a/classes.h5")
    assert tables.particles["x"].tolist()[::17] == [100, 900]
    assert tables.micrographs["name"].tolist() == ["grid/a.mrc"]
    record = folder / "micrographs/grid/a.mrc.h5"
    one = run(record, "-o", tmp_path / "b", *words)
    assert one.exit_code == 0, one.output
    assert [row["class"] for row in labels(tmp_path / "b")] == [row["class"] for row in labels(tmp_path / "a")]


# Bad input


def broken(tmp_path: Path) -> dict[str, tuple[list[Path], str]]:
    """Sources that cannot be used, and what is said of them."""
    images = np.random.default_rng(0).normal(size=(6, 32, 32)).astype(np.float32)
    good = stack_of(tmp_path / "good.mrcs", images)
    cut = tmp_path / "cut.mrcs"
    cut.write_bytes(good.read_bytes()[:-5000])
    (tmp_path / "text.mrcs").write_text("no stack " * 400)
    (tmp_path / "particles.star").write_text("data_particles\n")
    (tmp_path / "empty").mkdir()
    (tmp_path / "session" / "micrographs").mkdir(parents=True)
    (tmp_path / "notes.h5").write_text("nothing")
    volume = stack_of(tmp_path / "volume.mrc", np.zeros((32, 32, 32), np.float32), image_stack=False)
    return {
        "missing": ([tmp_path / "none.mrcs"], "none.mrcs: no such file or folder"),
        "volume": ([volume], "a volume of 32 sections (space group 1), not a stack"),
        "micrograph": ([stack_of(tmp_path / "m.mrc", images.reshape(1, 64, 96))], "particles are square"),
        "cut": ([cut], "cut.mrcs: truncated: 4 of 6 images are there"),
        "text": ([tmp_path / "text.mrcs"], "text.mrcs: no MRC header"),
        "complex": ([stack_of(tmp_path / "c.mrcs", images.astype(np.complex64))], "mode 4 is complex"),
        "star": ([tmp_path / "particles.star"], "name the .mrcs stacks"),
        "empty folder": ([tmp_path / "empty"], "neither a session"),
        "empty session": ([tmp_path / "session"], "keep no particles; set files.particles.keep"),
        "hdf5": ([tmp_path / "notes.h5"], "notes.h5: cannot be read as HDF5"),
        "mixed edges": (
            [good, stack_of(tmp_path / "other.mrcs", images[:, :24, :24])],
            "boxes of 128 and 96 Å; classify them one by one",
        ),
        "mixed pixels": ([good, stack_of(tmp_path / "fine.mrcs", images, 2.0)], "boxes of 128 and 64 Å"),
        "mixed unknown": ([good, stack_of(tmp_path / "say.mrcs", images, 0.0)], "the boxes cannot be compared"),
    }


def test_sources_that_cannot_be_used_are_refused_in_one_line(tmp_path: Path) -> None:
    for what, (sources, words) in broken(tmp_path).items():
        found = run(*sources, "-o", tmp_path / "out")
        assert found.exit_code == 2, what
        assert words in found.output, (what, found.output)
        assert len(found.output.splitlines()) == 1, what
        assert not (tmp_path / "out").exists()


def test_nothing_but_constant_images_is_refused(tmp_path: Path, bundle: Path) -> None:
    path = stack_of(tmp_path / "flat.mrcs", np.ones((5, 32, 32), np.float32))
    found = run(path, "-o", tmp_path / "out", "--bundle", bundle)
    assert found.exit_code == 2
    assert "flat.mrcs: no image with contrast" in found.output
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"--bundle": "nothing"}, "no bundle named nothing"),
        ({"--bundle": "hits-resnet10"}, "hits"),
        ({"--device": "cuda:99"}, "cuda"),
    ],
)
def test_wrong_models_and_devices_exit_with_2(
    tmp_path: Path, bundle: Path, changes: dict[str, str], words: str
) -> None:
    path = stack_of(tmp_path / "a.mrcs", particles(2)[0])
    options = {"--bundle": str(bundle), **changes}
    found = run(path, "-o", tmp_path / "out", *(word for pair in options.items() for word in pair))
    assert found.exit_code == 2
    assert words in found.output
    assert not list((tmp_path / "out").iterdir())


def test_folders_of_others_are_not_written_into(tmp_path: Path) -> None:
    path = stack_of(tmp_path / "a.mrcs", particles(2)[0])
    other = run(path, "-o", tmp_path)
    assert other.exit_code == 2
    assert "holds other files (a.mrcs); name a new folder, or add --force" in other.output
    session = tmp_path / "night"
    (session / "micrographs").mkdir(parents=True)
    refused = run(path, "-o", session, "--force")
    assert refused.exit_code == 2
    assert "is the folder of a session" in refused.output
    assert run(path, "-o", path).exit_code == 2


def test_what_the_command_wrote_is_never_its_own_source(
    tmp_path: Path, done: tuple[Path, Floats, npt.NDArray[np.int64]]
) -> None:
    out = tmp_path / "out"
    shutil.copytree(done[0] / "out", out)
    written = [path for path in out.rglob("*.*") if path.suffix in {".mrcs", ".mrc", ".h5"}]
    before = {path: path.read_bytes() for path in written}
    assert len(written) == 5
    for path in written:
        words = ("--dataset", "averages") if path.suffix == ".h5" else ()
        found = run(path, "-o", out, "--force", *words)
        assert found.exit_code == 2
        assert f"{path} lies there and would be replaced" in found.output
    assert all(path.read_bytes() == image for path, image in before.items())
    with pytest.raises(StackError, match="its 3 were written by classify2d, name them one by one"):
        stacks([out])
    mine = stack_of(tmp_path / "a.mrcs", particles(2)[0])
    found_here = stacks([tmp_path])
    assert [part.path for part in found_here.parts] == [mine]
    assert found_here.notes == (f"{tmp_path}: 1 .mrcs files; 3 others were written by classify2d and are left out",)
    assert stacks([out / "denoised.mrcs"]).count == 72


def test_too_little_disk_is_said_before_the_work(tmp_path: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = stack_of(tmp_path / "a.mrcs", particles(2)[0])
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Disk", (), {"free": 1 << 20}))
    found = run(path, "-o", tmp_path / "out", "--bundle", bundle)
    assert found.exit_code == 2
    assert "name a folder on another disk, or add --no-denoised" in found.output


def test_an_interrupt_leaves_nothing_half_written(tmp_path: Path, bundle: Path) -> None:
    path = stack_of(tmp_path / "a.mrcs", np.tile(particles(8)[0], (400, 1, 1)))
    # Enough for some seconds: on a busy machine this test may not be asked for one.
    out = tmp_path / "out"
    command = [sys.executable, "-m", "beamsieve.stream", "classify2d", str(path), "-o", str(out), "-n", "3"]
    with subprocess.Popen([*command, "--bundle", str(bundle)], stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if "read" in line:
                break
        deadline = time.monotonic() + 20
        # denoised.mrcs is there under its working name while it grows.
        while not list(out.glob(".denoised.mrcs*")) and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        process.stderr.read()
        assert process.wait(30) == 130
    assert list(out.iterdir()) == []


def test_a_hollow_white_particle_is_not_taken_for_a_black_one() -> None:
    away = np.hypot(*(np.mgrid[:EDGE, :EDGE] - EDGE // 2))
    ring = np.exp(-((away - 15) ** 2) / 18).astype(np.float32)
    assert darker(np.stack([ring, -ring])).tolist() == [False, True]


# Reading


def test_stacks_read_what_mrcfile_wrote_in_bounded_blocks(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    for dtype in ("i1", "i2", "u2", "f2", "f4"):
        for order in get_args(Literal["<", ">"]):
            images = (rng.normal(size=(11, 32, 32)) * 50).astype(dtype)
            path = stack_of(tmp_path / "s.mrcs", images, 2.5, order=order)
            found = stacks([path])
            blocks = list(found.chunks(4))
            assert [len(names) for names, _ in blocks] == [4, 4, 3]
            assert np.array_equal(np.concatenate([block for _, block in blocks]), images.astype(np.float32))
            assert blocks[-1][0][-1] == f"000011@{path}"
            assert (found.pixel_a, found.edge, found.count) == (2.5, 32, 11)


def test_a_cubic_stack_that_is_called_mrcs_is_a_stack(tmp_path: Path) -> None:
    images = np.random.default_rng(0).normal(size=(32, 32, 32)).astype(np.float32)
    assert stacks([stack_of(tmp_path / "a.mrcs", images, image_stack=False)]).count == 32
    assert stacks([stack_of(tmp_path / "a.mrc", images)]).count == 32


def test_a_pixel_size_that_is_given_goes_before_the_files(tmp_path: Path) -> None:
    path = stack_of(tmp_path / "a.mrcs", particles(2)[0], 4.0)
    found = stacks([path], 3.0)
    assert (found.pixel_a, found.working_a) == (3.0, 3.0)
    assert "says 4 Å per pixel; --pixel-size 3 is used" in found.notes[0]


def test_a_stack_that_is_cut_while_it_is_read_is_named(tmp_path: Path) -> None:
    path = stack_of(tmp_path / "a.mrcs", particles(4)[0])
    found = stacks([path])
    path.write_bytes(path.read_bytes()[: 1024 + 6 * EDGE * EDGE * 4])
    with pytest.raises(StackError, match=r"a\.mrcs: truncated within particles 5 to 8"):
        list(found.chunks(4))
