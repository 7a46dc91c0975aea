"""Scores of pickers, pictures, tables that go on after a kill, and the command."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from beamsieve.models.evaluate import Estimate
from beamsieve.models.particles.baselines import Gaussians, Template, fit_gaussians, fit_template
from beamsieve.models.particles.candidates import Candidates, Labelled
from beamsieve.models.particles.evaluate import bootstrap, evaluate, score
from beamsieve.models.particles.experiments import by_fold, by_size, by_snr, folds_of
from beamsieve.models.particles.fields import Field, find
from beamsieve.models.particles.maps import load_map
from beamsieve.models.particles.matching import Ranked
from beamsieve.models.particles.report import draw_curves, draw_picks, draw_series, stretched
from beamsieve.models.particles.scores import scores_of
from beamsieve.models.particles.simulator import Conditions, simulate
from beamsieve.models.particles.study import Series, Study, as_labelled
from beamsieve.stream.__main__ import app
from beamsieve.stream.commands.evaluate_particles import field_of
from PIL import Image
from typer.testing import CliRunner

DATA = Path(os.environ.get("BEAMSIEVE_DATA", Path(__file__).parents[2] / "shared" / "data"))
NY, NX, D = 240, 330, 20.0


def planted(seed: Any = 0, n: Any = 24, noise: Any = 0.5, sign: Any = -1.0, pixel_a: Any = 2.0) -> Any:
    """Dark discs on a grid, moved at random, on a micrograph that is not square."""
    chance = np.random.default_rng(seed)
    gy, gx = np.divmod(np.arange(n), 6)
    x = 40 + 50 * gx + chance.uniform(-8, 8, n)
    y = 35 + 55 * gy + chance.uniform(-8, 8, n)
    rows, columns = np.mgrid[:NY, :NX]
    image = chance.normal(0, noise, (NY, NX))
    for cx, cy in zip(x, y, strict=True):
        image += sign * (np.hypot(rows - cy, columns - cx) <= D / 2)
    none = np.zeros(0, np.float32)
    return Field(f"planted-{seed}", image.astype(np.float32), pixel_a, x.astype("f4"), y.astype("f4"), None, none, none)


def candidates(x: Any, y: Any, scores: Any) -> Any:
    x, y, scores = (np.asarray(v, np.float32) for v in (x, y, scores))
    return Candidates(x, y, scores, np.ones_like(x))


def fixed(*answers: Any) -> Any:
    """A picker that gives these candidates, one after the other."""
    waiting = iter(answers)
    return lambda image, pixel_a: next(waiting)


def test_scores_by_hand() -> None:
    one, two = planted(1), planted(2)
    shifted = candidates([*one.x + 3, 100], [*one.y, 3], [0.9] * 24 + [0.8])
    half = candidates(two.x[:12], two.y[:12], [0.7] * 12)
    scores = evaluate(fixed(shifted, half), [one, two], 2 * D, threshold=0.75)
    at = scores.at[0.2]
    # Ranked: 24 hits at once (the pick in the border does not count), then 12 hits; 12 of 48 are never found.
    assert at.average_precision.value == pytest.approx(36 / 48)
    assert (at.precision.value, at.recall.value) == (1.0, 0.5)
    assert (at.f1, at.f2) == pytest.approx((2 / 3, 5 / 9))
    assert at.best_f1 is not None
    assert at.best_f2 is not None
    assert at.best_f2.threshold == pytest.approx(0.7)
    assert at.best_f2.recall == 0.75
    assert at.error_rms_px == pytest.approx(np.sqrt(24 * 9 / 36))
    assert at.error_rms == pytest.approx(np.sqrt(6) / D)
    assert scores.picks == (24, 0)
    assert scores.targets == (24, 24)
    assert np.isnan(scores.on_carbon)


def test_a_pick_too_far_for_one_radius_is_right_at_the_other() -> None:
    one = planted(1)
    scores = evaluate(fixed(candidates(one.x + 6, one.y, np.ones(24))), [one], 2 * D, threshold=0.5)
    assert scores.at[0.2].average_precision.value == 0
    assert scores.at[0.5].average_precision.value == 1


def test_the_diameter_is_in_angstrom_and_the_radius_follows_the_pixel_size() -> None:
    coarse = planted(1, pixel_a=4.0)
    scores = evaluate(fixed(candidates(coarse.x + 3, coarse.y, np.ones(24))), [coarse], 2 * D, threshold=0.5)
    # Of 40 Å with 4 Å per pixel, the particle is 10 pixels wide: 0.2 of it are 2 pixels.
    assert scores.at[0.2].average_precision.value == 0
    assert scores.at[0.5].average_precision.value == 1


def test_picks_on_carbon_are_counted_where_they_lie() -> None:
    one = planted(1)
    carbon = np.zeros((NY, NX), bool)
    carbon[:120, 200:] = True
    field = Field(one.name, one.image, one.pixel_a, one.x, one.y, carbon)
    found = candidates([10, 210, 250, 329.4, 230], [20, 10, 239.4, 5, 150], [0.9, 0.9, 0.2, 0.9, 0.9])
    scores = evaluate(fixed(found), [field], 2 * D, threshold=0.5)
    assert scores.on_carbon == pytest.approx(2 / 4)
    assert scores.carbon_share == pytest.approx(130 / 330 / 2)


def test_picks_within_half_a_diameter_of_what_nobody_is_asked_about_do_not_count() -> None:
    one = planted(1)
    ignored: tuple[Any, Any] = (np.array([65], np.float32), np.array([60], np.float32))
    field = Field(one.name, one.image, one.pixel_a, one.x, one.y, None, *ignored)
    # D is 20 pixels: 9 away does not count, 11 away does.
    found = candidates([*one.x, 74, 65], [*one.y, 60, 71], [0.9] * 26)
    scores = evaluate(fixed(found), [field], 2 * D, threshold=0.5)
    assert scores.picks == (25,)
    assert scores.at[0.2].precision.value == pytest.approx(24 / 25)


def test_nothing_found_and_nothing_to_find() -> None:
    nothing = candidates([], [], [])
    scores = evaluate(fixed(nothing), [planted(1)], 2 * D, threshold=0.5)
    at = scores.at[0.2]
    assert (at.average_precision.value, at.recall.value, at.f1, at.best_f2) == (0, 0, 0, None)
    assert np.isnan(at.precision.value)
    empty = Field("empty", np.zeros((NY, NX), np.float32), 2.0, *np.zeros((2, 0), np.float32))
    scores = evaluate(fixed(candidates([100], [100], [0.9])), [empty], 2 * D, threshold=0.5)
    assert np.isnan(scores.at[0.2].average_precision.value)
    assert scores.at[0.2].precision.value == 0
    assert scores.picks == (1,)
    with pytest.raises(ValueError, match="no micrographs"):
        score([], 40.0, threshold=0.5)


def test_scores_survive_json() -> None:
    one, two = planted(1), planted(2)
    answers = [candidates(f.x + 1, f.y, np.linspace(0.1, 0.9, 24)) for f in (one, two)]
    scores = evaluate(fixed(*answers), [one, two], 2 * D, threshold=0.5)
    again = scores_of(json.loads(json.dumps(scores.to_json(), allow_nan=False)))
    assert again.at[0.5] == scores.at[0.5]
    assert (again.names, again.picks, again.threshold) == (scores.names, scores.picks, scores.threshold)
    assert np.isnan(again.on_carbon)
    np.testing.assert_allclose(again.curves[0.2].recall, scores.curves[0.2].recall, atol=1e-5)


def test_the_bootstrap_draws_micrographs_not_picks() -> Any:
    def part(hits: Any, n: Any = 20) -> Any:
        return Ranked(np.linspace(0, 1, n), np.arange(n) < hits, n, np.zeros(hits))

    alike = bootstrap([part(10) for _ in range(8)])
    assert (alike.low, alike.high) == pytest.approx((alike.value, alike.value))
    mixed = bootstrap([part(20)] * 4 + [part(0)] * 4)
    assert 0.01 < mixed.low < mixed.value - 0.1
    assert mixed.high > mixed.value + 0.1
    assert np.isnan(bootstrap([part(10)]).low)
    assert str(Estimate(0.5, float("nan"), float("nan"))) == "0.500"


@pytest.mark.parametrize("sign", [-1.0, 1.0])
def test_pickers_without_a_network_find_plain_discs(sign: Any) -> None:
    training, test = [planted(1, sign=sign), planted(2, sign=sign)], [planted(3, sign=sign)]
    gaussians, template = fit_gaussians(training, 2 * D), fit_template(training, 2 * D)
    assert gaussians.sign == sign
    for pick in (gaussians, template):
        scores = evaluate(pick, test, 2 * D, threshold=-9)
        assert scores.at[0.2].average_precision.value > 0.97
        assert scores.at[0.2].error_rms_px < 2


def test_template_scores_are_correlations_and_picks_are_apart() -> None:
    field = planted(1)
    found = fit_template([field], 2 * D)(field.image, field.pixel_a)
    assert found.score.max() <= 1
    assert found.score[0] > 0.5
    assert (np.diff(found.score) <= 0).all()
    distance = np.hypot(found.x[:, None] - found.x, found.y[:, None] - found.y) + 1e6 * np.eye(len(found))
    assert distance.min() >= 0.7 * D - 2


def test_a_template_needs_particles() -> None:
    empty = Field("empty", planted(1).image, 2.0, *np.zeros((2, 0), np.float32))
    with pytest.raises(ValueError, match="no particles"):
        fit_template([empty], 40.0)


def test_gaussians_see_the_same_at_any_pixel_size() -> None:
    small = planted(1, noise=0.2)
    large = Field("large", np.kron(small.image, np.ones((2, 2), np.float32)), 1.0, 2 * small.x + 0.5, 2 * small.y + 0.5)
    for field in (small, large):
        assert evaluate(Gaussians(2 * D), [field], 2 * D, threshold=0).at[0.2].average_precision.value > 0.99


def test_pictures_show_what_is_right_wrong_and_missed(tmp_path: Any) -> None:
    field = planted(1)
    found = find(fixed(candidates([*field.x[:20], 300], [*field.y[:20], 10], [0.9] * 21)), [field])[0]
    told = draw_picks(tmp_path / "picks.png", field.image, found, 0.5, 2 * D)
    assert told == {"right": 20, "wrong": 1, "missed": 4}
    pixels = np.asarray(Image.open(tmp_path / "picks.png").convert("RGB")).astype(int)
    green = (pixels[..., 1] > pixels[..., 0] + 80) & (pixels[..., 1] > pixels[..., 2] + 40)
    yellow = (pixels[..., 0] > 200) & (pixels[..., 1] > 180) & (pixels[..., 2] < 80)
    red = (pixels[..., 0] > 200) & (pixels[..., 1] < 90) & (pixels[..., 2] < 110)
    assert min(green.sum(), yellow.sum(), red.sum()) > 50
    assert draw_picks(tmp_path / "none.png", field.image, found, 0.95, 2 * D) == {"right": 0, "wrong": 0, "missed": 24}
    unlabelled = Field("n", np.zeros((NY, NX), np.float32) + 3, 2.0, *np.zeros((2, 0), np.float32))
    found = find(fixed(candidates([5], [5], [0.9])), [unlabelled])[0]
    assert draw_picks(tmp_path / "u.png", unlabelled.image, found, 0.5, 2 * D) == {"picked": 1}
    assert stretched(unlabelled.image).max() == 0


def test_curves_are_drawn(tmp_path: Any) -> None:
    field = planted(1)
    scores = evaluate(fixed(candidates(field.x, field.y, np.linspace(0, 1, 24))), [field], 2 * D, threshold=0.5)
    draw_curves(tmp_path / "curve.png", {"one": scores, "two": scores}, "title")
    draw_series(tmp_path / "series.png", {"a": [(0.1, 0.9, 0.8, 0.95), (0.01, 0.5, np.nan, np.nan)]}, "SNR", "title")
    for name in ("curve", "series"):
        assert np.asarray(Image.open(tmp_path / f"{name}.png")).std() > 5


def test_folds_keep_fields_together_and_are_even() -> None:
    names = [f"f{i}" for i in range(10)] * 2
    fold = folds_of(names, 5, seed=3)
    assert sorted(np.bincount(list(fold.values())).tolist()) == [2] * 5
    assert fold == folds_of(names, 5, seed=3)
    assert fold != folds_of(names, 5, seed=4)
    with pytest.raises(ValueError, match="folds"):
        folds_of(names, 11, seed=0)
    assert field_of(r"May08_[\d.]{8}", "May08_03.05.02.bin_avg") == field_of(r"May08_[\d.]{8}", "May08_03.05.02.bin")
    assert field_of(None, "a") == "a"


TINY = Conditions(snr=0.5, shape=(300, 340), pixel_a=11.0, particles=(14, 18), solvent=0.1)
QUICK = {"epochs": 1, "steps": 2, "batch": 4, "mining": 0, "box": 34}


def study(path: Any, **changes: Any) -> Any:
    told = []
    made = Study(path, 260.0, lambda what, done, of: told.append(what), changes=QUICK, **changes)
    return made, told


@pytest.fixture(scope="module")
def volume() -> Any:
    return load_map("ribosome")


def test_rows_by_ratio_are_kept_and_not_computed_again(tmp_path: Any, volume: Any) -> None:
    first, told = study(tmp_path, pictures=tmp_path / "pictures")
    rows = by_snr(first, TINY, [0.5], volume, micrographs=2, train_on=2)
    assert [row["picker"] for row in rows] == [
        "DeepEM, trained at this SNR",
        "difference of Gaussians",
        "radial template",
    ]
    assert {row["snr"] for row in rows} == {0.5}
    assert len(list((tmp_path / "pictures").iterdir())) == 3
    assert any("train" in what for what in told)
    template = scores_of(rows[2]["scores"])
    assert template.at[0.2].average_precision.value > 0.8

    again, told = study(tmp_path)
    assert by_snr(again, TINY, [0.5], volume, micrographs=2, train_on=2) == rows
    assert told == []

    # A row that was lost is made again from the bundle that is there, without a training.
    for path in (tmp_path / "rows").glob("*DeepEM*"):
        path.unlink()
    again, told = study(tmp_path)
    found = by_snr(again, TINY, [0.5], volume, micrographs=2, train_on=2)
    assert found[0]["scores"]["at"] == rows[0]["scores"]["at"]
    assert not any("train" in what for what in told)

    # Other settings are other rows.
    other, told = study(tmp_path, border=0.6)
    by_snr(other, TINY, [0.5], volume, micrographs=2, with_baselines=False, train_on=2)
    assert told != []


def test_a_training_size_limits_the_particles(tmp_path: Any, volume: Any) -> None:
    made, _ = study(tmp_path)
    rows = by_size(made, TINY, [12, 24], volume, micrographs=1, train_on=4)
    assert [row["size"] for row in rows] == [12, 24]
    cards = [json.loads(path.read_text()) for path in sorted(tmp_path.glob("trained/*/particles.json"))]
    seen = sorted(card["training"]["training"]["particles"] for card in cards)
    assert 10 <= seen[0] <= 12 < seen[1] <= 24


def test_no_fold_is_tested_by_a_network_that_saw_its_field(tmp_path: Any, volume: Any) -> None:
    series = Series(0, 4, TINY, volume)
    given = [as_labelled(make()) for make in series.fields()]
    twins = [Labelled(f"{m.name}-twin", m.load, m.pixel_a, m.x, m.y, m.wrong_x, m.wrong_y) for m in given]
    made, _ = study(tmp_path)
    rows = by_fold(made, given, 2, field_of=lambda name: name.removesuffix("-twin"), also=twins, with_baselines=False)
    (row,) = rows
    assert len(row["fold_average_precision"]["0.2"]) == 2
    assert sorted(row["scores"]["names"]) == sorted(m.name for m in given)
    fold = folds_of([m.name for m in given], 2, made.seed)
    for path in tmp_path.glob("trained/*/particles.json"):
        number = int(path.parent.name.split("-")[1]) - 1
        card = json.loads(path.read_text())["training"]
        seen = {*card["training"]["names"], *card["validation"]["names"]}
        fields = {name.removesuffix("-twin") for name in seen}
        assert fields == {name for name, at in fold.items() if at != number}
        # Of two fields, the one that validates does not train, nor does its twin.
        assert len(card["validation"]["names"]) == 1
        assert not {n.removesuffix("-twin") for n in card["training"]["names"]} & set(card["validation"]["names"])
        assert any(name.endswith("-twin") for name in seen)


def test_particles_in_clumps_are_not_asked_for(volume: Any) -> None:
    made = simulate(0, 0, Conditions(shape=(420, 500), pixel_a=10.0, aggregates=(1, 1), ice=(1, 1)), volume)
    field = Field.simulated(made)
    assert len(field.ignore_x) == made.other_kind.count("aggregate")
    assert len(field.ignore_x) < len(made.other_x)


def run(*args: Any) -> Any:
    return CliRunner().invoke(app, ["evaluate", "particles", *map(str, args)])


@pytest.mark.parametrize(
    ("args", "says"),
    [
        ((), "nothing to evaluate"),
        (("--simulate", "papr"), "papr"),
        (("--simulate", "paper", "--snr", "0.1,x"), "--snr"),
        (("--simulate", "paper", "--snr", "-1"), "above 0"),
        (("--simulate", "paper", "--map", "ribosom"), "ribosom"),
        (("--simulate", "small", "--bundle", "no-such-model"), "no-such-model"),
        (("--simulate", "small", "--bundle", "hits-resnet10"), "particles"),
        (("--simulate", "small", "--folds", "5"), "--folds"),
        (("--snr", "0.1", "missing.mrc"), "--simulate"),
        (("missing.mrc", "--folds", "2", "--diameter", "100"), "missing.mrc"),
        (("missing.mrc", "--folds", "2"), "--diameter"),
        (("--simulate", "small", "--set", "epoch=3", "--train-at-each-snr"), "--set"),
        (("--simulate", "small", "--train-at-each-snr", "--recipe", "secret"), "secret"),
        (("missing.mrc", "--folds", "2", "--diameter", "100", "--field-name", "("), "--field-name"),
    ],
)
def test_mistakes_are_told_in_a_line(args: Any, says: Any) -> None:
    found = run(*args)
    assert found.exit_code == 2
    assert says in found.stderr
    assert "Traceback" not in found.output
    assert isinstance(found.exception, SystemExit)


@pytest.fixture
def written(tmp_path: Any) -> Any:
    """Four micrographs as files, and one table of their particles."""
    import mrcfile

    folder = tmp_path / "fields"
    folder.mkdir()
    lines = ["micrograph,x,y"]
    for seed in (1, 2, 3, 4):
        field = planted(seed)
        with mrcfile.new(folder / f"field{seed}.mrc") as file:
            file.set_data(field.image)
            file.voxel_size = field.pixel_a
        lines += [f"field{seed}.mrc,{x},{y}" for x, y in zip(field.x, field.y, strict=True)]
    (folder / "all.csv").write_text("\n".join(lines) + "\n")
    return folder


def test_the_command_cross_validates_files(written: Any, tmp_path: Any) -> None:
    quick = [f"--set={name}={value}" for name, value in {**QUICK, "validation": 0.4}.items()]
    found = run(
        written, "--folds", 2, "--diameter", 2 * D, "--json", tmp_path / "s.json", "--pictures", tmp_path / "p", *quick
    )
    assert found.exit_code == 0, found.output
    (rows,) = json.loads((tmp_path / "s.json").read_text()).values()
    assert [row["picker"] for row in rows] == ["DeepEM", "difference of Gaussians", "radial template"]
    assert rows[2]["scores"]["at"]["0.2"]["average_precision"]["value"] > 0.9
    assert "radial template" in found.output
    assert (tmp_path / "p" / "curve-2-folds.png").exists()


def test_files_without_coordinates_or_pixel_size_are_named(written: Any, tmp_path: Any) -> None:
    (written / "all.csv").unlink()
    found = run(written, "--folds", 2, "--diameter", 40)
    assert found.exit_code == 2
    assert found.stderr.count("no coordinates") == 4
    found = run(written, "--folds", 2, "--diameter", 40, "--coordinates", tmp_path / "nowhere")
    assert found.exit_code == 2
    assert "nowhere" in found.stderr
    (written / "bad.csv").write_text("micrograph,x\nfield1.mrc,3\n")
    found = run(written / "field1.mrc", "--folds", 2, "--diameter", 40, "--coordinates", written / "bad.csv")
    assert found.exit_code == 1
    assert "bad.csv" in found.stderr


@pytest.mark.data
def test_a_radial_template_on_real_apoferritin() -> None:
    folder = DATA / "micrographs" / "apoferritin"
    if not folder.exists():
        pytest.skip("shared data set not here (BEAMSIEVE_DATA)")
    fields = []
    for path in sorted(folder.glob("*.png"))[:4]:
        centres = np.loadtxt(path.with_suffix(".csv"), delimiter=",", skiprows=1).astype(np.float32)
        fields.append(Field(path.stem, np.asarray(Image.open(path), np.float32), 1.5, centres[:, 0], centres[:, 1]))
    template = fit_template(fields[:2], 120.0)
    assert isinstance(template, Template)
    assert evaluate(template, fields[2:], 120.0, threshold=0).at[0.2].average_precision.value > 0.9
