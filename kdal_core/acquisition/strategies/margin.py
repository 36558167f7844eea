"""Where two classes are about equally probable."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kdal_core.acquisition.greedy import Selection
from kdal_core.acquisition.strategies.protocol import PoolScores, Strategy
from kdal_core.acquisition.strategies.ranking import ranked, settled


def margin(pool: PoolScores) -> Selection:
    """Smallest lead of the first class over the second first; score 1 - (p_1 - p_2), 0 to 1.

    Args:
        pool: with probabilities; of a dense prediction, the mean. P: with C = 1 there is no second class, and p_2 is 0.

    Raises:
        InvalidInput: no probabilities, NaN, or rows that are none.

    Source: Scheffer, Decomain and Wrobel 2001, Active Hidden Markov Models for Information Extraction.
    """
    return ranked(settled(pool.averaged("probabilities", closeness)))


STRATEGY = Strategy("margin", margin, frozenset({"probabilities"}))


def closeness(probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
    """1 - (p_1 - p_2) of distributions (N, C) -> (N,).

    >>> closeness(np.array([[0.5, 0.25, 0.25]])).tolist()
    [0.75]
    """
    if probabilities.shape[1] == 1:
        probabilities = np.pad(probabilities, ((0, 0), (0, 1)))
    top = np.partition(probabilities, -2, axis=1)
    result: NDArray[np.float64] = 1 - (top[:, -1] - top[:, -2])
    return result
