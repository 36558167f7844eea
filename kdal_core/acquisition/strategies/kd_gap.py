"""The lane paper's answer: where distillation gaps are large and one-sided, spread by reverse neighbours."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kdal_core.acquisition.gaps import four_case_uncertainty, uncertainty
from kdal_core.acquisition.greedy import Selection, greedy_select
from kdal_core.acquisition.neighbors import nearest_neighbors
from kdal_core.acquisition.rarity import rarity as rarity_of
from kdal_core.acquisition.strategies.protocol import PoolScores, Strategy
from kdal_core.validation import InvalidInput, as_nonnegative


def kd_gap(
    pool: PoolScores,
    *,
    k: int = 10,
    beta: float = 0.1,
    eps: float = 1.0,
    mode: str = "coverage",
    formula: str = "published",
    rarity: float = 0.0,
) -> Selection:
    """Order the pool by standardised Uncr + beta · Div, greedily; where rare classes are to count, + rarity · Rarity.

    Uncr is standardised over the pool (mean 0, deviation 1), so that beta means the same in every round.

    Args:
        pool: with d_ss, d_st and features, and objects where rarity is not 0.
        k: neighbours; a pool of N <= k images uses N - 1.
        beta: weight of diversity against standardised uncertainty.
        eps: of `uncertainty`, in the gaps' unit.
        mode: of `greedy_select`; the paper's is "score".
        formula: "published" is `uncertainty`, "four_case" is `four_case_uncertainty` (eps unused).
        rarity: weight of standardised `kdal_core.acquisition.rarity` beside standardised Uncr, >= 0: with 1 an image
            counts for what it shows of rare classes as much as for where the models disagree.

    The defaults were chosen on validation images of MNIST, rarity = 1 for boxes on those of BCCD, see docs/results.md.

    Raises:
        InvalidInput: NaN, shapes that do not fit, or parameters out of range.

    Source: lane paper, S_score; standardising, k, beta and rarity are our choice (methods.md, section 2).
    """
    features, d_ss, d_st = pool.matrix("features"), pool.vector("d_ss"), pool.vector("d_st")
    if k < 1:
        raise InvalidInput(f"k must be at least 1, not {k}.")
    if formula not in FORMULAS:
        raise InvalidInput(f"formula must be one of {', '.join(FORMULAS)}, not {formula!r}.")
    scores = uncertainty(d_ss, d_st, eps) if formula == "published" else four_case_uncertainty(d_ss, d_st)
    worth = standardized(scores)
    if as_nonnegative("rarity", rarity):
        worth = worth + rarity * standardized(rarity_of(pool.matrix("objects")))
    neighbors = nearest_neighbors(features, min(k, max(pool.size - 1, 0)))
    return greedy_select(worth, neighbors, pool.size, beta, mode)


STRATEGY = Strategy("kd_gap", kd_gap, frozenset({"d_ss", "d_st", "features"}), more={"rarity": "objects"})


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
