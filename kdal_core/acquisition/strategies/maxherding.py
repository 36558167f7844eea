"""Every image of the pool should be like a labelled one: coverage by a soft kernel, greedily."""

from __future__ import annotations

import numpy as np

from kdal_core.acquisition.coverage import kernel_cover, unit_rows
from kdal_core.acquisition.greedy import Selection
from kdal_core.acquisition.strategies.points import grid_points
from kdal_core.acquisition.strategies.protocol import PoolScores, Strategy
from kdal_core.acquisition.strategies.ranking import followed_by
from kdal_core.validation import InvalidInput, as_nonnegative


def maxherding(pool: PoolScores, *, width: float = 1.0) -> Selection:
    """Each time the image that makes the pool most like its nearest labelled or picked image, on average.

    Args:
        pool: with features (N, D), which are centred and normalised, and, where there are any, labelled_features
            (L, D); picks.
        width: of the Gaussian kernel exp(-|x - x'|² / width²) on the unit sphere, > 0.

    Returns:
        Selection; scores are what the mean of max_v K(x, v) over pool and labelled images grows by, 0 to 1. They never
        rise within the picks, and in a pool of up to 5,000 images the first picks do not depend on how many are asked
        for.

    Raises:
        InvalidInput: NaN, infinite features, labelled features of another width, or a width that is not positive.

    Source: Bae et al. 2024 (arXiv:2407.12212), MaxHerding: greedy generalised coverage, with the kernel of
    their experiments.
    P: features are centred before they are normalised, and above 5,000 images the picks come from a random choice of
    as many (`kernel_cover`); images behind the picks follow by how much their own coverage lacks.
    """
    if as_nonnegative("width", width) == 0:
        raise InvalidInput("width must be more than 0.")
    points = grid_points(pool)
    found = kernel_cover(unit_rows(points), np.ones(len(points.pool)), width, pool.picks)
    images = max(len(points.pool) + len(points.labelled), 1)
    return followed_by(found.picks, found.gains / images, found.left / images)


STRATEGY = Strategy("maxherding", maxherding, frozenset({"features", "labelled_features"}), cold=True)
