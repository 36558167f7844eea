"""The lane paper's answer: where distillation gaps are large and one-sided, spread by reverse neighbours."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kdal_core.acquisition.gaps import uncertainty
from kdal_core.acquisition.greedy import Selection, greedy_select
from kdal_core.acquisition.neighbors import nearest_neighbors
from kdal_core.acquisition.strategies.protocol import PoolScores
from kdal_core.validation import InvalidInput, as_floats, as_matrix

DIGITS = 4


def kd_gap(pool: PoolScores) -> Selection:
    """Order the pool by standardised Uncr + beta · Div, greedily.

    Uncr is standardised over the pool (mean 0, deviation 1), so that beta means the same in every round. The
    same image may come out of a network with other last bits when it sits in another batch; gaps and features
    are rounded to `DIGITS` significant digits of the pool's largest first, so that the order does not hang on
    how the pool was cut into shards.

    Raises:
        InvalidInput: NaN, shapes that do not fit, or parameters out of range.

    Source: lane paper, S_score; standardising, k and beta are our choice (methods.md, section 2).
    """
    features = rounded(as_matrix("features", pool.features))
    scores = uncertainty(rounded(as_floats("d_ss", pool.d_ss)), rounded(as_floats("d_st", pool.d_st)), pool.eps)
    if len(scores) != len(features):
        raise InvalidInput(f"d_ss has {len(scores)} entries, features {len(features)} rows.")
    if pool.k < 1:
        raise InvalidInput(f"k must be at least 1, not {pool.k}.")
    neighbors = nearest_neighbors(features, min(pool.k, max(len(features) - 1, 0)))
    return greedy_select(standardized(scores), neighbors, len(scores), pool.beta, pool.mode)


def standardized(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """(values - mean) / deviation over the finite ones; inf stays inf, equal values become 0."""
    finite = np.isfinite(values)
    result = values.copy()
    if finite.any():
        deviation = values[finite].std()
        centred = values[finite] - values[finite].mean()
        result[finite] = centred / deviation if deviation > 0 else 0.0
    return result


def rounded(values: NDArray[np.float64], digits: int = DIGITS) -> NDArray[np.float64]:
    """Values on a grid of 10^-digits of the power of ten above the largest of them.

    >>> rounded(np.array([0.123456, 0.5])).tolist()
    [0.1235, 0.5]
    """
    largest = np.abs(values).max(initial=0.0)
    if largest == 0 or not np.isfinite(largest):
        return values
    return np.round(values, digits - 1 - int(np.floor(np.log10(largest))))
