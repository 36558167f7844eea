"""No prediction far from that of a labelled image: k-center in the space of probabilities."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kdal_core.acquisition.greedy import Selection
from kdal_core.acquisition.strategies.coreset import farthest_first
from kdal_core.acquisition.strategies.points import nearest_squared
from kdal_core.acquisition.strategies.protocol import PROBABILITY_DIGITS, PoolScores, Strategy
from kdal_core.acquisition.strategies.ranking import followed_by
from kdal_core.validation import InvalidInput, as_matrix


def pcoreset(pool: PoolScores) -> Selection:
    """Each time the image whose prediction is farthest from those of all labelled and picked images.

    Args:
        pool: with probabilities (N, C) and, where there are any, labelled_probabilities (L, C) of the same network;
            picks.

    Returns:
        Selection; scores are Euclidean distances of distributions, 0 to sqrt(2), of the picks when picked. They never
        rise within the picks, and the first picks do not depend on how many are asked for.

    Raises:
        InvalidInput: NaN, rows that are no probabilities, or labelled ones of other classes.

    Source: PCoreSet, Kang et al. 2025 (arXiv:2506.00910): greedy k-center as in `coreset`, with the distance
    |p(x) - p(x')|. P: with nothing labelled the first pick is the image nearest the mean prediction; a dense
    prediction is one long row. Images behind the picks follow by distance.

    Time O((picks + L) · N · C).
    """
    blocks = [block.reshape(len(block), -1) for _, block in pool.blocks("probabilities")]
    rows = whole(np.concatenate(blocks))
    labelled = rows[:0]
    if pool.labelled_probabilities is not None and len(pool.labelled_probabilities):
        given = np.asarray(pool.labelled_probabilities)
        labelled = whole(as_matrix("labelled_probabilities", given.reshape(len(given), -1)))
    if labelled.shape[1] != rows.shape[1]:
        raise InvalidInput(
            f"labelled_probabilities has {labelled.shape[1]} columns, probabilities {rows.shape[1]}; use one network."
        )
    picks, gains, distance = farthest_first(rows, nearest_squared(rows, labelled), pool.picks)
    one = 10.0**PROBABILITY_DIGITS
    return followed_by(picks, np.sqrt(gains) / one, np.sqrt(np.maximum(distance, 0)) / one)


STRATEGY = Strategy("pcoreset", pcoreset, frozenset({"probabilities"}), uses=frozenset({"labelled_probabilities"}))


def whole(probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
    """Millionths, so that distances are exact, see points.py."""
    result: NDArray[np.float64] = np.rint(probabilities * 10**PROBABILITY_DIGITS)
    return result
