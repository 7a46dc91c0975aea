"""Training the picker: scale, splits, what is shown, what is learnt, what survives an interruption, what is written."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
import numpy.typing as npt
import pytest
import torch
from beamsieve.models.bundle import load_bundle
from beamsieve.models.particles import mining
from beamsieve.models.particles.candidates import Labelled
from beamsieve.models.particles.dataset import Ground, Scaled, check, divide, scaled, split
from beamsieve.models.particles.deepem import PRESETS, DeepEM, folded, layout_for
from beamsieve.models.particles.evaluate import evaluate
from beamsieve.models.particles.maps import load_map
from beamsieve.models.particles.matching import Curve
from beamsieve.models.particles.pick import Picker
from beamsieve.models.particles.practice import Practice
from beamsieve.models.particles.recipes import Options, geometry, make_options
from beamsieve.models.particles.sampling import Boxes, Pieces, sampler
from beamsieve.models.particles.start import fresh, logits, unfolded
from beamsieve.models.particles.train import limited, train
from beamsieve.models.particles.trained import chosen_threshold
from beamsieve.models.runner import Runner
from beamsieve.stream.__main__ import app
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner, Result

D = 20.0
NONE = np.zeros(0, np.float32)
QUICK: dict[str, Any] = {"epochs": 4, "steps": 12, "batch": 24, "cells": 3, "pixel_a": 1.0, "threads": 1}


def silent(what: str, done: int, of: int) -> None:
    pass


def places(
    rng: np.random.Generator, count: int, shape: tuple[int, int], margin: float = 0.8
) -> npt.NDArray[np.float64]:
    found: list[npt.NDArray[np.float64]] = []
    while len(found) < count:
        new = rng.uniform(margin * D, np.array(shape)[::-1] - margin * D)
        if all(np.hypot(*(new - old)) > 1.2 * D for old in found):
            found.append(new)
    return np.array(found).reshape(-1, 2)


@lru_cache
def micrograph(
    seed: int, count: int = 12, shape: tuple[int, int] = (150, 170), name: str = "", bars: int = 0
) -> Labelled:
    """Dark discs with a hole in noise, and (not to be picked) dark bars."""
    rng = np.random.default_rng(seed)
    points = places(rng, count + bars, shape)
    y, x = np.mgrid[: shape[0], : shape[1]]
    image = rng.normal(20, 1, shape).astype(np.float32)
    for px, py in points[:count]:
        r = np.hypot(x - px, y - py)
        image -= 1.6 * ((r < D / 2) & (r > D / 6))
    for px, py in points[count:]:
        image -= 3.0 * ((np.abs(x - px) < D / 2) & (np.abs(y - py) < D / 8))
    found = points[:count].astype(np.float32)
    return Labelled(name or f"field-{seed}", lambda: image, 1.0, found[:, 0], found[:, 1], NONE, NONE)


@lru_cache
def prepared(seed: int = 0, **kwargs: Any) -> Scaled:
    return scaled(micrograph(seed, **kwargs), 1.0, D)


@pytest.fixture(scope="module")
def fields() -> list[Labelled]:
    return [micrograph(seed) for seed in range(6)]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, fields: list[Labelled]) -> Path:
    out = tmp_path_factory.mktemp("whole")
    made = train(make_options(out, D, **{**QUICK, "name": "discs"}), fields, silent)
    assert made == out / "discs.pt"
    return made


# --- scale and options ---------------------------------------------------------------------------------------------


def test_the_recipe_of_the_paper_is_the_paper_s() -> None:
    o = make_options(Path("x"), 100, "paper")
    assert (o.activation, o.batch_norm, o.loss, o.optimiser, o.rate, o.decay) == (
        "sigmoid",
        False,
        "mse",
        "descent",
        1,
        0,
    )
    assert (o.cells, o.negatives, o.sigma, o.accuracy, o.mining, o.cosine) == (1, 1.0, 0.0, 0.95, 0, False)
    assert o.maps == (6, 12, 12)


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_the_published_network_and_sets_the_scale(name: str) -> None:
    layout, pixel_a = geometry(make_options(Path("x"), 400, preset=name))
    assert layout == PRESETS[name]
    assert pixel_a * layout.box == pytest.approx(1.4 * 400)


def test_without_a_box_the_particle_is_32_pixels_wide_unless_the_micrographs_are_coarser() -> None:
    o = make_options(Path("x"), 320)
    layout, pixel_a = geometry(o, 2.0)
    assert pixel_a == 10
    assert 44.8 <= layout.box <= 48
    coarse, pixel_a = geometry(o, 16.0)
    assert pixel_a == 16
    assert 28 <= coarse.box <= 30
    with pytest.raises(ValueError, match="too coarse"):
        geometry(o, 40.0)


def test_a_stated_pixel_size_stands() -> None:
    assert geometry(make_options(Path("x"), 400, preset="klh", pixel_a=2.2))[1] == 2.2
    assert geometry(make_options(Path("x"), 120, box=44), 3.0) == (layout_for(44), 1.4 * 120 / 44)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"recipe": "modest"}, "modern"),
        ({"activation": "tanh"}, "sigmoid"),
        ({"preset": "20s"}, "klh"),
        ({"preset": "klh", "box": 40}, "272"),
        ({"diameter_a": -1}, "diameter_a"),
        ({"rate": float("nan")}, "rate"),
        ({"validation": 0}, "validation"),
        ({"hard": 1.5}, "hard"),
        ({"pixel_a": -2.0}, "pixel_a"),
        ({"box": 10}, "24"),
    ],
)
def test_options_that_cannot_be_are_refused_by_name(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        make_options(Path("x"), **{"diameter_a": 100.0, **changes})


# --- data ----------------------------------------------------------------------------------------------------------


def test_centres_move_with_the_pixels_when_a_micrograph_is_rescaled() -> None:
    rng = np.random.default_rng(3)
    image = rng.normal(100, 1, (240, 300)).astype(np.float32)
    image[120:123, 201:204] -= 60  # its middle is (202, 121)
    one = Labelled(
        "dot",
        lambda: image,
        1.0,
        np.array([202], np.float32),
        np.array([121], np.float32),
        np.array([20], np.float32),
        np.array([30], np.float32),
    )
    small = scaled(one, 3.0, 60.0)
    assert small.image.shape == (80, 100)
    y, x = np.unravel_index(np.argmin(small.image), small.image.shape)
    np.testing.assert_allclose(small.particles, [[x, y]], atol=0.5)
    np.testing.assert_allclose(small.to_full(small.particles), [[202, 121]], atol=1e-5)
    np.testing.assert_allclose(small.wrong, [[(20.5) / 3 - 0.5, 30.5 / 3 - 0.5]], atol=1e-5)
    assert abs(float(np.median(small.image))) < 0.1


@pytest.mark.parametrize("x", [-3.0, 171.0])
@pytest.mark.parametrize("which", ["x", "wrong_x"])
def test_coordinates_outside_are_refused_with_the_micrograph_s_name(which: str, x: float) -> None:
    one = micrograph(1, name="grid7-0042")
    bad = np.array([x], np.float32)
    other: Any = {which: bad, which.replace("x", "y"): np.array([5], np.float32)}
    changed = replace(one, **other)
    with pytest.raises(ValueError, match=r"grid7-0042: 1 of .* outside its 170 × 150 pixels"):
        scaled(changed, 1.0, D)


def test_a_split_is_by_micrograph_and_comes_from_the_seed(fields: list[Labelled]) -> None:
    empty = replace(fields[0], name="empty", x=NONE, y=NONE)
    everything = [*fields, empty]
    seen: set[str] = set()
    for seed in range(30):
        rest, held = split(everything, 0.3, seed)
        again = split(everything, 0.3, seed)
        assert ([m.name for m in rest], [m.name for m in held]) == tuple([m.name for m in part] for part in again)
        assert {m.name for m in rest}.isdisjoint(m.name for m in held)
        assert len(rest) + len(held) == 7
        assert len(held) == 2
        assert empty not in held
        seen.update(m.name for m in held)
    assert seen == {m.name for m in fields}
    assert [m.name for m in divide(everything, ["field-2"])[1]] == ["field-2"]


def test_too_little_to_train_from_is_said(fields: list[Labelled]) -> None:
    with pytest.raises(ValueError, match="1 labelled micrographs: at least 2"):
        check(fields[:1])
    with pytest.raises(ValueError, match="field-1: given more than once"):
        check([fields[0], fields[1], fields[1]])
    few = [replace(m, x=m.x[:3], y=m.y[:3]) for m in fields[:3]]
    with pytest.raises(ValueError, match="6 particles on 2 micrographs"):
        split(few, 0.2, 1)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), size=st.sampled_from([24, 25, 44]))
def test_distances_and_cuts_are_those_of_the_right_micrograph(seed: int, size: int) -> None:
    rng = np.random.default_rng(seed)
    ground = Ground([prepared(0), prepared(1, shape=(90, 140), count=4)])
    corners = ground.anywhere(rng, 40, size)
    x, y, field = rng.uniform(0, 90, 30), rng.uniform(0, 90, 30), rng.integers(0, 2, 30)
    brute = [np.hypot(*(ground.fields[f].particles - (a, b)).T).min() for a, b, f in zip(x, y, field, strict=True)]
    np.testing.assert_allclose(ground.distance(x, y, field), brute, atol=1e-6)
    for cut, (cx, cy, f) in zip(ground.cut(corners, size), corners, strict=True):
        np.testing.assert_array_equal(cut, ground.fields[f].image[cy : cy + size, cx : cx + size])
    assert set(corners[:, 2]) == {0, 1}
    around = ground.corners(ground.points, size, inside=False)
    gaps = np.abs(around[:, None, :2] + (size - 1) / 2 - ground.points[None, :, :2]).max(2)
    assert (gaps.min(1) <= 0.5 + 1e-9).all()


def test_a_micrograph_without_particles_is_infinitely_far_from_any() -> None:
    ground = Ground([prepared(0), prepared(1, count=0)])
    assert np.isinf(ground.distance([10.0], [10.0], [1])).all()


def test_so_many_particles_and_no_more_none_left_unmarked() -> None:
    parts = [prepared(0), prepared(1), prepared(2)]
    some = limited(parts, 17, 28)
    assert [len(f.particles) for f in some] == [12, 5]
    cut = some[1]
    full = parts[1]
    assert cut.image.shape[0] < full.image.shape[0]
    inside = full.particles[full.particles[:, 1] < cut.image.shape[0]]
    assert len(inside) == 5
    np.testing.assert_array_equal(cut.image, full.image[: len(cut.image)])
    assert [len(f.particles) for f in limited(parts, 24, 28)] == [12, 12]


# --- what is shown -------------------------------------------------------------------------------------------------


def shown(options: Options, *given: Scaled) -> tuple[Ground, Boxes | Pieces]:
    ground = Ground(given)
    made = sampler(ground, options, layout_for(28), D)
    assert isinstance(made, Boxes | Pieces)
    return ground, made


def paper(**changes: Any) -> Options:
    return make_options(Path("x"), D, "paper", pixel_a=1.0, **changes)


def test_boxes_are_particles_and_as_much_background_in_four_turns() -> None:
    wrong = np.array([[40.0, 44.0]])
    ground, boxes = shown(paper(), replace(prepared(0), wrong=wrong), prepared(1))
    assert isinstance(boxes, Boxes)
    images, targets = (torch.cat(parts) for parts in zip(*boxes.epoch(1), strict=True))
    assert targets.shape[1:] == (1, 1, 1)
    positives = len(boxes.positives)
    assert int(targets.sum()) == 4 * positives
    assert len(targets) == 4 * (2 * positives + 1)
    middle = boxes.background + 13.5
    assert (ground.distance(middle[:, 0], middle[:, 1], boxes.background[:, 2]) >= 0.7 * D).all()
    counted = {image.numpy().tobytes() for image in images}
    for corner in (*boxes.positives, *boxes.background, *ground.corners(ground.wrong, 28)):
        cut = ground.cut(corner[None], 28)[0]
        for quarter in range(4):
            assert np.ascontiguousarray(np.rot90(cut, quarter)).tobytes() in counted


def test_an_epoch_depends_on_seed_and_number_only() -> None:
    def first(options: Options, number: int) -> torch.Tensor:
        return next(iter(shown(options, prepared(0), prepared(1))[1].epoch(number)))[0]

    modern = make_options(Path("x"), D, **QUICK)
    for options in (paper(), modern):
        torch.testing.assert_close(first(options, 3), first(options, 3), rtol=0, atol=0)
        assert not torch.equal(first(options, 3), first(options, 4))
        assert not torch.equal(first(options, 3), first(replace(options, seed=2), 3))


def test_pieces_say_of_every_cell_how_far_it_is_from_a_particle_however_they_are_turned() -> None:
    """A picture whose pixels are the distance to the nearest particle says itself what each cell should be told."""
    options = make_options(Path("x"), D, **{**QUICK, "contrast": 0.0, "sigma": 0.2})
    y, x = np.mgrid[:150, :170]
    given = []
    for seed in (0, 1):
        one = prepared(seed)
        far = np.hypot(x[..., None] - one.particles[:, 0], y[..., None] - one.particles[:, 1]).min(-1)
        given.append(replace(one, image=far.astype(np.float32)))
    _, pieces = shown(options, *given)
    assert isinstance(pieces, Pieces)
    peaks = 0
    for images, targets in pieces.epoch(1):
        at = 13 + pieces.stride * np.arange(pieces.cells)
        four = [images[:, 0][:, at + i][:, :, at + j] for i in (0, 1) for j in (0, 1)]
        middle = torch.stack(four).mean(0)
        away = -2 * torch.log(targets[:, 0].clamp_min(1e-30))
        near = targets[:, 0] > 1e-3
        np.testing.assert_allclose(middle[near], (0.2 * D * away.sqrt())[near], atol=0.8)
        peaks += int((targets > 0.5).sum())
    assert peaks > 50


def test_false_positives_are_shown_more_often_once_they_are_known() -> None:
    spot = np.array([[20.0, 58.0]])
    one = prepared(0)
    assert np.hypot(*(one.particles - spot).T).min() > D
    image = one.image.copy()
    image[58, 20] = 500
    options = make_options(Path("x"), D, **QUICK, contrast=0.0)

    def often(wrong: npt.NDArray[np.float64]) -> int:
        _, made = shown(options, replace(one, image=image, wrong=wrong))
        return sum(int((images == 500).any(-1).any(-1).sum()) for images, _ in made.epoch(1))

    assert often(spot) > often(spot[:0]) + 0.1 * QUICK["steps"] * QUICK["batch"]


def test_micrographs_smaller_than_the_box_and_too_crowded_ones_are_refused() -> None:
    with pytest.raises(ValueError, match="20 pixels high or wide"):
        shown(paper(), replace(prepared(0), image=np.zeros((20, 90), np.float32)))
    with pytest.raises(ValueError, match="so crowded"):
        shown(paper(away=9.0), prepared(0))


def test_mining_finds_what_is_picked_wrongly_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    one = prepared(0)
    particle = one.particles[0]
    peaks = {(20.0, 58.0): 0.6, tuple(particle): 0.9, (particle[0] + 8.0, particle[1]): 0.95, (70.0, 8.0): 0.1}

    class Scan:
        """A score map with one peak at each of these places."""

        def __init__(self, *_: object, **__: object) -> None:
            self.box, self.stride = 28, 2

        def scores(self, image: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
            assert image.shape == (150, 170)
            found = np.zeros((62, 72), np.float32)
            for (x, y), score in peaks.items():
                found[round((y - 13.5) / 2), round((x - 13.5) / 2)] = score
            return found

    monkeypatch.setattr(mining, "DenseScan", Scan)
    found = mining.mine(DeepEM(layout_for(28)), Ground([one]), D)
    np.testing.assert_allclose(found, [[20.0, 58.0, 0.0]], atol=1.0)


# --- training ------------------------------------------------------------------------------------------------------


def test_all_boxes_of_a_piece_score_as_alone() -> None:
    net = fresh(make_options(Path("x"), D, **QUICK), layout_for(28)).eval()
    image = torch.randn(2, 1, 44, 44)
    dense = logits(net, image)
    assert dense.shape == (2, 1, 3, 3)
    for i in range(3):
        for j in range(3):
            alone = net.logits(image[:, :, 8 * i : 8 * i + 28, 8 * j : 8 * j + 28])
            torch.testing.assert_close(dense[:, 0, i, j], alone[:, 0], rtol=1e-4, atol=1e-5)


def test_it_learns_and_the_bundle_is_what_picks(trained: Path) -> None:
    bundle = load_bundle(trained)
    card = bundle.card
    assert (card.task, card.input.name, card.output.classes) == ("particles", "micrograph", ("particle",))
    assert card.input.shape == (1, 28, 28)
    assert (card.input.pixel_a, card.input.diameter_a) == (1.0, D)
    assert not [name for name, _ in bundle.module.named_buffers()], "batch normalisation is folded away"
    picker = Picker(bundle, threads=1)
    assert picker.warm_up().difference < 1e-4
    scores = evaluate(picker.pick, [micrograph(seed, bars=1) for seed in (100, 101, 102)], D, threshold=card.threshold)
    assert scores.at[0.2].average_precision.value > 0.9
    assert scores.at[0.2].recall.value > 0.9
    assert json.loads((trained.parent / "scores.json").read_text())["validation"]["at"]["0.2"]
    pictures = {"training.png", "boxes.png", "picks.png", "precision-recall.png"}
    assert pictures <= {path.name for path in trained.parent.iterdir()}


def test_a_runner_takes_one_class(trained: Path) -> None:
    runner = Runner(load_bundle(trained), batch=4, device="cpu", threads=1)
    report = runner.warm_up()
    assert report.difference <= 0.05
    plans = {str(trial.plan) for trial in report.trials if not trial.fault}
    assert plans == {
        *("float32 plain", "float32 frozen", "float32 fused"),
        *(f"bfloat16 {how} input" for how in ("frozen", "fused")),
        "bfloat16 autocast",
    }
    runner = Runner(load_bundle(trained), batch=4, device="cpu", dtype="float32", threads=1)
    boxes = np.random.default_rng(0).normal(size=(5, 28, 28)).astype(np.float32)
    whole = load_bundle(trained).module(torch.from_numpy(boxes)[:, None])
    np.testing.assert_allclose(runner.scores(boxes), whole.detach().numpy(), atol=1e-4)


def test_an_interrupted_training_ends_with_the_same_weights(
    trained: Path, tmp_path: Path, fields: list[Labelled]
) -> None:
    options = make_options(tmp_path, D, **{**QUICK, "name": "discs", "stop_after": 2})
    assert train(options, fields, silent) is None
    assert len(json.loads((tmp_path / "log.json").read_text())) == 2
    resumed = replace(options, stop_after=None, resume=True)
    made = train(resumed, fields, silent)
    assert made is not None
    for one, other in zip(load_bundle(made).module.parameters(), load_bundle(trained).module.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)
    for changed, data in ((replace(resumed, rate=0.5), fields), (resumed, [*fields[:5], micrograph(77)])):
        with pytest.raises(ValueError, match=r"cannot resume .*use another --out"):
            train(changed, data, silent)


def test_the_paper_s_recipe_stops_where_it_tells_enough_boxes_right(tmp_path: Path, fields: list[Labelled]) -> None:
    options = make_options(tmp_path, D, "paper", pixel_a=1.0, epochs=60, threads=1, accuracy=0.8)
    made = train(options, fields[:4], silent)
    assert made is not None
    history = json.loads((tmp_path / "log.json").read_text())
    assert history[-1]["accuracy"] >= 0.8
    assert all(row["accuracy"] < 0.8 for row in history[:-1])
    assert len(history) < 60


def test_going_on_from_a_bundle_starts_with_its_weights(trained: Path, tmp_path: Path) -> None:
    options = make_options(tmp_path, D, **QUICK, start=str(trained))
    net = fresh(options, layout_for(28)).eval()
    boxes = torch.randn(3, 1, 28, 28)
    torch.testing.assert_close(net(boxes), load_bundle(trained).module(boxes))
    again = unfolded(net, torch.randn(50, 1, 28, 28))
    assert isinstance(again.norm2, torch.nn.BatchNorm2d)
    for same in (again, folded(again)):
        torch.testing.assert_close(same(boxes), net(boxes), rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="its layout is"):
        fresh(options, layout_for(44))


def test_the_threshold_is_the_middle_of_the_gap_of_the_best_f2() -> None:
    line = Curve(np.array([0.9, 0.8, 0.2]), np.array([1.0, 1.0, 0.6]), np.array([0.5, 1.0, 1.0]))
    assert chosen_threshold(line, 0.02) == pytest.approx(0.5)
    assert chosen_threshold(Curve(*(np.array([v]) for v in (0.5, 1.0, 1.0))), 0.5) == pytest.approx(0.5)
    assert chosen_threshold(Curve(*(np.zeros(0) for _ in range(3))), 0.02) == 0.5
    assert chosen_threshold(Curve(*(np.array([v]) for v in (0.9, 0.0, 0.0))), 0.02) == 0.5


def test_practice_mixes_all_and_makes_every_particle_as_wide() -> None:
    volumes = (load_map("ribosome"), load_map("apoferritin"))
    practice = Practice(("small", "empty"), (0.3, 1.0), volumes, 16, 5)
    plan = [(name, snr, volume.name) for name, snr, volume in practice.plan()]
    assert len(set(plan)) == 8
    assert all(plan.count(one) == 2 for one in plan)
    number = next(i for i, one in enumerate(plan) if one[0] == "small" and one[2] == "apoferritin")
    one = practice.one(number)
    assert one.pixel_a == 5.0
    assert one.load().shape == (1024, 960)
    assert len(one.x) > 10
    coarse = replace(practice, binned=2).one(number)
    assert (coarse.pixel_a, coarse.load().shape) == (10.0, (512, 480))
    again = practice.one(number)
    np.testing.assert_array_equal(one.load(), again.load())


# --- command line --------------------------------------------------------------------------------------------------

SMALL = ("--diameter", "20", "--epochs", "2", "--threads", "1", "--input-pixel", "1")
FEW = ("--set", "steps=8", "--set", "batch=16", "--set", "cells=3")


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["train", "particles", *map(str, arguments)])


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Writes a micrograph as MRC with its coordinates beside it."""

    def one(seed: int, name: str, pixel_a: float = 1.0, *, coordinates: bool = True) -> Path:
        made = micrograph(seed)
        path = tmp_path / f"{name}.mrc"
        with mrcfile.new(path) as file:
            file.set_data(made.load())
            if pixel_a:
                file.voxel_size = pixel_a
        if coordinates:
            rows = [f"{x:.2f},{y:.2f}" for x, y in zip(made.x, made.y, strict=True)]
            path.with_suffix(".csv").write_text("\n".join(["x,y", *rows]) + "\n")
        return path

    return one


def test_the_loop_of_the_paper(tmp_path: Path, write: Callable[..., Path]) -> None:
    files = [write(seed, f"a{seed}") for seed in range(3)]
    first = tmp_path / "first"
    done = run(*files, *SMALL, *FEW, "--out", first)
    assert done.exit_code == 0, done.output
    told = json.loads((first / "micrographs.json").read_text())
    assert len(told["held"]) == 1
    new = write(9, "b9", coordinates=False)
    corrected = tmp_path / "corrected.csv"
    marked = micrograph(9)
    rows = [f"b9.mrc,{x:.1f},{y:.1f},right" for x, y in zip(marked.x, marked.y, strict=True)]
    corrected.write_text("\n".join(["micrograph,x,y,verdict", *rows, "b9.mrc,5,6,wrong", "b9.mrc,160,9,wrong"]) + "\n")
    done = run(
        new, *FEW, "--epochs", 1, "--from", first / "particles.pt", "--add", corrected, "--out", tmp_path / "second"
    )
    assert done.exit_code == 0, done.output
    after = json.loads((tmp_path / "second/micrographs.json").read_text())
    assert [e["name"] for s in after["sources"] for e in s["files"]] == ["a0", "a1", "a2", "b9"]
    assert after["held"] == told["held"]
    added = after["sources"][1]["files"][0]
    assert (added["wrong_x"], added["wrong_y"], len(added["x"])) == ([5.0, 160.0], [6.0, 9.0], 12)
    card = load_bundle(tmp_path / "second/particles.pt").card
    assert card.training["training"]["verified_false_positives"] == 2
    assert card.training["training"]["micrographs"] == 3
    assert card.training["options"]["start"].endswith("first/particles.pt")
    again = run(files[0], *FEW, "--from", first / "particles.pt", "--add", corrected, "--out", tmp_path / "third")
    assert again.exit_code == 2


def test_simulated_micrographs_need_no_files(tmp_path: Path) -> None:
    done = run("--simulate", "small", "--snr", "1", "--micrographs", 3, "--epochs", 1, *FEW, "--out", tmp_path / "o")
    assert done.exit_code == 0, done.output
    assert load_bundle(tmp_path / "o/particles.pt").card.input.diameter_a == load_map("ribosome").diameter_a


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "nothing to train from"),
        (("nowhere.mrc", "--diameter", 20), "no such file"),
        (("--simulate", "papper"), "papper"),
        (("--simulate", "paper", "--snr", "low"), "--snr low"),
        (("--simulate", "paper", "--map", "no.mrc"), "no.mrc"),
        (("--simulate", "paper", "--set", "lr=3"), "--set lr=3"),
        (("--simulate", "paper", "--set", "rat=3"), "did you mean rate"),
        (("--simulate", "paper", "--from", "particles-nothing"), "no bundle named"),
        (("x.mrc", "--add", "y.csv"), "give --from"),
    ],
)
def test_mistakes_are_one_line(tmp_path: Path, arguments: tuple[object, ...], said: str) -> None:
    done = run(*arguments, "--out", tmp_path / "out")
    assert done.exit_code in (1, 2)
    assert said in done.output
    assert "Traceback" not in done.output
    assert not (tmp_path / "out").exists()


def test_micrographs_that_cannot_be_used_are_named(tmp_path: Path, write: Callable[..., Path]) -> None:
    good = [write(seed, f"a{seed}") for seed in range(2)]
    bare, unscaled = write(5, "bare", coordinates=False), write(6, "unscaled", pixel_a=0.0)
    out = ("--out", tmp_path / "out")
    for files, arguments, said in (
        ([*good, bare], SMALL, "bare.mrc: no coordinates for it"),
        ([*good, unscaled], SMALL, "unscaled.mrc: does not state its pixel size"),
        (good[:1], SMALL, "at least 2 are needed"),
        (good, SMALL[2:], "--diameter"),
    ):
        done = run(*files, *arguments, *FEW, *out)
        assert (done.exit_code, said in done.output) == (2, True), done.output
    good[0].with_suffix(".csv").write_text("x,y\n400,20\n")
    assert "outside" in run(*good, *SMALL, *FEW, *out).output
