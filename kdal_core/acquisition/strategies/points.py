"""Features as whole numbers, so that distances are exact: equal ones tie, however the pool is ordered or cut.

On a grid of four digits every coordinate is a whole number of at most 10^4 steps. Products and sums of those stay
below 2^53, where float64 holds every whole number, so a matrix product gives squared distances without any
rounding error, at its full speed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kdal_core.acquisition.strategies.protocol import FEATURE_DIGITS, PoolScores
from kdal_core.validation import InvalidInput, as_matrix

BLOCK = 2_000_000  # distances held at a time, 16 MB
UNIT = 1e-6  # the grid of normalised features: a length of 10^6 steps, squared 10^12


@dataclass(frozen=True)
class Points:
    """Pool (N, D) and labelled images (L, D) as whole numbers of `step`; L may be 0."""

    pool: NDArray[np.float64]
    labelled: NDArray[np.float64]
    step: float

    @property
    def everything(self) -> NDArray[np.float64]:
        """(N + L, D), the pool first."""
        return np.concatenate([self.pool, self.labelled])


def grid_points(pool: PoolScores, name: str = "features", of_labelled: str = "labelled_features") -> Points:
    """Features of pool and labelled images, by their names in `PoolScores`, on the common grid of `protocol.rounded`.

    Raises:
        InvalidInput: NaN, infinite features, or labelled features of another width.
    """
    features = as_matrix(name, pool.array(name))
    if pool.size != len(features):  # reading the size compares the arrays of the pool
        raise InvalidInput(f"{name} has {len(features)} rows where {pool.size} are needed.")
    given = getattr(pool, of_labelled)
    labelled = features[:0] if given is None or len(given) == 0 else as_matrix(of_labelled, given)
    if labelled.shape[1] != features.shape[1]:
        raise InvalidInput(
            f"{of_labelled} has {labelled.shape[1]} columns, {name} {features.shape[1]}; use one network."
        )
    largest = max(np.abs(features).max(initial=0.0), np.abs(labelled).max(initial=0.0))
    step = grid_step(largest, FEATURE_DIGITS)
    return Points(np.rint(features / step), np.rint(labelled / step), step)


def grid_step(largest: float, digits: int) -> float:
    """The step at which the largest number has this many digits; 1 where all numbers are 0.

    >>> grid_step(123.4, digits=4)
    0.1
    """
    if largest == 0:
        return 1.0
    exponent = int(np.floor(np.log10(largest))) + 1 - digits
    return float(10.0 ** max(exponent, -300))  # smaller numbers than that count as 0


def unit_points(points: Points) -> Points:
    """The same points at length 1 on a grid of 1e-6; a zero vector stays where it is."""

    def normalised(rows: NDArray[np.float64]) -> NDArray[np.float64]:
        lengths = np.sqrt(squared_lengths(rows))
        scaled: NDArray[np.float64] = np.rint(rows / np.where(lengths > 0, lengths, 1.0)[:, None] / UNIT)
        return scaled

    return Points(normalised(points.pool), normalised(points.labelled), UNIT)


def squared_lengths(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """(N,) squared Euclidean lengths of rows (N, D)."""
    result: NDArray[np.float64] = np.einsum("nd,nd->n", rows, rows)
    return result


def squared_to(
    row: NDArray[np.float64], rows: NDArray[np.float64], lengths: NDArray[np.float64]
) -> NDArray[np.float64]:
    """(N,) squared distances of all rows (N, D), of these squared lengths (N,), to one row (D,)."""
    result: NDArray[np.float64] = rows @ (-2 * row)
    result += lengths
    result += row @ row
    return result


def nearest_squared(rows: NDArray[np.float64], targets: NDArray[np.float64]) -> NDArray[np.float64]:
    """(N,) squared distance of each row (N, D) to the nearest target (M, D); inf where there is none."""
    result = np.full(len(rows), np.inf)
    if len(targets) == 0:
        return result
    lengths, columns = squared_lengths(targets), np.ascontiguousarray(-2 * targets.T)
    size = max(1, BLOCK // len(targets))
    for start in range(0, len(rows), size):
        block = rows[start : start + size]
        result[start : start + size] = (block @ columns + lengths).min(axis=1) + squared_lengths(block)
    return result
