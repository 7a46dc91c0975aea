"""Fine-tuning of a denoiser: what it learns from, what tells that it is better, what survives an interruption."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from beamsieve.models.bundle import Bundle, BundleError, load_bundle
from beamsieve.models.classes2d import bundles
from beamsieve.models.classes2d import finetune as finetune_module
from beamsieve.models.classes2d.cdae import Cdae
from beamsieve.models.classes2d.finetune import CHECKPOINT, REPORT, Tuned, finetune
from beamsieve.models.classes2d.neighbours import means, nearest, standardised
from beamsieve.models.classes2d.tuner import Tuner
from beamsieve.models.classes2d.tuning_options import TuneOptions, trained_dropout
from beamsieve.models.classes2d.tuning_score import compare_scores, references, scores, split
from beamsieve.tests import blob_particles
from beamsieve.tests.blob_particles import SMALL, Floats, write_beginner
from scipy.ndimage import gaussian_filter

COUNT = 120
QUICK: dict[str, Any] = {"epochs": 2, "k": 10, "aligned": False, "rate": 3e-4, "target": "images", "threads": 1}


def silent(what: str, done: int, of: int) -> None:
    pass


@pytest.fixture(autouse=True, scope="module")
def _fewer_images() -> Iterator[None]:
    """What a session needs takes longer than a test may."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(finetune_module, "LEAST", 100)
        yield


def particles() -> tuple[Floats, Floats]:
    """Noisy and clean."""
    return blob_particles.particles(COUNT)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A cascade that has learnt a little."""
    return load_bundle(write_beginner(tmp_path_factory.mktemp("base")))


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory, bundle: Bundle) -> tuple[Tuned, Path]:
    out = tmp_path_factory.mktemp("tuned")
    found = finetune(bundle, particles()[0], options(out, source="blobs", command="beamsieve finetune …"), silent)
    assert found is not None
    return found, out


def options(out: Path, **changes: Any) -> TuneOptions:
    return TuneOptions(**{"out": out, **QUICK, **changes})


def denoised(bundle: Bundle, images: Floats) -> Floats:
    with torch.inference_mode():
        found: Floats = bundle.module(torch.from_numpy(images)[:, None])[:, 0].numpy()
    return found


def correlation(one: Floats, other: Floats) -> float:
    return float((standardised(one) * standardised(other)).sum(1).mean())


# --- the score ------------------------------------------------------------------------------------------------------


def test_a_split_is_of_all_images_and_the_same_again() -> None:
    parts = split(50, 0.2, 3)
    assert len(parts.held) == 10
    assert np.array_equal(np.sort(np.concatenate([parts.training, parts.held])), np.arange(50))
    assert np.array_equal(split(50, 0.2, 3).held, parts.held)
    assert not np.array_equal(split(50, 0.2, 4).held, parts.held)
    with pytest.raises(ValueError, match="more images"):
        split(2, 0.2, 0)


def test_the_score_is_the_share_of_differences_explained() -> None:
    clean = particles()[1]
    rng = np.random.default_rng(0)
    assert scores(clean, clean).mean() == pytest.approx(1)
    assert scores(-3 * clean + 5, clean).mean() == pytest.approx(1)
    worse = [scores(clean + rng.normal(0, s, clean.shape), clean).mean() for s in (0.1, 0.3, 1.0)]
    assert 1 > worse[0] > worse[1] > worse[2]
    # By hand: two images of two pixels, whose references differ by ±1; half of it is answered.
    needed = np.array([[[1.0, 2.0]], [[3.0, 0.0]]])
    given = np.array([[[2.0, 1.0]], [[2.0, 1.0]]])
    assert scores(given, needed) == pytest.approx([0, 0])
    assert scores(needed * 2 - 1, needed) == pytest.approx([1, 1])


def test_the_score_cannot_be_had_by_answering_the_mean_of_all() -> None:
    """The mean of all particles is much like each of them; it says nothing of which is which."""
    noisy, clean = particles()
    mean = np.repeat(clean.mean(0)[None], len(clean), 0)
    blurred = gaussian_filter(noisy, (0, 3, 3))
    assert correlation(mean, clean) > 0.6
    assert abs(scores(mean, clean).mean()) < 1e-6
    assert scores(np.zeros_like(clean), clean).mean() == 0
    near = mean + 0.05 * (blurred - blurred.mean(0))
    assert scores(near, clean).mean() < 0.2 < scores(blurred, clean).mean()
    assert scores(np.roll(clean, 1, axis=0), clean).mean() < 0  # differences, but of others
    assert scores(noisy, clean).mean() < scores(blurred, clean).mean()


def test_without_the_truth_models_stand_in_the_same_order() -> None:
    noisy, clean = particles()
    parts = split(COUNT, 0.25, 1)
    start = gaussian_filter(noisy, (0, 3, 3))
    wanted = references(noisy, start, parts, 10, aligned=False)
    assert correlation(wanted, clean[parts.held]) > 0.85
    mean = np.repeat(start.mean(0)[None], COUNT, 0)
    models = [noisy, mean, gaussian_filter(noisy, (0, 9, 9)), start, 0.5 * start + 0.5 * clean, clean]
    told = [scores(model[parts.held], wanted).mean() for model in models]
    true = [scores(model[parts.held], clean[parts.held]).mean() for model in models]
    assert np.array_equal(np.argsort(told), np.argsort(true))


def test_the_error_of_a_change_is_that_of_a_paired_difference() -> None:
    rng = np.random.default_rng(1)
    before = rng.normal(1, 5, 400)
    change = compare_scores(before, before + rng.normal(0.1, 0.5, 400))
    assert not compare_scores(before - 9, before - 8).better  # less bad is not good
    assert change.error == pytest.approx(0.5 / 20, rel=0.15)  # the images' own spread of 5 does not come in
    assert change.better
    assert not compare_scores(before, before).better
    assert not compare_scores(before, before - 0.1).better
    assert not compare_scores(before, np.full(400, np.nan)).better


# --- what it learns from --------------------------------------------------------------------------------------------


def test_targets_are_means_of_the_block_s_outputs_over_neighbours_of_the_training_part(
    bundle: Bundle, tmp_path: Path
) -> None:
    images = particles()[0]
    tuner = Tuner(bundle, images, options(tmp_path, target="outputs"), silent, lambda: False)
    inputs, targets = tuner.data()
    assert inputs is images
    with torch.inference_mode():
        outputs = tuner.net.blocks[0](torch.from_numpy(images)[:, None])[:, 0].numpy()
    ours = outputs[tuner.parts.training]
    assert np.allclose(targets[tuner.parts.training], means(ours, nearest(ours, 10)), atol=1e-4)


def test_the_second_block_is_given_what_the_tuned_first_leaves(bundle: Bundle, tmp_path: Path) -> None:
    images = particles()[0]
    tuner = Tuner(bundle, images, options(tmp_path, epochs=1, target="outputs"), silent, lambda: False)
    tuner.prepare()
    old = tuner.run(images, range(1), "before")
    tuner.finish_epoch()
    assert tuner.block == 1
    inputs, targets = tuner.data()
    assert np.allclose(inputs, tuner.run(images, range(1), "after"), atol=1e-6)
    assert np.abs(inputs - old).max() > 1e-3
    # Targets are of the second block before it is tuned, also when some of its epochs are behind.
    tuner.finish_epoch()
    again = Tuner(bundle, images, options(tmp_path, epochs=1, target="outputs"), silent, lambda: False)
    again.net.load_state_dict(tuner.net.state_dict())
    again.block = 1
    assert np.allclose(again.data()[1], targets, atol=1e-5)


def test_raw_images_are_averaged_where_that_is_the_target(bundle: Bundle, tmp_path: Path) -> None:
    images, clean = particles()
    tuner = Tuner(bundle, images, options(tmp_path, target="images"), silent, lambda: False)
    _, targets = tuner.data()
    assert correlation(targets, clean) > 0.75
    rows = tuner.parts.training
    # Its own noise must not be in the target: it would be learnt, and the score would still rise.
    noise = images - clean
    assert abs(correlation(targets[rows] - clean[rows], noise[rows])) < 0.1


# --- the whole ------------------------------------------------------------------------------------------------------


def test_a_better_bundle_is_written_with_where_it_comes_from(tuned: tuple[Tuned, Path], bundle: Bundle) -> None:
    found, out = tuned
    noisy, clean = particles()
    assert found.better
    assert found.after - found.before > found.error > 0
    assert found.path == out / "beginner-tuned.pt"
    new = load_bundle(found.path)
    held = split(COUNT, 0.2, 1).held
    before, after = (correlation(denoised(one, noisy[held]), clean[held]) for one in (bundle, new))
    assert after > before + 0.01
    training = new.card.training
    assert training["base"]["name"] == "beginner"
    assert training["base"]["sha256"] == bundle.card.sha256
    assert training["images"] == {"count": COUNT, "held_out": 24, "source": "blobs"}
    assert training["command"] == "beamsieve finetune …"
    scored = new.card.scores["held_out_share_of_differences_explained"]
    assert (scored["before"], scored["after"], scored["better"]) == (found.before, found.after, True)
    assert new.card.trained_by == "beamsieve finetune classes2d"
    assert trained_dropout(new) == 0
    told = json.loads((out / REPORT).read_text())
    assert told["better"] is True
    assert told["path"] == str(found.path)
    assert [row["block"] for row in told["history"]] == [1, 1, 2, 2, 3, 3]
    assert all((out / name).stat().st_size > 10_000 for name in ("tuned.png", "losses.png"))


def test_the_bundle_it_starts_from_is_not_touched(tuned: tuple[Tuned, Path], bundle: Bundle) -> None:
    again = load_bundle(bundle.path)  # checks the SHA-256
    images = particles()[0][:8]
    assert np.array_equal(denoised(again, images), denoised(bundle, images))
    assert sorted(path.name for path in bundle.path.parent.iterdir()) == ["beginner.json", "beginner.pt"]
    assert tuned[0].base_sha256 == bundle.card.sha256


def weights(path: Path | None) -> dict[str, Any]:
    assert path is not None
    return dict(load_bundle(path).module.state_dict())


def test_an_interrupted_run_goes_on_to_the_same_weights(
    tuned: tuple[Tuned, Path], bundle: Bundle, tmp_path: Path
) -> None:
    images = particles()[0]
    signal = _Signal(after=3)  # the second epoch of block 2 has begun
    assert finetune(bundle, images, options(tmp_path), signal, signal.stop) is None
    assert (tmp_path / CHECKPOINT).exists()
    assert not (tmp_path / REPORT).exists()
    told: list[str] = []
    found = finetune(bundle, images, options(tmp_path, resume=True), lambda what, done, of: told.append(what))
    assert found is not None
    trained = [what for what in told if what.startswith("train")]
    assert len(trained) == 6 - 3  # epochs that were finished are not trained again
    wanted = weights(tuned[0].path)
    for name, value in weights(found.path).items():
        assert torch.allclose(value, wanted[name], atol=1e-5), name
    assert found.after == pytest.approx(tuned[0].after, abs=1e-5)


class _Signal:
    """Says stop at the second batch after so many epochs."""

    def __init__(self, after: int) -> None:
        self.epochs, self.batches = after, 0

    def __call__(self, what: str, done: int, of: int) -> None:
        self.epochs -= what.startswith("train")

    def stop(self) -> bool:
        self.batches += self.epochs == 0
        return self.batches > 1


def test_going_on_with_something_else_is_refused(bundle: Bundle, tmp_path: Path) -> None:
    images = particles()[0]
    tuner = Tuner(bundle, images, options(tmp_path), silent, lambda: False)
    tuner.save(tmp_path / CHECKPOINT)
    with pytest.raises(ValueError, match="k: 10 then, 9 now"):
        finetune(bundle, images, options(tmp_path, resume=True, k=9), silent)
    with pytest.raises(ValueError, match=r"images: .* another --out"):
        finetune(bundle, images[::-1].copy(), options(tmp_path, resume=True), silent)
    (tmp_path / CHECKPOINT).write_bytes(b"PK\x03\x04 cut short")
    with pytest.raises(ValueError, match=r"checkpoint\.pt: is no checkpoint"):
        finetune(bundle, images, options(tmp_path, resume=True), silent)


def test_what_does_not_get_better_is_not_written_unless_asked_for(bundle: Bundle, tmp_path: Path) -> None:
    """Dropout that the network never met makes it collapse to the mean."""
    images = particles()[0]
    bad = options(tmp_path / "bad", dropout=0.9, rate=5e-2, epochs=1)
    found = finetune(bundle, images, bad, silent)
    assert found is not None
    assert not found.better
    assert found.path is None
    assert not (bad.out / "beginner-tuned.pt").exists()
    assert json.loads((bad.out / REPORT).read_text())["path"] is None
    kept = finetune(bundle, images, replace(bad, out=tmp_path / "kept", anyway=True, name="mine"), silent)
    assert kept is not None
    assert kept.path == tmp_path / "kept" / "mine.pt"
    assert load_bundle(kept.path).card.scores["held_out_share_of_differences_explained"]["better"] is False


def test_a_training_that_diverges_ends_and_is_never_written(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: Tuner, *_: object) -> float:
        with torch.no_grad():
            next(self.net.blocks[0].parameters()).fill_(math.nan)
        return math.nan

    monkeypatch.setattr(Tuner, "_pass", broken)
    found = finetune(bundle, particles()[0], options(tmp_path, anyway=True), silent)
    assert found is not None
    assert not found.better
    assert found.path is None
    assert len(found.history) == 1
    told = json.loads((tmp_path / REPORT).read_text(), parse_constant=pytest.fail)
    assert told["after"] is None


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"k": 1}, "k: 1"),
        ({"epochs": 0}, "epochs: 0"),
        ({"target": "truth"}, "outputs, images"),
        ({"rate": -1.0}, "rate: -1"),
        ({"rate": math.nan}, "rate: nan"),
        ({"validation": 0.9}, "validation: 0.9"),
        ({"dropout": 1.0}, "dropout: 1.0"),
        ({"batch": 0}, "batch: 0"),
    ],
)
def test_options_that_cannot_be_are_refused_by_name(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        options(Path("x"), **changes)


def test_images_and_devices_that_cannot_be_are_refused(bundle: Bundle, tmp_path: Path) -> None:
    images = particles()[0]
    with pytest.raises(ValueError, match="100 or more"):
        finetune(bundle, images[:99], options(tmp_path), silent)
    with pytest.raises(ValueError, match="64 × 64"):
        finetune(bundle, images[:, :32, :32], options(tmp_path), silent)
    with pytest.raises(BundleError, match="device"):
        finetune(bundle, images, options(tmp_path, device="tpu"), silent)
    assert not list(tmp_path.iterdir())


def test_dropout_is_the_one_the_bundle_was_trained_with(bundle: Bundle, tmp_path: Path) -> None:
    assert trained_dropout(bundle) == 0
    path = bundles.write(tmp_path, "silent", Cdae(**SMALL), training={"a": 1}, scores={"a": 1})
    assert trained_dropout(load_bundle(path)) == 0.5
    tuner = Tuner(load_bundle(path), particles()[0], options(tmp_path), silent, lambda: False)
    assert {layer.p for layer in tuner.net.modules() if isinstance(layer, torch.nn.Dropout)} == {0.5}
