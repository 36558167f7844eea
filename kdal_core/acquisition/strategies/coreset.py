"""No image far from a labelled one: k-center, greedily."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kdal_core.acquisition.greedy import Selection
from kdal_core.acquisition.strategies.points import grid_points, nearest_squared, squared_lengths, squared_to
from kdal_core.acquisition.strategies.protocol import PoolScores, Strategy
from kdal_core.acquisition.strategies.ranking import followed_by


def coreset(pool: PoolScores) -> Selection:
    """Each time the image farthest from its nearest center, a center being labelled or picked.

    Args:
        pool: with features (N, D) and, where there are any, labelled_features (L, D); picks.

    Returns:
        Selection; scores are Euclidean distances to the nearest center, those of the picks when picked. They never
        rise. The first picks do not depend on how many are asked for.

    Raises:
        InvalidInput: NaN, infinite features, or labelled features of another width.

    Source: Sener and Savarese 2018 (arXiv:1708.00489), algorithm 1. P: with nothing labelled the first pick is the
    image nearest the mean, and its score the largest distance from it. Images behind the picks follow by distance.

    Time O((picks + L) · N · D).
    """
    points = grid_points(pool)
    picks, gains, distance = farthest_first(points.pool, nearest_squared(points.pool, points.labelled), pool.picks)
    return followed_by(picks, np.sqrt(gains) * points.step, np.sqrt(distance) * points.step)


STRATEGY = Strategy("coreset", coreset, frozenset({"features", "labelled_features"}), cold=True)


def farthest_first(
    rows: NDArray[np.float64], nearest: NDArray[np.float64], count: int
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """`count` rows of (N, D) whole numbers, each the farthest from the centers so far; ties by the lowest index.

    Args:
        rows: (N, D).
        nearest: (N,) squared distance to the nearest center; inf where there is none yet.
        count: 0 to N.

    Returns:
        Picks (B,), their squared distances when picked (B,), and those of all rows after the last pick (N,).
    """
    lengths = squared_lengths(rows)
    nearest = nearest.copy()
    open_ = nearest.copy()  # the same, but -1 for rows that are picked: of copies each comes once
    picks, gains = np.empty(count, dtype=np.int64), np.empty(count)
    for i in range(count):
        pick = central(rows, lengths) if np.isinf(nearest[0]) else int(open_.argmax())
        distance = squared_to(rows[pick], rows, lengths)
        gains[i] = distance.max() if np.isinf(nearest[pick]) else nearest[pick]
        picks[i] = pick
        np.minimum(nearest, distance, out=nearest)
        np.minimum(open_, distance, out=open_)
        open_[pick] = -1.0
    if count == 0 and len(rows) and np.isinf(nearest[0]):  # nobody is a center: by distance from the middle
        nearest = squared_to(rows[central(rows, lengths)], rows, lengths)
    return picks, gains, nearest


def central(rows: NDArray[np.float64], lengths: NDArray[np.float64]) -> int:
    """The row nearest the mean of rows (N, D), given their squared lengths (N,); ties by the lowest index."""
    # N |x - mean|² less what is the same for all; whole numbers, so copies tie
    return int((len(rows) * lengths - 2 * (rows @ rows.sum(axis=0))).argmin())
