"""Weak labels: decoded volumes of marked sub-volumes become classes of voxels, where they lie in the tomogram."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from beamsieve.models.tomograms.boxes import boxes
from beamsieve.models.tomograms.labels import IGNORED, LabelOptions, Painter, class_volumes, scaled
from beamsieve.models.tomograms.pose import Poses, posed_boxes
from beamsieve.models.tomograms.segment_set import Marked, SetOptions, chosen, examples
from beamsieve.models.tomograms.told import Stopped
from beamsieve.models.tomograms.volume import ArrayVolume, Floats
from scipy.spatial.transform import Rotation

EDGE = 16
SHARP = LabelOptions(smooth=0, low=50, high=99.9, connected=False)


class Shapes:
    """A codec whose code is the number of a volume."""

    edge = EDGE

    def __init__(self, *volumes: Floats) -> None:
        self.volumes = np.stack(volumes).astype(np.float32)

    def decode(self, codes: Floats) -> Floats:
        found: Floats = self.volumes[codes[:, 0].astype(int)]
        return found


def ball(radius: float, at: tuple[float, float, float] = (8, 8, 8), edge: int = EDGE) -> Floats:
    """Bright inside; ``at`` in z, y, x."""
    z, y, x = np.indices((edge,) * 3)
    far = np.sqrt((z - at[0]) ** 2 + (y - at[1]) ** 2 + (x - at[2]) ** 2)
    inside: Floats = (far <= radius).astype(np.float32)
    return inside


def codes(*numbers: int) -> Floats:
    return np.array(numbers, np.float32)[:, None]


def test_a_volume_is_scaled_between_its_own_percentiles_whatever_its_units() -> None:
    volume = 100 + 7 * ball(5)
    found = scaled(np.stack([volume, -3 * np.ones_like(volume)]), SHARP)
    assert found[0, 8, 8, 8] == pytest.approx(1)
    assert found[0, 0, 0, 0] == pytest.approx(0)
    # A dead autoencoder decodes everything to the same: that is nobody's structure.
    assert not found[1].any()


def test_voxels_from_level_on_are_of_the_class_and_all_others_background() -> None:
    slope = np.linspace(0, 1, EDGE, dtype=np.float32)[None, None, :] * ball(5)
    labels = class_volumes(slope[None], np.array([3], np.uint8), replace(SHARP, level=0.5))
    assert set(np.unique(labels)) == {0, 3}
    assert labels[0, 8, 8, 10] == 3
    assert labels[0, 8, 8, 5] == 0
    fatter = class_volumes(slope[None], np.array([3], np.uint8), replace(SHARP, level=0.3))
    assert (fatter > 0).sum() > (labels > 0).sum()


def test_only_what_hangs_together_with_the_middle_counts() -> None:
    both = np.maximum(ball(3), ball(2, (2, 2, 2)))
    one = np.array([1], np.uint8)
    alone = class_volumes(both[None], one, replace(SHARP, connected=True, middle=4))
    assert (alone[0] == ball(3)).all()
    assert (class_volumes(both[None], one, SHARP)[0] == both).all()


def test_smoothing_closes_the_gap_between_two_leaflets() -> None:
    leaflets = np.zeros((EDGE,) * 3, np.float32)
    leaflets[6], leaflets[9] = 1, 1
    one = np.array([1], np.uint8)
    assert not class_volumes(leaflets[None], one, replace(SHARP, high=98))[0, 7].any()
    assert class_volumes(leaflets[None], one, LabelOptions(smooth=2))[0, 7].all()


def test_volumes_are_laid_where_they_were_cut_out_and_the_brightest_wins() -> None:
    # A spark of 1 far from the ball leaves 0.9 for the ball itself.
    codec = Shapes(ball(3), np.maximum(0.9 * ball(3), ball(0, (1, 1, 14))))
    xyz = np.array([[20, 24, 28], [24, 24, 28], [60, 60, 60], [20.4, 24, 10]], np.float32)
    values = np.array([1, 2, 1, 0], np.uint8)
    options = replace(SHARP, high=100, connected=True)
    painter = Painter(xyz, values, codec, options, codes(0, 1, 0, 0), codes(0, 0, 0, 0), None)
    labels = painter.labels(np.array([[24, 24, 24]]), 32)[0]
    low = 24 - 16
    assert labels[28 - low, 24 - low, 20 - low] == 1
    assert labels[28 - low, 24 - low, 25 - low] == 2
    assert labels[28 - low, 24 - low, 22 - low] == 1, "the brighter of two"
    assert not labels[10 - low].any(), "a sub-volume without a mark says nothing"
    assert (labels > 0).sum() < 2 * ball(3).sum()
    assert not painter.labels(np.array([[200, 200, 200]]), 32).any()


def test_decoded_volumes_do_not_pile_up(monkeypatch: pytest.MonkeyPatch) -> None:
    codec = Shapes(ball(3), ball(5))
    xyz = np.random.default_rng(0).uniform(10, 70, (40, 3)).astype(np.float32)
    kinds = np.arange(40) % 2
    middle = np.rint(xyz[::2]).astype(int)
    given = (xyz, (1 + kinds).astype(np.uint8), codec, SHARP, codes(*kinds), codes(*kinds), None)
    whole = Painter(*given).labels(middle, 24)
    monkeypatch.setattr("beamsieve.models.tomograms.labels._AT_ONCE", 2)
    monkeypatch.setattr("beamsieve.models.tomograms.labels._MOST_KNOWN", 12)
    painter = Painter(*given)
    assert np.array_equal(painter.labels(middle, 24), whole)
    assert len(np.unique(whole)) == 3
    assert len(painter._known) < 20, "those that no window at hand needs are gone"


def test_own_codes_or_those_of_the_centres_are_decoded() -> None:
    codec = Shapes(ball(3), ball(6))
    at, middle = np.array([[8, 8, 8]], np.float32), np.array([[8, 8, 8]])
    one = np.array([1], np.uint8)
    sizes = [
        int((Painter(at, one, codec, replace(SHARP, own=own), codes(0), codes(1), None).labels(middle, EDGE) > 0).sum())
        for own in (True, False)
    ]
    assert sizes == [int(ball(3).sum()), int(ball(6).sum())]


def test_a_posed_volume_is_turned_back_to_how_it_lies_in_the_tomogram() -> None:
    data = np.zeros((48, 48, 48), np.float32)
    z, y, x = np.indices(data.shape) - 24
    data[(np.abs(z + y) < 3) & (x**2 + y**2 + z**2 < 64)] = 1
    volume, at = ArrayVolume(data, 14.2), np.array([[25, 24, 24]], np.float32)
    turn = Rotation.from_euler("xyz", [45, 20, 10], degrees=True).as_matrix().astype(np.float32)
    poses = Poses(turn[None], np.array([[-1.0, 0.5, 0.0]], np.float32))
    posed, _ = posed_boxes(volume, at, poses, EDGE)
    codec = Shapes(posed[0])
    painter = Painter(at, np.array([1], np.uint8), codec, SHARP, codes(0), codes(0), poses)
    labels = painter.labels(np.array([[24, 24, 24]]), EDGE)[0] > 0
    truth = data[16:32, 16:32, 16:32] > 0.5
    inside = ball(6) > 0
    overlap = 2 * (labels & truth & inside).sum() / ((labels & inside).sum() + (truth & inside).sum())
    assert overlap > 0.8
    straight = Painter(at, np.array([1], np.uint8), codec, SHARP, codes(0), codes(0), None)
    wrong = straight.labels(np.array([[24, 24, 24]]), EDGE)[0] > 0
    assert 2 * (wrong & truth & inside).sum() / ((wrong & inside).sum() + (truth & inside).sum()) < overlap - 0.2


def test_surfaces_that_lie_flat_are_outlined_closer() -> None:
    z, y, x = np.indices((EDGE,) * 3) - EDGE // 2
    codec = Shapes(np.exp(-((x**2 + y**2 + z**2) / 18)).astype(np.float32))
    at, middle = np.array([[24, 24, 24]], np.float32), np.array([[24, 24, 24]])
    flat = Poses(np.eye(3, dtype=np.float32)[None], np.zeros((1, 3), np.float32))

    def size(value: int, poses: Poses | None) -> int:
        painter = Painter(at, np.array([value], np.uint8), codec, SHARP, codes(0), codes(0), poses, surfaces=(2,))
        return int((painter.labels(middle, EDGE) == value).sum())

    assert size(1, flat) == size(1, None) == size(2, None) > 1.2 * size(2, flat) > 0


def scene(places: list[tuple[int, int, int]], seed: int = 0) -> ArrayVolume:
    """Balls of radius 3 at (x, y, z) in noise."""
    data = 0.1 * np.random.default_rng(seed).standard_normal((40, 48, 56)).astype(np.float32)
    for x, y, z in places:
        data[z - 8 : z + 8, y - 8 : y + 8, x - 8 : x + 8] += ball(3)
    return ArrayVolume(data, 14.2)


PLACES = [(12, 12, 12), (36, 12, 12), (12, 34, 20), (40, 34, 24)]


def tomogram(values: list[int], *, working: bool = True, name: str = "a") -> Marked:
    xyz = np.array(PLACES, np.float32)
    volume = scene(PLACES)
    kept, _ = boxes(volume, xyz, EDGE)
    rows = np.arange(len(PLACES))
    return Marked(
        name, xyz, codes(*[0] * 4), codes(*[0] * 4), np.array(values, np.uint8),
        working=volume if working else None, rows=rows, boxes=kept.astype(np.float16),
    )  # fmt: skip


def test_windows_are_read_from_the_tomogram_with_the_labels_of_all_in_them() -> None:
    options = SetOptions(most=4, edge=24, background=0, jitter=4, labels=SHARP)
    found = examples([tomogram([1, 2, 1, 2])], 1, Shapes(ball(3)), options)
    assert found.windows.shape == found.labels.shape == (4, 24, 24, 24)
    for window, labels in zip(found.windows, found.labels, strict=True):
        inside = labels > 0
        assert inside.any()
        assert window[inside].mean() > 0.9, "what is labelled is what is bright"
        assert window[~inside].mean() < 0.2
    # Middles are not those of the balls.
    assert len({tuple(np.argwhere(labels > 0).mean(0).round().astype(int)) for labels in found.labels}) > 1


def test_kept_sub_volumes_serve_where_the_tomogram_is_gone() -> None:
    options = SetOptions(most=8, edge=24, labels=SHARP)
    found = examples([tomogram([1, 1, 2, 0], working=False)], 1, Shapes(ball(3)), options)
    assert found.windows.shape[1:] == (EDGE,) * 3
    assert sorted(int(labels[8, 8, 8]) for labels in found.labels) == [0, 1, 1, 2]
    both = examples([tomogram([1, 1, 2, 0], working=False), tomogram([1, 1, 2, 0])], 2, Shapes(ball(3)), options)
    assert both.windows.shape[1:] == (EDGE,) * 3
    assert set(both.tomogram) == {0, 1}
    with pytest.raises(ValueError, match=r"b: the tomogram cannot be read any more, and no sub-volumes"):
        examples([replace(tomogram([1, 1, 2, 0], working=False, name="b"), boxes=None)], 1, Shapes(ball(3)), options)


def test_corners_of_a_posed_box_that_was_turned_back_do_not_count() -> None:
    one = tomogram([1, 1, 1, 1], working=False)
    turn = Rotation.from_euler("z", 45, degrees=True).as_matrix().astype(np.float32)
    poses = Poses(np.tile(turn, (4, 1, 1)), np.zeros((4, 3), np.float32))
    found = examples([replace(one, poses=poses)], 1, Shapes(ball(3)), SetOptions(most=4, labels=SHARP))
    assert (found.labels[:, 8, 0, 0] == IGNORED).all()
    assert (found.labels[:, 8, 8, 8] == 1).all()


def test_classes_share_the_windows_evenly_as_far_as_there_are_sub_volumes() -> None:
    values = np.repeat(np.array([0, 1, 2, 3], np.uint8), [500, 300, 100, 5])
    rows = chosen(values, np.arange(len(values)), 200, SetOptions(background=0.3), np.random.default_rng(0))
    assert len(set(rows.tolist())) == len(rows) == 200
    assert np.bincount(values[rows]).tolist() == [60, 68, 67, 5]


def test_without_a_mark_there_is_nothing_to_train_on() -> None:
    with pytest.raises(ValueError, match="no sub-volume of a marked cluster"):
        examples([tomogram([0, 0, 0, 0])], 1, Shapes(ball(3)), SetOptions(labels=SHARP))
    nothing = Shapes(ball(2, (1, 1, 1)))
    with pytest.raises(ValueError, match="show nothing in their middle"):
        examples([tomogram([1, 1, 1, 1])], 1, nothing, SetOptions(labels=replace(SHARP, connected=True)))
    with pytest.raises(Stopped):
        examples([tomogram([1, 1, 1, 1])], 1, Shapes(ball(3)), SetOptions(labels=SHARP), stop=lambda: True)
