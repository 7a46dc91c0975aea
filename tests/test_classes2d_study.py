"""What denoisers are compared with, and the study that compares them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from beamsieve.models.classes2d import autoencoders, baselines
from beamsieve.models.classes2d.autoencoders import FitOptions
from beamsieve.models.classes2d.bm3d import Bm3d, Groups, bm3d, bm3d_all, haar, haar_back
from beamsieve.models.classes2d.bundles import write
from beamsieve.models.classes2d.cdae import Block, Cdae
from beamsieve.models.classes2d.simulator import particles
from beamsieve.models.classes2d.study import Study
from beamsieve.models.classes2d.study_methods import Methods, StudyOptions, ratios_of
from beamsieve.models.classes2d.study_report import draw_panel, markdown, verdicts
from beamsieve.models.classes2d.ward import ward_of_rows
from beamsieve.models.evaluate import psnr_fit
from beamsieve.models.particles.maps import load_map
from skimage import color, data
from sklearn.cluster import AgglomerativeClustering


def decibel(image: Any, truth: Any) -> float:
    return float(10 * np.log10(255**2 / ((image - truth) ** 2).mean()))


@pytest.fixture(scope="module")
def photograph() -> tuple[Any, Any]:
    """A part of a photograph, 0..255, and the same with noise of standard deviation 25."""
    picture: Any = data.astronaut()  # type: ignore[no-untyped-call]
    truth = (255 * color.rgb2gray(picture)[:128, 150:278]).astype(np.float32)
    noise = np.random.default_rng(0).normal(0, 25, truth.shape).astype(np.float32)
    return truth, truth + noise


@pytest.fixture(scope="module")
def tilted() -> Any:
    """Particles of four orientations at a ratio of 0.1."""
    return particles(load_map("hemocyanin"), 160, seed=3, snr=0.1, orientations=4, pixel_a=9.0)


def test_bm3d_reaches_what_is_published_for_photographs(photograph: Any) -> None:
    truth, noisy = photograph
    found = decibel(bm3d(noisy, 25), truth)
    wiener = max(decibel(baselines.wiener(noisy[None], 25, window=w)[0], truth) for w in (3, 5, 7))
    # Dabov et al. 2007, table III: 28.5 to 32.9 dB on twelve photographs at 25 of 255.
    assert 28.4 < found < 33
    assert found > wiener + 2.5
    assert decibel(bm3d(noisy, 25, Bm3d(cut_match=2.0)), truth) > wiener + 2


def test_the_second_step_of_bm3d_is_better_than_the_first(photograph: Any) -> None:
    from beamsieve.models.classes2d import bm3d as module

    truth, noisy = photograph[0][:64, :64], photograph[1][:64, :64]
    how = Bm3d()
    basic = module._first(module._spectra(noisy, how.block), Groups(noisy.shape, how), 25, how)
    assert decibel(noisy, truth) + 5 < decibel(basic, truth) < decibel(bm3d(noisy, 25), truth)


def test_bm3d_leaves_what_has_hardly_noise_and_any_size_alone() -> None:
    smooth = np.add.outer(np.sin(np.arange(17) / 3), np.cos(np.arange(30) / 4)).astype(np.float32)
    assert bm3d(smooth, 1e-3) == pytest.approx(smooth, abs=2e-3)
    noisy = smooth + np.random.default_rng(0).normal(0, 0.3, smooth.shape).astype(np.float32)
    scaled = bm3d(1000 * noisy, 300)
    assert scaled == pytest.approx(1000 * bm3d(noisy, 0.3), abs=0.5)
    assert np.abs(bm3d(noisy, 0.3) - smooth).mean() < 0.5 * np.abs(noisy - smooth).mean()
    assert (bm3d_all(noisy[None], 0.3)[0] == bm3d(noisy, 0.3)).all()


def test_haar_is_orthonormal_and_goes_back() -> None:
    stack = np.random.default_rng(0).normal(size=(3, 16, 5)).astype(np.float32)
    there = haar(stack)
    assert (there**2).sum() == pytest.approx((stack**2).sum(), rel=1e-5)
    assert haar_back(there) == pytest.approx(stack, abs=1e-5)
    assert np.abs(haar(np.ones((1, 8, 1), np.float32))[0, 1:]).max() == 0


def test_groups_hold_what_is_alike_and_near() -> None:
    how = Bm3d(block=4, step=4, window=9)
    groups = Groups((24, 24), how)
    features = np.zeros((21 * 21, 16), np.float32)
    features[5] = 9
    found = groups.alike(features, 8, near=1.0)
    references = {int(row[0]) for members in found for row in members}
    rows = [0, 4, 8, 12, 16, 20]
    assert references == {21 * y + x for y in rows for x in rows}
    for members in found:
        y, x = np.divmod(members, 21)
        assert np.abs(y - y[:, :1]).max() <= 4
        assert np.abs(x - x[:, :1]).max() <= 4
        assert 5 not in members


@pytest.mark.parametrize(
    ("image", "sigma", "said"),
    [
        (np.zeros((7, 30)), 1.0, r"image of shape \(7, 30\): needed is .* 8 pixels or more"),
        (np.zeros((2, 30, 30)), 1.0, "needed is"),
        (np.zeros((30, 30)), 0.0, "sigma: 0 is no standard deviation"),
    ],
)
def test_bm3d_refuses_what_it_cannot_do(image: Any, sigma: Any, said: Any) -> None:
    with pytest.raises(ValueError, match=said):
        bm3d(image.astype(np.float32), sigma)


def test_every_filter_is_better_than_none(tilted: Any) -> None:
    images, clean = tilted.images[:8], tilted.clean[:8]
    raw = psnr_fit(images, clean).mean()
    for name, tried in baselines.candidates().items():
        found = tried[-1].run(images, 0.95)
        assert found.shape == images.shape
        assert found.dtype == np.float32
        assert psnr_fit(found, clean).mean() > raw + 1, name


def test_non_local_means_does_not_depend_on_scale_and_keeps_edges(photograph: Any) -> None:
    truth, noisy = photograph[0][None, :64, :64], photograph[1][None, :64, :64]
    found = baselines.non_local_means(noisy, 25, patch=5, search=8, strength=0.4)
    assert decibel(found, truth) > decibel(noisy, truth) + 5
    assert baselines.non_local_means(4 * noisy, 100, patch=5, search=8, strength=0.4) == pytest.approx(
        4 * found, rel=1e-3
    )
    step = np.repeat([[0.0, 10.0]], 16, 1).reshape(1, 1, 32).repeat(32, 1).astype(np.float32)
    kept = baselines.non_local_means(step, 0.1, patch=3, search=4, strength=0.5)
    assert kept == pytest.approx(step, abs=1e-3)


def test_the_best_parameters_are_chosen(tilted: Any) -> None:
    images, clean = tilted.images[:12], tilted.clean[:12]
    tried = baselines.candidates()["low-pass"]
    values = [psnr_fit(one.run(images, 0.95), clean).mean() for one in tried]
    best, value = baselines.choose(tried, images, clean, 0.95)
    assert best is tried[int(np.argmax(values))]
    assert value == pytest.approx(max(values))
    assert len(set(values)) == len(values)


def test_wards_clusters_are_those_of_scikit_learn() -> None:
    rows = np.random.default_rng(0).normal(size=(150, 40)).astype(np.float32)
    rows[:50] += 1
    rows[50:90, :10] -= 2
    for number in (2, 3, 7):
        ours = ward_of_rows(rows, number)
        theirs = AgglomerativeClustering(number, linkage="ward").fit_predict(rows)
        assert len(set(zip(ours.tolist(), theirs.tolist(), strict=True))) == number
        assert set(ours.tolist()) == set(range(number))
    with pytest.raises(ValueError, match="151 clusters of 150 images"):
        ward_of_rows(rows, 151)


def test_a_block_learns_what_it_is_shown_and_its_original_stays() -> None:
    images = np.random.default_rng(0).normal(size=(16, 64, 64)).astype(np.float32)
    wanted = np.full_like(images, 0.7)
    block = autoencoders.new_block(1, dropout=0.0)
    before = autoencoders.run(block, images)
    losses: list[str] = []
    how = FitOptions(epochs=5, batch=4, dropout=0.0)
    own = autoencoders.fit(
        autoencoders.copy_of(block, 0.0), images, wanted, how, "x", lambda what, done, of: losses.append(what)
    )
    assert len(losses) == 5
    assert ((autoencoders.run(own, images) - wanted) ** 2).mean() < 0.2 * ((before - wanted) ** 2).mean()
    assert (autoencoders.run(block, images) == before).all()
    assert autoencoders.latent(block, images).shape == (16, 32, 8, 8)


def test_training_leaves_torchs_random_numbers_alone_and_repeats_itself(tilted: Any) -> None:
    torch.manual_seed(5)
    wanted = torch.rand(3)
    torch.manual_seed(5)
    how = FitOptions(epochs=1, batch=16)
    some = tilted.images[:32]
    one = autoencoders.run(autoencoders.on_means(some, how, k=5), some)
    assert torch.equal(torch.rand(3), wanted)
    assert autoencoders.run(autoencoders.on_means(some, how, k=5), some) == pytest.approx(one, abs=1e-5)


@pytest.fixture(scope="module")
def cascade(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    return write(tmp_path_factory.mktemp("bundle"), "tiny", Cdae((2, 2, 2), (2, 2, 2)), training={}, scores={})


TINY: Any = {"images": 10, "epochs": 1, "tune_epochs": 1, "tune_on": 40, "scored": 8, "validation": 4}


@pytest.fixture(scope="module")
def studied(cascade: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A whole study of one protein, with few filters."""
    out = tmp_path_factory.mktemp("study")
    with pytest.MonkeyPatch.context() as patch:
        few = {name: [tried[0]] for name, tried in baselines.candidates().items()}
        patch.setattr("beamsieve.models.classes2d.study.candidates", lambda: few)
        patch.setattr("beamsieve.models.classes2d.finetune.LEAST", 40)
        patch.setattr(autoencoders, "new_block", lambda seed, dropout=0.5: Block((2, 2, 2), (2, 2, 2), dropout=dropout))
        study = Study(
            out,
            StudyOptions(**TINY),
            {"CDAE": cascade},
            load_map("proteasome"),
            (load_map("ribosome"),),
            lambda *a: None,
        )
        return study, study.run((load_map("hemocyanin"),))


def test_a_study_scores_every_method_on_the_same_images(studied: Any) -> None:
    study, found = studied
    (row,) = found["proteins"]
    assert row["images"] == 40
    methods = ["raw", "low-pass", "Wiener", "non-local means", "BM3D", "DAE, not tuned", "DAE", "DAE on means"]
    assert list(row["psnr"]) == [*methods, "CDAE, not tuned", "CDAE", "CDAE, raw means"]
    assert {"PCA + k-means", "CAE + k-means", "CDAE + Ward", "raw + Ward", "CDAE, equalised + k-means"} <= set(
        row["clusters"]
    )
    assert not any(way.startswith(("BM3D", "non-local")) for way in row["clusters"])
    p = study.simulated(load_map("hemocyanin"), TINY["images"], 3_000_017)
    again = ratios_of(p.images[:8], p.clean[:8])
    assert row["psnr"]["raw"]["fit"] == pytest.approx(again["fit"])
    assert row["psnr"]["low-pass"]["fit"]["value"] > row["psnr"]["raw"]["fit"]["value"] + 2
    assert row["clusters"]["low-pass + k-means"]["f1"]["value"] > 0.9
    assert row["tuning"].keys() == {"CDAE", "CDAE, raw means"}
    assert row["tuning"]["CDAE"].keys() == {"before", "after", "error", "better"}
    with np.load(study.out / row["shown"]) as shown:
        assert set(shown) == {"truth", *row["psnr"]}
        assert all(shown[name].shape == (8, 64, 64) for name in shown)


def test_a_study_that_was_done_is_not_done_again(studied: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    study, found = studied
    monkeypatch.setattr(Study, "single", lambda self: None)
    monkeypatch.setattr(Methods, "scored", lambda *a: pytest.fail("computed again"))
    few = {name: [tried[0]] for name, tried in baselines.candidates().items()}
    monkeypatch.setattr("beamsieve.models.classes2d.study.candidates", lambda: few)
    monkeypatch.setattr("beamsieve.models.classes2d.study.choose", lambda *a: pytest.fail("chosen again"))
    assert json.dumps(study.run((load_map("hemocyanin"),))) == json.dumps(found)


def test_images_of_tests_trainings_and_choices_are_drawn_apart(studied: Any) -> None:
    study, _ = studied
    volume = load_map("ribosome")
    first, second, third = (study.simulated(volume, 1, seed) for seed in (1_000_003, 2_000_003, 3_000_017))
    assert not np.allclose(first.rotations, second.rotations)
    assert not np.allclose(second.images, third.images)
    assert (np.bincount(study.simulated(volume, 5, 0).orientation) == 5).all()


def test_the_tables_say_what_was_reached(studied: Any, tmp_path: Path) -> None:
    _, found = studied
    text = markdown("paper", found)
    lines = text.splitlines()
    heads = [line for line in lines if line.startswith(("| PSNR", "| clusters"))]
    assert "hemocyanin" in heads[0]
    assert "F1 hemocyanin" in heads[1]
    table = [line for line in lines if line.startswith("|")]
    assert len({len(line) for line in table[: len(found["proteins"][0]["psnr"]) + 2]}) == 1
    value = found["proteins"][0]["psnr"]["BM3D"]["fit"]["value"]
    assert any("BM3D" in line and f"{value:.2f} [" in line for line in table)
    assert any(line.startswith("- CDAE: mean PSNR") for line in lines)
    with np.load(studied[0].out / found["proteins"][0]["shown"]) as shown:
        draw_panel(tmp_path / "panel.png", dict(shown), "hemocyanin")
    assert (tmp_path / "panel.png").stat().st_size > 20_000


def made(cascade: float, single: float, best: float, f1: float) -> Any:
    """A study's result with these values: PSNR of three methods, F1 of the cascade's clusters."""

    def value(v: float) -> Any:
        return {"value": v, "low": v, "high": v}

    psnr = {"BM3D": best, "DAE": single, "DAE, not tuned": single - 1, "CDAE, not tuned": 30.0, "CDAE": cascade}
    ways = {"raw + k-means": 0.9, "CDAE + k-means": f1, "CDAE + Ward": f1 - 0.1}
    protein = {
        "protein": "one",
        "psnr": {name: {"fit": value(v)} for name, v in psnr.items()},
        "clusters": {name: {"f1": value(v)} for name, v in ways.items()},
    }
    return {"proteins": [protein], "cascades": {"CDAE": {}}}


def test_verdicts_by_hand() -> None:
    good = verdicts(made(25.0, 24.0, 23.0, 0.95))
    assert good[0] == "CDAE: mean PSNR 25.00 dB, the best of the others is DAE with 24.00: reached"
    assert good[1] == "CDAE: better than the single autoencoder on each protein: reached"
    assert good[2].endswith("one 0.950, above raw + k-means 0.900")
    bad = verdicts(made(22.0, 22.5, 23.0, 0.5))
    assert bad[0].endswith("BM3D with 23.00: not reached")
    assert bad[1].endswith("0 of 1 proteins (not on one): not reached")
    assert bad[2].endswith("one 0.500, below raw + k-means 0.900")
