"""Where two classes are about equally probable."""

from __future__ import annotations

import numpy as np

from kdal_core.acquisition.greedy import Selection
from kdal_core.acquisition.strategies.protocol import PoolScores
from kdal_core.acquisition.strategies.ranking import ranked, settled


def margin(pool: PoolScores) -> Selection:
    """Smallest lead of the first class over the second first; score 1 - (p_1 - p_2), 0 to 1.

    Args:
        pool: with probabilities (N, C). P: with C = 1 there is no second class, and p_2 is 0.

    Raises:
        InvalidInput: no probabilities, NaN, or rows that are none.

    Source: Scheffer, Decomain and Wrobel 2001, Active Hidden Markov Models for Information Extraction.
    """
    probabilities = pool.distributions("probabilities")
    if probabilities.shape[1] == 1:
        probabilities = np.pad(probabilities, ((0, 0), (0, 1)))
    top = np.partition(probabilities, -2, axis=1)
    return ranked(settled(1 - (top[:, -1] - top[:, -2])))
