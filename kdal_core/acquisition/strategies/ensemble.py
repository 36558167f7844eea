"""Where students that differ in their seed alone vote for different classes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kdal_core.acquisition.greedy import Selection
from kdal_core.acquisition.strategies.entropy import shannon_entropy
from kdal_core.acquisition.strategies.protocol import PoolScores, Strategy
from kdal_core.acquisition.strategies.ranking import ranked, settled


def ensemble(pool: PoolScores) -> Selection:
    """Most dissent first: the variation ratio of the members' votes, then the entropy of their mean prediction.

    Args:
        pool: with ensemble, M >= 2 members; of dense predictions, the mean score.

    Returns:
        Selection; scores are 1 - f_m / M plus the tie-breaker of P below.

    Raises:
        InvalidInput: no ensemble, NaN, or rows that are no probabilities.

    Source: Beluch et al., The Power of Ensembles for Active Learning in Image Classification, CVPR 2018, section
    3: v = 1 - f_m / M, f_m the votes of the modal class. P: M members know only M values of v, so many images tie;
    the entropy of the mean prediction is added, scaled to at most half of the step 1/M between two values. A member
    whose best classes tie votes for the lowest of them.
    """
    return ranked(settled(pool.averaged("ensemble", dissent)))


STRATEGY = Strategy("ensemble", ensemble, frozenset({"ensemble"}))


def dissent(members: NDArray[np.float64]) -> NDArray[np.float64]:
    """`variation_ratio` of predictions (M, N, C) and the tie-breaker -> (N,)."""
    mean_entropy = shannon_entropy(members.mean(axis=0))
    scale = 2 * len(members) * max(np.log(members.shape[2]), 1.0)  # log C < 1 only for C <= 2, where it is .69 or 0
    result: NDArray[np.float64] = variation_ratio(members) + mean_entropy / scale
    return result


def variation_ratio(members: NDArray[np.float64]) -> NDArray[np.float64]:
    """1 - f_m / M of members' predictions (M, N, C) -> (N,).

    >>> variation_ratio(np.array([[[0.9, 0.1]], [[0.6, 0.4]], [[0.2, 0.8]], [[0.7, 0.3]]])).tolist()
    [0.25]
    """
    count, size, classes = members.shape
    votes = members.argmax(axis=2)  # (M, N)
    cells = votes + classes * np.arange(size)
    tally = np.bincount(cells.ravel(), minlength=size * classes).reshape(size, classes)
    result: NDArray[np.float64] = 1 - tally.max(axis=1) / count
    return result
