"""Offline 2-D classification: views found, aligned, averaged; what is odd about the input is said."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from beamsieve.models.classes2d import classify as module
from beamsieve.models.classes2d import grouping
from beamsieve.models.classes2d.averages import turned
from beamsieve.models.classes2d.classify import Classified, classify
from beamsieve.models.classes2d.frc import ring_correlation
from beamsieve.models.classes2d.grouping import Method
from beamsieve.tests.turned_views import Floats, Particles, particles, purity, smoothed, views

KNOWN = views(4, seed=5)


@pytest.fixture(scope="module")
def some() -> Particles:
    return particles(KNOWN, 400, snr=0.2, seed=1)


@pytest.fixture(scope="module")
def found(some: Particles) -> Classified:
    return classify(some.images, smoothed, number=4, pixel_a=3.0)


def lying(n: int = 200, snr: float = 0.2) -> Particles:
    """Particles that are neither turned nor shifted, as in the paper."""
    rng = np.random.default_rng(3)
    view = rng.permutation(np.arange(n) % 4)
    images = KNOWN.draw(view)
    images = images + np.sqrt(images.var((1, 2), keepdims=True) / snr) * rng.standard_normal(images.shape)
    images = (images - images.mean((1, 2), keepdims=True)).astype(np.float32)
    return Particles(images / images.std((1, 2), keepdims=True), view, np.zeros(n), np.zeros((n, 2)))


def likeness(average: Floats, view: int, own: Floats) -> float:
    """Correlation of an average with a view that is laid as the average is, inside a circle."""
    at = np.arange(64) - 32
    inside = np.hypot(at[:, None], at) < 24
    best = 0.0
    for angle in range(0, 360, 6):
        laid = turned(own[view][None], angle, 0)[0]
        best = max(best, float(np.corrcoef(average[inside], laid[inside])[0, 1]))
    return best


def test_views_are_found_and_numbered_by_size(some: Particles, found: Classified) -> None:
    assert purity(found.labels, some.view) > 0.98
    assert sorted(np.unique(found.labels)) == [1, 2, 3, 4]
    assert found.counts.tolist() == np.bincount(found.labels)[1:].tolist()
    assert (np.diff(found.counts) <= 0).all()
    assert found.notes == ()


def test_averages_are_of_the_originals_and_show_the_views(some: Particles, found: Classified) -> None:
    for number in range(1, 5):
        mine = found.labels == number
        again = turned(some.images[mine], found.angle[mine], found.shift[mine])
        np.testing.assert_allclose(found.averages[number - 1], again.mean(0), atol=1e-4)
        np.testing.assert_allclose(found.halves[number - 1], [again[0::2].mean(0), again[1::2].mean(0)], atol=1e-4)
        view = int(np.bincount(some.view[mine]).argmax())
        assert likeness(found.averages[number - 1], view, KNOWN.draw(np.arange(4))) > 0.95
    assert np.isfinite(found.resolution_a).all()
    assert (found.spread > 0).all()


def test_refining_makes_averages_sharper(some: Particles, found: Classified) -> None:
    rough = classify(some.images, smoothed, number=4, pixel_a=3.0, refine=False)
    np.testing.assert_array_equal(rough.labels, found.labels)
    assert found.resolution_a.mean() < rough.resolution_a.mean()


def test_the_largest_class_is_number_1() -> None:
    view = np.repeat([0, 1, 2], [10, 40, 20])
    result = classify(KNOWN.draw(view, np.linspace(-170, 170, 70)), smoothed, number=3)
    assert result.counts.tolist() == [40, 20, 10]
    np.testing.assert_array_equal(result.labels, np.repeat([3, 1, 2], [10, 40, 20]))


def test_half_sets_know_nothing_of_each_other_when_they_are_refined() -> None:
    """Noise that is aligned to an average it is no part of would make the half sets alike."""
    noise = np.random.default_rng(11).standard_normal((240, 64, 64)).astype(np.float32)
    rough, fine = (classify(noise, smoothed, number=1, refine=r) for r in (False, True))
    before, after = (float(ring_correlation(*r.halves[0])[2:20].mean()) for r in (rough, fine))
    # Aligned to an average of both halves, they correlate by 0.55 instead of 0.3.
    assert after < before + 0.1


@pytest.mark.parametrize("method", ["kmeans", "ward"])
def test_the_rest_of_a_sample_goes_to_the_nearest_mean(method: Method, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bright images are not drawn by the brightest mean."""
    monkeypatch.setattr(grouping, "SAMPLE", 40)
    monkeypatch.setattr(grouping, "WARD_SAMPLE", 40)
    level = np.arange(60) % 2
    images = (1 + 9 * level[:, None]) * np.linspace(-1, 1, 30, dtype=np.float32)
    found = grouping.GROUPERS[False, method](images.astype(np.float32), 2, 0, lambda *_: None)
    assert purity(found.label, level) == 1
    assert len(np.unique(found.label)) == 2


@pytest.mark.parametrize("method", ["kmeans", "ward"])
def test_images_that_lie_as_they_should_need_not_be_turned(method: Method) -> None:
    these = lying()
    result = classify(these.images, smoothed, number=4, align=False, method=method)
    assert purity(result.labels, these.view) > 0.98
    assert not result.angle.any()
    assert not result.shift.any()
    assert 0.5 < result.similarity.mean() < 1


def test_without_turning_turned_particles_are_not_grouped_by_view(some: Particles) -> None:
    result = classify(some.images[:200], smoothed, number=4, align=False)
    assert purity(result.labels, some.view[:200]) < 0.6


def test_wards_tree_with_turning(some: Particles) -> None:
    result = classify(some.images[:200], smoothed, number=4, method="ward", refine=False)
    assert purity(result.labels, some.view[:200]) > 0.98


def test_fewer_particles_than_classes_make_fewer_classes_and_a_note() -> None:
    few = particles(KNOWN, 3, snr=None)
    for align in (True, False):
        result = classify(few.images, smoothed, number=10, align=align)
        assert sorted(result.labels) == [1, 2, 3]
        assert result.notes == ("3 images make at most 3 classes, not 10.",)
        assert all(math.isnan(r) for r in result.resolution_a)


@pytest.mark.parametrize("align", [True, False])
@pytest.mark.parametrize("method", ["kmeans", "ward"])
def test_one_particle_is_one_class(align: bool, method: Method) -> None:
    one = particles(KNOWN, 1, snr=None)
    assert classify(one.images, smoothed, number=1, align=align, method=method).labels.tolist() == [1]


@pytest.mark.parametrize("align", [True, False])
def test_images_without_contrast_are_in_no_class(some: Particles, align: bool) -> None:
    images = some.images[:60].copy()
    images[[0, 17]] = 0
    result = classify(images, smoothed, number=4, align=align)
    assert np.flatnonzero(result.labels == 0).tolist() == [0, 17]
    assert result.counts.sum() == 58
    assert result.notes == ("2 of 60 images have no contrast; they are in no class (0).",)
    with pytest.raises(ValueError, match="no image with contrast"):
        classify(np.zeros((5, 64, 64), np.float32), smoothed, number=2, align=align)


def test_wrong_shapes_and_numbers_are_refused(some: Particles) -> None:
    with pytest.raises(ValueError, match="64 × 64 pixels are needed"):
        classify(np.zeros((5, 32, 32), np.float32), smoothed, number=2)
    with pytest.raises(ValueError, match="ask for at least 1"):
        classify(some.images, smoothed, number=0)


def test_large_sets_are_read_in_pieces_from_files(
    some: Particles, found: Classified, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A memory map in, a temporary file for what is between, a sample to group."""
    monkeypatch.setattr(module, "BATCH", 64)
    monkeypatch.setattr(module, "IN_MEMORY", 100)
    monkeypatch.setattr(grouping, "SAMPLE", 150)
    monkeypatch.setattr(grouping, "WARD_SAMPLE", 150)
    np.save(tmp_path / "images.npy", some.images)
    images = np.load(tmp_path / "images.npy", mmap_mode="r")
    kept: list[tuple[int, int]] = []
    told: list[tuple[str, int, int]] = []

    def denoise(batch: Floats) -> Floats:
        assert len(batch) <= 64
        return smoothed(batch)

    result = classify(
        images,
        denoise,
        number=4,
        keep=lambda first, denoised: kept.append((first, len(denoised))),
        progress=lambda *step: told.append(step),
    )
    assert purity(result.labels, some.view) > 0.98
    assert kept == [(i, min(64, 400 - i)) for i in range(0, 400, 64)]
    assert list(dict.fromkeys(t[0] for t in told)) == ["denoise", "group", "average", "align"]
    assert all(0 <= done <= of for _, done, of in told)
    these = lying()
    for method in ("kmeans", "ward"):
        result = classify(these.images, smoothed, number=4, align=False, method=method)
        assert purity(result.labels, these.view) > 0.95
