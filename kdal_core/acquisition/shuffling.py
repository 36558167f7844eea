"""A random order before the order: images between which nothing is known do not come in the order of import."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdal_core.validation import as_count

TIES = 2021
"""Keeps this draw apart from those that strategies make with the same seed."""


def drawn_order(size: int, seed: int) -> NDArray[np.int64]:
    """A random order of `size` images, (size,): a function of size and seed.

    A greedy pass gives ties to the lowest index, and a pool's index is mostly the order of import: photos that were
    imported class by class would be labelled class by class. Every order of a pool is made on the pool shuffled so.

    Raises:
        InvalidInput: a negative seed.
    """
    generator = np.random.default_rng([TIES, as_count("seed", seed, low=0, high=2**63 - 1)])
    return generator.permutation(size)


class Rows:
    """An array (N, ...) in another order of its rows, which are looked up when they are read, and not copied before.

    It is read like an array: `rows[3:7]`, `rows[mask]`, `np.asarray(rows)`.
    """

    def __init__(self, values: NDArray[np.floating] | Rows, order: NDArray[np.int64]) -> None:
        self.values, self.order = values, order

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, ...)."""
        return (len(self.order), *self.values.shape[1:])

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the array."""
        return self.values.dtype

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, rows: slice | int | NDArray[Any]) -> NDArray[np.floating]:
        found: NDArray[np.floating] = self.values[self.order[rows]]
        return found

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[np.floating]:
        return np.asarray(self[:], dtype=dtype)
