"""Training: what is split, what is learnt, what survives an interruption, what is written."""

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
from beamsieve.models.evaluate import auc, confusion, rate, strictest_needed, wilson
from beamsieve.models.hits import dataset
from beamsieve.models.hits.dataset import fingerprint, generate
from beamsieve.models.hits.evaluate import evaluate, runner, score
from beamsieve.models.hits.recipes import Options, make_options
from beamsieve.models.hits.simulator import PAPER_FRACTIONS, Patterns, Recipe, simulate, simulate_block
from beamsieve.models.hits.train import main, train
from beamsieve.models.hits.training_data import OnDevice, normalisation, split_by_model


def silent(what: str, done: int, of: int) -> None:
    pass


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("patterns")


def tiny(out: Path, cache: Path, **changes: object) -> Options:
    settings: dict[str, object] = {
        "patterns": 500,
        "epochs": 4,
        "batch": 20,
        "rate": 2e-3,
        "calibration": 300,
        "test_patterns": 0,
        "workers": 1,
        "device": "cpu",
        "input": "sqrt",
        "dropout": 0.1,
        "l2": 0.0,
    }
    return make_options(out, "paper", cache=cache, **{**settings, **changes})


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Path:
    out = tmp_path_factory.mktemp("whole")
    assert train(tiny(out, cache, name="tiny"), silent) == out / "tiny.pt"
    return out


def test_the_recipe_of_the_paper_is_the_paper_s() -> None:
    o = make_options(Path("x"))
    assert (o.patterns, o.epochs, o.rate, o.dropout, o.l2, o.decay) == (60_000, 20, 1e-3, 0.25, 0.01, 0.0)
    assert (o.input, o.schedule, o.turns, o.amp, o.mix) == ("linear", "constant", False, False, (("paper", 1.0),))


def models(images: npt.NDArray[Any]) -> Patterns:
    n = len(images)
    ids = np.arange(n, dtype=np.int32) // 100
    empty = np.zeros((n // 100, 1, 1), dtype=bool)
    return Patterns(images, np.zeros(n, np.int8), ids, np.zeros(n, np.int8), np.zeros(n, np.float32), empty, ("a",))


def test_sixty_thousand_are_split_as_in_the_paper_but_by_particle_model() -> None:
    split = split_by_model(models(np.zeros((60_000, 1, 1), dtype=np.uint16)))
    parts = (split.train, split.validation, split.test)
    assert [len(p) for p in parts] == [58_000, 1_000, 1_000]
    seen = [set(p.model_id.tolist()) for p in parts]
    assert not seen[0] & seen[1]
    assert not seen[0] & seen[2]
    assert not seen[1] & seen[2]


def test_too_few_models_to_split_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 3"):
        split_by_model(models(np.zeros((200, 1, 1), dtype=np.uint16)))


def test_normalisation_gives_zero_mean_and_unit_variance() -> None:
    images = np.random.default_rng(0).poisson(50, (1500, 128, 128)).astype(np.uint16)
    images[0] = 65_000
    data = OnDevice(models(images), torch.device("cpu"))
    assert data.photons(slice(0, 1)).max() == 65_000
    mean, std = normalisation(data, "linear")
    assert np.allclose(mean[0, 0].numpy(), images.mean(axis=0), rtol=1e-5)
    assert np.allclose(std[0, 0].numpy(), images.astype(float).std(axis=0), rtol=1e-3)


def test_training_learns_and_leaves_bundle_log_and_pictures(trained: Path) -> None:
    log = json.loads((trained / "log.json").read_text())
    assert [row["epoch"] for row in log] == [1, 2, 3, 4]
    # Knowing nothing but how frequent the classes are gives their entropy as loss.
    frequent = np.array(PAPER_FRACTIONS)
    assert log[-1]["loss"] < 0.85 * -(frequent * np.log(frequent)).sum() < log[0]["loss"]
    for name in ("curves.png", "confusion.png", "samples.png"):
        assert (trained / name).stat().st_size > 5000
    bundle = load_bundle(trained / "tiny.pt").expect(task="hits", shape=(128, 128), classes=5)
    card = json.loads((trained / "tiny.json").read_text())
    assert 0.5 <= card["threshold"] <= 1
    assert card["training"]["patterns"] == {"train": 300, "validation": 100, "test": 100}
    point = card["scores"]["operating_point"]
    assert point["false_positive"]["value"] < 0.005
    images = simulate(100, Recipe(seed=77)).images
    assert runner(bundle.module, torch.device("cpu"))(images).shape == (100, 5)


def test_interrupted_and_resumed_equals_uninterrupted(trained: Path, tmp_path: Path, cache: Path) -> None:
    options = tiny(tmp_path, cache)
    assert train(dataclasses.replace(options, stop_after=1), silent) is None
    assert len(json.loads((tmp_path / "log.json").read_text())) == 1
    assert train(dataclasses.replace(options, resume=True), silent) is not None
    whole = torch.load(trained / "checkpoint.pt", weights_only=True)
    resumed = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    for name, weights in whole["net"].items():
        assert torch.allclose(weights.float(), resumed["net"][name].float(), atol=1e-5), name
    assert [r["loss"] for r in whole["history"]] == pytest.approx([r["loss"] for r in resumed["history"]], rel=1e-4)


def test_resuming_with_other_options_is_refused_by_name(
    trained: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ValueError, match=r"rate: 0\.002 then, 0\.01 now"):
        train(tiny(trained, cache, resume=True, rate=0.01), silent)
    assert main(["--out", str(trained), "--mix", "papr"]) == 2
    assert "papr" in capsys.readouterr().err


def test_generate_equals_simulate_and_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = Recipe(seed=4, per_model=5)
    expected = simulate(18, recipe)
    generate(10, recipe, tmp_path, workers=1)
    made: list[int] = []

    def noted(recipe: Recipe, block: int) -> Patterns:
        made.append(block)
        return simulate_block(recipe, block)

    monkeypatch.setattr(dataset, "simulate_block", noted)
    found = generate(18, recipe, tmp_path, workers=1)
    assert made == [2, 3]
    for name in ("images", "labels", "model_id", "shape_id", "photons", "masks"):
        assert np.array_equal(getattr(found, name), getattr(expected, name)), name
    assert fingerprint(recipe) != fingerprint(dataclasses.replace(recipe, seed=5))


def test_processes_make_the_same_patterns() -> None:
    recipe = Recipe(seed=4, per_model=4)
    assert np.array_equal(generate(12, recipe, workers=2).images, simulate(12, recipe).images)


def test_perfect_answers_score_perfectly_and_wrong_ones_are_seen() -> None:
    labels = np.array([0, 1, 1, 2, 3, 4] * 10)
    groups = np.arange(60) // 6
    sure = np.eye(5)[labels]
    perfect = score(sure, labels, groups, 0.5)
    assert (perfect.accuracy.value, perfect.recall.value, perfect.false_positive.value) == (1, 1, 0)
    assert perfect.false_positive.high == pytest.approx(wilson(0, 40)[1])
    sure[3] = [0, 1, 0, 0, 0]
    flawed = score(sure, labels, groups, 0.5)
    assert flawed.false_positive.hits == 1
    assert flawed.precision.value == pytest.approx(20 / 21)
    assert flawed.confusion[2, 1] == 1
    assert flawed.accuracy.low <= 59 / 60 <= flawed.accuracy.high


def test_table_has_every_row_on_patterns_of_the_test_stream() -> None:
    asked = []

    def always_single(images: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        return np.tile(np.array([0, 1, 0, 0, 0], np.float32), (len(images), 1))

    table = evaluate(always_single, 0.5, 5, 3, lambda what, done, of: asked.append(what), workers=1)
    assert len(table) == sum(what.startswith("evaluate") for what in asked) >= 12
    assert all(s.recall.value in (1.0,) or s.recall.of == 0 for s in table.values())


def test_bootstrap_over_models_is_wider_than_over_patterns() -> None:
    rng = np.random.default_rng(0)
    hit = np.repeat(rng.random(30) < 0.8, 20)
    everything = np.ones(600, dtype=bool)
    grouped = rate(hit, everything, np.repeat(np.arange(30), 20))
    single = rate(hit, everything, np.arange(600))
    assert grouped.high - grouped.low > 2 * (single.high - single.low)
    assert grouped.low < hit.mean() < grouped.high


def test_wilson_interval_of_a_textbook_case() -> None:
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=2e-4)


def test_auc_equals_the_share_of_pairs_in_order() -> None:
    rng = np.random.default_rng(2)
    scores, positive = rng.integers(0, 6, 50).astype(float), rng.random(50) < 0.4
    pairs = scores[positive][:, None] - scores[~positive][None]
    assert auc(scores, positive) == pytest.approx(((pairs > 0) + 0.5 * (pairs == 0)).mean())


def test_threshold_is_the_lowest_that_keeps_false_positives_rare() -> None:
    rng = np.random.default_rng(5)
    positive = np.arange(8000) < 4000
    scores = np.where(positive, rng.beta(20, 1, 8000), rng.beta(1, 8, 8000))
    scores[~positive] = np.where(rng.random(4000) < 0.02, rng.random(4000), scores[~positive])
    threshold = strictest_needed(scores, positive, 0.005)
    false = int((scores[~positive] >= threshold).sum())
    assert wilson(false, 4000, 1.644854)[1] < 0.005 <= wilson(false + 1, 4000, 1.644854)[1]
    assert strictest_needed(scores, positive, 0.9) == 0.5
    assert confusion(np.array([0, 1, 1]), np.array([0, 1, 0]), 2).tolist() == [[1, 0], [1, 1]]
