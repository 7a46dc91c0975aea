"""``beamsieve train segments`` and ``beamsieve segment`` on a session: what they write, refuse, and do again."""

from __future__ import annotations

import csv
import json
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import mrcfile
import numpy as np
import pytest
import torch
import typer
from beamsieve.models.bundle import read_card
from beamsieve.models.tomograms import segment_practice, segment_set, segment_train
from beamsieve.models.tomograms.book import NAME, Clusters, read_clusters, write_clusters
from beamsieve.models.tomograms.bundles import save_codec
from beamsieve.models.tomograms.codec import Codec
from beamsieve.models.tomograms.dog import DogOptions
from beamsieve.models.tomograms.mine import MineOptions, Miner
from beamsieve.models.tomograms.nets import Autoencoder3D
from beamsieve.models.tomograms.scene import CLASSES, SceneOptions
from beamsieve.models.tomograms.segment_train import CHECKPOINT
from beamsieve.stream.commands import segment as command
from beamsieve.stream.commands import segment_training
from beamsieve.stream.commands import train_segments as training
from beamsieve.stream.commands.segment import segment
from beamsieve.stream.commands.segment_run import session_miner
from beamsieve.stream.commands.segment_session import marked_in, marked_session, records_to_use
from beamsieve.stream.commands.train_segments import train_segments
from beamsieve.stream.formats.mrc_write import MrcWriter
from beamsieve.stream.formats.volumes import open_volume
from beamsieve.stream.sinks.tomograms.marks import GroupsFile
from beamsieve.stream.sinks.tomograms.mined import Kept, MinedTomogram, Picked
from beamsieve.stream.sinks.tomograms.places import Places
from beamsieve.stream.sinks.tomograms.record import encode, read
from typer.testing import CliRunner, Result

START = "taught-here"
EDGE, VOXEL_A, SHAPE = 16, 14.2, (36, 44, 52)
QUICK = ("--most", "5", "--epochs", "1", "--threads", "1", "--device", "cpu")
PLACES = [(12, 12, 12), (38, 14, 20), (14, 32, 24), (40, 32, 14)]


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small windows and a thin network: what is told, written and refused does not depend on them."""
    monkeypatch.setattr(segment_set, "SetOptions", partial(segment_set.SetOptions, edge=24))
    monkeypatch.setattr(segment_train, "Options", partial(segment_train.Options, channels=4))
    # What ships is wider.
    monkeypatch.setattr(segment_training, "START", START)


def write(path: Path, seed: int) -> Path:
    """Dark balls in noise."""
    data = 0.3 * np.random.default_rng(seed).standard_normal(SHAPE).astype(np.float32)
    z, y, x = np.indices(SHAPE)
    for i, j, k in PLACES:
        data -= 2 * ((x - i) ** 2 + (y - j) ** 2 + (z - k) ** 2 < 25)
    with MrcWriter(path, SHAPE, 2, VOXEL_A) as writer:
        writer.write(data)
    return path


def mine(folder: Path, path: Path, codec: Codec) -> np.ndarray:
    """Put the tomogram's record into the session; its codes."""
    with open_volume(path) as volume:
        miner = Miner(codec, MineOptions(dog=DogOptions(sigma=3, threshold=2)), threads=1)
        mined = miner.mine(volume)
        rows = np.arange(len(mined), dtype=np.int32)
        boxes = miner.boxes_of(mined, rows).astype("f2")
        picked = Picked.of(mined.xyz, mined.score, mined.codes, rotation=mined.rotation, shift=mined.shift)
        found = MinedTomogram(
            name=path.name, path=path, shape=volume.shape, voxel_a=VOXEL_A, working_voxel_a=VOXEL_A, picked=picked,
            network=codec.name, network_sha256=codec.sha256, threshold=2.0, edge=EDGE, kept=Kept(rows, boxes),
            options={"smooth": 2.0, "sigma": 3.0, "ratio": 1.1, "distance": 10.0},
        )  # fmt: skip
    record = Places(folder).record(path.name)
    record.parent.mkdir(parents=True, exist_ok=True)
    record.write_bytes(encode(found, stem=path.stem))
    return mined.codes


def network(folder: Path) -> Path:
    """An autoencoder that decodes every code to a block in the middle."""
    torch.manual_seed(3)
    net = Autoencoder3D(EDGE, 2)
    with torch.no_grad():
        for parameter in net.decoder.parameters():
            parameter.zero_()
        net.decoder.dense.bias.view(2, 4, 4, 4)[0, 1:3, 1:3, 1:3] = 1
        for layer in (net.decoder.first, net.decoder.second, net.decoder.last):
            layer.weight[0, 0, 1, 1, 1] = 1
    return save_codec(folder, "tiny", net, posed=False, voxel_a=VOXEL_A)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a session, ``out``, two tomograms it was made of, and one that comes later."""
    folder = tmp_path_factory.mktemp("session")
    codec = Codec(network(folder / "out" / "models" / "codes"), threads=1)
    codes = np.concatenate([mine(folder / "out", write(folder / f"{n}.mrc", n), codec) for n in range(2)])
    write(folder / "later.mrc", 9)
    centres = np.stack([codes[: len(codes) // 2].mean(0), codes[len(codes) // 2 :].mean(0)]).astype("f4")
    decoded = codec.decode(centres)
    clusters = Clusters(
        ids=np.array([3, 5], "i4"),
        codes=centres,
        counts=np.full(2, 4, "i8"),
        spread=np.ones(2, "f4"),
        decoded=decoded,
        average=decoded.astype("f2"),
        averaged=np.ones(2, "i8"),
        network=codec.sha256,
        name=codec.name,
        voxel_a=VOXEL_A,
        next_id=6,
    )
    write_clusters(folder / "out" / NAME, clusters)
    GroupsFile(folder / "out").change(lambda groups: groups.mark("ball", [3, 5], kind="globule").add("plate"))
    return folder


def run(what: Callable[..., None], *arguments: object) -> Result:
    app = typer.Typer()
    app.command()(what)
    return CliRunner().invoke(app, list(map(str, arguments)))


@pytest.mark.parametrize("gone", [False, True])
def test_what_the_network_before_encoded_is_trained_on_too(made: Path, tmp_path: Path, gone: bool) -> None:
    """The daemon trains its network further: records of before have codes of another, and numbers that followed."""
    session = tmp_path / "out"
    shutil.copytree(made / "out", session)
    clusters = read_clusters(session / NAME)
    assert clusters is not None
    for record in (session / "session").glob("*.h5"):
        one = read(record, kept=True)
        picked = replace(one.picked, codes=one.picked.codes[:, ::-1] + 7, cluster=np.full(len(one.picked), 3, "i4"))
        path = Path("/nowhere") if gone else one.path
        record.write_bytes(encode(replace(one, network_sha256="0" * 64, picked=picked, path=path), stem=one.name))
    found = marked_session(session, device="cpu", threads=1)
    paths = records_to_use(found)
    assert len(paths) == 2
    for path, marked in zip(paths, marked_in(found, paths), strict=True):
        before = read(made / "out" / "session" / path.name)
        assert (marked.working is None) == gone
        np.testing.assert_allclose(marked.codes, before.picked.codes, atol=2e-2)
        assert set(marked.values.tolist()) == {1}
    assert len(segment_set.examples(marked_in(found, paths), 2, found.codec)) > 0


def table(out: Path) -> dict[str, dict[str, str]]:
    """Rows of ``counts.csv`` by class."""
    text = (out / "counts.csv").read_text(encoding="utf-8")
    return {row["class"]: row for row in csv.DictReader(text.splitlines())}


def said(result: Result) -> str:
    return " ".join(result.output.split())


def test_a_session_is_segmented_with_a_network_that_is_trained_once(made: Path, tmp_path: Path) -> None:
    session, out, report = made / "out", tmp_path / "labels", tmp_path / "report.json"
    bad = tmp_path / "cut.mrc"
    bad.write_bytes((made / "later.mrc").read_bytes()[:5000])
    before = set((session / "models").iterdir())
    result = run(
        segment, made / "later.mrc", bad, "--session", session, "--out", out, *QUICK, "--json", report
    )  # fmt: skip
    assert result.exit_code == 1, result.output
    assert "cut.mrc: 5000 bytes, its header speaks of" in said(result)
    (folder,) = set((session / "models").iterdir()) - before
    card = read_card(folder / "segments.pt")
    assert card.output.classes == ("background", "ball", "plate")
    assert card.training["groups"] == {"ball": [3, 5], "plate": []}
    assert (card.training["tomograms"], card.input.pixel_a) == (2, VOXEL_A)
    with mrcfile.open(out / "labels" / "later_labels.mrc") as file:
        labels = file.data.copy()
        assert (file.header.mode, labels.shape) == (0, SHAPE)
        assert file.voxel_size.x == pytest.approx(VOXEL_A)
    with mrcfile.open(out / "labels" / "later_ball.mrc") as file:
        assert (file.header.mode, file.data.shape) == (12, SHAPE)
        assert 0 <= file.data.min() <= file.data.max() <= 1
    assert (out / "pictures" / "later.png").stat().st_size > 2000
    told = json.loads(report.read_text())
    assert told["failed"] == [str(bad)]
    (one,) = told["tomograms"]
    rows = table(out)
    for value, name in enumerate(("ball", "plate"), 1):
        assert int(rows[name]["voxels"]) == one["classes"][name]["voxels"] == (labels == value).sum()
        assert int(rows[name]["sub-volumes"]) == one["classes"][name]["sub-volumes"]
    assert int(rows["ball"]["sub-volumes"]) == one["sub-volumes"] > 0, "both clusters are balls"

    stamp = (folder / "segments.pt").stat().st_mtime_ns
    again = run(segment, made / "later.mrc", "--session", session, "--out", tmp_path / "b", *QUICK, "--no-pictures")
    assert again.exit_code == 0, again.output
    assert [stamp] == [p.stat().st_mtime_ns for p in (session / "models").glob("segments-*/segments.pt")]
    with mrcfile.open(tmp_path / "b" / "labels" / "later_labels.mrc") as file:
        assert np.array_equal(file.data, labels)
    assert not (tmp_path / "b" / "pictures").exists()


def test_a_bundle_alone_segments_and_counts_voxels(made: Path, tmp_path: Path) -> None:
    trained = run(train_segments, made / "out", "--out", tmp_path / "net", *QUICK, "--name", "mine")
    assert trained.exit_code == 0, trained.output
    assert "Dice against weak labels of validation windows: ball" in said(trained)
    namesake = write(tmp_path / "0.mrc", 5)
    result = run(
        segment, made / "0.mrc", namesake, "--bundle", tmp_path / "net" / "mine.pt", "--out", tmp_path / "o",
        "--threads", "1", "--no-probabilities", "--no-pictures",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    labels = tmp_path / "o" / "labels"
    written = sorted(path.relative_to(labels).as_posix() for path in labels.rglob("*.mrc"))
    assert written == ["0_labels.mrc", f"{tmp_path.name}/0_labels.mrc"], "neither replaces the other"
    assert table(tmp_path / "o")["ball"]["sub-volumes"] == ""


def test_sub_volumes_are_turned_where_the_session_turned_them(made: Path, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    shutil.copytree(made / "out", folder)
    session = marked_session(folder, device="cpu", threads=1)
    assert not session_miner(session, 1).posed
    path = Places(folder).record("1.mrc")
    path.write_bytes(encode(replace(read(path, kept=True), posed=True), stem="1"))
    assert session_miner(session, 1).posed, "as the newest record says, whatever the network was trained on"


def test_tomograms_that_are_gone_are_replaced_by_what_was_kept(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    moved = made / "1.mrc"
    moved.rename(made / "elsewhere.mrc")
    try:
        result = run(
            train_segments, made / "out", "--out", tmp_path, *QUICK, "--json", tmp_path / "report.json"
        )  # fmt: skip
    finally:
        (made / "elsewhere.mrc").rename(moved)
    assert result.exit_code == 0, result.output
    assert "1.mrc: no longer there" in said(result)
    assert "sub-volumes that its record keeps are used instead" in said(result)
    told = json.loads((tmp_path / "report.json").read_text())
    assert told["training tomograms"] == 2
    assert read_card(tmp_path / "segments.pt").training["window"] == EDGE


def test_near_looks_only_around_what_is_marked(made: Path, tmp_path: Path) -> None:
    sizes = {}
    for how in ("--near", "--everywhere"):
        found = run(segment, made / "0.mrc", "--session", made / "out", "--out", tmp_path / how, how, *QUICK)
        assert found.exit_code == 0, found.output
        with mrcfile.open(tmp_path / how / "labels" / "0_ball.mrc") as file:
            sizes[how] = int((file.data > 0).sum())
    assert 0 < sizes["--near"] < sizes["--everywhere"]


def test_a_stopped_training_leaves_a_checkpoint_to_go_on_from(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop = threading.Event()

    class Watched(threading.Event):
        asked = 0

        def is_set(self) -> bool:
            self.asked += 1
            return self.asked > 8 or stop.is_set()

    @contextmanager
    def stopping() -> Iterator[threading.Event]:
        yield Watched()

    with monkeypatch.context() as patched:
        patched.setattr(training, "stopping", stopping)
        many = ("--most", "5", "--epochs", "9", "--threads", "1", "--device", "cpu")
        result = run(train_segments, made / "out", "--out", tmp_path, *many)
    assert result.exit_code == 143, result.output
    assert "go on with --resume" in said(result)
    assert (tmp_path / CHECKPOINT).exists()
    refused = run(train_segments, made / "out", "--out", tmp_path, *QUICK)
    assert refused.exit_code == 2
    assert "holds a training that was stopped; go on with --resume" in said(refused)
    assert run(train_segments, made / "out", "--out", tmp_path, *QUICK, "--resume").exit_code == 0
    with monkeypatch.context() as patched:
        patched.setattr(command, "stopping", stopping)
        stop.set()
        stopped = run(
            segment, made / "0.mrc", "--bundle", tmp_path / "segments.pt", "--out", tmp_path / "o", "--threads", "1"
        )  # fmt: skip
    assert stopped.exit_code == 143, stopped.output
    assert not list((tmp_path / "o").rglob("*.mrc"))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "--session or --bundle: give one of them"),
        (("--bundle", "x", "--near"), "--near: needs --session"),
        (("--bundle", "no-such-thing"), "no bundle named no-such-thing"),
        (("--session", "{made}/nowhere"), "nowhere: no such folder"),
        (("--session", "{made}"), "has no clusters yet; make them: beamsieve cluster tomograms"),
        (("--bundle", "{codec}"), "needed is a segmentation (`beamsieve train segments`)"),
    ],
)
def test_a_mistake_is_told_in_a_line(made: Path, tmp_path: Path, arguments: tuple[str, ...], words: str) -> None:
    codec = made / "out" / "models" / "codes" / "tiny.pt"
    filled = [text.format(made=made, codec=codec) for text in arguments]
    result = run(segment, made / "0.mrc", "--out", tmp_path, *filled)
    assert result.exit_code == 2, result.output
    assert words in said(result)
    assert not list(tmp_path.iterdir())


def test_without_marks_the_remedy_is_told(made: Path, tmp_path: Path) -> None:
    groups = made / "out" / "groups.yaml"
    content = groups.read_bytes()
    try:
        GroupsFile(made / "out").change(lambda now: now.unmark([3, 5]))
        result = run(train_segments, made / "out", *QUICK)
    finally:
        groups.write_bytes(content)
    assert result.exit_code == 2
    assert "no cluster is marked; mark some: beamsieve cluster tomograms" in said(result)


def test_simulated_tomograms_teach_what_a_session_begins_with(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = SceneOptions(shape=(32, 48, 48), vesicles=(1, 1), gold=(1, 1), margin=8)
    monkeypatch.setattr(segment_practice, "PracticeOptions", partial(segment_practice.PracticeOptions, scene=small))
    first = run(train_segments, "--simulated", "2", "--out", tmp_path / "net", *QUICK, "--name", segment_training.START)
    assert first.exit_code == 0, first.output
    card = read_card(tmp_path / "net" / f"{segment_training.START}.pt")
    assert card.output.classes == CLASSES
    assert card.training["labels"] == "truth of simulated tomograms"
    monkeypatch.setenv("BEAMSIEVE_MODELS", str(tmp_path / "net"))
    again = run(train_segments, made / "out", "--out", tmp_path / "a", *QUICK)
    assert again.exit_code == 0, again.output
    assert read_card(tmp_path / "a" / "segments.pt").training["start"] == segment_training.START
    bare = run(train_segments, made / "out", "--out", tmp_path / "b", *QUICK, "--from", "none")
    assert bare.exit_code == 0, bare.output
    assert read_card(tmp_path / "b" / "segments.pt").training["start"] == ""
    for arguments in ((), (made / "out", "--simulated", "2")):
        assert "name the folder of a session, or --simulated" in said(run(train_segments, *arguments))
    assert "--simulated: needs --out" in said(run(train_segments, "--simulated", "2"))
