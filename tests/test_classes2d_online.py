"""Online classes: they find the views, keep their numbers, say what changed, and stay small."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from beamsieve.models.classes2d.kmeans import kmeans, lloyd
from beamsieve.models.classes2d.matching2d import Change, changes, matched
from beamsieve.models.classes2d.online import Assigned, Centres, OnlineClasses
from beamsieve.models.classes2d.polar import Complexes, compare, features, turned_spectra
from beamsieve.models.classes2d.seeding import seeds
from beamsieve.models.classes2d.ward import ward
from beamsieve.tests.turned_views import Particles, off, particles, purity, smoothed, views

KNOWN = views(5, seed=2)


@pytest.fixture(scope="module")
def session() -> tuple[Particles, Complexes]:
    some = particles(KNOWN, 1500, snr=0.2, seed=1)
    return some, features(smoothed(some.images)).spectra


def started(spectra: Complexes, most: int = 5, seed: int = 0) -> OnlineClasses:
    classes = OnlineClasses(most, per_class=20, seed=seed)
    classes.start(spectra)
    return classes


def owners(ids: npt.NDArray[Any], view: npt.NDArray[Any]) -> dict[int, int]:
    """The view most members of each class are of."""
    return {int(i): int(np.bincount(view[ids == i]).argmax()) for i in np.unique(ids)}


def test_views_are_found_at_any_angle(session: tuple[Particles, Complexes]) -> None:
    some, spectra = session
    found = kmeans(spectra[:600], 5)
    assert purity(found.label, some.view[:600]) > 0.97
    for group in range(5):
        mine = np.flatnonzero(found.label == group)
        # Turned by its angle each member lies as its centre, so what was turned first is turned back up to a constant.
        left = np.radians(found.angle[mine] + some.angle[mine])
        common = np.degrees(np.angle(np.exp(1j * left).mean()))
        assert np.median(off(np.degrees(left), common)) < 4


def test_k_means_of_a_large_set_begins_with_a_sample(session: tuple[Particles, Complexes]) -> None:
    some, spectra = session
    twice = np.concatenate([spectra, spectra])
    assert purity(kmeans(twice, 5, restarts=2).label, np.concatenate([some.view, some.view])) > 0.95


def test_the_seed_says_it_all(session: tuple[Particles, Complexes]) -> None:
    spectra = session[1][:200]
    one, two = (kmeans(spectra, 4, seed=3) for _ in range(2))
    np.testing.assert_array_equal(one.label, two.label)
    np.testing.assert_array_equal(one.centres, two.centres)


def test_every_group_has_members_even_if_seeds_are_equal(session: tuple[Particles, Complexes]) -> None:
    spectra = session[1][:100]
    found = lloyd(spectra, np.repeat(spectra[:1], 5, axis=0), 20)
    assert np.bincount(found.label, minlength=5).min() > 0


def test_equal_images_are_grouped_without_fuss(session: tuple[Particles, Complexes]) -> None:
    found = kmeans(np.repeat(session[1][:1], 12, axis=0), 3)
    np.testing.assert_allclose(found.similarity, 1, atol=1e-5)


@pytest.mark.parametrize("k", [0, 11])
def test_a_number_of_groups_that_cannot_be_is_refused(session: tuple[Particles, Complexes], k: int) -> None:
    with pytest.raises(ValueError, match=f"k: {k} groups of 10 images"):
        kmeans(session[1][:10], k)


def test_seeds_are_drawn_far_apart(session: tuple[Particles, Complexes]) -> None:
    """k-means++ takes one of each view almost always, drawing at random does with odds of 4 %."""
    some, _ = session
    clean = features(KNOWN.draw(some.view[:200], some.angle[:200])).spectra
    of = {spectra.tobytes(): v for spectra, v in zip(clean, some.view[:200], strict=True)}
    drawn = [seeds(clean, 5, np.random.default_rng(i)) for i in range(10)]
    assert np.mean([len({of[s.tobytes()] for s in chosen}) == 5 for chosen in drawn]) >= 0.9


def test_wards_tree_joins_what_is_alike(session: tuple[Particles, Complexes]) -> None:
    some, spectra = session
    fine = kmeans(spectra[:500], 30, restarts=1, iterations=5)
    merged = ward(fine.centres, np.bincount(fine.label, minlength=30), 5)
    assert len(np.unique(merged)) == 5
    assert purity(merged[fine.label], some.view[:500]) > 0.95


def test_wards_tree_weighs_groups_by_their_members() -> None:
    """Three centres in a row: two light ones are joined at more distance than two heavy ones."""
    a, b = features(KNOWN.draw(np.arange(2))).spectra
    middle = 0.45 * a + 0.55 * turned_spectra(b[None], compare(b[None], a[None])[1][0])[0]
    centres = np.stack([a, middle / np.linalg.norm(middle), b])
    assert list(ward(centres, [1, 1, 1000], 2)) == [0, 0, 1]
    assert list(ward(centres, [1000, 1, 1], 2)) == [0, 1, 1]
    assert list(ward(centres, [1000, 0, 1], 2)) in ([0, 0, 1], [0, 1, 1])


def test_few_images_make_few_classes() -> None:
    classes = OnlineClasses(32, per_class=25)
    assert [classes.number_for(n) for n in (1, 2, 40, 200, 10_000)] == [1, 2, 2, 8, 32]
    spectra = features(KNOWN.draw([0])).spectra
    classes.start(spectra)
    assert classes.ids == (1,)


def test_before_the_start_nothing_is_classified(session: tuple[Particles, Complexes]) -> None:
    found = OnlineClasses(4).assign(session[1][:3])
    np.testing.assert_array_equal(found.id, 0)
    assert found.angle.dtype == found.similarity.dtype == np.float32


def test_images_without_contrast_are_class_0_and_teach_nothing(session: tuple[Particles, Complexes]) -> None:
    spectra = session[1][:200].copy()
    spectra[7] = 0
    classes = started(spectra)
    found = classes.assign(spectra)
    assert found.id[7] == 0
    assert (np.delete(found.id, 7) > 0).all()
    before = classes.counts.sum()
    classes.learn(spectra[7:8], Assigned(found.id[7:8], found.angle[7:8], found.similarity[7:8]))
    assert classes.counts.sum() == before
    with pytest.raises(ValueError, match="no image with contrast"):
        OnlineClasses(4).start(np.zeros_like(spectra))


def test_learning_gives_the_mean_of_all_members(session: tuple[Particles, Complexes]) -> None:
    """By 1 / count for each, in any batches, is the mean of the members, each turned onto the centre."""
    spectra = session[1][:60]
    classes = OnlineClasses(1, per_class=100)
    classes.start(spectra[:1])
    total = classes.centres[0].astype(np.complex128)
    for first, last in ((1, 10), (10, 11), (11, 60)):
        some = classes.assign(spectra[first:last])
        total += turned_spectra(spectra[first:last], some.angle).sum(0)
        classes.learn(spectra[first:last], some)
    np.testing.assert_allclose(classes.centres[0], total / np.linalg.norm(total), atol=1e-4)
    assert classes.counts.tolist() == [60]


def test_members_of_a_class_that_is_no_more_are_left_out(session: tuple[Particles, Complexes]) -> None:
    spectra = session[1][:100]
    classes = started(spectra)
    before = classes.centres
    stale = Assigned(np.full(100, 77, np.int32), np.zeros(100, np.float32), np.ones(100, np.float32))
    classes.learn(spectra, stale)
    np.testing.assert_array_equal(classes.centres, before)


def test_numbers_stay_while_batches_come_and_classes_are_made_anew(session: tuple[Particles, Complexes]) -> None:
    some, spectra = session
    n, last = 100, 100
    classes = started(spectra[:n])
    first = owners(classes.assign(spectra[:n]).id, some.view[:n])
    assert sorted(first.values()) == [0, 1, 2, 3, 4]
    said: list[Change] = []
    for _ in range(20):
        batch = slice(n, n + 70)
        found = classes.assign(spectra[batch])
        classes.learn(spectra[batch], found)
        n += 70
        if n >= 2 * last:
            said += classes.adopt(classes.recluster(spectra[:n], count=n))
            last = n
    assert last > 1000
    found = classes.assign(spectra)
    assert owners(found.id, some.view) == first
    assert said == []
    assert purity(found.id, some.view) > 0.97


def test_views_in_several_classes_stay_in_them(session: tuple[Particles, Complexes]) -> None:
    """Which images of one view are together is chance, so that new seeds alone would deal them anew."""
    spectra = session[1][:300]
    classes = started(spectra, most=12)
    before = classes.assign(spectra).id
    assert classes.adopt(classes.recluster(spectra, count=300)) == ()
    assert (classes.assign(spectra).id == before).mean() > 0.95


def test_averages_do_not_turn_round_when_classes_are_made_anew(session: tuple[Particles, Complexes]) -> None:
    _, spectra = session
    classes = started(spectra[:150])
    before = dict(zip(classes.ids, classes.centres, strict=True))
    found = classes.recluster(spectra[:600], count=600)
    # k-means from other seeds would leave the centres at any angle.
    anyhow = turned_spectra(found.centres, np.linspace(-170, 170, len(found.centres)))
    classes.adopt(replace(found, centres=anyhow))
    for number, centre in zip(classes.ids, classes.centres, strict=True):
        similarity, angle = compare(centre[None], before[number][None])
        assert similarity[0, 0] > 0.97
        assert off(angle[0, 0], 0) < 0.5


def test_more_classes_are_split_off_and_old_ones_keep_their_numbers(session: tuple[Particles, Complexes]) -> None:
    some, spectra = session
    classes = started(spectra[:200], most=3)
    old = classes.ids
    classes = OnlineClasses.restore(classes.state(), most=5)
    said = classes.adopt(classes.recluster(spectra[:800], count=1500))
    assert set(old) <= set(classes.ids)
    assert sorted(set(classes.ids) - set(old)) == [4, 5]
    assert {c.id for c in said} == {4, 5}
    for change in said:
        assert change.kind == "split"
        assert change.others[0] in old
        assert change.text == f"Class {change.id} was split off class {change.others[0]}."
    assert purity(classes.assign(spectra).id, some.view) > 0.97


def test_fewer_classes_are_merged_and_numbers_never_used_again(session: tuple[Particles, Complexes]) -> None:
    spectra = session[1][:500]
    classes = started(spectra, most=9)
    assert classes.ids == tuple(range(1, 10))
    fewer = OnlineClasses.restore(classes.state(), most=5)
    said = fewer.adopt(fewer.recluster(spectra, count=1500))
    assert len(fewer.ids) == 5
    assert set(fewer.ids) < set(classes.ids)
    assert {c.id for c in said} == set(classes.ids) - set(fewer.ids)
    assert {c.kind for c in said} <= {"merged", "gone"}
    assert any(c.kind == "merged" and c.others[0] in fewer.ids for c in said)
    more = OnlineClasses.restore(fewer.state(), most=7)
    more.adopt(more.recluster(spectra, count=1500))
    assert set(more.ids) - set(fewer.ids) == {10, 11}


def test_a_re_clustering_in_the_background_does_not_touch_the_classes(session: tuple[Particles, Complexes]) -> None:
    _, spectra = session
    classes = started(spectra[:200])
    before = classes.state()
    seen: list[tuple[int, int]] = []
    classes.recluster(spectra[:400], count=400, progress=lambda _, done, of: seen.append((done, of)))
    for name, value in classes.state().items():
        np.testing.assert_array_equal(value, before[name])
    assert len(seen) > 1
    assert all(a <= b for a, b in seen)
    assert seen == sorted(seen)


def test_a_re_clustering_stops_when_asked(session: tuple[Particles, Complexes]) -> None:
    _, spectra = session
    classes = started(spectra[:200])
    asked = 0

    def stop() -> bool:
        nonlocal asked
        asked += 1
        return asked > 3

    found = classes.recluster(spectra, count=1500, stop=stop)
    assert not found.finished
    # Each question is asked at most once for every 2048 images compared.
    assert asked < 12


def test_what_disappeared_while_it_was_grouped_is_left_out(session: tuple[Particles, Complexes]) -> None:
    _, spectra = session
    classes = started(spectra[:300])
    found = classes.recluster(spectra[:600], count=1500)
    stale = Centres(found.centres, found.counts, (*found.before[:-1], 99), found.shared, True)
    classes.adopt(stale)
    # Its particles are not known, but its centre is; so it goes on by its looks.
    assert set(classes.ids) == {1, 2, 3, 4, 5}


def test_state_goes_round(session: tuple[Particles, Complexes]) -> None:
    _, spectra = session
    classes = started(spectra[:300])
    again = OnlineClasses.restore(classes.state())
    for each in (classes, again):
        each.learn(spectra[300:400], each.assign(spectra[300:400]))
        each.adopt(each.recluster(spectra[:600], count=600))
    assert again.ids == classes.ids
    np.testing.assert_array_equal(again.centres, classes.centres)
    assert OnlineClasses.restore(OnlineClasses(7).state()).most == 7


def test_what_is_no_state_is_refused(session: tuple[Particles, Complexes]) -> None:
    state = started(session[1][:100]).state()
    with pytest.raises(ValueError, match="no state of 2-D classes: 'ids'"):
        OnlineClasses.restore({k: v for k, v in state.items() if k != "ids"})
    with pytest.raises(ValueError, match="another layout"):
        OnlineClasses.restore(state | {"means": state["means"][:, :3]})
    with pytest.raises(ValueError, match="at least 1"):
        OnlineClasses(0)


def test_classes_stay_small(session: tuple[Particles, Complexes]) -> None:
    _, spectra = session
    classes = started(spectra[:300])

    def size() -> int:
        return sum(a.nbytes for a in classes.state().values())

    before = size()
    for _ in range(10):
        classes.learn(spectra, classes.assign(spectra))
    assert classes.counts.sum() == 300 + 10 * 1500
    assert size() == before


def test_the_pairing_keeps_most_images_in_their_class() -> None:
    shared = np.array([[60, 40], [0, 10]])
    np.testing.assert_array_equal(matched(shared, np.zeros((2, 2))), [0, 1])
    # Taking the largest first would leave 30 + 1 instead of 29 + 28.
    shared = np.array([[30, 29], [28, 1]])
    np.testing.assert_array_equal(matched(shared, np.zeros((2, 2))), [1, 0])


def test_a_few_shared_images_do_not_make_it_the_same_class() -> None:
    # The second pair is the only one left, but shares 5 images of 45 and 35.
    np.testing.assert_array_equal(matched(np.array([[200, 30], [40, 5]]), np.zeros((2, 2))), [0, -1])
    np.testing.assert_array_equal(matched(np.array([[200, 30], [40, 15]]), np.zeros((2, 2))), [0, 1])


def test_without_shared_images_the_looks_decide() -> None:
    alike = np.array([[0.2, 0.95], [0.85, 0.3]])
    np.testing.assert_array_equal(matched(np.zeros((2, 2), int), alike), [-1, 0])


def test_changes_are_told_in_sentences() -> None:
    shared = np.array([[50, 40, 0, 0], [0, 0, 0, 30], [10, 0, 5, 9], [9, 8, 7, 6]])
    said = changes(shared, old=[1, 2, 3, 4], new=[1, 5, 6, 7])
    assert [c.text for c in said] == [
        "Class 5 was split off class 1.",
        "Class 6 is new.",
        "Class 7 is new.",
        "Class 2 was merged into class 7.",
        "Class 3 is no more; its particles went to several classes.",
        "Class 4 is no more; its particles went to several classes.",
    ]
    assert [(c.kind, c.id, c.others) for c in said[:4]] == [
        ("split", 5, (1,)),
        ("new", 6, ()),
        ("new", 7, ()),
        ("merged", 2, (7,)),
    ]
