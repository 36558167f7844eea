"""What a strategy is given, and what it gives back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdal_core.acquisition.greedy import Selection
from kdal_core.validation import InvalidInput, as_count, as_floats, as_matrix, as_vector

FEATURE_DIGITS, PROBABILITY_DIGITS = 4, 6


@dataclass(frozen=True)
class PoolScores:
    """The unlabelled pool as the models see it: N images in the pool's order. Only what a strategy needs is given.

    Attributes:
        d_ss: (N,) gap between S-KD and S.
        d_st: (N,) gap between S-KD and T.
        features: (N, D) of S-KD; before any model exists, those of `cold_start_features`.
        probabilities: (N, C) of S-KD.
        ensemble: (M, N, C) probabilities of M >= 2 students that differ in their seed.
        dropout: (M, N, C) probabilities of M >= 2 stochastic passes of one student with dropout.
        predicted_loss: (N,) the loss that a learning-loss head predicts.
        labelled_features: (L, D) features of the images labelled so far, from the same network.
        seed: of the generator of strategies that draw. Same pool and seed: same order.
        budget: images that the batch will take; a strategy whose picks cost time makes so many of them and
            ranks the rest behind. None: every image is picked.
    """

    d_ss: NDArray[np.floating] | None = None
    d_st: NDArray[np.floating] | None = None
    features: NDArray[np.floating] | None = None
    probabilities: NDArray[np.floating] | None = None
    ensemble: NDArray[np.floating] | None = None
    dropout: NDArray[np.floating] | None = None
    predicted_loss: NDArray[np.floating] | None = None
    labelled_features: NDArray[np.floating] | None = None
    seed: int = 0
    budget: int | None = None

    @property
    def size(self) -> int:
        """N, on which all arrays have to agree.

        Raises:
            InvalidInput: nothing is given, or arrays of different pools.
        """
        given: dict[str, tuple[int, ...]] = {
            name: np.shape(self._of(name)) for name in POOL_AXIS if self._of(name) is not None
        }
        sizes = {name: shape[POOL_AXIS[name]] for name, shape in given.items() if len(shape) > POOL_AXIS[name]}
        if not sizes:
            raise InvalidInput("A pool needs at least one array, to tell how many images it has.")
        if len(set(sizes.values())) > 1:
            counts = ", ".join(f"{name} {size}" for name, size in sizes.items())
            raise InvalidInput(f"A pool's arrays must tell of the same images; they have: {counts}.")
        return next(iter(sizes.values()))

    @property
    def picks(self) -> int:
        """How many images to pick with care: the budget, at most N."""
        size = self.size
        return size if self.budget is None else as_count("budget", min(self.budget, size), low=0, high=size)

    def generator(self) -> np.random.Generator:
        """The pool's own source of randomness, always at its beginning."""
        return np.random.default_rng(self.seed)

    def matrix(self, name: str) -> NDArray[np.float64]:
        """An array (N, D) by name, finite, `rounded`."""
        return rounded(as_matrix(name, self.array(name)))

    def vector(self, name: str) -> NDArray[np.float64]:
        """An array (N,) by name, without NaN, `rounded`."""
        return rounded(as_vector(name, self.array(name), length=self.size))

    def distributions(self, name: str) -> NDArray[np.float64]:
        """An array (..., C) of probability distributions by name, checked and rounded."""
        values = as_floats(name, self.array(name))
        wanted = POOL_AXIS[name] + 2
        if values.ndim != wanted or (wanted == 3 and len(values) < 2):
            shape = "(N, C)" if wanted == 2 else "(M, N, C) with M >= 2"
            raise InvalidInput(f"{name} must have the shape {shape}, not {values.shape}.")
        if values.size and (values.min() < 0 or np.abs(np.einsum("...c->...", values) - 1).max() > 1e-3):
            raise InvalidInput(f"{name} must hold probabilities: not negative, each row summing to 1.")
        return np.round(values, PROBABILITY_DIGITS)

    def array(self, name: str) -> NDArray[Any]:
        """An array by name.

        Raises:
            InvalidInput: it was not given; the message says so.
        """
        if (values := self._of(name)) is None:
            raise InvalidInput(f"This strategy needs {name}, which this pool does not have.")
        return np.asarray(values)

    def _of(self, name: str) -> Any:
        return getattr(self, name)


POOL_AXIS = {
    "d_ss": 0,
    "d_st": 0,
    "features": 0,
    "probabilities": 0,
    "ensemble": 1,
    "dropout": 1,
    "predicted_loss": 0,
}
"""The axis of each array along which the pool's images lie."""


def rounded(values: NDArray[np.float64], digits: int = FEATURE_DIGITS) -> NDArray[np.float64]:
    """Values on a grid of 10^-digits of the power of ten above the largest of them.

    The same image may come out of a network with other last bits when it sits in another batch; what a strategy
    reads is rounded first, so that the order does not hang on how the pool was cut into shards.

    >>> rounded(np.array([0.123456, 0.5])).tolist()
    [0.1235, 0.5]
    """
    largest = np.abs(values).max(initial=0.0)
    if largest == 0 or not np.isfinite(largest):
        return values
    return np.round(values, digits - 1 - int(np.floor(np.log10(largest))))


@dataclass(frozen=True)
class Strategy:
    """Orders a whole pool: the first `budget` indices are the batch, the rest is the queue behind it.

    Calling it with a `PoolScores` gives a `Selection` of all N images, best first: a function of the pool and the
    parameters alone.

    Attributes:
        name: as `strategy` knows it.
        rank: the method, a plain function of a pool and its own keyword parameters.
        needs: names of the arrays of `PoolScores` that it reads; whoever calls it computes no others.
        cold: whether it can order a pool of which only features exist, before any model is trained.
        parameters: keyword parameters of `rank` that were chosen; the others keep their defaults.
    """

    name: str
    rank: Callable[..., Selection]
    needs: frozenset[str] = frozenset()
    cold: bool = False
    parameters: Mapping[str, Any] = field(default_factory=dict)

    def __call__(self, pool: PoolScores) -> Selection:
        """All N images, best first."""
        return self.rank(pool, **self.parameters)
