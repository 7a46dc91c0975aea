"""The contact sheet: every cluster with its pictures, in the order and the colours of the groups."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest
from beamsieve.models.tomograms import sheet as module
from beamsieve.models.tomograms.book import Clusters
from beamsieve.models.tomograms.groups import Groups
from beamsieve.models.tomograms.sheet import order, sheet, views
from matplotlib import pyplot
from matplotlib.image import imread

EDGE = 8


def clusters(counts: Sequence[int], decoded: npt.NDArray[np.float32] | None = None) -> Clusters:
    k = len(counts)
    shape = (k, EDGE, EDGE, EDGE)
    decoded = np.random.default_rng(0).normal(size=shape).astype("f4") if decoded is None else decoded
    return Clusters(
        ids=np.arange(1, k + 1, dtype="i4"),
        codes=np.zeros((k, 3), "f4"),
        counts=np.array(counts, "i8"),
        spread=np.ones(k, "f4"),
        decoded=decoded,
        average=np.zeros(shape, "f2"),
        averaged=np.zeros(k, "i8"),
        network="ab",
        next_id=k + 1,
    )


def pixels(png: bytes) -> npt.NDArray[np.uint8]:
    return (imread(io.BytesIO(png), format="png")[..., :3] * 255).round().astype(np.uint8)


def of_colour(picture: npt.NDArray[np.uint8], colour: str) -> npt.NDArray[np.bool_]:
    return np.asarray((picture == [int(colour[at : at + 2], 16) for at in (1, 3, 5)]).all(-1))


def test_marked_clusters_come_first_group_by_group_the_largest_first() -> None:
    found = clusters([5, 9, 7, 7, 1])
    groups = Groups().mark("membrane", [5, 3], kind="surface").mark("ribosome-like", [1])
    assert [int(found.ids[row]) for row in order(found, groups)] == [3, 5, 1, 2, 4]
    assert order(found, Groups()) == [1, 2, 3, 0, 4]


def test_the_four_views_are_slices_through_the_middle_and_the_mean() -> None:
    volume = np.arange(EDGE**3, dtype="f4").reshape(EDGE, EDGE, EDGE)
    found = views(volume)
    for view, expected in zip(found, (volume[4], volume[:, 4], volume[:, :, 4], volume.mean(0)), strict=True):
        np.testing.assert_array_equal(view, expected)


def test_frames_have_the_groups_colours_and_unmarked_ones_none() -> None:
    groups = Groups().mark("membrane", [2], kind="surface")
    colour = groups.groups[0].colour
    picture = pixels(sheet(clusters([5, 9, 7]), groups)[0])
    assert 1500 < of_colour(picture, colour).sum() < 3500  # one frame, and words
    assert of_colour(pixels(sheet(clusters([5, 9, 7]))[0]), colour).sum() == 0
    two = groups.mark("membrane", [3])
    assert of_colour(pixels(sheet(clusters([5, 9, 7]), two)[0]), colour).sum() > 1.8 * of_colour(picture, colour).sum()


def test_slices_are_bright_where_the_volume_is() -> None:
    volume = np.zeros((1, EDGE, EDGE, EDGE), "f4")
    volume[0, :, :4] = 1  # the upper half of the slices across z; the left half of those across x
    picture = pixels(sheet(clusters([4], volume))[0]).astype(int)
    frame = np.argwhere(of_colour(picture.astype(np.uint8), "#464a50"))
    (top, left), tile = frame.min(0) + 3, 68
    first = picture[top : top + tile, left : left + tile, 0]
    assert first[: tile // 2 - 6].min() > 240
    assert first[tile // 2 + 6 :].max() < 15
    third = picture[top + tile + 2 : top + 2 * tile + 2, left : left + tile, 0]
    assert third[:, : tile // 2 - 6].min() > 240
    assert third[:, tile // 2 + 6 :].max() < 15


def test_more_clusters_than_a_page_has_room_for_take_another(monkeypatch: pytest.MonkeyPatch) -> None:
    assert module.PER_PAGE == 100
    monkeypatch.setattr(module, "PER_PAGE", 6)
    pages = sheet(clusters(range(1, 9)), title="session")
    frames = [int(of_colour(pixels(page), "#464a50").sum()) for page in pages]
    assert [round(6 * frame / frames[0]) for frame in frames] == [6, 2]
    assert len(sheet(clusters(range(1, 7)))) == 1


@pytest.mark.parametrize("k", [1, 2, 5, 24, 100])
def test_a_page_is_about_as_wide_as_high(k: int) -> None:
    across = module._columns(k, 1.2)
    down = -(-k // across)
    assert 0.4 < 1.2 * down / across < 2.5
    assert across * down - k < across


def test_twenty_long_groups_fit_above_and_volumes_without_contrast_are_empty_tiles() -> None:
    groups = Groups()
    for n in range(20):
        groups = groups.mark(f"a long name of a group, {n}".replace(",", ""), [n + 1])
    volume = np.ones((20, EDGE, EDGE, EDGE), "f4")
    volume[3] = np.nan
    picture = pixels(sheet(clusters([1] * 20, volume), groups)[0])
    empty = of_colour(picture, "#303236").sum() / (2 * 68 + 2) ** 2
    assert empty == pytest.approx(20, abs=0.2)
    assert (of_colour(picture, "#181a1d")[:, -15:]).all()  # nothing runs off the page
    assert not pyplot.get_fignums()


def test_averages_can_be_shown_and_no_clusters_cannot() -> None:
    found = clusters([3, 2])
    assert sheet(found)[0] != sheet(found, averages=True)[0]
    with pytest.raises(ValueError, match="no clusters to show"):
        sheet(clusters([]))
