"""Where the best class is not probable."""

from __future__ import annotations

from kdal_core.acquisition.greedy import Selection
from kdal_core.acquisition.strategies.protocol import PoolScores, Strategy
from kdal_core.acquisition.strategies.ranking import ranked, settled


def least_confidence(pool: PoolScores) -> Selection:
    """Lowest probability of the predicted class first; score 1 - max_y P(y|x), 0 to 1 - 1/C.

    Args:
        pool: with probabilities; of a dense prediction, the mean of 1 - max_y P(y|x).

    Raises:
        InvalidInput: no probabilities, NaN, or rows that are none.

    Source: Lewis and Gale 1994; Settles, Active Learning Literature Survey, 2009, section 3.1.
    """
    return ranked(settled(pool.averaged("probabilities", lambda probabilities: 1 - probabilities.max(axis=1))))


STRATEGY = Strategy("least_confidence", least_confidence, frozenset({"probabilities"}))
