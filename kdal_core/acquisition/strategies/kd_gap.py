"""The lane paper's answer: where distillation gaps are large and one-sided, spread by reverse neighbours."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kdal_core.acquisition.gaps import four_case_uncertainty, uncertainty
from kdal_core.acquisition.greedy import Selection, greedy_select
from kdal_core.acquisition.neighbors import nearest_neighbors
from kdal_core.acquisition.strategies.protocol import PoolScores
from kdal_core.validation import InvalidInput


def kd_gap(
    pool: PoolScores,
    *,
    k: int = 10,
    beta: float = 0.1,
    eps: float = 1.0,
    mode: str = "coverage",
    formula: str = "published",
) -> Selection:
    """Order the pool by standardised Uncr + beta · Div, greedily.

    Uncr is standardised over the pool (mean 0, deviation 1), so that beta means the same in every round.

    Args:
        pool: with d_ss, d_st and features.
        k: neighbours; a pool of N <= k images uses N - 1.
        beta: weight of diversity against standardised uncertainty.
        eps: of `uncertainty`, in the gaps' unit.
        mode: of `greedy_select`; the paper's is "score".
        formula: "published" is `uncertainty`, "four_case" is `four_case_uncertainty` (eps unused).

    The defaults were chosen on validation images of MNIST, see docs/results.md.

    Raises:
        InvalidInput: NaN, shapes that do not fit, or parameters out of range.

    Source: lane paper, S_score; standardising, k and beta are our choice (methods.md, section 2).
    """
    features, d_ss, d_st = pool.matrix("features"), pool.vector("d_ss"), pool.vector("d_st")
    if k < 1:
        raise InvalidInput(f"k must be at least 1, not {k}.")
    if formula not in FORMULAS:
        raise InvalidInput(f"formula must be one of {', '.join(FORMULAS)}, not {formula!r}.")
    scores = uncertainty(d_ss, d_st, eps) if formula == "published" else four_case_uncertainty(d_ss, d_st)
    neighbors = nearest_neighbors(features, min(k, max(pool.size - 1, 0)))
    return greedy_select(standardized(scores), neighbors, pool.size, beta, mode)


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
