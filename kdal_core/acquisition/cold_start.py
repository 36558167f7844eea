"""Where to begin when nothing is labelled: no model says anything yet, so diversity alone decides."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike

from kdal_core.acquisition.greedy import Selection, greedy_select
from kdal_core.acquisition.neighbors import nearest_neighbors
from kdal_core.acquisition.shuffling import drawn_order
from kdal_core.acquisition.strategies.protocol import rounded
from kdal_core.validation import as_matrix


def cold_start(features: ArrayLike, *, k: int = 10, mode: str = "coverage", seed: int = 0) -> Selection:
    """Order a whole pool by diversity alone: the same greedy pass with no uncertainty.

    Args:
        features: (N, D) of `cold_start_features`, or of any pretrained backbone.
        k: neighbours; a pool of N <= k images uses N - 1.
        mode: of `greedy_select`.
        seed: of the order of images between which diversity sees no difference, as are most once every neighbourhood
            holds a pick.

    Returns:
        Selection of all N images, best first.

    Raises:
        InvalidInput: NaN, or parameters out of range.
    """
    points = rounded(as_matrix("features", features))
    drawn = drawn_order(len(points), seed)
    neighbors = nearest_neighbors(points[drawn], min(k, max(len(points) - 1, 0)))
    found = greedy_select(np.zeros(len(points)), neighbors, len(points), 1.0, mode)
    return replace(found, indices=drawn[found.indices])
