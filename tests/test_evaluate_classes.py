"""``beamsieve evaluate classes2d``: its options, mistakes, tables and files."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from beamsieve.models.classes2d import autoencoders, baselines
from beamsieve.models.classes2d.bundles import write
from beamsieve.models.classes2d.cdae import Block, Cdae
from beamsieve.models.classes2d.finetune import Tuned
from beamsieve.stream.__main__ import app
from beamsieve.stream.commands.evaluate_classes import ROWS, TEST, VALIDATION, _options, _rows, _volumes
from beamsieve.stream.flow.settings import ConfigError
from PIL import Image
from typer.testing import CliRunner

DATA = Path(os.environ.get("BEAMSIEVE_DATA", Path(__file__).parents[2] / "shared" / "data"))
COMMAND = ["evaluate", "classes2d"]


def told(*arguments: str) -> Any:
    return CliRunner().invoke(app, [*COMMAND, *arguments])


@pytest.fixture(scope="module")
def cascade(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    return write(
        tmp_path_factory.mktemp("bundle"), "classes2d-tiny", Cdae((2, 2, 2), (2, 2, 2)), training={}, scores={}
    )


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small networks, one set of parameters for each filter, no shared data."""
    few = {name: [tried[0]] for name, tried in baselines.candidates().items()}
    monkeypatch.setattr("beamsieve.models.classes2d.study.candidates", lambda: few)
    tiny = lambda seed, dropout=0.5: Block((2, 2, 2), (2, 2, 2), dropout=dropout)  # noqa: E731
    monkeypatch.setattr(autoencoders, "new_block", tiny)
    monkeypatch.setattr("beamsieve.stream.commands.evaluate_classes.WITHOUT", ("hemocyanin",))
    monkeypatch.delenv("BEAMSIEVE_DATA", raising=False)


def test_tables_and_pictures_are_written(
    tmp_path: Path, cascade: Path, small: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unchanged(bundle: Any, images: Any, options: Any, progress: Any) -> Any:
        """A fine-tuning that ends where it began; that of the study's own test is a real one."""
        assert len(images) == 40
        return Tuned(bundle.path, 0.5, 0.5, 0.1, False, 40, 2, 0.0, bundle.card.name, bundle.card.sha256)

    monkeypatch.setattr("beamsieve.models.classes2d.study_methods.finetune", unchanged)
    arguments = ["--out", str(tmp_path), "--maps", "ribosome", "--from", str(cascade), "--also", str(cascade)]
    arguments += [
        "--quick",
        "--images",
        "10",
        "--epochs",
        "1",
        "--scored",
        "4",
        "--tune-on",
        "200",
        "--validation",
        "hemocyanin",
    ]
    found = told(*arguments)
    assert found.exit_code == 0, found.output
    assert "| PSNR, dB" in found.stdout
    assert "- CDAE: mean PSNR" in found.stdout
    written = json.loads((tmp_path / "classes2d.json").read_text())
    (row,) = written["paper"]["proteins"]
    assert row["protein"] == "ribosome"
    assert {"CDAE", "CDAE tiny", "CDAE tiny, not tuned", "BM3D"} <= set(row["psnr"])
    assert {"CDAE tiny + Ward", "CDAE + k-means"} <= set(row["clusters"])
    assert written["paper"]["options"]["images"] == 10
    assert written["paper"]["cascades"]["CDAE"]["name"] == "classes2d-tiny"
    # The same bundle under two names answers the same.
    assert row["psnr"]["CDAE, not tuned"]["fit"] == row["psnr"]["CDAE tiny"]["fit"]
    text = (tmp_path / "classes2d.md").read_text()
    assert "Tested are ribosome" in text
    assert "5flc, 5wth" in text
    assert (tmp_path / "paper-ribosome.png").stat().st_size > 20_000


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--maps", "hemocyanin", "--rows", "papre"], "--rows papre: unknown; known are paper, snr-0.05"),
        ([], "--maps: which proteins?"),
        (["--maps", "proteasome"], "--maps proteasome: is what trained on"),
        (["--maps", "hemocyanin", "--validation", "hemocyanin"], "--maps hemocyanin: is what filters are chosen on"),
        (["--maps", "ribosome", "--maps", "ribosome"], "--maps ribosome: given twice"),
        (["--maps", "nothing.txt"], "nothing.txt: neither a built-in map"),
        (["--maps", "ribosome", "--from", "nothing"], "no bundle named nothing"),
        (["--maps", "ribosome", "--from", "hits-resnet10"], "its task is hits, needed is classes2d"),
        (["--maps", "ribosome", "--also", "particles-paper"], "its task is particles"),
    ],
)
def test_mistakes_are_told_in_a_line(tmp_path: Path, small: None, arguments: Any, said: Any) -> None:
    found = told("--out", str(tmp_path / "out"), *arguments)
    assert found.exit_code == 2
    assert said in found.stderr
    assert len(found.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "out" / "classes2d.json").exists()


def test_a_folder_that_cannot_be_written_ends_with_1(tmp_path: Path, cascade: Path, small: None) -> None:
    (tmp_path / "out").write_text("a file")
    found = told("--out", str(tmp_path / "out"), "--maps", "ribosome", "--from", str(cascade), "--images", "10")
    assert found.exit_code == 1
    assert "out: File exists" in found.stderr
    assert len(found.stderr.strip().splitlines()) == 1


def test_rows_options_and_what_was_given() -> None:
    paper = _options(ROWS["paper"], {}, 7, False)
    assert (paper.images, paper.orientations, paper.snr, paper.seed, paper.epochs) == (1000, 4, 0.1, 7, 20)
    many = _options(ROWS["50-orientations"], {}, 0, False)
    assert (many.images, many.orientations) == (80, 50)
    assert _options(ROWS["50-orientations"], {"images": 20}, 0, False).images == 20
    assert _options(ROWS["snr-0.02"], {"snr": 0.3}, 0, False).snr == 0.3
    assert _options(ROWS["ctf"], {}, 0, True).ctf
    quick = _options(ROWS["paper"], {"epochs": 5}, 0, True)
    assert (quick.epochs, quick.images) == (5, 60)
    assert quick.images * quick.orientations >= 200
    assert paper.sigma == pytest.approx(np.sqrt(1 / 1.1))
    assert _rows(["all"]) == list(ROWS)
    with pytest.raises(ConfigError, match="--rows x: unknown"):
        _rows(["paper", "x"])


def test_real_particles_are_cut_out_grouped_and_shown(tmp_path: Path, cascade: Path) -> None:
    chance = np.random.default_rng(0)
    x, y = (v.ravel() for v in np.meshgrid(np.arange(60, 360, 60), np.arange(60, 300, 60)))
    rows, columns = np.mgrid[:330, :400]
    image = chance.normal(120, 8, rows.shape)
    for i, (cx, cy) in enumerate(zip(x, y, strict=True)):
        wide = (8, 16)[i % 2]
        image -= 25 * (np.hypot((rows - cy) / 16, (columns - cx) / wide) < 1)
    Image.fromarray(np.clip(image, 0, 255).astype(np.uint8)).save(tmp_path / "one.png")
    places = [*zip(x.tolist(), y.tolist(), strict=True), (3, 3)]
    (tmp_path / "one.csv").write_text("x,y\n" + "".join(f"{cx},{cy}\n" for cx, cy in places))
    out = tmp_path / "out"
    arguments = ["--out", str(out), "--real", str(tmp_path), "--pixel-size", "2", "--from", str(cascade)]
    found = told(*arguments, "--diameter", "90", "--classes", "2")
    assert found.exit_code == 0, found.output
    written = json.loads((out / "real.json").read_text())
    # The box of the last one reaches outside the micrograph.
    assert written["particles"] == sum(written["counts"]) == len(places) - 1
    assert written["pixel_a"] == pytest.approx(2 * 68 / 64)
    for name in ("real-classes.png", "real-particles.png"):
        with Image.open(out / name) as picture:
            assert min(picture.size) > 150
    mistake = told(*arguments)
    assert (mistake.exit_code, mistake.stderr) == (2, "--real: needs --diameter, the particle's in ångström\n")
    small = told(*arguments, "--diameter", "20")
    assert small.exit_code == 2
    assert "boxes of 16 pixels are below 64" in small.stderr


@pytest.mark.data
def test_the_default_maps_are_those_of_the_shared_data(monkeypatch: pytest.MonkeyPatch) -> None:
    if not (DATA / "maps").exists():
        pytest.skip("shared data set not here (BEAMSIEVE_DATA)")
    monkeypatch.setenv("BEAMSIEVE_DATA", str(DATA))
    names = [volume.name for volume in _volumes(None, VALIDATION, ())]
    assert names == ["emd_1066", "emd_1099"]
    assert not {Path(name).name.split(".")[0] for name in TEST} & set(names)
