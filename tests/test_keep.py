"""The random share of the misses: what is kept stands for all, so that rates can be estimated again from the file."""

from __future__ import annotations

import numpy as np
import pytest
from beamsieve.stream.beamlines.hits import Keep, KeepSettings


def test_hits_stand_for_themselves_and_chosen_misses_for_many() -> None:
    hits = np.random.default_rng(1).random(40_000) < 0.05
    weights = Keep(KeepSettings(miss_fraction=0.02, seed=3)).weights(hits)
    assert (weights[hits] == 1).all()
    assert set(weights[~hits].tolist()) == {0.0, 50.0}
    kept = int((weights[~hits] > 0).sum())
    assert kept == pytest.approx(0.02 * (~hits).sum(), rel=0.15)
    assert weights.sum() == pytest.approx(len(hits), rel=0.15), "what is kept must stand for all shots"


@pytest.mark.parametrize(("fraction", "weight"), [(0.0, 0.0), (1.0, 1.0)])
def test_none_and_all_of_the_misses(fraction: float, weight: float) -> None:
    weights = Keep(KeepSettings(miss_fraction=fraction, seed=3)).weights(np.array([True, False, False]))
    assert weights.tolist() == [1.0, weight, weight]


def test_the_choice_follows_the_seed() -> None:
    misses = np.zeros(500, np.bool_)
    one, same, other = (Keep(KeepSettings(miss_fraction=0.1, seed=seed)).weights(misses).tolist() for seed in (1, 1, 2))
    assert one == same != other
