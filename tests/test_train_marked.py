"""Going on from marks: the hit classifier from marked frames, the picker from marked picks."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

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
from beamsieve.stream.__main__ import app
from beamsieve.stream.commands.train_hits import read_marked
from beamsieve.stream.flow.settings import ConfigError
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
