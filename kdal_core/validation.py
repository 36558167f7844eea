"""The one place where arrays that come in from outside are checked.

Bad input raises `InvalidInput`, which is both a `ConfigError` (so one `except KdalError` catches
everything kdal raises on purpose) and a `ValueError` (what callers of numerical functions expect).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kdal_core.errors import ConfigError


class InvalidInput(ConfigError, ValueError):
    """An argument with a wrong shape, type or value. The message names the argument."""


def as_vector(name: str, values: ArrayLike, *, length: int | None = None) -> NDArray[np.float64]:
    """`values` as (N,) float64 without NaN; `length`, when given, is the N it must have."""
    array = as_floats(name, values)
    if array.ndim != 1:
        raise InvalidInput(f"{name} must have the shape (N,), not {array.shape}.")
    if length is not None and len(array) != length:
        raise InvalidInput(f"{name} has {len(array)} entries where {length} are needed.")
    return array


def as_matrix(name: str, values: ArrayLike) -> NDArray[np.float64]:
    """`values` as (N, D) float64, every entry finite."""
    array = as_floats(name, values)
    if array.ndim != 2:
        raise InvalidInput(f"{name} must have the shape (N, D), not {array.shape}.")
    if not np.isfinite(array).all():
        raise InvalidInput(f"{name} holds an infinite value; every entry must be finite.")
    return array


def as_floats(name: str, values: ArrayLike) -> NDArray[np.float64]:
    """`values` as float64 of any shape, without NaN."""
    try:
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InvalidInput(f"{name} must be an array of numbers: {error}.") from error
    if np.isnan(array).any():
        raise InvalidInput(f"{name} holds NaN; find out which model or image produced it before ranking.")
    return array


def as_neighbors(name: str, values: ArrayLike) -> NDArray[np.int64]:
    """`values` as (N, k) int64, every entry a row number in [0, N) and none its own neighbour."""
    array = np.asarray(values)
    if array.ndim != 2:
        raise InvalidInput(f"{name} must have the shape (N, k), not {array.shape}.")
    if array.size and not np.issubdtype(array.dtype, np.integer):
        raise InvalidInput(f"{name} must hold whole numbers, not {array.dtype}.")
    neighbors = array.astype(np.int64)
    if neighbors.size and (neighbors.min() < 0 or neighbors.max() >= len(neighbors)):
        raise InvalidInput(f"{name} must hold row numbers from 0 to {len(neighbors) - 1}.")
    if (neighbors == np.arange(len(neighbors))[:, None]).any():
        raise InvalidInput(f"{name} lists a point as its own neighbour; leave each point out of its own row.")
    if _repeats_in_a_row(neighbors):
        raise InvalidInput(f"{name} lists the same neighbour twice in one row.")
    return neighbors


def _repeats_in_a_row(rows: NDArray[np.int64]) -> bool:
    """Whether any row holds a value twice; values are row numbers."""
    size, k = rows.shape
    if k > 32 or size > np.iinfo(np.int32).max:  # comparing all pairs of columns would take longer than sorting
        return bool((np.diff(np.sort(rows, axis=1), axis=1) == 0).any())
    for start in range(0, size, 16_384):  # the columns of this many rows stay in the cache
        columns = rows[start : start + 16_384].T.astype(np.int32, order="C")
        if any((columns[i + 1 :] == columns[i]).any() for i in range(k - 1)):
            return True
    return False


def as_count(name: str, value: int, *, low: int, high: int) -> int:
    """`value` as a whole number in [low, high]."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise InvalidInput(f"{name} must be a whole number, not {value!r}.")
    if not low <= value <= high:
        raise InvalidInput(f"{name} must lie from {low} to {high}, not {value}.")
    return int(value)


def as_nonnegative(name: str, value: float) -> float:
    """`value` as a finite float >= 0."""
    if not np.isfinite(value) or value < 0:
        raise InvalidInput(f"{name} must be a finite number of at least 0, not {value!r}.")
    return float(value)
