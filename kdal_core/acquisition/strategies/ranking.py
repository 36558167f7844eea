"""From scores or picks to an order of the whole pool."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kdal_core.acquisition.greedy import Selection

SCORE_DIGITS = 12


def ranked(scores: NDArray[np.float64]) -> Selection:
    """All N images by descending score (N,), equal scores in the pool's order; diversity is 0.

    >>> ranked(np.array([0.1, 0.7, 0.7])).indices.tolist()
    [1, 2, 0]
    """
    return followed_by(np.zeros(0, dtype=np.int64), np.zeros(0), scores)


def followed_by(picks: NDArray[np.int64], gains: NDArray[np.float64], scores: NDArray[np.float64]) -> Selection:
    """Picks (B,) with the scores they had when picked (B,), then all other images by descending score (N,).

    >>> followed_by(np.array([2]), np.array([9.0]), np.array([0.1, 0.7, 0.5])).indices.tolist()
    [2, 1, 0]
    """
    order = np.argsort(-scores, kind="stable")
    rest = order[~np.isin(order, picks)]
    indices = np.concatenate([picks.astype(np.int64), rest])
    return Selection(indices, np.concatenate([gains, scores[rest]]), np.zeros(len(indices), dtype=np.int64))


def settled(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Scores (N,) of order 1 on a grid of 1e-12: what is equal but for the order of a sum becomes equal.

    Predictions with the same entries in another order tie.

    >>> scores = settled(np.array([0.1 + 0.2, 0.3]))
    >>> bool(scores[0] == scores[1])
    True
    """
    return np.round(scores, SCORE_DIGITS)
