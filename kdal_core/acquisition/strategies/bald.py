"""Where passes with dropout are each sure of themselves and disagree: what a label would tell about the weights."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kdal_core.acquisition.greedy import Selection
from kdal_core.acquisition.strategies.entropy import shannon_entropy
from kdal_core.acquisition.strategies.protocol import PoolScores, Strategy
from kdal_core.acquisition.strategies.ranking import ranked, settled

BLOCK = 1 << 16  # probabilities held at a time, 512 kB: they stay in the cache


def bald(pool: PoolScores) -> Selection:
    """Highest mutual information between label and weights first; scores in nats, 0 to log C.

    Args:
        pool: with dropout, M >= 2 stochastic passes; of dense predictions, the mean.

    Raises:
        InvalidInput: no passes, NaN, or rows that are no probabilities.

    Source: Houlsby et al. 2011 (arXiv:1112.5745), eq. 2; with dropout Gal, Islam and Ghahramani 2017
    (arXiv:1703.02910). P: equal but for rounding (1e-12) is equal.
    """
    return ranked(settled(pool.averaged("dropout", mutual_information)))


STRATEGY = Strategy("bald", bald, frozenset({"dropout"}))


def mutual_information(samples: NDArray[np.float64]) -> NDArray[np.float64]:
    """H(mean of p) - mean of H(p) over M predictions: samples (M, N, C) -> (N,), in nats, never below 0.

    >>> mutual_information(np.array([[[1.0, 0.0], [0.5, 0.5]], [[0.0, 1.0], [0.5, 0.5]]])).round(4).tolist()
    [0.6931, 0.0]
    """
    passes, size, classes = samples.shape
    rows = max(1, BLOCK // max(passes * classes, 1))
    result = np.zeros(size)
    for start in range(0, size, rows):
        block = samples[:, start : start + rows]
        expected = shannon_entropy(block).mean(axis=0)
        result[start : start + rows] = shannon_entropy(block.mean(axis=0)) - expected
    return np.maximum(result, 0.0)  # rounding alone can take it below
