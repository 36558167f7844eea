"""Uncertain images should be like a labelled one: coverage that turns into uncertainty as labels grow in number."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kdal_core.acquisition.coverage import GRID, UnitRows, kernel_cover, unit_rows
from kdal_core.acquisition.greedy import Selection
from kdal_core.acquisition.strategies.margin import closeness
from kdal_core.acquisition.strategies.points import BLOCK, grid_points, squared_lengths
from kdal_core.acquisition.strategies.protocol import PoolScores, Strategy
from kdal_core.acquisition.strategies.ranking import followed_by, settled
from kdal_core.validation import InvalidInput, as_nonnegative

WIDEST = 1.0  # of the kernel, where fewer than two images are labelled


def uherding(pool: PoolScores, *, temperature: float = 1.0) -> Selection:
    """As maxherding, each image to be covered counting by its margin, the kernel narrowing as labels come closer.

    Args:
        pool: with features (N, D), which are centred and normalised; labelled_features (L, D) where there are any;
            probabilities, without which all images count alike as long as nothing is labelled; picks.
        temperature: > 0, by which the logits are divided: as 1 / temperature the power of the probabilities. 1 where
            they are calibrated already.

    Returns:
        Selection; scores are what the mean of U(x) max_v K(x, v) over pool and labelled images grows by, 0 to 1.

    Raises:
        InvalidInput: NaN, infinite features, labelled features of another width, no probabilities where images are
            labelled, or a temperature that is not positive.

    Source: Bae et al. 2025 (arXiv:2412.20644), uncertainty coverage, its greedy algorithm and both adaptations: U is
    the margin, 1 - (p_1 - p_2), of temperature-scaled predictions; the kernel's width is the smallest distance
    between two labelled images. P: the paper finds the temperature on labels that are held out, here it is given;
    copies among the labelled images do not count for the width, which is at most 1, as without labels; where no image
    is uncertain all count alike. Centring, candidates and images behind the picks as in `maxherding`.
    """
    if as_nonnegative("temperature", temperature) == 0:
        raise InvalidInput("temperature must be more than 0.")
    points = grid_points(pool)
    rows = unit_rows(points)
    worth: NDArray[np.float64] = np.ones(len(rows.pool))
    if pool.probabilities is not None or len(rows.labelled):
        unsure = settled(pool.averaged("probabilities", lambda block: closeness(tempered(block, temperature))))
        worth = unsure if unsure.any() else worth
    found = kernel_cover(rows, worth, kernel_width(rows), pool.picks)
    images = max(len(rows.pool) + len(rows.labelled), 1)
    return followed_by(found.picks, found.gains / images, found.left / images)


STRATEGY = Strategy("uherding", uherding, frozenset({"features", "labelled_features", "probabilities"}), cold=True)


def tempered(probabilities: NDArray[np.float64], temperature: float) -> NDArray[np.float64]:
    """softmax(log p / temperature) of distributions (..., C).

    >>> tempered(np.array([[0.8, 0.2]]), 2.0).round(3).tolist()
    [[0.667, 0.333]]
    """
    if temperature == 1:
        return probabilities
    largest = probabilities.max(axis=-1, keepdims=True)
    powers = (probabilities / largest) ** (1 / temperature)
    result: NDArray[np.float64] = powers / powers.sum(axis=-1, keepdims=True)
    return result


def kernel_width(rows: UnitRows) -> float:
    """The smallest distance between two labelled images that differ, at most 1; 1 where there are no two."""
    labelled = rows.labelled.astype(np.float64)
    lengths, smallest = squared_lengths(labelled), (WIDEST * GRID) ** 2
    size = max(1, BLOCK // max(len(labelled), 1))
    for start in range(0, len(labelled), size):
        squared = labelled[start : start + size] @ (-2 * labelled.T)
        squared += lengths
        squared += lengths[start : start + size, None]
        smallest = min(smallest, float(squared[squared > 0].min(initial=smallest)))
    return float(np.sqrt(smallest)) / GRID
