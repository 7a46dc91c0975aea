"""Segmentation of whole tomograms: no seams, the file's own voxels, memory; and the training of what does it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from beamsieve.models.bundle import BundleError, load_bundle
from beamsieve.models.tomograms.bundles import save_segmenter, segmenter_network, untrained
from beamsieve.models.tomograms.nets import Edss3d
from beamsieve.models.tomograms.segment import Segmenter, Slab
from beamsieve.models.tomograms.segment_counts import Counter
from beamsieve.models.tomograms.segment_plan import logits
from beamsieve.models.tomograms.segment_report import dice, overlap
from beamsieve.models.tomograms.segment_set import Examples
from beamsieve.models.tomograms.segment_slabs import Enlarger
from beamsieve.models.tomograms.segment_start import TRUTH
from beamsieve.models.tomograms.segment_tiles import HALO
from beamsieve.models.tomograms.segment_train import CHECKPOINT, Options, split, train_segments, weights
from beamsieve.models.tomograms.told import Stopped
from beamsieve.models.tomograms.volume import ArrayVolume
from beamsieve.models.tomograms.working import Working
from scipy import ndimage

VOXEL_A = 14.2
CLASSES = ("background", "ball", "plate")


def network(channels: int = 4, classes: int = 3, seed: int = 0) -> Edss3d:
    """One whose probabilities are not all the same."""
    torch.manual_seed(seed)
    net = Edss3d(classes, channels)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.mul_(2.5)
    return net.eval()


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_segmenter(tmp_path_factory.mktemp("nets"), "tiny", network(), CLASSES, edge=16)


def volume(shape: tuple[int, int, int], seed: int = 0, voxel_a: float = VOXEL_A) -> ArrayVolume:
    noise = np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
    return ArrayVolume(ndimage.gaussian_filter(noise, 1), voxel_a)


def whole(slabs: list[Slab]) -> tuple[np.ndarray, np.ndarray]:
    assert [slab.z0 for slab in slabs] == np.cumsum([0, *(len(slab.labels) for slab in slabs[:-1])]).tolist()
    return np.concatenate([s.labels for s in slabs]), np.concatenate([s.probabilities for s in slabs], 1)


def test_what_is_said_of_a_voxel_depends_on_nothing_farther_than_the_halo() -> None:
    net = Edss3d(2, 4)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(parameter.abs() + 0.01)
    farthest = 0
    for at in range(24, 28):
        box = torch.zeros((1, 1, 48, 4, 4), requires_grad=True)
        # All weights are positive and all inputs equal: every path from a voxel that is seen has a gradient, but for
        # pools, which pick one of equals; shifted ones show those.
        for shift in range(4):
            bumps = torch.arange(48.0).roll(shift)[None, None, :, None, None].remainder(4).expand(1, 1, 48, 4, 4)
            (gradient,) = torch.autograd.grad(net.logits(box + bumps)[0, 1, at].sum(), box)
            seen = torch.nonzero(gradient[0, 0].abs().sum((1, 2)))[:, 0]
            first = at - at % 4
            farthest = max(farthest, first - int(seen.min()), int(seen.max()) - (first + 3))
    assert farthest == 11 < HALO
    assert HALO % 4 == 0


def test_the_fast_way_is_the_network() -> None:
    net = network()
    box = torch.from_numpy(volume((12, 16, 20)).read((0, 0, 0), (12, 16, 20)))[None, None]
    with torch.inference_mode():
        assert torch.allclose(logits(net, box), net.logits(box), atol=1e-5)


def test_tiles_give_what_one_window_over_the_whole_gives(bundle: Path) -> None:
    given = volume((38, 45, 51))
    segmenter = Segmenter(bundle, threads=2)
    work = Working(given, VOXEL_A, bright=True, box=16)
    small = whole(list(segmenter.segment(work, tile=12)))
    large = whole(list(segmenter.segment(work, tile=104)))
    # Not to rounding only: bfloat16 sums of other sizes differ by their last bit, seams by much more.
    assert np.abs(small[1].astype("f4") - large[1]).max() < 0.02
    assert (small[0] == large[0]).mean() > 0.995
    padded = np.pad(work.read((0, 0, 0), work.shape), [(HALO, HALO + (-n) % 4) for n in work.shape], "symmetric")
    net = segmenter_network(load_bundle(bundle)).eval()
    with torch.inference_mode():
        truth = net(torch.from_numpy(padded)[None, None])[0].numpy()
    z, y, x = work.shape
    truth = truth[:, HALO : HALO + z, HALO : HALO + y, HALO : HALO + x]
    assert np.abs(small[1] - truth).max() < 0.05
    assert truth.std() > 0.1, "a network that says the same of everything would prove nothing"
    assert np.allclose(small[1].sum(0, dtype="f4"), 1, atol=0.01)


def test_planes_of_the_file_are_interpolated_and_come_in_slabs() -> None:
    shape, given = (27, 20, 31), (18, 13, 20)
    factor = 1.5
    random = np.random.default_rng(0).random((3, *given)).astype(np.float32)
    probabilities = random / random.sum(0)
    enlarger = Enlarger(shape, given, factor)
    parts = [list(enlarger.add(probabilities[:, z : z + 6])) for z in range(0, given[0], 6)]
    assert parts[0], "slabs come as soon as they are known"
    labels, found = whole([slab for part in parts for slab in part])
    at = np.meshgrid(
        *[np.clip((np.arange(n) + 0.5) / factor - 0.5, 0, m - 1) for n, m in zip(shape, given, strict=True)],
        indexing="ij",
    )
    truth = np.stack([ndimage.map_coordinates(p, at, order=1, mode="nearest") for p in probabilities])
    assert np.abs(found - truth).max() < 1e-3
    assert (labels == truth.argmax(0)).mean() > 0.999
    assert labels.dtype == np.uint8
    assert found.dtype == np.float16


def test_a_tomogram_of_other_voxels_gets_labels_on_its_own(bundle: Path) -> None:
    given = volume((40, 52, 61), voxel_a=10.0)
    work = Working(given, VOXEL_A, bright=True, box=16)
    labels, probabilities = whole(list(Segmenter(bundle, threads=1).segment(work)))
    assert labels.shape == given.shape
    assert probabilities.shape == (3, *given.shape)
    with pytest.raises(ValueError, match=r"is for voxels of 14.2 Å, the working volume has 10 Å"):
        next(Segmenter(bundle, threads=1).segment(Working(given, 10.0, bright=True, box=16)))


def test_near_sub_volumes_nothing_changes_and_far_from_them_is_background(bundle: Path) -> None:
    given = volume((32, 40, 80))
    segmenter, work = Segmenter(bundle, threads=1), Working(given, VOXEL_A, bright=True, box=16)
    everywhere = whole(list(segmenter.segment(work, tile=16)))
    told: list[int] = []
    at = np.array([[20, 16, 12]], np.float32)
    near = whole(list(segmenter.segment(work, near=at, tile=16, progress=lambda _, done, of: told.append(of - done))))
    box = np.s_[4:21, 8:25, 12:29]
    assert (near[0][box] == everywhere[0][box]).all()
    assert np.array_equal(near[1][(slice(None), *box)], everywhere[1][(slice(None), *box)])
    mask = np.ones(given.shape, bool)
    mask[box] = False
    assert not near[0][mask].any()
    assert (near[1][0][mask] == 1).all()
    assert everywhere[0][mask].any()
    assert told[-1] == 0
    nowhere = whole(list(segmenter.segment(work, near=np.zeros((0, 3), "f4"))))
    assert not nowhere[0].any()


def test_told_to_stop_it_stops_and_a_wrong_network_is_refused(bundle: Path, tmp_path: Path) -> None:
    work = Working(volume((32, 40, 40)), VOXEL_A, bright=True, box=16)
    with pytest.raises(Stopped):
        list(Segmenter(bundle, threads=1).segment(work, stop=lambda: True))
    with pytest.raises(BundleError, match="needed is a segmentation"):
        Segmenter(untrained(tmp_path, edge=16, channels=2))
    strict = json.loads(bundle.with_suffix(".json").read_text())
    strict["tolerance"] = {"float32": 0.0, "bfloat16": 0.0}
    for path in (bundle, bundle.with_suffix(".json")):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "tiny.json").write_text(json.dumps(strict))
    with pytest.raises(BundleError, match="its probabilities are not those of a CPU"):
        Segmenter(tmp_path / "tiny.pt", threads=1).warm_up()


def test_pieces_are_counted_across_slabs_and_specks_are_not() -> None:
    labels = (np.random.default_rng(1).random((30, 24, 20)) > 0.72).astype(np.uint8)
    labels[:, :6] = 2
    counter, other = Counter(3, VOXEL_A), Counter(3, 1.0)
    slabs = [Slab(z, labels[z : z + 7], np.zeros((3, 0, 0, 0), "f2")) for z in range(0, 30, 7)]
    assert list(counter.passing(slabs)) == slabs
    other.add(labels)
    parts, _ = ndimage.label(labels == 1)
    sizes = np.bincount(parts.ravel())[1:]
    least = 250e3 / VOXEL_A**3
    background, one, two = counter.counts()
    assert one.pieces == (sizes >= least).sum() < len(sizes)
    assert (one.voxels, two.voxels) == ((labels == 1).sum(), (labels == 2).sum())
    assert two.pieces == 1
    assert background.fraction + one.fraction + two.fraction == pytest.approx(1)
    assert other.counts()[2].pieces == 0, "of voxels of 1 Å, 3600 are less than a ball 8 nm across"


def test_overlap_and_dice_leave_out_what_is_not_known() -> None:
    truth = np.array([0, 1, 1, 2, 255, 255], np.uint8)
    found = np.array([0, 1, 2, 2, 1, 2], np.uint8)
    counts = overlap(found, truth, 4)
    assert counts.tolist() == [[1, 1, 1], [1, 1, 2], [1, 2, 1], [0, 0, 0]]
    assert dice(counts) == [1, pytest.approx(2 / 3), pytest.approx(2 / 3), None]


# Training


def examples(count: int, seed: int = 0, edge: int = 16) -> Examples:
    """Bright balls, or bright plates across z, in noise."""
    random = np.random.default_rng(seed)
    z, y, x = np.indices((edge,) * 3)
    labels = np.zeros((count, edge, edge, edge), np.uint8)
    for number, one in enumerate(labels):
        at = random.uniform(6, edge - 6, 3)
        far = (z - at[0]) ** 2 + (y - at[1]) ** 2 + (x - at[2]) ** 2 < 20
        one[far if number % 2 else np.abs(z - at[0]) < 1.5] = 1 + (number + 1) % 2
    windows = (labels > 0) * 3 + 0.5 * random.standard_normal(labels.shape)
    return Examples(windows.astype(np.float32), labels, (np.arange(count) // 2 % 4).astype(np.int32))


def quick(out: Path, **changes: object) -> Options:
    options = Options(out, epochs=3, batch=4, channels=8, rate=1e-2, reduced=False, margin=2, voxel_a=VOXEL_A, edge=16)
    return replace(options, **changes)  # type: ignore[arg-type]


def quiet(*_: object) -> None:
    pass


def test_it_learns_from_labels_and_its_bundle_segments(tmp_path: Path) -> None:
    path = train_segments(
        examples(40), CLASSES, quick(tmp_path, epochs=6, batch=2, rate=3e-3, training={"codec": "abc"}), progress=quiet
    )
    assert path == tmp_path / "segments.pt"
    card = load_bundle(path).card
    assert card.output.classes == CLASSES
    assert card.output.kind == "voxels"
    assert card.training["codec"] == "abc"
    scores = card.scores["dice against weak labels"]
    assert min(scores.values()) > 0.7, scores
    fresh = examples(8, seed=9)
    found = Segmenter(path, threads=1).probabilities(fresh.windows).argmax(1).astype(np.uint8)
    # Zeros lie beside the outermost voxels, which do not count in training and are never used of a tomogram's windows.
    inner = np.s_[:, 2:-2, 2:-2, 2:-2]
    assert min(d for d in dice(overlap(found[inner], fresh.labels[inner], 3)) if d is not None) > 0.6
    history = json.loads((tmp_path / "scores.json").read_text())["history"]
    assert card.training["best epoch"] == 1 + int(np.argmin([row["validation"] for row in history]))
    assert not (tmp_path / CHECKPOINT).exists()
    assert all((tmp_path / name).stat().st_size > 5000 for name in ("loss.png", "example.png"))


def test_a_stopped_training_goes_on_and_ends_with_the_same_weights(tmp_path: Path) -> None:
    data = examples(16)
    straight = train_segments(data, CLASSES, quick(tmp_path / "a"), progress=quiet)
    steps = iter([False] * 5 + [True] * 5)
    assert train_segments(data, CLASSES, quick(tmp_path / "b"), progress=quiet, stop=lambda: next(steps)) is None
    assert (tmp_path / "b" / CHECKPOINT).exists()
    with pytest.raises(ValueError, match=r"cannot resume with other options \(rate: 0.01 then, 0.1 now\)"):
        train_segments(data, CLASSES, quick(tmp_path / "b", rate=0.1, resume=True), progress=quiet)
    resumed = train_segments(data, CLASSES, quick(tmp_path / "b", resume=True), progress=quiet)
    assert straight is not None
    assert resumed is not None
    one, other = (load_bundle(path).module.state_dict() for path in (straight, resumed))
    assert all(torch.allclose(one[name], other[name], atol=1e-5) for name in one)
    (tmp_path / "b" / CHECKPOINT).write_bytes(b"no checkpoint")
    with pytest.raises(ValueError, match="is no checkpoint of this training"):
        train_segments(data, CLASSES, quick(tmp_path / "b", resume=True), progress=quiet)


def test_it_ends_when_it_gets_no_better_or_time_is_over(tmp_path: Path) -> None:
    data = examples(8)
    path = train_segments(data, CLASSES, quick(tmp_path / "a", epochs=50, patience=2, rate=0.0), progress=quiet)
    assert path is not None
    assert load_bundle(path).card.training["epochs"] == 3
    path = train_segments(data, CLASSES, quick(tmp_path / "b", epochs=50, minutes=1e-6), progress=quiet)
    assert path is not None
    assert load_bundle(path).card.training["epochs"] == 1
    with pytest.raises(ValueError, match="3 windows are too few"):
        train_segments(examples(3), CLASSES, quick(tmp_path / "c"), progress=quiet)


def test_it_may_begin_with_what_another_network_has_learned(tmp_path: Path) -> None:
    data = examples(8)
    codec = untrained(tmp_path, "codec", edge=16, channels=8, seed=5)
    still = quick(tmp_path / "a", epochs=1, rate=1e-9)
    path = train_segments(data, CLASSES, replace(still, start=str(codec)), progress=quiet)
    assert path is not None
    first = segmenter_network(load_bundle(path)).state_dict()
    encoder = load_bundle(codec).module.state_dict()
    assert torch.allclose(first["first.weight"], encoder["encoder.first.weight"], atol=1e-5)
    assert torch.allclose(first["second.bias"], encoder["encoder.second.bias"], atol=1e-5)
    names = ("background", "other", "ball")
    again = train_segments(data, names, replace(still, out=tmp_path / "b", start=str(path), seed=3), progress=quiet)
    assert again is not None
    second = segmenter_network(load_bundle(again)).state_dict()
    assert torch.allclose(first["fifth.weight"], second["fifth.weight"], atol=1e-5)
    assert torch.allclose(first["last.weight"][1], second["last.weight"][2], atol=1e-5)
    assert not torch.allclose(first["last.weight"][2], second["last.weight"][1], atol=1e-3)
    tuned = train_segments(data, CLASSES, quick(tmp_path / "d", epochs=1, start=str(path)), progress=quiet)
    assert tuned is not None
    third = segmenter_network(load_bundle(tuned)).state_dict()
    assert all(torch.equal(first[f"{name}.weight"], third[f"{name}.weight"]) for name in ("first", "third", "fifth"))
    assert not torch.allclose(first["last.weight"], third["last.weight"], atol=1e-4)
    card = json.loads(path.with_suffix(".json").read_text())
    card["training"]["labels"] = TRUTH
    path.with_suffix(".json").write_text(json.dumps(card))
    other = train_segments(data, names, replace(still, out=tmp_path / "e", start=str(path), seed=3), progress=quiet)
    assert other is not None
    fresh = segmenter_network(load_bundle(other)).state_dict()
    assert torch.allclose(first["third.weight"], fresh["third.weight"], atol=1e-5)
    assert not torch.allclose(first["last.weight"][1], fresh["last.weight"][2], atol=1e-3), "marks say what a class is"
    with pytest.raises(ValueError, match="its layers have 8 channels, needed are 4"):
        train_segments(data, CLASSES, quick(tmp_path / "c", channels=4, start=str(path)), progress=quiet)


def test_validation_windows_are_whole_tomograms_where_there_are_several() -> None:
    several = np.repeat(np.arange(5, dtype=np.int32), 10)
    held = split(several, 0.1, 1)
    assert held.sum() == 10
    assert len(set(several[held])) == 1
    two = np.repeat(np.arange(2, dtype=np.int32), 10)
    assert split(two, 0.1, 1).sum() == 2


def test_rare_classes_weigh_more_and_unknown_voxels_nothing() -> None:
    labels = np.repeat(np.array([0, 1, 255], np.uint8), [80, 20, 900])
    found = weights(labels, 3, 1.0)
    assert found[1] / found[0] == pytest.approx(4)
    assert 0.8 * found[0] + 0.2 * found[1] == pytest.approx(1)
    assert found[2] == 0
    assert weights(labels, 3, 0.5)[1] / weights(labels, 3, 0.5)[0] == pytest.approx(2)
