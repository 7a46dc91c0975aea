"""The runner: the model's own scores, whatever the batch, the thread, the plan and the device."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from beamsieve.models.bundle import Bundle, BundleError, load_bundle, quiet_torchscript, save_bundle
from beamsieve.models.plans import PLANS, measure, sample
from beamsieve.models.runner import Runner, _best_piece
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

CLASSES = ["0", "1", "2", "3", "4+"]
SHAPE = (16, 12)


class Net(nn.Module):
    """Convolution, batch norm, pooling: what the plans rewrite. Gives logits."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.score = nn.Conv2d(1, 8, 3, stride=2), nn.BatchNorm2d(8), nn.Linear(8, 5)

    def forward(self, photons: torch.Tensor) -> torch.Tensor:
        x = torch.log1p(photons).reshape(-1, 1, 16, 12)
        scores: torch.Tensor = self.score(torch.relu(self.norm(self.conv(x))).mean(dim=(2, 3)))
        return scores


class OwnDtype(Net):
    """Normalises in float32 whatever it is given, and converts to the type of its weights, as what ships does."""

    def forward(self, photons: torch.Tensor) -> torch.Tensor:
        x = torch.log1p(photons.to(torch.float32)).reshape(-1, 1, 16, 12)
        x = self.norm(self.conv(x.to(self.score.weight.dtype)))
        return torch.softmax(self.score(torch.relu(x).mean(dim=(2, 3))).to(torch.float32), dim=1)


class Rows(nn.Module):
    """Tells how many rows it was given."""

    def forward(self, photons: torch.Tensor) -> torch.Tensor:
        return torch.full((photons.shape[0], 5), float(photons.shape[0]))


class Sums(nn.Module):
    """The sum of the photons, exactly."""

    def forward(self, photons: torch.Tensor) -> torch.Tensor:
        return photons.to(torch.float64).sum(dim=(1, 2)).to(torch.float32).unsqueeze(1).repeat(1, 5)


class NoNumbers(nn.Module):
    def forward(self, photons: torch.Tensor) -> torch.Tensor:
        return torch.log(-1 - photons).sum(dim=(1, 2)).unsqueeze(1).repeat(1, 5)


class ThreeAnswers(nn.Module):
    def forward(self, photons: torch.Tensor) -> torch.Tensor:
        return photons.sum(dim=(1, 2)).unsqueeze(1).repeat(1, 3)


class WrongInput(nn.Module):
    def forward(self, photons: torch.Tensor) -> torch.Tensor:
        return photons.reshape(-1, 5, 1000)


def bundle(
    tmp_path: Path, module: nn.Module, kind: str = "probabilities", dtype: str = "float32", **card: Any
) -> Bundle:
    with quiet_torchscript():
        script = torch.jit.script(module.eval())
    what = {
        "version": "1",
        "task": "hits",
        "input": {"name": "photons", "shape": list(SHAPE), "dtype": dtype, "normalisation": "in the module"},
        "output": {"classes": CLASSES, "kind": kind},
        "threshold": 0.5,
        "training": {},
        "scores": {},
        "trained_by": "a test",
        "licence": "Apache-2.0",
        **card,
    }
    return load_bundle(save_bundle(tmp_path, "tiny", script, what))


def trained(net: nn.Module) -> nn.Module:
    """A net whose batch norm does something, and whose answers differ from frame to frame."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.normal_(0, 0.7)
        for buffer in net.buffers():
            if buffer.dtype.is_floating_point:
                buffer.uniform_(0.5, 1.5)
    return net.eval()


def frames(count: int, seed: int = 0) -> np.ndarray[Any, np.dtype[np.uint16]]:
    return np.random.default_rng(seed).poisson(3, (count, *SHAPE)).astype(np.uint16)


@pytest.fixture(scope="module")
def net() -> nn.Module:
    return trained(Net())


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory, net: nn.Module) -> Runner:
    made = Runner(bundle(tmp_path_factory.mktemp("net"), net, kind="logits"), batch=6, device="cpu", dtype="float32")
    made.warm_up()
    return made


@pytest.fixture(autouse=True)
def _torch_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def by_hand(net: nn.Module, stack: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Frame by frame, without any of it."""
    with torch.no_grad():
        rows = [torch.softmax(net(torch.from_numpy(frame.astype(np.float32))[None]), 1)[0] for frame in stack]
    return np.array([row.numpy() for row in rows]).reshape(-1, 5)


@settings(max_examples=25, deadline=None)
@given(
    count=st.integers(0, 6),
    dtype=st.sampled_from(["u1", "u2", "i4", "u8", "f4", "f8", ">u2", "?"]),
    stack=st.booleans(),
)
def test_scores_are_those_of_the_module(runner: Runner, net: nn.Module, count: int, dtype: str, stack: bool) -> None:
    given_frames = frames(count, seed=count).astype(dtype)
    scores = runner.run(runner.prepare(given_frames if stack else list(given_frames)))
    assert scores.shape == (count, 5)
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores, by_hand(net, given_frames), atol=1e-6)


def test_any_number_of_frames_goes_in_pieces(runner: Runner, net: nn.Module) -> None:
    many = frames(20)
    np.testing.assert_allclose(runner.scores(many), by_hand(net, many), atol=1e-6)
    assert runner.scores(many[:0]).shape == (0, 5)


def test_a_batch_is_a_copy(runner: Runner, net: nn.Module) -> None:
    some = frames(6)
    expected, batch = by_hand(net, some), runner.prepare(some)
    some[:] = 0
    np.testing.assert_allclose(runner.run(batch), expected, atol=1e-6)
    np.testing.assert_allclose(runner.run(batch), expected, atol=1e-6)


def test_read_only_and_strided_frames_are_fine(runner: Runner, net: nn.Module) -> None:
    wide = np.random.default_rng(2).poisson(3, (4, 32, 24)).astype(np.uint16)
    wide.setflags(write=False)
    view = wide[:, ::2, ::-2]
    np.testing.assert_allclose(runner.run(runner.prepare(view)), by_hand(net, view), atol=1e-6)


def test_prepare_in_many_threads_while_the_device_runs(runner: Runner, net: nn.Module) -> None:
    stacks = [frames(1 + i % 6, seed=i) for i in range(40)]
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda stack: runner.run(runner.prepare(stack)), stacks))
    for stack, answer in zip(stacks, answers, strict=True):
        np.testing.assert_allclose(answer, by_hand(net, stack), atol=1e-6)


@pytest.mark.parametrize(("batch", "buckets"), [(1, (1,)), (2, (1, 2)), (6, (1, 2, 4, 6)), (8, (1, 2, 4, 8))])
def test_the_module_sees_few_shapes(tmp_path: Path, batch: int, buckets: tuple[int, ...]) -> None:
    made = Runner(bundle(tmp_path, Rows()), batch=batch, device="cpu")
    assert made.buckets == buckets
    report = made.warm_up()
    assert tuple(report.buckets) == buckets
    assert set(report.pieces.values()) <= set(buckets)
    for count in range(1, batch + 1):
        seen = made.run(made.prepare(frames(count)))
        assert seen.shape == (count, 5)
        assert np.all(seen == report.pieces[min(size for size in buckets if size >= count)])


def test_a_batch_may_be_cut_into_pieces(tmp_path: Path, net: nn.Module) -> None:
    made = Runner(bundle(tmp_path, net, kind="logits"), batch=8, device="cpu", dtype="float32")
    made.warm_up()
    for piece in (1, 2, 4, 8):
        made._pieces = {size: min(size, piece) for size in made.buckets}
        for count in (0, 1, 5, 8):
            some = frames(count, seed=count)
            np.testing.assert_allclose(made.run(made.prepare(some)), by_hand(net, some), atol=1e-6)


def test_pieces_are_those_that_take_the_least_time() -> None:
    times = {1: (1.0, False), 2: (1.5, False), 4: (2.0, False), 6: (6.0, False)}
    assert [_best_piece(size, times) for size in times] == [1, 2, 4, 2]
    assert _best_piece(8, {4: (1.0, False), 8: (2.0, False)}) == 8


def test_wrong_frames_are_refused(runner: Runner) -> None:
    with pytest.raises(BundleError, match="takes frames of 16 × 12, was given 12 × 16") as caught:
        runner.prepare(np.zeros((2, 12, 16), np.uint16))
    assert caught.value.reason == "shape"
    with pytest.raises(BundleError, match="was given 16 × 13"):
        runner.prepare([np.zeros((16, 12)), np.zeros((16, 13))])
    with pytest.raises(BundleError, match="complex"):
        runner.prepare(np.zeros((2, 16, 12), np.complex64))
    with pytest.raises(ValueError, match="7 frames in a batch of at most 6"):
        runner.prepare(frames(7))


@pytest.mark.parametrize("values", [[0.4, 0.6, 1e9, -3.0, np.nan, np.inf], [0, 7, 65535, 70000, -1, 2**40]])
def test_a_model_that_takes_counts_gets_counts(tmp_path: Path, values: list[float]) -> None:
    made = Runner(bundle(tmp_path, Sums(), dtype="uint16"), batch=8, device="cpu")
    given_frames = np.zeros((len(values), *SHAPE), np.array(values).dtype)
    given_frames[:, 3, 4] = values
    counts = [0 if np.isnan(v) else int(min(max(round(v) if np.isfinite(v) else v, 0), 65535)) for v in values]
    assert made.run(made.prepare(given_frames))[:, 0].tolist() == counts


def test_leading_channel_axis_belongs_to_the_model(tmp_path: Path) -> None:
    class Channel(nn.Module):
        def forward(self, photons: torch.Tensor) -> torch.Tensor:
            assert photons.ndim == 4
            return photons.sum(dim=(1, 2, 3)).unsqueeze(1).repeat(1, 5)

    shape = {"name": "photons", "shape": [1, *SHAPE], "dtype": "float32", "normalisation": "none"}
    made = Runner(bundle(tmp_path, Channel(), input=shape), batch=4, device="cpu", dtype="float32")
    some = frames(3)
    np.testing.assert_allclose(made.run(made.prepare(some))[:, 0], some.sum(axis=(1, 2)))


@pytest.mark.parametrize("module", [Net(), OwnDtype()], ids=["plain", "converts itself"])
@pytest.mark.parametrize("dtype", ["auto", "float32", "bfloat16"])
def test_every_choice_agrees_to_the_tolerance(tmp_path: Path, module: nn.Module, dtype: str) -> None:
    kind = "logits" if type(module) is Net else "probabilities"
    made = Runner(bundle(tmp_path, trained(module), kind=kind), batch=4, device="cpu", dtype=dtype)
    report = made.warm_up()
    tolerance = {"float32": 1e-4, "bfloat16": 0.02}[report.dtype]
    assert report.difference <= tolerance
    assert dtype in ("auto", report.dtype)
    tried = [trial.plan for trial in report.trials]
    assert tried == [plan for plan in PLANS if dtype in ("auto", plan.dtype)]
    some = frames(11)
    with torch.no_grad():
        raw = module(torch.from_numpy(some.astype(np.float32)))
    expected = torch.softmax(raw, 1) if kind == "logits" else raw
    np.testing.assert_allclose(made.scores(some), expected.numpy(), atol=2 * tolerance)


def test_the_fastest_that_agrees_is_chosen(tmp_path: Path) -> None:
    made = Runner(bundle(tmp_path, trained(Net()), kind="logits"), batch=4, device="cpu")
    report = made.warm_up()
    agree = [
        trial for trial in report.trials if trial.difference <= {"float32": 1e-4, "bfloat16": 0.02}[trial.plan.dtype]
    ]
    assert report.plan == min(agree, key=lambda trial: trial.ms_per_frame).plan
    assert any(trial.plan.dtype == "bfloat16" and not trial.fault for trial in report.trials)


def test_bfloat16_beyond_the_tolerance_is_never_used(tmp_path: Path) -> None:
    strict = bundle(tmp_path, trained(Net()), kind="logits", tolerance={"bfloat16": 0})
    assert Runner(strict, batch=4, device="cpu").warm_up().dtype == "float32"
    with pytest.raises(BundleError, match="bfloat16 frozen input: differs by") as caught:
        Runner(strict, batch=4, device="cpu", dtype="bfloat16").warm_up()
    assert caught.value.reason == "tolerance"


@pytest.mark.parametrize(
    ("module", "says"),
    [
        (NoNumbers(), "not finite"),
        (ThreeAnswers(), r"\(4, 3\) numbers, needed are \(4, 5\)"),
        (WrongInput(), "invalid"),
    ],
)
def test_a_model_that_is_not_what_its_card_says_is_refused(tmp_path: Path, module: nn.Module, says: str) -> None:
    with pytest.raises(BundleError, match=says) as caught:
        Runner(bundle(tmp_path, module), batch=4, device="cpu").warm_up()
    assert caught.value.reason == "output"


def test_the_report_is_plain_and_whole(runner: Runner) -> None:
    assert runner.report is not None
    found = json.loads(json.dumps(runner.report.to_json(), allow_nan=False))
    assert found["plan"]["dtype"] == "float32"
    assert found["device"] == "cpu"
    assert set(found["buckets"]) == {"1", "2", "4", "6"}
    assert found["ms_per_frame"] > 0
    assert "float32" in str(runner.report)


def test_threads_are_set_on_purpose(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny = bundle(tmp_path, Rows())
    made = Runner(tiny, batch=1, device="cpu", threads=2)
    made.warm_up()
    assert torch.get_num_threads() == made.threads == 2
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert Runner(tiny, batch=1, device="cpu").threads == 1
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert Runner(tiny, batch=1, device="cpu").threads >= 1


@pytest.mark.parametrize("device", ["toaster", "cuda:99", "meta", "mps"])
def test_a_device_that_is_not_there_is_refused(tmp_path: Path, device: str) -> None:
    with pytest.raises(BundleError, match=device.split(":", maxsplit=1)[0]) as caught:
        Runner(bundle(tmp_path, Rows()), batch=1, device=device)
    assert caught.value.reason == "device"


def test_arguments_that_mean_nothing_are_refused(tmp_path: Path) -> None:
    tiny = bundle(tmp_path, Rows())
    with pytest.raises(ValueError, match="batch"):
        Runner(tiny, batch=0)
    with pytest.raises(ValueError, match="float16"):
        Runner(tiny, batch=1, dtype="float16")


@pytest.mark.parametrize("dtype", ["float32", "uint8", "uint16", "int16", "int32"])
def test_samples_are_counts_of_every_kind_of_shot(dtype: str) -> None:
    counts = sample((1, 32, 32), dtype, 24)
    assert counts.dtype == getattr(torch, dtype)
    assert torch.equal(counts, sample((1, 32, 32), dtype, 24))
    sums = counts.to(torch.float64).sum(dim=(1, 2, 3))
    assert float(sums.min()) < 100
    assert float(sums.max()) > 3000
    assert bool((counts.to(torch.float64) >= 0).all())
    assert torch.equal(counts.to(torch.float64), counts.to(torch.float64).round())


def test_measuring_stops_when_it_takes_too_long() -> None:
    calls: list[int] = []
    assert measure(lambda: calls.append(1), budget_s=0) < 1
    assert len(calls) == 3


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("module", [Net(), OwnDtype()], ids=["plain", "converts itself"])
@pytest.mark.parametrize("dtype", ["auto", "float32", "bfloat16"])
@pytest.mark.parametrize("pixels", ["u2", "f4", "i8"])
def test_cuda_gives_the_scores_of_the_cpu(tmp_path: Path, module: nn.Module, dtype: str, pixels: str) -> None:
    tiny = bundle(tmp_path, trained(module), kind="logits" if type(module) is Net else "probabilities")
    here, there = (Runner(tiny, batch=8, device=device, dtype=t) for device, t in (("cpu", "float32"), ("cuda", dtype)))
    report = there.warm_up()
    assert report.device == "cuda:0"
    tolerance = {"float32": 1e-4, "bfloat16": 0.02}[report.dtype]
    for count in (0, 1, 2, 3, 5, 8):
        some = frames(count, seed=count).astype(pixels)
        np.testing.assert_allclose(there.run(there.prepare(some)), here.run(here.prepare(some)), atol=tolerance)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_keeps_batches_apart_that_are_under_way_at_once(tmp_path: Path) -> None:
    made = Runner(bundle(tmp_path, Sums()), batch=16, device="cuda", dtype="float32")
    made.warm_up()
    stacks = [frames(1 + i % 16, seed=i) for i in range(400)]
    with ThreadPoolExecutor(4) as pool:
        batches = pool.map(made.prepare, stacks)
        for stack, batch in zip(stacks, batches, strict=True):
            np.testing.assert_array_equal(made.run(batch)[:, 0], stack.sum(axis=(1, 2)))
