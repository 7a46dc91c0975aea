from __future__ import annotations

import io
from typing import Any

import matplotlib.image
import numpy as np
import pytest
from beamsieve.models.classes2d.montage import FRAMES, montage


def spots(k: int, edge: int = 64) -> np.ndarray[Any, Any]:
    """Class averages whose particle stands elsewhere in each: at 1/4, 2/4, 3/4 of the width, and again."""
    y, x = np.mgrid[:edge, :edge]
    return np.stack([np.exp(-(((y - edge / 2) ** 2 + (x - edge * (1 + i % 3) / 4) ** 2) / 30)) for i in range(k)])


def pixels(png: bytes) -> np.ndarray[Any, Any]:
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    found: np.ndarray[Any, Any] = np.rint(matplotlib.image.imread(io.BytesIO(png), format="png")[..., :3] * 255)
    return found.astype(int)


def tiles(picture: np.ndarray[Any, Any], level: int = 100) -> np.ndarray[Any, Any]:
    """Columns of the picture on which something bright stands, above the texts of the first row."""
    return np.flatnonzero(picture[20:150].max(axis=(0, 2)) > level)


def test_each_average_stands_where_it_is_given() -> None:
    shown = pixels(montage(spots(3), [5, 7, 9], ["1", "2", "3"], columns=3))
    bright = [np.flatnonzero(shown[20:150, left : left + 144].max(axis=(0, 2)) > 200).mean() for left in (14, 168, 322)]
    assert bright == pytest.approx([36, 72, 108], abs=2)


def test_weak_and_strong_classes_are_seen_alike() -> None:
    one, other = spots(1), 1e-4 * spots(1) - 0.01
    assert np.abs(pixels(montage(one, [1], [""])) - pixels(montage(other, [1], [""]))).max() <= 4


@pytest.mark.parametrize("k", [1, 2, 24, 25, 200])
def test_from_one_class_to_two_hundred(k: int) -> None:
    shown = pixels(montage(spots(k, 16), [1000] * k, [f"{i + 1} · 20 Å" for i in range(k)], title=f"{k} classes"))
    height, width = shown.shape[:2]
    assert height / 1.2 < width < min(2200, 2.2 * height)
    assert (shown[height // 2 :] > 150).any(), "a picture whose lower half is empty"
    # Nothing of the canvas is left unpainted, at the edges either.
    assert (shown[[0, -1]] == (24, 26, 29)).all()


def test_what_is_no_average_is_an_empty_tile() -> None:
    averages = spots(3)
    averages[1], averages[2] = np.nan, 7.0
    found = tiles(pixels(montage(averages, [1, 0, 0], ["", "", ""], columns=3)))
    assert len(found)
    assert found.max() < 14 + 144


def test_marks_are_frames() -> None:
    shown = pixels(montage(spots(3), [1, 2, 3], ["1", "2", "3"], columns=3, marks=["good", "", "bad"]))
    for left, mark in ((14, "good"), (168, ""), (322, "bad")):
        ring = shown[50, left - 2]
        assert tuple(ring) == FRAMES.get(mark, (24, 26, 29))


def test_a_label_is_text_whatever_is_in_it() -> None:
    plain, odd = (
        pixels(montage(spots(3), [1] * 3, [text] * 3, title=text, columns=3)) for text in ("1", "$\\frac{1}$ _^")
    )
    changed = (plain != odd).any(axis=2)
    assert changed[:40].any()
    # A fraction would be higher than the line it stands in.
    assert not changed[48:192].any()


@pytest.mark.parametrize(
    ("averages", "counts", "labels", "more", "said"),
    [
        (np.zeros((0, 8, 8)), [], [], {}, "at least one class"),
        (np.zeros((2, 8, 9)), [1, 1], ["", ""], {}, "edge, edge"),
        (spots(2), [1], ["1", "2"], {}, "counts: 1 for 2"),
        (spots(2), [1, 2], ["1"], {}, "labels: 1 for 2"),
        (spots(2), [1, 2], ["1", "2"], {"marks": ["bad"]}, "marks: 1 for 2"),
        (spots(2), [1, 2], ["1", "2"], {"columns": 0}, "columns: 0"),
    ],
)
def test_what_cannot_be_drawn_is_said(
    averages: np.ndarray[Any, Any], counts: list[int], labels: list[str], more: dict[str, Any], said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        montage(averages, counts, labels, **more)
