"""The random share of a batch: evenly spread, drawn from all that is left, and the same for the same seed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdal_core.acquisition import explore
from kdal_core.validation import InvalidInput


@given(st.integers(0, 60), st.floats(0, 1), st.integers(1, 20), st.integers(0, 4), st.integers(0, 5))
def test_each_image_once_and_as_many_drawn_as_the_share_says(count, share, budget, batches, seed):
    order = np.random.default_rng(7).permutation(count)
    found = explore(order, share, budget=budget, batches=batches, seed=seed)
    assert sorted(found.indices.tolist()) == list(range(count))
    each = int(share * budget + 0.5)
    assert len(found.drawn) == min(each * batches, count) or count < batches * budget
    placed = found.indices[: batches * budget].tolist()
    assert set(found.drawn.tolist()) <= set(placed)
    assert len(set(found.drawn.tolist())) == len(found.drawn)


@given(st.integers(1, 60), st.integers(1, 20), st.integers(0, 5))
def test_the_others_keep_their_order(count, budget, seed):
    order = np.random.default_rng(7).permutation(count)
    found = explore(order, 0.2, budget=budget, batches=2, seed=seed)
    drawn = set(found.drawn.tolist())
    assert [i for i in found.indices.tolist() if i not in drawn] == [i for i in order.tolist() if i not in drawn]


def test_no_share_changes_nothing():
    order = np.array([3, 1, 2, 0])
    found = explore(order, 0.0, budget=2, batches=2, seed=0)
    assert (found.indices.tolist(), found.drawn.tolist()) == (order.tolist(), [])


def test_the_share_is_spread_over_the_batch():
    found = explore(np.arange(1000), 0.1, budget=50, batches=1, seed=0)
    places = np.flatnonzero(np.isin(found.indices[:50], found.drawn))
    assert len(places) >= 4  # one of the drawn may be among the first by itself
    assert np.diff(places).min() >= 5


def test_every_image_has_the_same_chance_also_those_that_the_order_prefers():
    counts = np.zeros(20)
    for seed in range(2000):
        counts[explore(np.arange(20), 0.25, budget=8, batches=1, seed=seed).drawn] += 1
    assert abs(counts / 2000 - 0.1).max() < 0.03


def test_wrong_shares():
    with pytest.raises(InvalidInput, match="share"):
        explore(np.arange(3), 1.5, budget=2, batches=1, seed=0)
    with pytest.raises(InvalidInput, match="budget"):
        explore(np.arange(3), 0.5, budget=0, batches=1, seed=0)
