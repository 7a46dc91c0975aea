"""Going on from marks: the hit classifier from marked frames, the picker from marked picks."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import mrcfile
import numpy as np
import pytest
import torch
from beamsieve.models.bundle import load_bundle, quiet_torchscript, save_bundle
from beamsieve.models.hits import marked_report
from beamsieve.models.hits.conditions import preset
from beamsieve.models.hits.evaluate import runner
from beamsieve.models.hits.marked import Marked, MarkedOptions, check, split_marks
from beamsieve.models.hits.simulator import Patterns, Recipe, simulate_block
from beamsieve.models.hits.tuning import balanced, mark_losses, trainable
from beamsieve.models.particles.candidates import Candidates
from beamsieve.models.particles.pick import Picker, PickOptions
from beamsieve.stream.__main__ import app
from beamsieve.stream.commands.labelled import Reading
from beamsieve.stream.commands.marked_picks import completed, marked_micrographs, marks_among
from beamsieve.stream.commands.train_hits import read_marked
from beamsieve.stream.commands.training_set import Files
from beamsieve.stream.flow.frame import BadData
from beamsieve.stream.flow.settings import ConfigError
from beamsieve.stream.formats.coordinates import micrographs_in, read_coordinates
from beamsieve.stream.formats.marks import pixels_path, read_marks, read_pixels
from beamsieve.stream.live.marks import Mark, Marks
from typer.testing import CliRunner, Result

SHIPPED = "hits-resnet10"


def shots(block: int, count: int = 60) -> Patterns:
    """Shots of rods on one damaged detector: what the network that ships knows least."""
    recipe = Recipe(21, "pool", preset("detector"), ("rod",), (0.25, 0.5, 0.1, 0.1, 0.05), per_model=count)
    return simulate_block(recipe, block)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The network that ships, with a card by which little is rehearsed."""
    shipped = load_bundle(SHIPPED)
    card = shipped.card.to_json()
    card["training"] = {"options": {**card["training"]["options"], "mix": [["paper", 1.0]], "turns": False}}
    return save_bundle(tmp_path_factory.mktemp("bundle"), "start", shipped.module, card)


@pytest.fixture(scope="module")
def reviewed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A session's marks: 60 frames, one after the other."""
    marks = Marks(tmp_path_factory.mktemp("session"))
    made = shots(0)
    for number, (image, label) in enumerate(zip(made.images, made.labels, strict=True)):
        one = Mark(f"7:{number}", "frame", bool(label == 1), "Ada", 1e9 + number, 0.5, run="7")
        marks.add(one, image.astype(np.float32) if number % 2 else image)
    return marks.path


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("patterns")


def beamsieve(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


def train(bundle: Path, marks: Path, out: Path, cache: Path, *more: object) -> Result:
    few = ("--patterns", 300, "--workers", 1, "--device", "cpu", "--cache", cache, "--batch", 48)
    return beamsieve("train", "hits", "--from", bundle, "--add", marks, "--out", out, *few, *more)


@pytest.fixture(scope="module", autouse=True)
def few_to_judge_by() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MarkedOptions, "__init__", _with(MarkedOptions.__init__, calibration=300, steps=12))
        yield


def _with(make: Any, **defaults: Any) -> Any:
    def init(self: MarkedOptions, *args: Any, **kwargs: Any) -> None:
        make(self, *args, **{**defaults, **kwargs})

    return init


def test_marks_make_it_better_where_it_was_weak(bundle: Path, reviewed: Path, cache: Path, tmp_path: Path) -> None:
    said = train(bundle, reviewed, tmp_path, cache, "--epochs", 4, "--name", "rods")
    assert said.exit_code == 0, said.output
    assert "it is better: log loss of the" in said.output
    new, old = load_bundle(tmp_path / "rods.pt"), load_bundle(bundle)
    assert new.expect(task="hits", shape=(128, 128), classes=5).card.threshold >= 0.5
    told = new.card.training["marked"][0]
    assert told["from"] == {"name": "start", "sha256": old.card.sha256}
    assert sum(told["marks"][part][kind] for part in ("train", "held_back") for kind in ("single", "other")) == 60
    assert told["marks"]["train"]["runs"].keys() == {"7"}
    assert new.card.training["options"] == old.card.training["options"]
    before, after = new.card.scores["marked"]["before"], new.card.scores["marked"]["after"]
    assert after["loss"] < 0.7 * before["loss"]
    assert before["accuracy"] - after["accuracy"] <= marked_report.FORGOTTEN
    # On shots of another rod and another detector, which nobody marked, singles are told better too.
    fresh = shots(1)
    single = fresh.labels == 1
    was, now = (runner(one.module, torch.device("cpu"))(fresh.images) for one in (old, new))
    losses = [marked_report.losses(found, single) for found in (was, now)]
    means = [(one[single].mean() + one[~single].mean()) / 2 for one in losses]
    assert means[1] < means[0]


def test_what_is_no_better_is_not_kept(bundle: Path, reviewed: Path, cache: Path, tmp_path: Path) -> None:
    few = Marks(tmp_path / "few")
    for mark in list(read_marks(reviewed).values())[:24]:
        few.add(mark, read_pixels(pixels_path(reviewed.parent, mark.id)))
    nothing = ("--epochs", 1, "--rate", 1e-12)
    said = train(bundle, few.path, tmp_path / "a", cache, *nothing)
    assert said.exit_code == 1
    assert said.stderr.splitlines()[-1].startswith("no bundle was written: it is not better (log loss of the")
    assert "marks held back: log loss" in said.stdout
    assert not list((tmp_path / "a").glob("*.pt"))
    kept = train(bundle, few.path, tmp_path / "b", cache, *nothing, "--anyway")
    assert kept.exit_code == 0
    assert [one.name for one in (tmp_path / "b").glob("*.pt")] == ["start-marked.pt"]


def frames(single: list[bool], runs: list[str], times: list[float] | None = None) -> Marked:
    n = len(single)
    clock = np.arange(n, dtype=float) if times is None else np.array(times)
    return Marked(np.zeros((n, 2, 2), np.float32), np.array(single), clock, tuple(runs))


def test_neighbours_stay_together() -> None:
    rng = np.random.default_rng(1)
    one_run = frames([bool(x) for x in rng.random(100) < 0.5], ["7"] * 100, [float(t) for t in rng.permutation(100)])
    train, held = split_marks(one_run, 0.3, 1)
    assert sorted([*train, *held]) == list(range(100))
    assert 20 <= len(held) <= 40
    in_order = np.isin(np.argsort(one_run.time), held)
    assert np.count_nonzero(np.diff(in_order.astype(int))) <= 8  # 30 scattered marks would change sides 40 times
    many = frames([bool(i % 2) for i in range(96)], [f"r{i // 8}" for i in range(96)])
    train, held = split_marks(many, 0.3, 1)
    assert not {many.runs[i] for i in train} & {many.runs[i] for i in held}
    np.testing.assert_array_equal(held, split_marks(many, 0.3, 1)[1])


def test_marks_that_cannot_be_divided_are_told() -> None:
    with pytest.raises(ValueError, match="cannot be divided"):
        split_marks(frames([i < 4 for i in range(40)], ["a"] * 40), 0.3, 1)
    with pytest.raises(ValueError, match="12 marked frames, 6 single hits and 6 not: at least 20"):
        check(frames([bool(i % 2) for i in range(12)], ["a"] * 12))
    with pytest.raises(ValueError, match="at least 20 are needed, 4 of either kind"):
        check(frames([i < 3 for i in range(40)], ["a"] * 40))


def test_what_a_mark_costs() -> None:
    scores = torch.randn(6, 5, generator=torch.Generator().manual_seed(1)) * 3
    single = torch.tensor([True, True, True, False, False, False])
    p = torch.softmax(scores, 1)[:, 1]
    expected = -torch.log(torch.where(single, p, 1 - p))
    torch.testing.assert_close(mark_losses(scores, single), expected)
    torch.testing.assert_close(balanced(expected, single), expected.mean())
    sure = torch.tensor([[0.0, 200.0, 0.0, 0.0, 0.0]])
    assert torch.isfinite(mark_losses(sure, torch.tensor([False]))).all()


def test_the_network_goes_on_where_it_was(bundle: Path) -> None:
    start = load_bundle(bundle)
    net, mean, std, kind = trainable(start)
    photons = torch.poisson(torch.full((3, 1, 128, 128), 0.5), generator=torch.Generator().manual_seed(2))
    assert kind == "sqrt"
    with torch.inference_mode():
        again = torch.softmax(net((photons.sqrt() - mean) / std), 1)
        torch.testing.assert_close(again, start.module(photons))


def test_a_network_of_another_make_is_refused(bundle: Path, reviewed: Path, tmp_path: Path) -> None:
    class Other(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.softmax(x.flatten(1)[:, :5], 1)

    card = load_bundle(bundle).card.to_json()
    with quiet_torchscript():
        module = torch.jit.script(Other())
    made = save_bundle(tmp_path, "other", module, card)
    with pytest.raises(ValueError, match=r"other\.pt: is no network of `beamsieve train hits`"):
        trainable(load_bundle(made))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--add", "m.jsonl"), "give --from hits-resnet10"),
        (("--from", SHIPPED), "give --add marks.jsonl"),
        (("--from", SHIPPED, "--add", "m.jsonl", "--mix", "paper"), "--mix: does not go with --add"),
        (("--from", SHIPPED, "--add", "m.jsonl", "--test-patterns", "3"), "--test-patterns: does not go with --add"),
        (("--from", SHIPPED, "--add", "m.jsonl", "--recipe", "tuned"), "--recipe: does not go with --add"),
        (("--from", "particles-general", "--add", "m.jsonl"), "its task is particles, needed is hits"),
        (("--from", "nothing", "--add", "m.jsonl"), "no bundle named nothing"),
    ],
)
def test_options_that_cannot_be(words: tuple[str, ...], said: str, tmp_path: Path) -> None:
    found = beamsieve("train", "hits", "--out", tmp_path / "out", *words)
    assert found.exit_code == 2
    assert said in found.stderr
    assert "Traceback" not in found.output
    assert not (tmp_path / "out").exists()


def test_marks_that_cannot_be_trained_from(tmp_path: Path) -> None:
    marks = Marks(tmp_path)
    marks.add(Mark("p", "pick", True, extra={"micrograph": "a.mrc", "x": 1, "y": 2}))
    with pytest.raises(ConfigError, match=r"holds no marks of frames; name the marks\.jsonl of an xfel_hits daemon"):
        read_marked([marks.path], (4, 4))
    marks.add(Mark("f", "frame", True))
    with pytest.raises(ConfigError, match="no mark has its pixels; copy the folder marks/"):
        read_marked([marks.path], (4, 4))
    marks.add(Mark("g", "frame", True), np.zeros((4, 5), np.float32))
    with pytest.raises(ConfigError, match="the pixels of g are 4 × 5, the network takes 4 × 4"):
        read_marked([marks.path], (4, 4))
    found = beamsieve("train", "hits", "--from", SHIPPED, "--add", tmp_path / "no.jsonl", "--out", tmp_path / "out")
    assert found.exit_code == 1
    assert "no.jsonl: No such file" in found.stderr


def test_marks_of_several_files_and_withdrawn_ones(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, value in (("morning", 1.0), ("night", 2.0)):
        marks = Marks(tmp_path / name)
        image = np.full((4, 4), value, np.float32)
        for number in range(3):
            marks.add(Mark(f"1:{number}", "frame", number == 0, time=float(number), run="1"), image)
        marks.add(Mark("1:2", "frame", None, time=9.0))
        marks.add(Mark("1:3", "frame", True, time=3.0, run="1"))
    found = read_marked([tmp_path / "morning" / "marks.jsonl", tmp_path / "night"], (4, 4))
    assert found.images[:, 0, 0].tolist() == [1, 1, 2, 2]
    assert found.single.tolist() == [True, False, True, False]
    assert len(set(found.runs)) == 2
    assert capsys.readouterr().err.count("1 of 3 marks have no pixels and are left out: 1:3") == 2
    alone = read_marked([tmp_path / "night"], (4, 4))
    assert set(alone.runs) == {"1"}


def test_the_threshold_is_no_laxer_than_the_rule(bundle: Path) -> None:
    start = load_bundle(bundle)
    start = replace(start, card=replace(start.card, threshold=0.5))
    other = np.array([True] * 1000 + [False] * 10)
    old = np.where(other, 0.1, 0.9).astype(np.float32)
    new = np.where(other, np.linspace(0, 0.8, 1010), 0.95).astype(np.float32)
    threshold = marked_report.chosen(old, new, other, start)
    assert 0.79 < threshold < 0.8
    assert (new[other] >= threshold).sum() <= 5
    # Where the old network let ten pass, the new one need not be stricter.
    old[:10] = 0.7
    lax = marked_report.chosen(old, new, other, start)
    assert (new[other] >= lax).sum() == 10


def test_json_of_the_scores_is_plain(bundle: Path) -> None:
    side = marked_report.Side(0.5, 1.0, 0.9, (1.0, 0.9, 1.0), (0.0, 0.0, 0.1), 0.9, (1.0, 0.9, 1.0), (0.0, 0.0, 0.1))
    outcome = marked_report.Outcome(None, False, "why", side, side)
    rows = outcome.table()
    assert len(rows) == 8
    assert ("threshold", "0.500", "0.500") in rows
    json.dumps(rows)


# --- picks -----------------------------------------------------------------------------------------------------------


def pick(micrograph: str, number: int, x: float, y: float, truth: bool | None, **other: Any) -> Mark:
    given = {"by": "Ada", "time": 1e9 + number, "score": 0.8, "threshold": 0.5, **other}
    return Mark(
        f"{micrograph}/{number}", "pick", truth, **given, extra={"micrograph": micrograph, "x": float(x), "y": float(y)}
    )


def test_marked_picks_are_read_as_corrected_ones(tmp_path: Path) -> None:
    marks = Marks(tmp_path)
    marks.add(pick("/data/a.mrc", 1, 10, 20, True))
    marks.add(pick("/data/a.mrc", 2, 30, 40, False))
    marks.add(pick("/data/b.mrc", 1, 5, 6, True))
    marks.add(pick("/data/b.mrc", 2, 7, 8, True))
    marks.add(pick("/data/b.mrc", 2, 7, 8, None))
    marks.add(Mark("7:1", "frame", True))
    assert micrographs_in(marks.path) == ("/data/a.mrc", "/data/b.mrc")
    found = read_coordinates(marks.path, micrograph="a.mrc", shape=(50, 50))
    assert found.wrong is not None
    assert (found.x.tolist(), found.y.tolist(), found.wrong.tolist()) == ([10, 30], [20, 40], [False, True])
    assert len(read_coordinates(marks.path, micrograph="b.mrc")) == 1
    # Also under another name: its content says what it is.
    renamed = tmp_path / "session.json"
    renamed.write_bytes(marks.path.read_bytes())
    assert len(read_coordinates(renamed, micrograph="a.mrc")) == 2
    with pytest.raises(BadData, match="lies outside the micrograph"):
        read_coordinates(marks.path, micrograph="a.mrc", shape=(50, 20))


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        ({"x": 1, "y": 2}, r"extra\.micrograph: missing"),
        ({"micrograph": "a.mrc", "y": 2}, r"extra\.x: None is no number"),
        ({"micrograph": "a.mrc", "x": 1, "y": "2"}, r"extra\.y: '2' is no number"),
    ],
)
def test_picks_without_a_place_are_told(tmp_path: Path, extra: dict[str, Any], said: str) -> None:
    marks = Marks(tmp_path)
    marks.add(Mark("a", "pick", True, extra=extra))
    with pytest.raises(BadData, match=said):
        read_coordinates(marks.path)


def test_a_log_of_changes_is_no_table_of_picks(tmp_path: Path) -> None:
    log = tmp_path / "changes.jsonl"
    log.write_text('{"time":1,"what":"threshold","old":0.5,"new":0.6}\n')
    with pytest.raises(BadData, match=r"changes\.jsonl:1: id: None is not a name"):
        read_coordinates(log)


class FewPicks:
    """Picks the same three places of every micrograph, and one that scores too low."""

    diameter_a, threshold, options = 20.0, 0.9, PickOptions()

    def pick(self, image: Any, pixel_a: float | None) -> Candidates:
        x, y = np.array([20, 60, 100, 120], np.float32), np.array([20, 60, 100, 20], np.float32)
        return Candidates(x, y, np.array([0.95, 0.92, 0.7, 0.4], np.float32), np.ones(4, np.float32))


def blobs(path: Path, seed: int, count: int = 12) -> tuple[Path, np.ndarray[Any, Any]]:
    """A micrograph of 160 × 200 pixels of 1 Å with dark discs 20 pixels wide, and their centres (n, 2): x, y."""
    rng = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(np.arange(20, 200, 40), np.arange(20, 160, 40)), -1).reshape(-1, 2)
    centres = rng.permutation(grid)[:count] + rng.uniform(-4, 4, (count, 2))
    y, x = np.mgrid[:160, :200]
    image = rng.normal(0, 0.5, (160, 200)).astype(np.float32)
    for cx, cy in centres:
        image -= 2 / (1 + np.exp(np.hypot(x - cx, y - cy) - 9))
    with mrcfile.new(path) as file:
        file.set_data(image.astype(np.float32))
        file.voxel_size = 1.0
    return path, centres


def test_what_nobody_marked_is_what_the_picker_says(tmp_path: Path) -> None:
    path, _ = blobs(tmp_path / "a.mrc", 1)
    marks = Marks(tmp_path)
    marks.add(pick(str(path), 1, 21, 19, True))
    marks.add(pick(str(path), 2, 60, 61, False))
    marks.add(pick(str(path), 3, 140, 120, True))
    found = completed(
        Files.read([path], Reading((marks.path,))), [marks.path], cast(Picker, FewPicks()), lambda *_: None
    )
    (entry,) = found.entries
    assert sorted(zip(entry["x"], entry["y"], strict=True)) == [(21, 19), (100, 100), (140, 120)]
    assert (entry["wrong_x"], entry["wrong_y"]) == ([60], [61])
    # By the card's threshold, where none was noted, the pick of 0.7 is none.
    unknown = Marks(tmp_path / "other")
    unknown.add(pick(str(path), 1, 140, 120, True, threshold=float("nan")))
    files = Files.read([path], Reading((unknown.path,)))
    (entry,) = completed(files, [unknown.path], cast(Picker, FewPicks()), lambda *_: None).entries
    assert sorted(entry["x"]) == [20, 60, 140]


def test_marks_name_their_micrographs(tmp_path: Path) -> None:
    here, _ = blobs(tmp_path / "a.mrc", 1)
    other = tmp_path / "c.mrc"
    marks = Marks(tmp_path)
    marks.add(pick("a.mrc", 1, 1, 2, True))
    assert marked_micrographs([marks.path], []) == [here]
    assert marked_micrographs([marks.path], [other, here]) == [here]
    with pytest.raises(ConfigError, match="holds no marks of the micrographs that are named"):
        marked_micrographs([marks.path], [other])
    marks.add(pick("/gone/b.mrc", 1, 1, 2, True))
    with pytest.raises(ConfigError, match=r"b\.mrc: was marked, and is not there; name the micrographs where"):
        marked_micrographs([marks.path], [])
    table = tmp_path / "picks.csv"
    table.write_text("x,y\n1,2\n")
    assert marks_among([marks.path])
    assert not marks_among([table])
    with pytest.raises(ConfigError, match="some are marks of the live page and some are not"):
        marks_among([marks.path, table])


def test_a_picker_goes_on_from_marks(tmp_path: Path) -> None:
    few = ("--epochs", 2, "--threads", 1, "--set", "steps=8", "--set", "batch=16", "--set", "cells=3")
    for number in range(3):
        path, centres = blobs(tmp_path / f"a{number}.mrc", number)
        path.with_suffix(".csv").write_text("x,y\n" + "".join(f"{x:.1f},{y:.1f}\n" for x, y in centres))
    first = tmp_path / "first"
    names = [tmp_path / f"a{number}.mrc" for number in range(3)]
    given = ("train", "particles", *names, "--diameter", 20, "--input-pixel", 1, *few, "--out", first)
    done = beamsieve(*given)
    assert done.exit_code == 0, done.output
    marks = Marks(tmp_path / "session")
    new, centres = blobs(tmp_path / "b.mrc", 9)
    for number, (x, y) in enumerate(centres[:3]):
        marks.add(pick(str(new), number, x, y, True))
    marks.add(pick(str(new), 9, 2, 3, False))
    second = tmp_path / "second"
    start = ("--from", first / "particles.pt", "--add", marks.path)
    done = beamsieve("train", "particles", *start, *few, "--out", second)
    assert done.exit_code == 0, done.output
    told = json.loads((second / "micrographs.json").read_text())["sources"][1]["files"]
    assert [entry["path"] for entry in told] == [str(new)]
    assert (told[0]["wrong_x"], told[0]["wrong_y"]) == ([2.0], [3.0])
    assert len(told[0]["x"]) >= 3
    assert load_bundle(second / "particles.pt").card.training["training"]["verified_false_positives"] == 1


def test_a_seed_of_0_is_one(reviewed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[MarkedOptions] = []

    def remembered(options: MarkedOptions, *_: Any) -> Any:
        asked.append(options)
        raise ValueError("enough")

    monkeypatch.setattr(marked_report, "train_marked", remembered)
    words = ("--from", SHIPPED, "--add", reviewed, "--out", tmp_path / "out", "--seed", 0)
    assert beamsieve("train", "hits", *words).exit_code
    assert asked[0].seed == 0
