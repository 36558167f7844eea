"""Where predictions change when features drop out: one image from each cluster of those."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kdal_core.acquisition.greedy import Selection
from kdal_core.acquisition.strategies.points import Points, grid_points, squared_lengths
from kdal_core.acquisition.strategies.protocol import PoolScores, Strategy
from kdal_core.acquisition.strategies.ranking import followed_by
from kdal_core.acquisition.strategies.typiclust import clusters


def dropquery(pool: PoolScores) -> Selection:
    """Of the images whose class most passes with dropout see otherwise, the one nearest the middle of each cluster.

    Args:
        pool: with features (N, D); labelled_features (L, D) where there are any; probabilities (N, C) and dropout
            (M, N, C), of M passes with dropout on the features (the paper's M is 3), without which every image is a
            candidate as long as nothing is labelled; seed; picks.

    Returns:
        Selection; scores of the picks are minus the distance to the middle of their cluster, those of the others the
        share of passes that disagree. They do not descend.

    Raises:
        InvalidInput: NaN, infinite features, no predictions where images are labelled, or rows that are none.

    Source: Gupte et al. 2024 (arXiv:2401.14555), section 4: an image is a candidate where more than half of the
    passes predict another class than the whole network; k-means with as many clusters as picks; of each cluster the
    candidate nearest its middle; the first batch is made the same way of all images. Dropout has the rate 0.75 there,
    which is the caller's business here. P: a dense prediction disagrees by the share of its distributions whose class
    changes. Where there are fewer candidates than picks, those that most passes disagree on follow them, until there
    are enough. Images behind the picks follow by that share.
    """
    points = grid_points(pool)
    dissent: NDArray[np.float64] = np.zeros(pool.size)
    wanted = pool.size
    if pool.dropout is not None or pool.probabilities is not None or len(points.labelled):
        dissent = disagreement(pool)
        wanted = max(pool.picks, int((dissent > 0.5).sum()))
    candidates = np.sort(np.argsort(-dissent, kind="stable")[:wanted])
    picks, distance = middles(points, candidates, pool.picks, pool.generator())
    return followed_by(picks, -distance, dissent)


STRATEGY = Strategy(
    "dropquery", dropquery, frozenset({"features", "labelled_features", "probabilities", "dropout"}), cold=True
)


def disagreement(pool: PoolScores) -> NDArray[np.float64]:
    """(N,) the share of passes with dropout whose likeliest class is not that of the network without."""
    usual = np.concatenate([block.argmax(axis=-1) for _, block in pool.blocks("probabilities")])
    result = np.empty(pool.size)
    for rows, block in pool.blocks("dropout"):
        other = block.argmax(axis=-1) != usual[rows]  # (M, n, ...)
        result[rows] = np.moveaxis(other, 0, -1).reshape(other.shape[1], -1).mean(axis=1)
    return result


def middles(
    points: Points, candidates: NDArray[np.int64], count: int, generator: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Of each k-means cluster of some images the one nearest its mean, the largest cluster first.

    Args:
        points: of which `pool` is read.
        candidates: (M,) row numbers, ascending, M >= count.
        count: picks.
        generator: of k-means.

    Returns:
        Picks (count,) and their distance to the mean (count,) in units of the features; where there are fewer distinct
        images than picks, clusters give their next nearest, in turns.
    """
    rows = points.pool[candidates]
    if count == 0:
        return np.zeros(0, dtype=np.int64), np.zeros(0)
    labels = clusters(rows, count, generator)
    sizes = np.bincount(labels)
    means = np.stack([np.bincount(labels, column) for column in rows.T], axis=1) / np.maximum(sizes, 1)[:, None]
    squared = np.round(squared_lengths(rows - means[labels]), 3)  # so that copies tie
    order = np.lexsort((np.arange(len(rows)), squared, labels))
    turn = np.empty(len(rows), dtype=np.int64)  # 0 for the nearest of its cluster, 1 for the next
    turn[order] = np.arange(len(rows)) - np.searchsorted(labels[order], labels[order])
    chosen = np.lexsort((np.arange(len(rows)), -sizes[labels], turn))[:count]
    return candidates[chosen], np.sqrt(squared[chosen]) * points.step
