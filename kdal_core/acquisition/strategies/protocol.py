"""What a strategy is given, and what it gives back."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdal_core.acquisition.greedy import Selection
from kdal_core.acquisition.shuffling import Rows, drawn_order
from kdal_core.errors import ConfigError
from kdal_core.validation import InvalidInput, as_count, as_floats, as_matrix, as_vector

FEATURE_DIGITS, PROBABILITY_DIGITS = 4, 6
BLOCK = 2_000_000  # probabilities held at a time as float64, 16 MB

Score = Callable[[NDArray[np.float64]], NDArray[np.float64]]
Dense = NDArray[np.floating] | Rows
Members = NDArray[np.floating] | Sequence[Dense]


@dataclass(frozen=True)
class PoolScores:
    """The unlabelled pool as the models see it: N images in the pool's order. Only what a strategy needs is given.

    A prediction is one distribution over C classes, or a dense one: many distributions, laid out as the task likes
    (lanes: S slots of R rows, each over G columns and "absent", the last; boxes: C classes at each cell of a map, each
    "there" or "absent"). Strategies that read predictions score each distribution as they would a class's, and an image
    by the mean over its distributions.

    Attributes:
        d_ss: (N,) gap between S-KD and S.
        d_st: (N,) gap between S-KD and T.
        features: (N, D) of S-KD; before any model exists, those of `cold_start_features`.
        probabilities: (N, C) of S-KD; dense (N, ..., K), of any float type. Read dense ones by `blocks` or `averaged`:
            they may be large, on disk, or a `Rows`.
        ensemble: (M, N, C) probabilities of M >= 2 students that differ in their seed; or a sequence of M arrays, each
            like `probabilities`, which need not lie in memory together.
        dropout: the same of M >= 2 stochastic passes of one student with dropout.
        predicted_loss: (N,) the loss that a learning-loss head predicts.
        objects: (N, C) how many objects of each class S-KD sees in an image (`Task.objects`).
        detections: (N, K, 6) the objects that S-KD finds: left, top, right, bottom, score and class number; NaN behind
            an image's last one.
        object_features: (N, K, E) features of each of them, of any float type; dense, as `probabilities` are.
        class_difficulty: (C,) in [0, 1]: how badly S-KD finds the labelled objects of each class.
        labelled_features: (L, D) features of the images labelled so far, from the same network.
        labelled_probabilities: (L, C) probabilities of these, or dense ones, from the same network.
        teacher_features: (N, E) what T sees: of pretrained backbones, their features joined.
        labelled_teacher_features: (L, E) the same of the images labelled so far.
        seed: of the generator of strategies that draw. Same pool and seed: same order.
        budget: images that the batch will take; a strategy whose picks cost time makes that many of them and
            ranks the rest behind. None: every image is picked.
    """

    d_ss: NDArray[np.floating] | None = None
    d_st: NDArray[np.floating] | None = None
    features: NDArray[np.floating] | None = None
    probabilities: Dense | None = None
    ensemble: Members | None = None
    dropout: Members | None = None
    predicted_loss: NDArray[np.floating] | None = None
    objects: NDArray[np.floating] | None = None
    detections: Dense | None = None
    object_features: Dense | None = None
    class_difficulty: NDArray[np.floating] | None = None
    labelled_features: NDArray[np.floating] | None = None
    labelled_probabilities: NDArray[np.floating] | None = None
    teacher_features: NDArray[np.floating] | None = None
    labelled_teacher_features: NDArray[np.floating] | None = None
    seed: int = 0
    budget: int | None = None

    @property
    def size(self) -> int:
        """N, on which all arrays have to agree.

        Raises:
            InvalidInput: nothing is given, or arrays of different pools.
        """
        given: dict[str, tuple[int, ...]] = {
            name: _shape(name, self._of(name)) for name in POOL_AXIS if self._of(name) is not None
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

    def reordered(self, order: NDArray[np.int64]) -> PoolScores:
        """The same images in another order (N,); dense predictions are not copied, but looked up when they are read."""
        return replace(self, **{name: _reordered(self._of(name), axis, order) for name, axis in POOL_AXIS.items()})

    def matrix(self, name: str) -> NDArray[np.float64]:
        """An array (N, D) by name, finite, `rounded`."""
        return rounded(as_matrix(name, self.array(name)))

    def vector(self, name: str) -> NDArray[np.float64]:
        """An array (N,) by name, without NaN, `rounded`."""
        return rounded(as_vector(name, self.array(name), length=self.size))

    def layout(self, name: str) -> tuple[int, ...]:
        """The shape (..., K) of an image's probabilities: (C,) for one distribution.

        Raises:
            InvalidInput: they were not given, or have another shape than `PoolScores` says.
        """
        shape, several = _shape(name, self._given(name)), POOL_AXIS[name] == 1
        if len(shape) < POOL_AXIS[name] + 2 or (several and shape[0] < 2):
            wanted = "(M, N, C) or (M, N, ..., K) with M >= 2" if several else "(N, C) or (N, ..., K)"
            raise InvalidInput(f"{name} must have the shape {wanted}, not {shape}.")
        return shape[POOL_AXIS[name] + 1 :]

    def blocks(self, name: str) -> Iterator[tuple[slice, NDArray[np.float64]]]:
        """Probabilities by name, checked and rounded, of some images at a time.

        Yields:
            Where these n images lie in the pool, and (n, ..., K); of several members (M, n, ..., K).

        Raises:
            InvalidInput: NaN, or rows that are no probabilities.
        """
        values, size, several = self._given(name), self.size, POOL_AXIS[name] == 1
        held = math.prod(self.layout(name)) * (len(values) if several else 1)
        step = max(1, BLOCK // max(held, 1))
        for start in range(0, size, step):
            rows = slice(start, min(start + step, size))
            block = as_floats(name, np.stack([member[rows] for member in values]) if several else values[rows])
            if block.size and (block.min() < 0 or np.abs(np.einsum("...c->...", block) - 1).max() > 1e-3):
                raise InvalidInput(f"{name} must hold probabilities: not negative, each row summing to 1.")
            yield rows, np.round(block, PROBABILITY_DIGITS)

    def averaged(self, name: str, score: Score, weight: Score | None = None) -> NDArray[np.float64]:
        """(N,): the mean over each image's distributions of a score of each.

        Args:
            name: of probabilities.
            score: (n, K) -> (n,); where there are several members (M, n, K) -> (n,).
            weight: the same, >= 0, of each distribution in the mean; weights of an image that sum to less than 1 count
                as if they summed to 1.
        """
        layout = self.layout(name)
        result = np.zeros(self.size)
        for rows, block in self.blocks(name):
            flat = block.reshape(*block.shape[: POOL_AXIS[name]], -1, layout[-1])
            scores = score(flat).reshape(rows.stop - rows.start, -1)
            if weight is None:
                result[rows] = scores.mean(axis=1)
            else:
                weights = weight(flat).reshape(scores.shape)
                result[rows] = (weights * scores).sum(axis=1) / np.maximum(weights.sum(axis=1), 1.0)
        return result

    def array(self, name: str) -> NDArray[Any]:
        """An array by name.

        Raises:
            InvalidInput: it was not given; the message says so.
        """
        return np.asarray(self._given(name))

    def stored(self, name: str) -> Dense:
        """An array by name as it is, not copied: `values[rows]` gives some of its images.

        Raises:
            InvalidInput: it was not given.
        """
        values: Dense = self._given(name)
        return values

    def _given(self, name: str) -> Any:
        if (values := self._of(name)) is None:
            raise InvalidInput(f"This strategy needs {name}, which this pool does not have.")
        return values

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
    "objects": 0,
    "detections": 0,
    "object_features": 0,
    "teacher_features": 0,
}
"""The axis of each array along which the pool's images lie."""


def _reordered(values: Any, axis: int, order: NDArray[np.int64]) -> Any:
    """An array of the pool, or a sequence of them, with its images in another order."""
    if values is None:
        return None
    if axis == 1:
        return tuple(_reordered(member, 0, order) for member in values)
    if isinstance(values, Rows) or np.ndim(values) > 2:
        return Rows(values, order)
    return np.asarray(values)[order]


def _shape(name: str, values: Any) -> tuple[int, ...]:
    """The shape of an array, or of a sequence of arrays as if they were one."""
    if isinstance(values, np.ndarray | Rows) or len(values) == 0:
        return np.shape(values)
    shapes = {np.shape(member) for member in values}
    if len(shapes) > 1:
        raise InvalidInput(f"{name} must be arrays of one shape, not of {', '.join(map(str, sorted(shapes)))}.")
    return (len(values), *shapes.pop())


def rounded(values: NDArray[np.float64], digits: int = FEATURE_DIGITS) -> NDArray[np.float64]:
    """Values on a grid of 10^-digits of the power of ten above the largest of them.

    The same image may come out of a network with other last bits when it sits in another batch; what a strategy
    reads is rounded first, so that the order does not depend on how the pool was cut into shards.

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
    parameters alone. `rank` is given the pool in an order drawn from the pool's seed, so that images between which it
    sees no difference come in random order, and not in the order in which they were imported, whatever it does.

    Attributes:
        name: as `strategy` knows it; the name of its file.
        rank: the method, a plain function of a pool and its own keyword parameters.
        needs: names of the arrays of `PoolScores` that it reads; whoever calls it computes no others but those of
            `uses`.
        uses: names of further arrays, which it reads where they are given and can do without.
        more: {parameter: array} that is needed, too, where that parameter is chosen and not 0.
        cold: whether it can order a pool of which only features exist, before any model is trained.
        parameters: keyword parameters of `rank` that were chosen; the others keep their defaults.
    """

    name: str
    rank: Callable[..., Selection]
    needs: frozenset[str] = frozenset()
    uses: frozenset[str] = frozenset()
    more: Mapping[str, str] = field(default_factory=dict)
    cold: bool = False
    parameters: Mapping[str, Any] = field(default_factory=dict)

    @property
    def reads(self) -> frozenset[str]:
        """Names of all arrays that it reads where they are given."""
        return self.needs | self.uses

    @property
    def accepts(self) -> tuple[str, ...]:
        """Names of the parameters that `rank` takes beside the pool."""
        named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
        _, *others = inspect.signature(self.rank).parameters.values()
        return tuple(parameter.name for parameter in others if parameter.kind in named)

    @property
    def summary(self) -> str:
        """What it does, in one line: the first of `rank`'s docstring."""
        return (inspect.getdoc(self.rank) or self.name).splitlines()[0]

    def __call__(self, pool: PoolScores) -> Selection:
        """All N images, best first.

        Raises:
            InvalidInput: the pool lacks what `rank` reads, or holds what it cannot read.
            ConfigError: `rank` returned no Selection, left out an image or named one twice.
        """
        drawn = drawn_order(pool.size, pool.seed)
        found = self.rank(pool.reordered(drawn), **self.parameters)
        if not isinstance(found, Selection) or not np.array_equal(np.sort(found.indices), np.arange(pool.size)):
            raise ConfigError(
                f"The strategy {self.name!r} must return a Selection that names each of {pool.size} images once."
            )
        return replace(found, indices=drawn[found.indices])
