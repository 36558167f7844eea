"""The lane paper's answer, where distillation gaps are large and one-sided, spread over the pool in one of two ways."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from kdal_core.acquisition.coverage import GRID, UnitRows, kernel_cover, unit_rows
from kdal_core.acquisition.gaps import four_case_uncertainty, uncertainty
from kdal_core.acquisition.greedy import MODES, Selection, greedy_select
from kdal_core.acquisition.neighbors import nearest_neighbors
from kdal_core.acquisition.rarity import rarity as rarity_of
from kdal_core.acquisition.strategies.points import grid_points, nearest_squared
from kdal_core.acquisition.strategies.protocol import PoolScores, Strategy
from kdal_core.acquisition.strategies.ranking import followed_by
from kdal_core.validation import InvalidInput, as_nonnegative


def kd_gap(
    pool: PoolScores,
    *,
    k: int = 10,
    beta: float = 0.1,
    eps: float = 1.0,
    mode: str = "auto",
    formula: str = "published",
    rarity: float = 0.0,
) -> Selection:
    """Where S-KD, S and T disagree (Uncr): cover such images on T's features, or join Uncr with reverse neighbours.

    mode="kernel", for features of pretrained networks: the picks make the pool as much like its nearest labelled or
    picked image as they can, sum over x of Uncr(x) · max_v exp(-|x - v|² / w²) on T's features, an image counting the
    more the more the models disagree on it. Labelled images count as picked. The width w is the median distance of the
    pool to its nearest labelled image (1 where nothing is labelled): it shrinks as labels grow in number, from regions
    to single images. k and beta do nothing then.

    The other modes are the paper's sum and what is close to it: standardised Uncr + beta · Div, greedily, where Div
    counts reverse neighbours in the pool. Uncr is standardised (mean 0, deviation 1), so that beta means the same in
    every round.

    Args:
        pool: with d_ss, d_st and features; for the kernel teacher_features (N, E) and, where there are any,
            labelled_teacher_features (L, E), instead of features, and picks; objects where rarity is not 0.
        k: neighbours; a pool of N <= k images uses N - 1.
        beta: weight of diversity against standardised uncertainty.
        eps: of `uncertainty`, in the gaps' unit.
        mode: "kernel", or one of `greedy_select`, of which "score" is the paper's; "auto" is "kernel" where
            teacher_features are given, and else "coverage".
        formula: "published" is `uncertainty`, "four_case" is `four_case_uncertainty` (eps unused).
        rarity: weight of standardised `kdal_core.acquisition.rarity` beside standardised Uncr, >= 0: with 1 an image
            counts for what it shows of rare classes as much as for where the models disagree. For the kernel both are
            divided by their mean instead.

    The defaults were chosen on validation images, of MNIST, of BCCD (rarity = 1 for boxes) and, for the kernel, of
    photos of clothes and streets, see docs/results.md.

    Raises:
        InvalidInput: NaN, shapes that do not fit, or parameters out of range.

    Source: lane paper, Uncr and S_score; standardising, k, beta and rarity are our choice (methods.md, section 2). The
    kernel: generalised coverage of Bae et al. 2024 (arXiv:2407.12212), weighed as in Bae et al. 2025
    (arXiv:2412.20644); Uncr as the weight, T's features and the width are our choice.
    """
    d_ss, d_st = pool.vector("d_ss"), pool.vector("d_st")
    if k < 1:
        raise InvalidInput(f"k must be at least 1, not {k}.")
    beta = as_nonnegative("beta", beta)
    if mode not in ("auto", "kernel", *MODES):
        raise InvalidInput(f"mode must be one of auto, kernel, {', '.join(MODES)}, not {mode!r}.")
    if formula not in FORMULAS:
        raise InvalidInput(f"formula must be one of {', '.join(FORMULAS)}, not {formula!r}.")
    scores = uncertainty(d_ss, d_st, eps) if formula == "published" else four_case_uncertainty(d_ss, d_st)
    rare = rarity_of(pool.matrix("objects")) if as_nonnegative("rarity", rarity) else None
    if mode == "auto":
        mode = "coverage" if pool.teacher_features is None else "kernel"
    if mode == "kernel":
        worth = relative(scores) if rare is None else relative(scores) + rarity * relative(rare)
        return covered(pool, worth)
    worth = standardized(scores) if rare is None else standardized(scores) + rarity * standardized(rare)
    neighbors = nearest_neighbors(pool.matrix("features"), min(k, max(pool.size - 1, 0)))
    return greedy_select(worth, neighbors, pool.size, beta, mode)


STRATEGY = Strategy(
    "kd_gap",
    kd_gap,
    frozenset({"d_ss", "d_st", "features"}),
    uses=frozenset({"teacher_features", "labelled_teacher_features"}),
    more={"rarity": "objects"},
)


def covered(pool: PoolScores, worth: NDArray[np.float64]) -> Selection:
    """The pool by kernel coverage of T's features, each image counting by its worth (N,); all alike if none has any."""
    points = grid_points(pool, "teacher_features", "labelled_teacher_features")
    rows = unit_rows(points)
    weights = worth if worth.any() else np.ones(len(worth))
    found = kernel_cover(rows, weights, typical_distance(rows), pool.picks)
    images = max(len(rows.pool) + len(rows.labelled), 1)
    return followed_by(found.picks, found.gains / images, found.left / images)


def typical_distance(rows: UnitRows) -> float:
    """The median distance of a pool image to its nearest labelled one, above 0; 1 where nothing is labelled."""
    if not len(rows.labelled) or not len(rows.pool):
        return 1.0
    squared = nearest_squared(rows.pool.astype(np.float64), rows.labelled.astype(np.float64))
    return math.sqrt(max(float(np.median(squared)), 1.0)) / GRID


FORMULAS = ("published", "four_case")


def standardized(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """(values - mean) / deviation over the finite ones; inf stays inf, equal values become 0."""
    finite = np.isfinite(values)
    result = values.copy()
    if finite.any():
        deviation = values[finite].std()
        centred = values[finite] - values[finite].mean()
        result[finite] = centred / deviation if deviation > 0 else 0.0
    return result


def relative(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Values >= 0 over their mean; what is infinite counts as the largest finite one, or 1."""
    finite = values[np.isfinite(values)]
    largest = float(finite.max(initial=0.0)) or 1.0
    bounded = np.minimum(values, largest)
    mean = bounded.mean() if len(bounded) else 0.0
    result: NDArray[np.float64] = bounded / mean if mean > 0 else bounded
    return result
