"""Gradients that would be large if the model were right, and that point in different directions."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kdal_core.acquisition.greedy import Selection
from kdal_core.acquisition.strategies.points import grid_points, squared_lengths
from kdal_core.acquisition.strategies.protocol import PROBABILITY_DIGITS, PoolScores
from kdal_core.acquisition.strategies.ranking import followed_by


def badge(pool: PoolScores) -> Selection:
    """k-means++ seeding over the gradients of the last layer, each image labelled as the model would.

    Args:
        pool: with probabilities (N, C) and features (N, D), the input of the last layer; seed; picks.

    Returns:
        Selection; the scores of the picks are their squared distance to the nearest pick before them (of the first,
        its squared length), so they need not descend.

    Raises:
        InvalidInput: NaN, arrays of different pools, or rows that are no probabilities.

    Source: Ash et al. 2020 (arXiv:1906.03671), algorithm 1: g = (p - onehot(argmax p)) ⊗ h. As in the official code
    (JordanAsh/badge, badge_sampling.py) and in scikit-activeml the first pick is the longest gradient, not a random
    one as in k-means++ proper, and each further one is drawn with probability proportional to D². P: when every
    image left equals a pick, the rest follows by index (scikit-activeml draws one); images behind the picks follow
    by their D².

    Time O(picks · N · (C + D)), memory O(N · (C + D)): the gradients, N · C · D numbers, are never made.
    """
    probabilities = pool.distributions("probabilities")
    residual = np.rint(probabilities * 10**PROBABILITY_DIGITS)  # whole numbers, as the features are: see points.py
    residual[np.arange(len(residual)), probabilities.argmax(axis=1)] -= 10**PROBABILITY_DIGITS
    points = grid_points(pool)
    picks, gains, distance = seeds(residual, points.pool, pool.picks, pool.generator())
    scale = (points.step / 10**PROBABILITY_DIGITS) ** 2
    return followed_by(picks, gains * scale, distance * scale)


def seeds(
    left: NDArray[np.float64], right: NDArray[np.float64], count: int, generator: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """k-means++ seeds of the outer products g_i = left_i ⊗ right_i, (N, C) and (N, D), the longest first.

    Inner products of outer products factorise, <g_i, g_j> = <left_i, left_j> · <right_i, right_j>, hence
    |g_i - g_j|² = |g_i|² + |g_j|² - 2 <left_i, left_j> <right_i, right_j>.

    Returns:
        Picks (B,), their D² when picked (B,), and D² of all rows after the last pick (N,); B < count where every
        row equals a pick.
    """
    lengths = squared_lengths(left) * squared_lengths(right)
    nearest = lengths.copy()
    picks: list[int] = []
    gains: list[float] = []
    product, inner = np.empty(len(lengths)), np.empty(len(lengths))
    while len(picks) < count:
        pick = draw(nearest, generator) if picks else int(lengths.argmax())
        if nearest[pick] <= 0:
            break
        picks.append(pick)
        gains.append(float(nearest[pick]))
        np.matmul(left, left[pick], out=inner)
        np.matmul(right, right[pick], out=product)
        product *= inner
        product *= -2
        product += lengths
        product += lengths[pick]
        if len(picks) == 1:  # the lengths chose the first one; they are no distances
            nearest[:] = product
        np.minimum(nearest, product, out=nearest)
        np.maximum(nearest, 0.0, out=nearest)  # rounding alone can take it below
        nearest[pick] = 0.0
    return np.array(picks, dtype=np.int64), np.array(gains), nearest


def draw(weights: NDArray[np.float64], generator: np.random.Generator) -> int:
    """An index drawn with a probability proportional to its weight (N,); one of weight 0 only if all are."""
    reached = np.cumsum(weights)
    found = int(np.searchsorted(reached, generator.random() * reached[-1], side="right"))
    return min(found, int(np.searchsorted(reached, reached[-1])))  # the product may round up to the whole sum
