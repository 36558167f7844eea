"""Whether a promise on accepted suggestions holds where held-out labels come from the rounds of a project.

In miniature what `benchmarks/accepting.py` measures: they are the random share of each batch, predicted out of fold,
and an order has meanwhile taken the images that it prefers.
"""

import numpy as np
import pytest
from sklearn.datasets import load_digits

from kdal_core.acquisition import explore
from kdal_core.evaluation import accept_threshold
from kdal_core.training import HeadPool

PIXELS, TRUTH = load_digits(return_X_y=True)


def accepted_in(prefers, seed, *, images=250, rounds=3, budget=40, target=0.9):
    """Share of what is accepted that is right, None where nothing is; `prefers` is +1 for the unsure images first."""
    rng = np.random.default_rng(seed)
    rows = rng.permutation(len(TRUTH))[:images]
    features, truth = PIXELS[rows].astype(np.float16), TRUTH[rows]
    pool, sure = HeadPool(features, [features], seed=seed), np.zeros(images)
    labelled = drawn = np.zeros(0, dtype=np.int64)
    for number in range(rounds):
        left = rng.permutation(np.setdiff1d(np.arange(images), labelled))
        ranked = left[np.argsort(prefers * sure[left], kind="stable")]
        explored = explore(ranked, 0.5, budget=budget, batches=1, seed=100 * seed + number)
        labelled, drawn = np.append(labelled, explored.indices[:budget]), np.append(drawn, explored.drawn)
        said = pool.fit(labelled, truth[labelled], 10).distilled.probabilities(features)
        sure = said.max(axis=1)
    folds, held = pool.out_of_fold(labelled, truth[labelled], 10), np.isin(labelled, drawn)
    right = folds[held].argmax(axis=1) == truth[labelled[held]]
    left = np.setdiff1d(np.arange(images), labelled)
    found = accept_threshold(folds[held].max(axis=1).clip(0, 1), right, target, pool=sure[left].clip(0, 1))
    if found.threshold is None:
        return None
    chosen = left[sure[left] >= found.threshold]
    return float((said[chosen].argmax(axis=1) == truth[chosen]).mean())


@pytest.mark.parametrize("prefers", [1, -1])
def test_the_target_is_met_whatever_the_order_has_taken_before(prefers):
    found = [share for seed in range(5) if (share := accepted_in(prefers, seed)) is not None]
    assert len(found) >= 2
    assert sum(share < 0.9 for share in found) <= 1
