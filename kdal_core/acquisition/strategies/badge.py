"""Gradients that would be large if the model were right, and that point in different directions."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from kdal_core.acquisition.greedy import Selection
from kdal_core.acquisition.strategies.points import grid_points, grid_step, squared_lengths
from kdal_core.acquisition.strategies.protocol import PROBABILITY_DIGITS, PoolScores, Strategy
from kdal_core.acquisition.strategies.ranking import followed_by

REDUCED = 256
"""Numbers that stand for the residuals of a dense prediction."""


def badge(pool: PoolScores) -> Selection:
    """k-means++ seeding over the gradients of the last layer, each image labelled as the model would.

    Args:
        pool: with probabilities and features (N, D), the input of the last layer; seed; picks.

    Returns:
        Selection; the scores of the picks are their squared distance to the nearest pick before them (of the first,
        its squared length), so they need not descend.

    Raises:
        InvalidInput: NaN, arrays of different pools, or rows that are no probabilities.

    Source: Ash et al. 2020 (arXiv:1906.03671), algorithm 1: g = (p - onehot(argmax p)) ⊗ h. As in the official code
    (JordanAsh/badge, badge_sampling.py) and in scikit-activeml the first pick is the longest gradient, not a random
    one as in k-means++ proper, and each further one is drawn with probability proportional to D². P: when every
    image left equals a pick, no more are drawn; images behind the picks follow by their D².

    A dense prediction has M distributions over K places; its gradient is that of a last layer with M · K outputs over
    the image's features. P: more than `REDUCED` of these residuals are multiplied with random signs, the same ones in
    every pool, into that many, which keeps inner products within about 6% of the two lengths (Achlioptas 2003).

    Time O(picks · N · (C + D)), memory O(N · (C + D)): the gradients, N · C · D numbers, are never made.
    """
    residual, one = residuals(pool)
    points = grid_points(pool)
    picks, gains, distance = seeds(residual, points.pool, pool.picks, pool.generator())
    scale = (points.step / one) ** 2
    return followed_by(picks, gains * scale, distance * scale)


STRATEGY = Strategy("badge", badge, frozenset({"probabilities", "features"}))


def residuals(pool: PoolScores) -> tuple[NDArray[np.float64], float]:
    """p - onehot(argmax p) of each of an image's distributions as whole numbers (N, C), and how many stand for 1."""
    layout = pool.layout("probabilities")
    width = math.prod(layout)
    project = len(layout) > 1 and width > REDUCED
    signs = np.random.default_rng(0).choice([-1.0, 1.0], (width, REDUCED)) if project else np.zeros((0, 0))
    found = np.zeros((pool.size, REDUCED if project else width))
    for rows, block in pool.blocks("probabilities"):
        whole = np.rint(block * 10**PROBABILITY_DIGITS)  # as the features are, see points.py: sums of them are exact
        likeliest = block.argmax(axis=-1)[..., None]
        chosen = np.take_along_axis(whole, likeliest, axis=-1)
        np.put_along_axis(whole, likeliest, chosen - 10**PROBABILITY_DIGITS, axis=-1)
        flat = whole.reshape(len(whole), width)
        found[rows] = flat @ signs if project else flat
    if not project:
        return found, 10**PROBABILITY_DIGITS
    step = grid_step(float(np.abs(found).max(initial=0.0)), PROBABILITY_DIGITS)  # so that squares are exact, too
    return np.rint(found / step), 10**PROBABILITY_DIGITS * math.sqrt(REDUCED) / step


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
