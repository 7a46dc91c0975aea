"""Training of the autoencoder: what is learnt, interruptions, what is left behind, the command line."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from beamsieve.models.bundle import load_bundle
from beamsieve.models.tomograms.bundles import codec_network, untrained
from beamsieve.models.tomograms.codec import Codec
from beamsieve.models.tomograms.nets import Autoencoder3D
from beamsieve.models.tomograms.practice import (
    PracticeOptions,
    Sample,
    simulated_sample,
    split,
    together,
    tomogram_sample,
)
from beamsieve.models.tomograms.scoring import agreement, scores
from beamsieve.models.tomograms.told import Stopped
from beamsieve.models.tomograms.train import make_options, train
from beamsieve.models.tomograms.trainer import Trainer
from beamsieve.models.tomograms.volume import ArrayVolume
from beamsieve.stream.commands.train import app
from typer.testing import CliRunner, Result

EDGE = 8
TINY = {"channels": 4, "codes": 6, "threads": 1, "device": "cpu"}


def quiet(what: str, done: int, of: int) -> None:
    """No progress."""


def shapes(n: int, edge: int = EDGE, seed: int = 0) -> Sample:
    """Balls and sheets in noise, tomograms of ten of them each."""
    rng = np.random.default_rng(seed)
    z, y, x = np.mgrid[:edge, :edge, :edge] - edge / 2
    kinds = [(z**2 + y**2 + x**2 < (edge / 3) ** 2), np.abs(z) < 1.5]
    label = rng.integers(0, 2, n).astype(np.uint8)
    clean = np.stack([kinds[one] for one in label]).astype(np.float32)
    clean -= clean.mean((1, 2, 3), keepdims=True)
    noisy = clean + 0.5 * rng.standard_normal(clean.shape).astype(np.float32)
    scale = noisy.std((1, 2, 3), keepdims=True)
    return Sample((noisy / scale).astype(np.float16), np.arange(n) // 10, (clean / scale).astype(np.float16), label)


def options(out: Path, recipe: str = "general", **more: Any) -> Any:
    return make_options(out, recipe, **{**TINY, "epochs": 2, **more})


# What is learnt


@pytest.mark.parametrize("recipe", ["general", "paper"])
def test_training_learns_shapes_and_tells_them_apart(tmp_path: Path, recipe: str) -> None:
    sample, check = shapes(120), shapes(40, seed=1)
    made = train(sample, options(tmp_path, recipe, epochs=10, rate=3e-3, smooth=0.6), quiet, check=check)
    assert made is not None
    assert made.name == f"tomograms-{recipe}.pt"
    card = load_bundle(made).card
    assert card.scores["check"]["explained"] > 0.4, card.scores
    assert card.scores["check"]["correlation"] > 0.65
    assert card.scores["check"]["agree"] > 0.9
    told = json.loads((tmp_path / "scores.json").read_text())
    assert told == card.scores
    assert Codec(made, device="cpu", threads=1).error(check.boxes).mean() == pytest.approx(
        card.scores["check"]["error"], abs=1e-3
    )
    history = json.loads((tmp_path / "log.json").read_text())
    assert min(row["validation"] for row in history) < 0.9 * history[0]["validation"]
    assert (tmp_path / "curves.png").stat().st_size > 5000
    assert (tmp_path / "examples.png").stat().st_size > 5000


def test_the_paper_learns_from_the_sub_volumes_alone(tmp_path: Path) -> None:
    sample = shapes(40)
    rows = np.arange(8)
    blind = dataclasses.replace(sample, clean=np.zeros_like(sample.boxes), label=None)
    one, other = (Trainer(options(tmp_path, "paper", seed=3), some) for some in (sample, blind))
    assert one.step(rows, np.random.default_rng(0)) == other.step(rows, np.random.default_rng(0))
    general, blinded = (Trainer(options(tmp_path, seed=3), some) for some in (sample, blind))
    assert general.step(rows, np.random.default_rng(0)) != blinded.step(rows, np.random.default_rng(0))


def test_recipes_are_as_they_are_described() -> None:
    paper, general = (make_options(Path("x"), name) for name in ("paper", "general"))
    assert (paper.rate, paper.betas, paper.batch, paper.patience) == (1e-3, (0.9, 0.99), 8, 20)
    assert (paper.target, paper.smooth, paper.weight, paper.mirror, paper.falling) == ("input", 0, 0, False, False)
    assert (paper.normalise, paper.dense_rate, paper.channels, paper.codes) == (False, 1, 32, 32)
    assert (general.target, general.normalise, general.name) == ("clean", True, "tomograms-general")
    posed = make_options(Path("x"), posed=True)
    assert (posed.name, posed.mirror) == ("tomograms-posed", False)
    further = make_options(Path("x"), start="some")
    assert further.rate < general.rate
    assert not further.normalise


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"recipe": "genral"}, "did you mean general"),
        ({"recipe": "xyz"}, "choose from paper, general"),
        ({"rate": float("nan")}, "rate"),
        ({"target": "cleaner"}, "input, clean"),
        ({"held": 0.9}, "held"),
        ({"smooth": -1.0}, "smooth"),
    ],
)
def test_options_that_cannot_be_are_refused_by_name(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        make_options(Path("x"), **changes)


def test_the_norm_is_folded_into_the_published_layers(tmp_path: Path) -> None:
    trainer = Trainer(options(tmp_path, smooth=0.6), shapes(40))
    trainer.finish_epoch()
    net, boxes = trainer.finished(), torch.from_numpy(shapes(4, seed=5).boxes.astype(np.float32))[:, None]
    assert trainer.norm is not None
    trainer.norm.eval()
    with torch.no_grad():
        truth = trainer.norm(trainer.net.encoder.before(trainer.net.smoothed(boxes))).relu()
        assert torch.allclose(net.encode(boxes), truth, atol=1e-5)
        assert not torch.allclose(trainer.net.encode(boxes), truth, atol=1e-2)


def test_gradients_of_pieces_are_those_of_the_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = []
    for piece in (2, 8):
        monkeypatch.setattr("beamsieve.models.tomograms.swift.PIECE", piece)
        trainer = Trainer(options(tmp_path, "paper"), shapes(40))
        for first in (0, 8, 16):
            trainer.step(np.arange(first, first + 7), np.random.default_rng(0))
        weights.append(trainer.net.state_dict())
    for name, value in weights[0].items():
        assert torch.allclose(value, weights[1][name], atol=2e-5), name


# Interruptions


def test_an_interrupted_training_ends_with_the_same_weights(tmp_path: Path) -> None:
    sample = shapes(40)
    whole = train(sample, options(tmp_path / "whole", epochs=3), quiet)
    torch.manual_seed(77)
    parts = options(tmp_path / "parts", epochs=3)
    assert train(sample, dataclasses.replace(parts, stop_after=1), quiet) is None
    asked: list[int] = []

    def stop() -> bool:
        asked.append(1)
        return len(asked) > 7

    # In the middle of an epoch: five steps are one.
    assert train(sample, parts, quiet, stop, resume=True) is None
    assert len(json.loads((tmp_path / "parts" / "log.json").read_text())) == 2
    end = train(sample, parts, quiet, resume=True)
    assert whole is not None
    assert end is not None
    one, other = (codec_network(load_bundle(path)).state_dict() for path in (whole, end))
    assert all(torch.allclose(one[name], other[name], atol=1e-6) for name in one)
    with pytest.raises(ValueError, match=r"rate: 0\.001 then, 0\.002 now"):
        train(sample, dataclasses.replace(parts, rate=0.002), quiet, resume=True)
    with pytest.raises(ValueError, match="--resume"):
        train(sample, parts, quiet)
    (tmp_path / "parts" / "checkpoint.pt").write_bytes(b"cut short")
    with pytest.raises(ValueError, match="no checkpoint"):
        train(sample, parts, quiet, resume=True)


def test_it_ends_without_a_better_validation_and_keeps_the_best(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses = iter([3.0, 1.0, 2.0, 1.5, 0.1])
    monkeypatch.setattr(Trainer, "validation", lambda _: (next(losses), 1.0))
    trainer = Trainer(options(tmp_path, "paper", epochs=50, patience=2), shapes(40))
    kept = []
    while not trainer.done:
        trainer.finish_epoch()
        kept.append(trainer.net.state_dict()["encoder.first.weight"].clone())
    assert [row.best for row in trainer.history] == [True, True, False, False]
    assert torch.equal(trainer.finished().state_dict()["encoder.first.weight"], kept[1])


def test_it_goes_on_from_a_bundle_and_says_whether_that_helped(tmp_path: Path) -> None:
    sample = shapes(60)
    first = train(sample, options(tmp_path / "first", epochs=2), quiet)
    more = options(tmp_path / "more", start=str(first), epochs=6, rate=1e-3, target="input", smooth=1.0)
    made = train(dataclasses.replace(sample, clean=None, label=None), more, quiet)
    assert made is not None
    told = json.loads((tmp_path / "more" / "report.json").read_text())
    assert told["path"] == made.name
    assert told["after"] < told["before"]
    assert load_bundle(made).card.training["start"] == "tomograms-general.pt"
    with pytest.raises(ValueError, match="sub-volumes of 8 voxels and of 4 channels; needed are 12 and 4"):
        Trainer(options(tmp_path, start=str(first)), shapes(20, 12))


# What it is trained on


def test_whole_tomograms_are_held_back_where_there_are_several() -> None:
    sample = shapes(100)
    rows, held = split(sample, 0.1, 1)
    assert len(rows) + len(held) == 100
    assert not set(sample.group[rows]) & set(sample.group[held])
    assert len(held) == 10
    assert len({int(split(sample, 0.1, seed)[1][0]) for seed in range(8)}) > 2
    one = dataclasses.replace(sample, group=np.zeros(100, np.int64))
    rows, held = split(one, 0.1, 1)
    assert (len(rows), len(held), len({*rows, *held})) == (90, 10, 100)
    with pytest.raises(ValueError, match="8 sub-volumes are too few"):
        split(shapes(8), 0.1, 1)


def test_samples_are_joined_and_tomograms_numbered_on() -> None:
    one, other = shapes(20), shapes(15, seed=1)
    both = together([one, dataclasses.replace(other, label=None)])
    assert both.group.tolist() == [0] * 10 + [1] * 10 + [2] * 10 + [3] * 5
    assert both.label is None
    assert both.clean is not None
    assert np.array_equal(both.clean[20:], np.asarray(other.clean))
    for wrong, said in (([], "no sub-volumes"), ([one, shapes(5, 12)], "several edges")):
        with pytest.raises(ValueError, match=said):
            together(wrong)
    with pytest.raises(ValueError, match=r"is not \(n, edge, edge, edge\)"):
        Sample(np.zeros((2, 8, 8)), np.zeros(2, np.int64))
    with pytest.raises(ValueError, match="label: 3 for 2"):
        Sample(np.zeros((2, 8, 8, 8)), np.zeros(2, np.int64), label=np.zeros(3, np.uint8))


@pytest.fixture(scope="module")
def simulated() -> tuple[Sample, Sample]:
    """Of one small tomogram, as it lies and posed."""
    wanted = PracticeOptions(tomograms=1, shape=(40, 72, 72), snr=(0.2, 0.2))
    return simulated_sample(wanted, quiet), simulated_sample(dataclasses.replace(wanted, posed=True), quiet)


def test_simulated_sub_volumes_have_twins_without_noise(simulated: tuple[Sample, Sample]) -> None:
    for sample in simulated:
        assert len(sample) >= 5
        assert sample.clean is not None
        assert sample.label is not None
        assert sample.label.any()
        seen, clean = (np.asarray(array, np.float64) for array in (sample.boxes, sample.clean))
        assert np.allclose(seen.mean((1, 2, 3)), 0, atol=2e-3)
        assert np.allclose(seen.std((1, 2, 3)), 1, atol=2e-3)
        # Of the same units: what is taken away is noise, of which nothing is in the signal.
        noise = seen - clean
        assert np.abs((noise * clean).mean((1, 2, 3))).max() < 0.01
        assert np.allclose(clean.var((1, 2, 3)) + noise.var((1, 2, 3)), 1, atol=0.02)
        assert clean.var((1, 2, 3)).max() > 0.05
        # Bright in the middle: a pick is where matter is.
        assert clean[:, 14:19, 14:19, 14:19].mean() > 0.1
    plain, posed = simulated
    assert len(plain) == len(posed)
    assert not np.array_equal(plain.boxes, posed.boxes)


def test_a_tomogram_as_it_is_gives_the_same_sub_volumes(simulated: tuple[Sample, Sample]) -> None:
    from beamsieve.models.tomograms.scene import SceneOptions
    from beamsieve.models.tomograms.simulator import simulate

    made = simulate(1000, SceneOptions(shape=(40, 72, 72), snr=0.2))
    for sample, posed in zip(simulated, (False, True), strict=True):
        found = tomogram_sample(ArrayVolume(made.data, 14.2), PracticeOptions(posed=posed), progress=quiet, threads=1)
        assert np.array_equal(found.boxes, sample.boxes)
        assert found.clean is None
    few = tomogram_sample(ArrayVolume(-made.data, 14.2), PracticeOptions(most=3), bright=True, threads=1)
    assert np.allclose(few.boxes, simulated[0].boxes[:3], atol=0.01)
    with pytest.raises(Stopped):
        simulated_sample(PracticeOptions(), quiet, lambda: True)


# Scores


def test_agreement_is_that_of_marked_clusters() -> None:
    rng = np.random.default_rng(0)

    def codes(labels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        return (10 * np.eye(3)[labels] + rng.standard_normal((len(labels), 3))).astype(np.float32)

    known, truth = np.repeat(np.arange(3), 30).astype(np.uint8), np.array([0] * 4 + [1] * 4 + [2] * 2, np.uint8)
    found = agreement(codes(known), known, codes(truth), truth)
    assert (found["agree"], found["homogeneity"]) == (1, 1)
    lied = np.where(truth == 2, 1, truth).astype(np.uint8)
    found = agreement(codes(known), known, codes(truth), lied)
    assert found["agree"] == pytest.approx(0.8)
    assert found["agree_by_class"] == {"0": 1, "1": pytest.approx(0.6667, abs=1e-4)}


def test_scores_of_a_network_that_gives_nothing() -> None:
    torch.manual_seed(0)
    net = Autoencoder3D(EDGE, 4, 5).eval()
    torch.nn.init.zeros_(net.decoder.last.weight)
    assert net.decoder.last.bias is not None
    torch.nn.init.zeros_(net.decoder.last.bias)
    found = scores(net, shapes(20), np.arange(20))
    assert found["error"] == pytest.approx(1, abs=0.01)
    assert (found["explained"], found["correlation"]) == (0, 0)


# Command line


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["tomograms", *map(str, arguments)])


QUICK = ("--epochs", 1, "--threads", 1, "--device", "cpu")


@pytest.fixture(scope="module")
def tomogram(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small tomogram in a file: balls in noise, density dark."""
    import mrcfile

    rng = np.random.default_rng(4)
    data = rng.standard_normal((40, 96, 96)).astype(np.float32)
    z, y, x = np.mgrid[:40, :96, :96]
    for at in rng.uniform(6, (34, 90, 90), (60, 3)):
        data[(z - at[0]) ** 2 + (y - at[1]) ** 2 + (x - at[2]) ** 2 < 16] -= 4
    path = tmp_path_factory.mktemp("tomogram") / "TS_01.mrc"
    with mrcfile.new(path) as file:
        file.set_data(data)
        file.voxel_size = 14.2
    return path


def test_the_command_trains_on_a_tomogram_and_goes_on_from_a_bundle(tomogram: Path, tmp_path: Path) -> None:
    start, out = untrained(tmp_path, edge=16, channels=2, codes=4), tmp_path / "out"
    given = ("--from", start, "--threshold", 1, "--seed", 2, *QUICK)
    said = run(tomogram, "--out", out, "--name", "mine", *given)
    assert said.exit_code == 0, said.output
    assert str(out / "mine.pt") in said.output
    card = load_bundle(out / "mine.pt").card
    assert card.input.shape == (1, 16, 16, 16)
    assert card.training["sub_volumes"] >= 16
    assert card.training["source"] == "tomograms as they are"
    assert {path.name for path in out.iterdir()} >= {"report.json", "curves.png", "examples.png", "log.json"}
    assert run(tomogram, "--out", out, "--name", "mine", "--resume", *given).exit_code == 0
    wrong = {
        (tomogram, "--out", out, *given): "--resume",
        (tomogram, "--out", tmp_path / "a", "--voxel", 20, *given): "trained with voxel_a 14.2, given is 20",
        (tomogram, "--out", tmp_path / "a", "--edge", 32, *given): "trained with edge 16, given is 32",
        (tomogram, "--out", tmp_path / "a", "--edge", 30, *QUICK): "multiple of 4",
        (tomogram, "--out", tmp_path / "a", "--threshold", 50, *QUICK): "no sub-volumes",
    }
    for arguments, told in wrong.items():
        said = run(*arguments)
        assert said.exit_code == 2, (arguments, said.output)
        assert told in said.output
        assert "Traceback" not in said.output


def test_the_command_says_mistakes_in_a_line(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file.mrc").write_bytes(b"no tomogram")
    a = ("--out", tmp_path / "a")
    wrong = {
        (*a,): (2, "one of them, not both"),
        (tmp_path, "--simulated", 3, *a): (2, "one of them, not both"),
        (tmp_path / "empty", *a): (2, "holds no mined tomograms"),
        ("--session", tmp_path / "empty", *a): (2, "holds no mined tomograms"),
        ("--simulated", 3, "--snr", "much", *a): (2, "--snr much"),
        ("--simulated", 600, "--first", 1500, *a): (2, "to choose by"),
        ("--simulated", 3, "--name", "a/b", *a): (2, "--name a/b"),
        ("--simulated", 3, "--recipe", "best", *a): (2, "choose from paper, general"),
        ("--simulated", 3, "--from", "nothing", *a): (2, "no bundle named nothing"),
        (tmp_path / "file.mrc", *a): (1, "file.mrc"),
        (tmp_path / "none.mrc", *a): (1, "none.mrc"),
        ("--simulated", 3, "--out", tmp_path / "file.mrc" / "b"): (1, "file.mrc"),
    }
    for arguments, (code, told) in wrong.items():
        said = run(*arguments)
        assert said.exit_code == code, (arguments, said.output)
        assert told in said.output
        assert "Traceback" not in said.output


def test_the_command_trains_on_what_a_session_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from beamsieve.stream.sinks.tomograms.mined import Kept, MinedTomogram, Picked
    from beamsieve.stream.sinks.tomograms.record import encode

    sample = shapes(24, 16)
    for name, rows in (("a", slice(0, 12)), ("b", slice(12, 24))):
        n = 12
        boxes = sample.boxes[rows].astype(np.float16)
        found = MinedTomogram(
            name=f"{name}.mrc", path=tmp_path / f"{name}.mrc", shape=(40, 40, 40), voxel_a=14.2, working_voxel_a=14.2,
            picked=Picked.of(np.zeros((n, 3), np.float32), np.zeros(n, np.float32), np.zeros((n, 4), np.float32)),
            network="net", network_sha256="0" * 64, threshold=3.0, edge=16,
            kept=Kept(np.arange(n, dtype=np.int32), boxes),
        )  # fmt: skip
        path = tmp_path / "session" / f"{name}.h5"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(encode(found, stem=name))
    seen: list[Sample] = []
    monkeypatch.setattr("beamsieve.models.tomograms.train.train", lambda s, *_, **__: seen.append(s))
    start = untrained(tmp_path, edge=16, channels=2, codes=4)
    said = run("--session", tmp_path, "--from", start, "--most", 20, "--out", tmp_path / "out", *QUICK)
    assert said.exit_code == 143, said.output  # as nothing was made
    assert len(seen[0]) == 20
    assert set(seen[0].group) == {0, 1}
    said = run("--session", tmp_path, "--posed", "--edge", 16, "--out", tmp_path / "b", *QUICK)
    assert said.exit_code == 2
    assert "an edge of 16 voxels of 14.2 Å, not posed" in said.output
