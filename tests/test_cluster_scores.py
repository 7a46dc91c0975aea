"""Scores of denoised images and of clusters against known classes."""

import numpy as np
import pytest
from beamsieve.models.evaluate import cluster_scores, counted, matched, mean_interval, psnr, psnr_fit
from sklearn import metrics


def images(n: int = 6, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, 8, 8))


def test_psnr_by_hand() -> None:
    truth = np.array([[[0.0, 2.0], [4.0, 4.0]]])
    shown = np.array([[[10.0, 10.0], [12.0, 12.0]]])
    # Scaled to 0..1 they are 0 ½ 1 1 and 0 0 1 1: a mean square difference of 1/16.
    assert psnr(shown, truth)[0] == pytest.approx(10 * np.log10(16))
    # Around their means: -1 -1 1 1 and -2.5 -0.5 1.5 1.5, so the gain is 1.5 and what is left -1 1 0 0; the peak is 4.
    assert psnr_fit(shown, truth)[0] == pytest.approx(10 * np.log10(16 / 0.5))


def test_neither_psnr_depends_on_a_positive_gain_or_an_offset() -> None:
    truth, shown = images(seed=1), images(seed=2)
    for score in (psnr, psnr_fit):
        assert score(3 * shown + 7, truth) == pytest.approx(score(shown, truth))
        assert score(shown, 5 * truth - 1) == pytest.approx(score(shown, truth))
        assert score(truth, truth) == pytest.approx(100)


def test_reversed_contrast_is_no_better_than_nothing_at_all() -> None:
    truth = images(seed=1)
    flat = psnr_fit(np.zeros_like(truth), truth)
    assert psnr_fit(-truth, truth) == pytest.approx(flat)
    assert flat == pytest.approx(10 * np.log10(np.ptp(truth, (1, 2)) ** 2 / truth.var((1, 2))))
    assert np.isfinite(psnr(np.ones_like(truth), truth)).all()
    assert (psnr_fit(np.ones_like(truth), np.ones_like(truth)) == 100).all()


def test_less_noise_is_a_higher_psnr() -> None:
    truth = images(20, seed=1)
    noise = images(20, seed=3)
    for score in (psnr, psnr_fit):
        values = [score(truth + share * noise, truth).mean() for share in (1.0, 0.5, 0.1)]
        assert values == sorted(values)


@pytest.mark.parametrize("score", [psnr, psnr_fit])
def test_shapes_that_do_not_fit_are_refused(score: object) -> None:
    assert callable(score)
    with pytest.raises(ValueError, match=r"images of shape .* must be the same \(n, ny, nx\)"):
        score(images(3), images(4))
    with pytest.raises(ValueError, match="must be the same"):
        score(np.zeros((8, 8)), np.zeros((8, 8)))


def test_the_interval_of_a_mean_covers_it_as_often_as_it_says() -> None:
    chance = np.random.default_rng(0)
    covered = 0
    for number in range(200):
        found = mean_interval(chance.normal(3, 1, 60), resamples=300, seed=number)
        covered += found.low <= 3 <= found.high
    assert 175 <= covered <= 199
    assert np.isnan(mean_interval(np.array([2.0])).low)
    assert np.isnan(mean_interval(np.zeros(0)).value)


def labelled(seed: int = 0, n: int = 300, right: float = 0.8) -> tuple[np.ndarray, np.ndarray]:
    chance = np.random.default_rng(seed)
    labels = chance.integers(0, 4, n)
    clusters = np.where(chance.random(n) < right, (labels + 1) % 4, chance.integers(0, 4, n))
    return labels, clusters


def test_cluster_scores_agree_with_scikit_learn() -> None:
    labels, clusters = labelled()
    found = cluster_scores(labels, clusters)
    renamed = (clusters - 1) % 4
    assert found.f1.value == pytest.approx(metrics.f1_score(labels, renamed, average="macro"))
    assert found.precision.value == pytest.approx(metrics.precision_score(labels, renamed, average="macro"))
    assert found.recall.value == pytest.approx(metrics.recall_score(labels, renamed, average="macro"))
    assert found.rand.value == pytest.approx(metrics.adjusted_rand_score(labels, clusters))
    assert found.homogeneity.value == pytest.approx(metrics.homogeneity_score(labels, clusters))
    for one in (found.f1, found.rand, found.homogeneity, found.purity):
        assert one.low < one.value < one.high
        assert one.high - one.low < 0.2


def test_intervals_of_cluster_scores_are_those_of_drawing_images() -> None:
    labels, clusters = labelled(n=120)
    chance = np.random.default_rng(5)
    drawn = [chance.integers(0, 120, 120) for _ in range(400)]
    values = [metrics.adjusted_rand_score(labels[i], clusters[i]) for i in drawn]
    found = cluster_scores(labels, clusters).rand
    assert (found.low, found.high) == pytest.approx(np.quantile(values, (0.025, 0.975)), abs=0.03)


def test_clusters_by_chance_lie_within_their_own_interval() -> None:
    chance = np.random.default_rng(1)
    found = cluster_scores(chance.integers(0, 10, 300), chance.integers(0, 10, 300))
    for one in (found.f1, found.precision, found.recall):
        assert one.low < one.value < one.high


def test_the_names_of_clusters_do_not_matter() -> None:
    labels, clusters = labelled()
    assert cluster_scores(labels, clusters) == cluster_scores(labels + 7, clusters)
    renamed = cluster_scores(labels, 100 - 3 * clusters)
    assert renamed.f1.value == cluster_scores(labels, clusters).f1.value


def test_one_cluster_for_all_is_bad_whatever_its_recall() -> None:
    labels = np.repeat(np.arange(4), 50)
    found = cluster_scores(labels, np.zeros(200, int))
    # One class of four is matched: its precision is ¼, its recall 1, its F1 0.4; the others have none.
    assert (found.precision.value, found.recall.value) == (1 / 16, 1 / 4)
    assert found.f1.value == pytest.approx(0.1)
    assert [found.rand.value, found.homogeneity.value, found.purity.value] == pytest.approx([0, 0, 0.25])


def test_a_split_class_keeps_its_purity_but_loses_recall() -> None:
    labels = np.repeat([0, 1], 60)
    clusters = np.concatenate([np.zeros(60, int), np.repeat([1, 2], 30)])
    found = cluster_scores(labels, clusters)
    assert [found.purity.value, found.homogeneity.value] == pytest.approx([1, 1])
    assert (found.precision.value, found.recall.value) == (1, 0.75)


def test_the_matching_is_the_best_one_not_the_greedy_one() -> None:
    # Greedily cluster 0 would go to class 0 (50), and 3 would be left; together 40 + 45 is more.
    table = np.array([[50, 40], [45, 3]])
    rows, columns = matched(table)
    assert table[rows, columns].sum() == 85
    assert (counted(np.array([5, 5, 9]), np.array([1, 2, 2])) == [[1, 1], [0, 1]]).all()


def test_perfect_clusters_and_single_classes() -> None:
    labels = np.repeat(np.arange(3), 10)
    found = cluster_scores(labels, labels[::-1])
    assert all(one["value"] == pytest.approx(1) for one in found.to_json().values())
    assert found.f1.low == pytest.approx(1)
    alone = cluster_scores(np.zeros(5, int), np.zeros(5, int))
    assert (alone.f1.value, alone.rand.value, alone.homogeneity.value) == (1, 1, 1)


def test_lengths_that_do_not_fit_are_refused() -> None:
    for labels, clusters in ((np.zeros(3, int), np.zeros(4, int)), (np.zeros(0, int), np.zeros(0, int))):
        with pytest.raises(ValueError, match="of one image or more"):
            cluster_scores(labels, clusters)
