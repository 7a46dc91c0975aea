"""Pre-training: blocks in their order, resumed to the same end, told on the card; mistakes in one line."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from beamsieve.models.bundle import load_bundle
from beamsieve.models.classes2d.bundles import network
from beamsieve.models.classes2d.pairs import Pool
from beamsieve.models.classes2d.recipes import Options, make_options
from beamsieve.models.classes2d.report import SNRS, Held, correlation, gain_db, means
from beamsieve.models.classes2d.train import Trainer, train
from beamsieve.models.particles.maps import Volume, prepared
from beamsieve.stream.__main__ import app
from typer.testing import CliRunner, Result

TINY: dict[str, Any] = {
    "encoder": (4, 4, 8),
    "decoder": (8, 4, 8),
    "kernel": 2,
    "images": 8,
    "batch": 4,
    "epochs": 2,
    "held": 1,
    "device": "cpu",
}


def silent(what: str, done: int, of: int) -> None:
    pass


@pytest.fixture(scope="module")
def volume() -> Volume:
    at = np.arange(32) - 15.0
    z, y, x = np.meshgrid(at, at, at, indexing="ij")
    blobs = [(6, 0, 0, 3, 1.0), (-5, 5, 2, 2, 1.5), (0, -5, -7, 3, 0.8)]
    density = sum(w * np.exp(-((x - a) ** 2 + (y - b) ** 2 + (z - c) ** 2) / (2 * s * s)) for a, b, c, s, w in blobs)
    return prepared(np.asarray(density), 4.0, name="blobs")


def options(out: Path, recipe: str = "general", **changes: Any) -> Options:
    return make_options(out, recipe, **{**TINY, **changes})


def trainer(volume: Volume, out: Path, recipe: str = "general", **changes: Any) -> Trainer:
    o = options(out, recipe, **changes)
    return Trainer(o, Pool(o, [volume], silent), Held(o, [volume]))


def weights(made: Trainer) -> list[torch.Tensor]:
    return [torch.cat([p.detach().flatten().clone() for p in block.parameters()]) for block in made.net.blocks]


@pytest.mark.parametrize("recipe", ["paper", "general"])
def test_an_interrupted_training_ends_with_the_same_weights(tmp_path: Path, volume: Volume, recipe: str) -> None:
    """Interrupted in a block, between blocks, and where all learn at once."""
    changes: dict[str, Any] = {"joint": 2 if recipe == "general" else 0, "dropout": 0.5}
    whole, parts = (options(tmp_path / name, recipe, **changes) for name in ("whole", "parts"))
    straight = train(whole, [volume], progress=silent)
    assert straight is not None
    for stop in (1, 4, 7):
        part = replace(parts, stop_after=stop, resume=True)
        if stop < part.total_epochs:
            assert train(part, [volume], progress=silent) is None
            assert not list(part.out.glob("*.pt.inprogress"))
    resumed = train(replace(parts, resume=True), [volume], progress=silent)
    assert resumed is not None
    one, other = (network(load_bundle(path)).state_dict() for path in (straight, resumed))
    for name, value in one.items():
        torch.testing.assert_close(value, other[name], rtol=1e-4, atol=1e-6)
    logs = [json.loads((o.out / "log.json").read_text()) for o in (whole, parts)]
    assert [row["loss"] for row in logs[0]] == pytest.approx([row["loss"] for row in logs[1]], rel=1e-3)
    assert len(logs[0]) == whole.total_epochs


def test_blocks_learn_in_turn_and_then_at_once(tmp_path: Path, volume: Volume) -> None:
    made = trainer(volume, tmp_path, epochs=1, joint=1, carry=False, dropout=0.0)
    for turn, learning in enumerate([{0}, {1}, {2}, {0, 1, 2}]):
        assert made.place == (turn, 0)
        before = weights(made)
        made.finish_epoch()
        changed = {i for i, (a, b) in enumerate(zip(before, weights(made), strict=True)) if not torch.equal(a, b)}
        assert changed == learning


def test_the_last_epochs_of_a_block_drop_nothing(tmp_path: Path, volume: Volume) -> None:
    made = trainer(volume, tmp_path, "paper", dropped=0.5)
    batch = next(made.pool.batches(0, 0))
    same = []
    for _ in range(2 * made.options.epochs):
        made.finish_epoch()
        block = made.place[0] if made.place[1] else made.place[0] - 1
        same.append(torch.equal(made._answers(block, batch)[0], made._answers(block, batch)[0]))
    assert same == [False, True, False, True]


def test_a_block_may_start_from_the_one_before(tmp_path: Path, volume: Volume) -> None:
    made = trainer(volume, tmp_path, epochs=1, joint=0, rate=1e-12)
    made.finish_epoch()
    made.finish_epoch()
    first, second, third = weights(made)
    torch.testing.assert_close(first, second, atol=1e-6, rtol=0)
    assert not torch.allclose(first, third, atol=1e-3)


def test_blocks_apart_see_simulated_pairs_and_one_by_one_what_the_others_leave(tmp_path: Path, volume: Volume) -> None:
    """A first block that answers nothing but a constant leaves a second block that comes after it nothing to see."""
    losses = {}
    for together in (True, False):
        made = trainer(volume, tmp_path, "paper", epochs=4, dropout=0.0, together=together, rate=3e-3)
        with torch.no_grad():
            for parameter in made.net.blocks[0].parameters():
                parameter.zero_()
        answers = []
        for _ in range(2):
            batch = next(made.pool.batches(1, 0))
            answers.append(made._answers(1, batch)[0].detach())
        torch.testing.assert_close(answers[0], answers[1])
        losses[together] = float(answers[0].std(0).mean())
    assert losses[True] > 1e-3
    assert losses[False] == pytest.approx(0, abs=1e-6)


def test_training_makes_images_better_than_nothing(tmp_path: Path, volume: Volume) -> None:
    made = trainer(
        volume, tmp_path, images=96, batch=4, epochs=6, joint=0, ctf=0.0, snr=(0.3, 0.3), box=(1.5, 1.5), shift=0.0
    )
    rows = [made.finish_epoch() for _ in range(6)]
    assert rows[-1]["loss"] < 0.5 * rows[0]["loss"]
    # An empty image wins 5.2 dB at this SNR, as much as the noise is stronger than the particle.
    held = [c for c in made.held.conditions if c.snr == 0.3 and not c.ctf]
    with torch.no_grad():
        denoised = made.net.blocks[0].eval()(torch.from_numpy(held[0].data.images)[:, None])[:, 0].numpy()
    assert gain_db(held[0].data.images, denoised, held[0].data.clean).mean() > 9
    assert correlation(denoised, held[0].data.clean).mean() > 0.8


def test_a_diverging_network_is_noticed_by_the_scores() -> None:
    rng = np.random.default_rng(1)
    clean = rng.standard_normal((3, 8, 8)).astype(np.float32)
    noisy = clean + 3 * rng.standard_normal((3, 8, 8)).astype(np.float32)
    noise = noisy - clean
    assert gain_db(noisy, clean + noise / np.float32(10), clean) == pytest.approx(20, abs=1e-3)
    assert gain_db(noisy, clean + np.float32(10) * noise, clean) == pytest.approx(-20, abs=1e-3)
    assert correlation(np.float32(2) * clean, clean) == pytest.approx(1, abs=1e-5)
    assert correlation(-clean, clean) == pytest.approx(-1, abs=1e-5)
    assert correlation(np.ones_like(clean), clean).tolist() == [0, 0, 0]


def test_means_are_over_maps_at_each_condition() -> None:
    rows = [
        {"map": m, "snr": s, "ctf": c, "gain_db": [i, 2 * i, 3 * i], "correlation": [0.1, 0.2, i / 10]}
        for i, m in enumerate(("a", "b"), 1)
        for s in SNRS
        for c in (False, True)
    ]
    found = means(rows)
    assert found["SNR 0.1"]["gain_db"] == [1.5, 3, 4.5]
    assert found["SNR 0.02, CTF"]["correlation"] == [0.1, 0.2, 0.15]
    assert len(found) == 2 * len(SNRS) + 1
    assert means([]) == {}


def test_recipes_are_as_they_are_described() -> None:
    paper, general = (make_options(Path("x"), name) for name in ("paper", "general"))
    assert (paper.snr, paper.orientations, paper.images, paper.epochs) == ((0.1, 0.1), 4, 4000, 20)
    assert (paper.dropout, paper.together, paper.targets, paper.ctf, paper.joint) == (0.5, False, "noisy", 0.0, 0)
    assert general.snr[0] <= 0.02
    assert general.fresh
    assert not general.together
    assert 0 < general.ctf < 1


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"recipe": "modest"}, "general"),
        ({"snr": (0.0, 0.1)}, "snr"),
        ({"snr": (0.5, 0.1)}, "snr"),
        ({"rate": float("nan")}, "rate"),
        ({"dropout": 0.99}, "dropout"),
        ({"ctf": 1.5}, "ctf"),
        ({"orientations": -1}, "orientations"),
        ({"targets": "cleaner"}, "noisy or clean"),
    ],
)
def test_options_that_cannot_be_are_refused_by_name(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        make_options(Path("x"), **changes)


# Command line


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["train", "classes2d", *map(str, arguments)])


QUICK = ("--images", 4, "--batch", 4, "--epochs", 1, "--held", 1, "--threads", 1, "--device", "cpu")


def test_the_command_leaves_bundle_pictures_and_scores_and_says_mistakes_in_a_line(
    tmp_path: Path, volume: Volume, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mrcfile

    path = tmp_path / "blobs.mrc"
    with mrcfile.new(path) as file:
        file.set_data(volume.data)
    out = tmp_path / "out"
    # Without a voxel size in the header: it is stated after the name.
    said = run("--out", out, "--map", f"{path}@4", "--validation", "apoferritin", "--joint", 1, *QUICK)
    assert said.exit_code == 0, said.output
    assert str(out / "classes2d-general.pt") in said.output
    assert {p.name for p in out.iterdir()} >= {"curves.png", "examples.png", "examples-ctf.png", "log.json"}
    card = load_bundle(out / "classes2d-general.pt").card
    assert card.training["maps"] == ["blobs.mrc@4"]
    assert card.training["validation_maps"] == ["apoferritin"]
    assert str(tmp_path) not in json.dumps(card.training["maps"])
    scores = json.loads((out / "scores.json").read_text())
    assert {row["map"] for row in scores["rows"]} == {"apoferritin"}
    assert len(scores["rows"]) == 2 * len(SNRS)
    assert card.scores["validation"] == scores["validation"]

    wrong = {
        ("--out", out, "--map", f"{path}@4", *QUICK): "--resume",
        ("--out", out, "--map", f"{path}@4", "--resume", "--seed", 9, "--joint", 1, *QUICK): "seed: 1 then, 9 now",
        ("--out", tmp_path / "a", "--map", path, *QUICK): "voxel size",
        ("--out", tmp_path / "a", "--recipe", "best", *QUICK): "choose from paper, general",
        ("--out", tmp_path / "a", "--snr", "much", *QUICK): "--snr much",
        ("--out", tmp_path / "a", "--name", "a/b", *QUICK): "--name a/b",
        ("--out", tmp_path / "a", "--map", path.with_name("none"), *QUICK): "neither a built-in map",
    }
    for arguments, told in wrong.items():
        said = run(*arguments)
        assert said.exit_code == 2, (arguments, said.output)
        assert told in said.output
        assert "Traceback" not in said.output
    (out / "checkpoint.pt").write_bytes(b"cut short")
    said = run("--out", out, "--map", f"{path}@4", "--resume", "--joint", 1, *QUICK)
    assert said.exit_code == 2
    assert "no checkpoint" in said.output
    (tmp_path / "file").write_text("")
    assert run("--out", tmp_path / "file" / "out", "--map", f"{path}@4", *QUICK).exit_code == 1

    def broken(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("torch.save", broken)
    assert run("--out", tmp_path / "full", "--map", f"{path}@4", *QUICK).exit_code == 1
