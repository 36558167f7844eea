"""Where to begin when nothing is labelled: no model says anything yet, so diversity alone decides."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kdal_core.acquisition.coverage import kernel_cover, unit_rows
from kdal_core.acquisition.greedy import MODES, Selection, greedy_select
from kdal_core.acquisition.neighbors import nearest_neighbors
from kdal_core.acquisition.shuffling import drawn_order
from kdal_core.acquisition.strategies.points import grid_points
from kdal_core.acquisition.strategies.protocol import PoolScores, rounded
from kdal_core.acquisition.strategies.ranking import followed_by
from kdal_core.validation import InvalidInput, as_matrix

WIDTH = 0.7
"""Of the kernel: so near, on the unit sphere of centred features, one photo begins to stand for another."""


def cold_start(
    features: ArrayLike, *, k: int = 10, mode: str = "coverage", seed: int = 0, budget: int | None = None
) -> Selection:
    """Order a whole pool by diversity alone: the same greedy pass with no uncertainty.

    Args:
        features: (N, D) of `cold_start_features`, or of any pretrained backbone.
        k: neighbours; a pool of N <= k images uses N - 1. The kernel has none.
        mode: of `greedy_select`; or "kernel", for features of pretrained networks: `kernel_cover`, as `kd_gap` goes on
            once there are labels.
        seed: of the order of images between which diversity sees no difference, as are most once every neighbourhood
            holds a pick.
        budget: of the kernel, images to pick with care; the rest follows by how little each is covered. None: all.

    Returns:
        Selection of all N images, best first. The first ones do not depend on the budget in a pool of up to 5,000.

    Raises:
        InvalidInput: NaN, or parameters out of range.
    """
    points = rounded(as_matrix("features", features))
    drawn = drawn_order(len(points), seed)
    if mode == "kernel":
        found = _by_kernel(points[drawn], len(points) if budget is None else budget)
    elif mode in MODES:
        neighbors = nearest_neighbors(points[drawn], min(k, max(len(points) - 1, 0)))
        found = greedy_select(np.zeros(len(points)), neighbors, len(points), 1.0, mode)
    else:
        raise InvalidInput(f"mode must be one of kernel, {', '.join(MODES)}, not {mode!r}.")
    return replace(found, indices=drawn[found.indices])


def _by_kernel(points: NDArray[np.float64], budget: int) -> Selection:
    """The pool in the order of the points, by kernel coverage; scores as `maxherding` has them."""
    pool = PoolScores(features=points, budget=budget)
    found = kernel_cover(unit_rows(grid_points(pool)), np.ones(len(points)), WIDTH, pool.picks)
    return followed_by(found.picks, found.gains / max(len(points), 1), found.left / max(len(points), 1))
