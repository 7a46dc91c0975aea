"""One-to-one matching and ranking: hand-computed cases, brute force, and what may not change the answer."""

from itertools import combinations, permutations
from typing import Any

import numpy as np
import pytest
from beamsieve.models.particles.matching import (
    average_precision,
    centre_error,
    curve,
    f_score,
    join,
    match,
    rank,
)
from hypothesis import given, settings
from hypothesis import strategies as st

COORDINATES = st.lists(
    st.tuples(st.integers(0, 12), st.integers(0, 12)).map(lambda p: (float(p[0]), float(p[1]))), max_size=5
)


def brute_force(found: Any, true: Any, radius: Any) -> Any:
    """(pairs, sum of squared distances) of the best matching, by trying all."""
    best = (0, 0.0)
    for size in range(1, min(len(found), len(true)) + 1):
        for rows in combinations(range(len(found)), size):
            for columns in permutations(range(len(true)), size):
                squared = [
                    (found[i][0] - true[j][0]) ** 2 + (found[i][1] - true[j][1]) ** 2
                    for i, j in zip(rows, columns, strict=True)
                ]
                if max(squared) <= radius**2 and (-size, sum(squared)) < (-best[0], best[1]):
                    best = (size, sum(squared))
    return best


def split(points: Any) -> Any:
    return [p[0] for p in points], [p[1] for p in points]


@settings(max_examples=150, deadline=None)
@given(COORDINATES, COORDINATES, st.sampled_from([1.0, 2.5, 5.0, 20.0]))
def test_matching_is_the_best_one_to_one_matching(found: Any, true: Any, radius: Any) -> None:
    (x, y), (true_x, true_y) = split(found), split(true)
    pairs = match(x, y, true_x, true_y, radius)
    assert len(set(pairs.found.tolist())) == len(pairs)
    assert len(set(pairs.true.tolist())) == len(pairs)
    for i, j, d in zip(pairs.found, pairs.true, pairs.distance, strict=True):
        assert d == pytest.approx(np.hypot(found[i][0] - true[j][0], found[i][1] - true[j][1]))
        assert d <= radius
    assert (len(pairs), float((pairs.distance**2).sum())) == pytest.approx(brute_force(found, true, radius))


def test_two_picks_on_one_particle_are_one_hit() -> None:
    pairs = match([10, 11], [10, 10], [10.8], [10], 5)
    assert pairs.found.tolist() == [1]
    assert pairs.distance.tolist() == pytest.approx([0.2])


def test_a_chain_is_matched_as_a_whole_not_greedily() -> None:
    # The first pick is nearest to the first particle, but only it can reach the second.
    pairs = match([0, -4], [0, 0], [0, 4], [0, 0], 4.5)
    assert pairs.found.tolist() == [0, 1]
    assert pairs.true.tolist() == [1, 0]


def test_a_group_that_cannot_be_matched_in_full_gives_the_pairs_it_can() -> None:
    # The first pick reaches three particles; two other picks reach the third particle only.
    pairs = match([0, 6, 6], [0, 3, -3], [-3, 0, 4], [0, 3, 0], 4.0)
    assert len(pairs) == 2
    assert sorted(pairs.true.tolist())[1] == 2
    assert len(set(pairs.found.tolist())) == 2


def test_radius_is_inclusive_and_empty_sides_match_nothing() -> None:
    assert len(match([0], [0], [3], [4], 5)) == 1
    assert len(match([0], [0], [3], [4], 4.999)) == 0
    assert len(match([], [], [3], [4], 5)) == 0
    assert len(match([1], [1], [], [], 5)) == 0


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (([0], [0, 1], [0], [0], 1), "shapes"),
        (([0], [np.nan], [0], [0], 1), "finite"),
        (([0], [0], [0], [0], 0), "radius"),
        (([0], [0], [0], [0], np.nan), "radius"),
    ],
)
def test_impossible_input_is_refused(args: Any, says: Any) -> None:
    with pytest.raises(ValueError, match=says):
        match(*args)


def test_thousands_are_matched_in_no_time() -> None:
    chance = np.random.default_rng(1)
    true = chance.uniform(0, 8000, (2, 4000))
    order = chance.permutation(4000)
    found = (true + chance.uniform(-0.01, 0.01, true.shape))[:, order]
    pairs = match(found[0], found[1], true[0], true[1], 40)
    assert (order[pairs.found] == pairs.true).mean() > 0.999
    assert len(pairs) == 4000


def test_curve_and_average_precision_by_hand() -> None:
    # Ranked: hit, miss, hit; three targets, one of which nobody found.
    points = curve([0.9, 0.2, 0.5], [True, True, False], 3)
    assert points.threshold.tolist() == [0.9, 0.5, 0.2]
    assert points.precision.tolist() == pytest.approx([1, 1 / 2, 2 / 3])
    assert points.recall.tolist() == pytest.approx([1 / 3, 1 / 3, 2 / 3])
    assert average_precision([0.9, 0.2, 0.5], [True, True, False], 3) == pytest.approx(1 / 3 + 2 / 9)


def test_equal_scores_are_one_point_whatever_their_order() -> None:
    for hits in permutations([True, True, False]):
        assert curve([0.5, 0.5, 0.5], hits, 2).precision.tolist() == pytest.approx([2 / 3])
        assert average_precision([0.5, 0.5, 0.5], hits, 2) == pytest.approx(2 / 3)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 6), st.booleans()), min_size=1, max_size=40), st.integers(0, 5))
def test_average_precision_is_that_of_scikit_learn_scaled_by_what_was_found(ranked: Any, missed: Any) -> None:
    from sklearn.metrics import average_precision_score

    score, hit = [r[0] for r in ranked], [r[1] for r in ranked]
    targets = sum(hit) + missed
    if not sum(hit):
        assert average_precision(score, hit, missed + 1) == 0
        assert np.isnan(average_precision(score, hit, 0))
        return
    expected = average_precision_score(hit, score) * sum(hit) / targets
    assert average_precision(score, hit, targets) == pytest.approx(expected)


def test_f_scores_and_the_threshold_of_the_best_one() -> None:
    assert f_score(0.5, 1.0, 2) == pytest.approx(5 * 0.5 / (4 * 0.5 + 1))
    assert f_score(0.0, 0.0, 2) == 0
    # F1 prefers precision 1 at half the recall, F2 prefers recall 1 at half the precision.
    points = curve([0.9, 0.5, 0.4, 0.3], [True, False, False, True], 2)
    assert (points.best(1).threshold, points.best(1).f) == pytest.approx((0.9, 2 / 3))
    assert points.best(2).threshold == 0.3
    assert points.best(2).f == pytest.approx(5 * 0.5 / 3)
    with pytest.raises(ValueError, match="no candidates"):
        curve([], [], 3).best(2)


def test_more_hits_than_targets_cannot_be() -> None:
    with pytest.raises(ValueError, match="one-to-one"):
        curve([1, 2], [True, True], 1)


def test_border_excludes_particles_and_picks_on_both_sides_of_it() -> None:
    # 100 pixels wide: x + 0.5 < 10 is border, so 9 is in it and 9.5 is not.
    found = ([3, 9.0, 9.0, 50, 97], [50, 20, 80, 50, 50], [0.9, 0.8, 0.7, 0.6, 0.5])
    true = ([3, 9.6, 50], [50, 20, 50])
    ranked = rank(found, true, 2, shape=(200, 100), border=10)
    # Excluded: the pair at x = 3, the unmatched picks at (9, 80) and x = 97. The pick at (9, 20) has a particle inside.
    assert ranked.targets == 2
    assert ranked.score.tolist() == [0.8, 0.6]
    assert ranked.hit.tolist() == [True, True]
    assert ranked.error.tolist() == pytest.approx([0.6, 0.0])
    everything = rank(found, true, 2)
    assert everything.targets == 3
    assert len(everything.score) == 5


@pytest.mark.parametrize(("x", "targets"), [(9.4, 0), (9.5, 1), (89.5, 1), (89.6, 0)])
def test_border_is_measured_from_the_outer_edge_of_the_pixels(x: Any, targets: Any) -> None:
    # 100 pixels reach from -0.5 to 99.5.
    assert rank(([], [], []), ([x], [50]), 2, shape=(100, 100), border=10).targets == targets
    assert rank(([], [], []), ([50], [x]), 2, shape=(100, 100), border=10).targets == targets


def test_border_knows_rows_from_columns() -> None:
    kept = rank(([95], [95], [1.0]), ([95], [95]), 2, shape=(100, 200), border=10)
    assert (kept.targets, len(kept.score)) == (0, 0)
    kept = rank(([150], [50], [1.0]), ([150], [50]), 2, shape=(100, 200), border=10)
    assert kept.targets == 1


def test_positions_nobody_is_asked_about_cost_nothing() -> None:
    found = ([10, 30, 50], [10, 10, 10], [0.9, 0.8, 0.7])
    ranked = rank(found, ([10], [10]), 2, ignore=([31, 10], [10, 10]))
    # The second is beside an ignored position; the first is matched, so that its being near one too changes nothing.
    assert ranked.score.tolist() == [0.9, 0.7]
    assert ranked.hit.tolist() == [True, False]
    far = rank(found, ([10], [10]), 2, ignore=([35], [10]), ignore_radius=6)
    assert far.score.tolist() == [0.9, 0.7]


def test_scores_must_be_numbers_one_per_candidate() -> None:
    with pytest.raises(ValueError, match="scores"):
        rank(([1], [1], [np.nan]), ([], []), 2)
    with pytest.raises(ValueError, match="scores"):
        rank(([1], [1], [0.5, 0.5]), ([], []), 2)


def test_micrographs_are_joined_under_one_threshold() -> None:
    one = rank(([10, 40], [10, 40], [0.9, 0.1]), ([10], [10]), 2)
    two = rank(([20], [20], [0.5]), ([21, 60], [20, 60]), 2)
    both = join([one, two])
    assert both.targets == 3
    assert average_precision(both.score, both.hit, both.targets) == pytest.approx(2 / 3)
    assert both.error.tolist() == [0, 1]
    with pytest.raises(ValueError, match="no micrographs"):
        join([])


def test_centre_errors() -> None:
    error = centre_error([3, 4])
    assert (error.mean, error.rms, error.pairs) == pytest.approx((3.5, np.sqrt(12.5), 2))
    assert np.isnan(centre_error([]).rms)


@settings(deadline=None, max_examples=50)
@given(COORDINATES, COORDINATES, st.randoms(use_true_random=False))
def test_the_order_of_candidates_does_not_matter(found: Any, true: Any, chance: Any) -> None:
    score = [len(found) - i for i in range(len(found))]
    mixed = list(zip(found, score, strict=True))
    chance.shuffle(mixed)
    one = rank((*split(found), score), split(true), 3)
    two = rank((*split([m[0] for m in mixed]), [m[1] for m in mixed]), split(true), 3)
    assert one.targets == two.targets
    assert one.hit.sum() == two.hit.sum()
    assert (one.error**2).sum() == pytest.approx((two.error**2).sum())
