"""Scores of mined and segmented tomograms: right for answers that are known, the same when a run goes on."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from beamsieve.models.tomograms import study_report
from beamsieve.models.tomograms.bundles import untrained
from beamsieve.models.tomograms.cluster import Centres
from beamsieve.models.tomograms.codec import Codec
from beamsieve.models.tomograms.mine import Mined
from beamsieve.models.tomograms.scene import CLASSES, Kind, SceneOptions
from beamsieve.models.tomograms.segment_set import SetOptions
from beamsieve.models.tomograms.simulator import TEST, VALIDATION, Simulated, simulate
from beamsieve.models.tomograms.study import MARKING, Study, StudyOptions
from beamsieve.models.tomograms.study_marks import Marks, Seen, marked, true_examples
from beamsieve.models.tomograms.study_scores import mining_scores, ribosome_scores, voxel_scores
from beamsieve.models.tomograms.truth import GROUPS, boxed, grouped, groups_at, match, on_ribosomes, overlap, truth_of
from beamsieve.models.tomograms.volume import ArrayVolume
from beamsieve.models.tomograms.working import Working
from beamsieve.stream.commands.evaluate_tomograms import ROWS, evaluate_tomograms
from typer.testing import CliRunner

SCENE: dict[str, Any] = {
    "margin": 4,
    "vesicles": (1, 1),
    "vesicle_nm": (14, 16),
    "sheets": (0, 0),
    "carbon": 0.0,
    "gold": (0, 0),
    "kinds": (Kind("apoferritin", "ribosome", (90, 90)),),
}
OPTIONS = StudyOptions(
    shape=(32, 48, 48), snr=2.0, marking=1, test=2, threshold=1.0, windows=12, edge=16, minutes=0.01, epochs=1
)
MEMBRANE, GLOBULE = 1, 2


@pytest.fixture(scope="module")
def made() -> Simulated:
    return simulate(1, replace(SceneOptions(shape=(32, 48, 48), snr=2.0), **SCENE))


def mined_at(made: Simulated, xyz: Any) -> Mined:
    """What a miner with these picks would give, codes apart by their number."""
    n = len(xyz)
    eye = np.tile(np.eye(3, dtype=np.float32), (n, 1, 1))
    working = Working(ArrayVolume(made.data, made.voxel_a), made.voxel_a, box=16)
    zeros = np.zeros(n, np.float32)
    codes = np.arange(n, dtype=np.float32)[:, None].repeat(32, 1)
    places = np.asarray(xyz, np.float32).reshape(-1, 3)
    return Mined(places, zeros, codes, zeros, eye, np.zeros((n, 3), np.float32), 16, False, n, {}, working)


def membrane_places(made: Simulated, count: int) -> np.ndarray[Any, Any]:
    """Voxels of the membrane that tilts show, x, y, z, far from particles."""
    z, y, x = np.nonzero((made.labels == 1) & ~made.hidden)
    places = np.stack([x, y, z], 1)
    away = np.linalg.norm(places[:, None] - made.particles.xyz[None], axis=2).min(1)
    good = places[away > 9]
    found: np.ndarray[Any, Any] = good[np.linspace(0, len(good) - 1, count).astype(int)]
    return found


def test_classes_are_joined_into_groups() -> None:
    labels = np.arange(len(CLASSES), dtype=np.uint8)
    assert [("background", *GROUPS)[value] for value in grouped(labels, CLASSES)] == [
        "background", "membrane", "globule", "globule", "carbon", "gold",
    ]  # fmt: skip


def test_a_position_is_of_what_lies_there(made: Simulated) -> None:
    assert groups_at(made, membrane_places(made, 5)).tolist() == [MEMBRANE] * 5
    assert groups_at(made, made.particles.xyz).tolist() == [GLOBULE] * len(made.particles)
    z, y, x = np.unravel_index(np.argmin(made.clean * 0 + (made.labels > 0)), made.labels.shape)
    assert groups_at(made, [[x, y, z]]).shape == (1,)
    assert groups_at(made, np.zeros((0, 3))).shape == (0,)
    # What no tilt shows cannot have been marked.
    hidden = replace_hidden(made)
    assert set(groups_at(hidden, membrane_places(made, 5)).tolist()) == {0}


def replace_hidden(made: Simulated) -> Simulated:
    return replace(made, hidden=made.labels == 1)


def test_matching_is_one_to_one_and_within_reach() -> None:
    true = np.array([[0, 0, 0], [10, 0, 0], [20, 0, 0]], np.float32)
    found = np.array([[1, 0, 0], [0.5, 0, 0], [13, 0, 0], [21, 0, 0]], np.float32)
    hits = match(found, true, np.array([2, 2, 2]))
    assert hits.found.tolist() == [False, True, False, True]
    assert hits.true.tolist() == [True, False, True]
    assert match(found, true, np.array([2, 4, 2])).true.all()
    # As many pairs as there can be, though the nearest pair is given up for it.
    chain = match(np.array([[0, 0, 0], [3, 0, 0]]), np.array([[2, 0, 0], [5, 0, 0.0]]), 2.5)
    assert chain.true.all()
    assert not match(found[:0], true, 2).true.any()
    assert not match(found, true[:0], 2).found.any()


def test_boxes_and_overlaps_are_counted() -> None:
    inside = boxed((10, 20, 30), [[2, 10, 5]], 6)
    assert inside.sum() == 6 * 6 * 5
    assert inside[2:8, 7:13, 0:5].all()
    truth, found = np.zeros((2, 4, 4), np.uint8), np.zeros((2, 4, 4), np.uint8)
    truth[0], found[0, :2], found[1, 0] = 1, 1, 2
    assert overlap(found, truth)[:2].tolist() == [[8, 8, 16], [0, 4, 0]]
    counted = np.ones(truth.shape, np.bool_)
    counted[0, 2:] = False
    assert overlap(found, truth, counted)[0].tolist() == [8, 8, 8]


def test_perfect_marks_have_perfect_scores_and_wrong_ones_have_not(made: Simulated) -> None:
    places = np.concatenate([made.particles.xyz, membrane_places(made, 12)])
    mined = mined_at(made, places)
    truth = groups_at(made, mined.xyz)
    found = mining_scores(made, mined, truth, truth, 16)
    assert [found[name] for name in ("homogeneity", "completeness", "rand")] == pytest.approx([1, 1, 1])
    assert found["groups"]["globule"] == {"of": len(made.particles), "recall": 1.0, "precision": 1.0}
    assert found["groups"]["gold"] == {"of": 0, "recall": None, "precision": None}
    assert found["particles"]["picked"] == found["particles"]["recall"] == found["particles"]["precision"] == 1.0
    assert 0.5 < found["surface_voxels"] <= 1
    wrong = np.where(truth == GLOBULE, MEMBRANE, GLOBULE).astype(np.uint8)
    found = mining_scores(made, mined, truth, wrong, 16)
    assert found["groups"]["membrane"]["recall"] == found["particles"]["recall"] == 0
    assert found["particles"]["picked"] == 1.0
    # Homogeneity does not ask for names, so a swap of two groups leaves it.
    assert found["homogeneity"] == pytest.approx(1)
    none = np.zeros_like(truth)
    found = mining_scores(made, mined, truth, none, 16)
    assert (found["kept"], found["homogeneity"], found["surface_voxels"]) == (0, pytest.approx(0, abs=1e-9), 0.0)


def test_half_a_radius_is_half_a_radius(made: Simulated) -> None:
    limit = made.particles.diameter_a[0] / 4 / made.voxel_a
    marks = np.full(1, GLOBULE, np.uint8)
    for away, hit in ((limit - 0.05, True), (limit + 0.05, False)):
        mined = mined_at(made, made.particles.xyz[:1] + np.array([away, 0, 0], np.float32))
        assert mining_scores(made, mined, marks, marks, 16)["particles"]["precision"] == float(hit)
        assert on_ribosomes(made, mined.xyz).tolist() == [hit]
        found = ribosome_scores(made, mined, np.ones(1, np.bool_))
        assert found["precision"] == float(hit)
        assert found["recall"] == found["picked"] == pytest.approx(hit / len(made.particles))


def test_voxels_that_no_tilt_shows_count_only_in_all(made: Simulated) -> None:
    seen = truth_of(made, hidden=False)
    assert made.hidden.any()
    found = voxel_scores(made, seen, made.particles.xyz, 16)
    assert found["shown"]["membrane"]["dice"] == 1.0
    assert found["all"]["membrane"]["recall"] == pytest.approx(1 - made.hidden.sum() / (made.labels == 1).sum())
    assert found["kept"]["globule"]["recall"] > 0.8
    assert found["kept"]["membrane"]["recall"] < 0.7
    assert found["all"]["carbon"]["dice"] is None
    assert found["classes"]["ribosome"] == {"found": 1.0, "other": 0.0}
    swapped = np.where(seen == GLOBULE, np.uint8(MEMBRANE), seen)
    found = voxel_scores(made, swapped, made.particles.xyz, 16)
    assert found["classes"]["ribosome"] == {"found": 0.0, "other": 1.0}
    assert found["classes"]["membrane"]["found"] == 1.0


def test_a_cluster_is_what_half_of_its_members_are(made: Simulated) -> None:
    mined = mined_at(made, np.zeros((12, 3)))
    groups = np.array([0, 0, 0, 1, 1, 1, 2, 2, 2, 0, 1, 2], np.uint8)
    codes = 10 * np.eye(32, dtype=np.float32)[np.repeat([3, 9, 14, 30], 3)]
    seen = Seen(made, replace(mined, codes=codes), groups, groups == GLOBULE)
    marks = marked([seen], 4, 1)
    assert marks.of(seen.mined).tolist() == [0] * 3 + [1] * 3 + [2] * 3 + [0] * 3
    assert sorted(marks.values.tolist()) == [0, 0, 1, 2]
    assert marks.like_ribosomes(seen.mined).tolist() == [False] * 6 + [True] * 3 + [False] * 3
    assert isinstance(marks, Marks)
    assert isinstance(marks.centres, Centres)


def test_true_labels_lie_on_their_windows(made: Simulated) -> None:
    # Off the faces, so that no mirroring is needed to say what a window shows.
    seen = Seen.of(made, mined_at(made, made.particles.xyz))
    data = true_examples([seen], SetOptions(most=12, edge=16))
    assert data.windows.shape == data.labels.shape
    bright = [w[v == GLOBULE].mean() - w[v == 0].mean() for w, v in zip(data.windows, data.labels, strict=True)]
    assert min(bright) > 0.3
    assert np.mean(bright) > 0.8


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    folder = tmp_path_factory.mktemp("study")
    codecs = [Codec(untrained(folder, name, edge=16, channels=4, posed=name == "b"), threads=1) for name in "ab"]
    return Study(folder / "out", codecs[0], codecs[1], lambda what, done, of: None, SCENE)


@pytest.fixture(scope="module")
def plain(study: Study) -> dict[str, Any]:
    return study.row("plain", OPTIONS)


@pytest.fixture(scope="module")
def rows(study: Study, plain: dict[str, Any]) -> list[dict[str, Any]]:
    return [plain, study.row("posed", replace(OPTIONS, posed=True))]


def test_a_row_says_all_and_is_not_computed_twice(
    study: Study, plain: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    row = plain
    assert [one["seed"] for one in row["tomograms"]] == [TEST, TEST + 1]
    assert row["marking_picks"] > 10
    assert sum(row["marked"].values()) <= row["clusters"]
    assert row["codec_name"] == "a"
    assert row["tomograms"][0]["picks"] > 5
    assert set(row["weak_labels"]) == set(GROUPS)
    assert MARKING >= VALIDATION

    def not_again(*_: Any) -> Any:
        raise AssertionError("computed twice")

    monkeypatch.setattr("beamsieve.models.tomograms.study.simulate", not_again)
    assert study.row("plain", OPTIONS) == row
    with pytest.raises(AssertionError, match="computed twice"):
        study.row("plain", replace(OPTIONS, seed=2))


def test_tables_have_the_rows_and_the_verdicts(rows: list[dict[str, Any]], study: Study, tmp_path: Path) -> None:
    assert [row["codec_name"] for row in rows] == ["a", "b"]
    text = study_report.markdown(rows)
    for heading in ("Groups of sub-volumes", "Picks at half a radius", "Voxels: Dice", "Where it is lost", "Targets"):
        assert heading in text
    tables = [line for line in text.splitlines() if line.startswith("| plain")]
    assert len(tables) == 4
    assert len({line.count("|") for line in tables}) > 1
    assert "pose normalisation" in text
    better = json.loads(json.dumps(rows))
    for one in better[0]["tomograms"]:
        one["voxels"]["shown"]["membrane"]["dice"] = 0.81
        one["groups"]["membrane"]["recall"] = 0.5
    for one in better[1]["tomograms"]:
        one["voxels"]["shown"]["membrane"]["dice"] = 0.79
        one["groups"]["membrane"]["recall"] = 0.6
    said = study_report.verdicts(better)
    assert "plain: Dice of membrane 0.810, target 0.8: reached" in said
    assert "posed: Dice of membrane 0.790, target 0.8: not reached" in said
    assert "plain: pose normalisation raises recall of surfaces, 0.500 to 0.600" in said
    with np.load(study.out / rows[0]["shown"]) as shown:
        study_report.draw(tmp_path / "row.png", dict(shown), "a row")
    assert (tmp_path / "row.png").stat().st_size > 10_000


app = typer.Typer()
app.command()(evaluate_tomograms)


def test_the_command_writes_tables_and_pictures(
    rows: list[dict[str, Any]], study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[StudyOptions] = []

    def row(_: Study, name: str, options: StudyOptions) -> dict[str, Any]:
        asked.append(options)
        return {**rows[0], "row": name, "shown": str(study.out / rows[0]["shown"])}

    monkeypatch.setattr(Study, "row", row)
    model = str(study.straight.bundle.path)
    words = ["--out", str(tmp_path), "--model", model, "--posed-model", model, "--test", "7", "--seed", "4"]
    found = CliRunner().invoke(app, [*words, "--rows", "snr-0.05-posed", "--rows", "snr-0.1", "--quick"])
    assert found.exit_code == 0, found.output
    assert [(one.snr, one.posed, one.test, one.seed) for one in asked] == [(0.05, True, 7, 4), (0.1, False, 7, 4)]
    assert asked[0].windows == 60
    assert {"tomograms.json", "tomograms.md", "snr-0.1.png", "snr-0.05-posed.png"} <= {
        p.name for p in tmp_path.iterdir()
    }
    assert "| snr-0.05-posed" in (tmp_path / "tomograms.md").read_text()
    assert "Voxels: Dice" in found.output


@pytest.mark.parametrize(
    ("words", "told"), [(["--rows", "snr-9"], "snr-9"), (["--model", "dragon"], "dragon"), (["--seed", "-1"], "seed")]
)
def test_mistakes_are_told(tmp_path: Path, words: list[str], told: str) -> None:
    found = CliRunner().invoke(app, ["--out", str(tmp_path / "out"), *words])
    assert found.exit_code == 2
    assert told in found.output


def test_rows_are_of_what_their_names_say() -> None:
    for name, changes in ROWS.items():
        options = replace(StudyOptions(), **changes)
        assert name.startswith(f"snr-{options.snr:g}")
        assert options.posed == name.endswith("posed")
        assert options.oracle == name.endswith("true-labels")
