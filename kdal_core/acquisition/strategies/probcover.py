"""As many images as possible within reach of a labelled one: maximum coverage by balls, greedily."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kdal_core.acquisition.greedy import Selection
from kdal_core.acquisition.strategies.points import BLOCK, Points, grid_points, squared_lengths, unit_points
from kdal_core.acquisition.strategies.protocol import PoolScores, Strategy
from kdal_core.acquisition.strategies.ranking import followed_by
from kdal_core.acquisition.strategies.typiclust import clusters
from kdal_core.validation import InvalidInput, as_count, as_nonnegative

SAMPLE = 2_000  # images whose ball is looked at to choose delta
DIAMETER = 2.0  # of the unit sphere
ANY = np.iinfo(np.int64).max


def probcover(pool: PoolScores, *, delta: float | None = None, alpha: float = 0.95, classes: int = 10) -> Selection:
    """Each time the image whose ball holds the most images that no ball of a labelled or picked one holds.

    Args:
        pool: with features (N, D), which are normalised, and, where there are any, labelled_features (L, D); seed;
            picks.
        delta: radius of the balls on the unit sphere, 0 to 2; None: `pure_radius` chooses it.
        alpha: share of balls that have to be pure, 0 < alpha <= 1; for delta=None.
        classes: pseudo-labels, about as many as there are classes; for delta=None.

    Returns:
        Selection; scores are the images newly covered; once all are covered, minus the number of balls that hold the
        image already. They never rise within the picks, and the first picks do not depend on how many are asked for.

    Raises:
        InvalidInput: NaN, infinite features, labelled features of another width, or parameters out of range.

    Source: Yehuda et al. 2022 (arXiv:2205.11320), algorithm 1; balls are closed, |x - x'| <= delta. P: when all are
    covered, on with the image that the fewest balls hold, of those the one with the largest ball; images behind the
    picks follow by what they would newly cover, then by how few balls hold them.

    The graph of all pairs within delta is never stored: how many images each ball newly covers is counted in
    blocks and lowered by blocks, at most O(N² D) in all, and O(N D) for each pick once all are covered.
    """
    radius = None if delta is None else as_nonnegative("delta", delta)
    if not 0 < alpha <= 1:
        raise InvalidInput(f"alpha must be above 0 and at most 1, not {alpha!r}.")
    as_count("classes", classes, low=1, high=ANY)
    points = unit_points(grid_points(pool))
    if radius is None:
        radius = pure_radius(points, alpha, classes, pool.generator())
    picks, gains, scores = widest_cover(points, min(radius, DIAMETER + 1), pool.picks)
    return followed_by(picks, gains, scores)


STRATEGY = Strategy("probcover", probcover, frozenset({"features", "labelled_features"}), cold=True)


def pure_radius(points: Points, alpha: float, classes: int, generator: np.random.Generator) -> float:
    """The largest delta at which a share alpha of the balls is pure: holds images of one pseudo-label only.

    The ball of x is pure as long as delta is less than the distance from x to the nearest image of another
    pseudo-label, so delta is a quantile of those distances. Pseudo-labels are k-means clusters.

    Source: Yehuda et al. 2022 (arXiv:2205.11320), the choice of delta by the purity of balls; they and
    scikit-activeml search a list of radii. P: the exact quantile, over at most 2,000 images drawn from pool and
    labelled ones (their balls hold any image).
    """
    rows = points.everything
    if len(rows) == 0:
        return 0.0
    labels = clusters(rows, classes, generator)
    drawn = generator.permutation(len(rows))[:SAMPLE]
    gap = np.sort(squared_to_other_labels(rows, labels, drawn))
    impure = int(np.floor((1 - alpha) * len(gap) + 1e-9))  # this many balls may hold another label
    bound = gap[min(impure, len(gap) - 1)]
    if np.isinf(bound):  # one cluster: no ball is impure
        return DIAMETER
    return float(np.sqrt(max(bound - 0.5, 0.0)) * points.step)  # whole numbers: less than the bound


def squared_to_other_labels(
    rows: NDArray[np.float64], labels: NDArray[np.int64], chosen: NDArray[np.int64]
) -> NDArray[np.float64]:
    """(n,) squared distance of the chosen rows to the nearest row of another label; inf where there is none."""
    lengths = squared_lengths(rows)
    result = np.empty(len(chosen))
    size = max(1, BLOCK // len(rows))
    for start in range(0, len(chosen), size):
        block = chosen[start : start + size]
        distance = rows[block] @ (-2 * rows.T)
        distance += lengths
        distance[labels[block][:, None] == labels] = np.inf
        result[start : start + size] = distance.min(axis=1) + lengths[block]
    return result


class Balls:
    """Who lies within delta of whom, computed when asked: rows (N, D) of whole numbers, delta in their unit."""

    def __init__(self, rows: NDArray[np.float64], delta: float) -> None:
        # a product of these two gives -|x - y|² / 2 without rounding: x·y - |y|² / 2 - |x|² / 2
        half, one = -squared_lengths(rows)[:, None] / 2, np.ones((len(rows), 1))
        self._left = np.concatenate([rows, one, half], axis=1)
        self._right = np.concatenate([rows, half, one], axis=1)
        self._reach = -(delta**2) / 2

    def of(self, center: int) -> NDArray[np.bool_]:
        """(N,) whether each row lies in the ball of this one."""
        result: NDArray[np.bool_] = self._left @ self._right[center] >= self._reach
        return result

    def degrees(self) -> NDArray[np.float64]:
        """(N,) how many rows the ball of each row holds, itself included; of each pair one distance is computed."""
        size = len(self._left)
        result, start = np.zeros(size), 0
        while start < size:
            stop = min(start + max(1, BLOCK // (size - start)), size)
            held = (self._left[start:stop] @ self._right[start:].T >= self._reach).astype(np.float32)
            result[start:stop] += held.sum(axis=1)
            result[stop:] += held[:, stop - start :].sum(axis=0)
            start = stop
        return result

    def counts(self, members: NDArray[np.int64]) -> NDArray[np.float64]:
        """(N,) how many of these members the ball of each row holds."""
        result = np.zeros(len(self._left))
        if len(members) == 0:
            return result
        targets = np.ascontiguousarray(self._right[members].T)
        ones = np.ones(len(members), dtype=np.float32)
        size = max(1, BLOCK // len(members))
        for start in range(0, len(result), size):
            held = self._left[start : start + size] @ targets >= self._reach
            result[start : start + size] = held.astype(np.float32) @ ones  # below 2^24: exact
        return result


def widest_cover(
    points: Points, delta: float, count: int
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """Greedy maximum coverage of the pool; ties by the lowest index.

    Args:
        points: pool and labelled images.
        delta: radius of a ball, in units of the features.
        count: picks, 0 to N.

    Returns:
        Picks (B,), their gains when picked (B,), and the scores of all images after the last pick (N,).
    """
    size = len(points.pool)
    balls = Balls(points.everything, delta / points.step)
    known = balls.counts(np.arange(size, size + len(points.labelled)))[:size]  # balls of labelled ones around each
    balls = Balls(points.pool, delta / points.step)
    uncovered = known == 0
    degree = balls.degrees()
    gain = degree - balls.counts(np.flatnonzero(~uncovered))
    picked = np.zeros(size, dtype=np.bool_)
    picks, gains = np.empty(count, dtype=np.int64), np.empty(count)
    for i in range(count):
        if uncovered.any():
            pick = int(np.where(picked, -1.0, gain).argmax())
            gains[i] = gain[pick]
        else:
            fewest = ~picked & (known == known[~picked].min())
            pick = int(np.where(fewest, degree, -1.0).argmax())
            gains[i] = -known[pick]
        picks[i], picked[pick] = pick, True
        ball = balls.of(pick)
        known += ball
        new, uncovered = uncovered & ball, uncovered & ~ball
        if new.sum() <= uncovered.sum():
            gain -= balls.counts(np.flatnonzero(new))
        else:  # the fewer of both are counted
            gain = balls.counts(np.flatnonzero(uncovered))
    return picks, gains, np.where(gain > 0, gain, -known)
