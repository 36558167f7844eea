"""Which mixes to ask the teacher about: the published rule, and its variants."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from kdal_core.distillation.coarse_to_fine import Found, Precision, lowest_pairs
from kdal_core.distillation.confidence import Student, as_images, pair_confidence
from kdal_core.distillation.pairs import DEFAULT_LAMBDAS, Mode, PairPool, as_pairs, as_weights
from kdal_core.validation import InvalidInput, as_count

MEMORY = 2**30  # bytes
EXACT_UP_TO = 20_000  # pairs; there the fast way saves seconds at most
BLOCK = 8192  # pairs that go through the first level together


@dataclass(frozen=True)
class MixupSelection:
    """Chosen pairs, the least sure first; pairs chosen at random come last.

    Attributes:
        pairs: (k, 2) int64, i < j.
        lambdas: (k,) weight of the first image of each, where the student is least sure of their mix.
        confidence: (k,) the student's confidence there.
    """

    pairs: NDArray[np.int64]
    lambdas: NDArray[np.float64]
    confidence: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.pairs)


def select_pairs(
    student: Student,
    images: Tensor | ArrayLike,
    k: int,
    lambdas: ArrayLike = DEFAULT_LAMBDAS,
    excluded: ArrayLike | None = None,
    *,
    exact: bool | None = None,
    memory: int = MEMORY,
    mode: Mode = "all",
    max_uses: int | None = None,
    random_share: float = 0.0,
    candidates: int | None = None,
    seed: int = 0,
    precision: Precision = "float32",
    progress: Callable[[float], None] | None = None,
) -> MixupSelection:
    """The k pairs with the lowest C2, each at its own lambda; equal ones by the lowest pair number.

    Args:
        student: float images (B, C, H, W) in [0, 1] -> logits (B, classes).
        images: (N, C, H, W), uint8 or float in [0, 1], N >= 2.
        k: pairs to choose, from 0 to the candidates that are left.
        lambdas: (L,) grid of weights of a pair's first image.
        excluded: pairs that may not be chosen, (m, 2) in either order; or (P,) bool over `mixup_pairs(N, mode)`.
        exact: True asks the student about every pair at every lambda. False goes from coarse to fine: the confidence
            and lambda of what is chosen are exact, but a few pairs of the true lowest k may be missing (recall at
            least .99 where measured: benchmarks/mixup_scoring.py). None: exact up to 20,000 pairs.
        memory: bytes for candidates and intermediate results, beside the images and the student.
        mode: pool of pairs, see `mixup_pairs`.
        max_uses: how many of the chosen pairs may hold the same image; None, as published: any number.
        random_share: share of k that is chosen at random (each at its own lambda), in [0, 1]; 0, as published.
        candidates: number of pairs to consider, drawn at random; None, as published: all.
        seed: of these two draws.
        precision: of the guesses of the fast way; bfloat16 pays for networks with many channels.
        progress: called with the share done, in [0, 1].

    Raises:
        InvalidInput: wrong shapes or values; k beyond the pairs that may be chosen.

    Source: Active Mixup paper, section 3.3 and algorithm 1; methods.md, section 3.

    >>> import torch
    >>> def student(x):  # two classes, told apart by the mean brightness
    ...     bright = x.mean(dim=(1, 2, 3))
    ...     return torch.stack([8 * bright, 8 - 8 * bright], dim=1)
    >>> images = torch.tensor([0.0, 0.2, 1.0]).view(3, 1, 1, 1)
    >>> found = select_pairs(student, images, k=2, lambdas=[0.3, 0.5, 0.7])
    >>> found.pairs.tolist(), found.lambdas.tolist(), found.confidence.round(3).tolist()
    ([[0, 2], [1, 2]], [0.5, 0.7], [0.5, 0.723])
    """
    pixels, grid = as_images(images), as_weights(lambdas)
    pool = PairPool(len(pixels), mode)
    candidate_pool = _Candidates(pool, excluded, candidates, seed)
    k = as_count("k", k, low=0, high=len(pool))
    if k > candidate_pool.count:
        raise InvalidInput(f"k is {k:,}, but only {candidate_pool.count:,} pairs may be chosen.")
    if not 0 <= random_share <= 1:
        raise InvalidInput(f"random_share must lie in [0, 1], not {random_share!r}.")
    memory = as_count("memory", memory, low=1, high=2**62)
    exact = candidate_pool.count <= EXACT_UP_TO if exact is None else exact

    def lowest(wanted: int) -> Found:
        if exact:
            return _all_measured(student, pixels, pool, candidate_pool, wanted, grid, progress)
        return lowest_pairs(
            student,
            pixels,
            pool,
            candidate_pool.blocks,
            candidate_pool.count,
            wanted,
            grid,
            memory=memory,
            precision=precision,
            progress=progress,
        )

    drawn = round(random_share * k)
    if k == drawn:
        found = _nothing()
    elif max_uses is None:
        found = lowest(k - drawn)
    else:
        cap = as_count("max_uses", max_uses, low=1, high=2**62)
        found = _capped(lowest, pool, k - drawn, cap, candidate_pool.count)
    if drawn:
        found = _joined(found, _drawn(student, pixels, pool, candidate_pool, drawn, grid, found.positions, seed))
    return MixupSelection(pool.pairs(found.positions), found.lambdas, found.confidence)


def random_pairs(
    n: int, k: int, *, weight: float = 0.5, excluded: ArrayLike | None = None, mode: Mode = "all", seed: int = 0
) -> MixupSelection:
    """k pairs at random, all at one lambda: the paper's random search. The confidence is not measured: NaN.

    Args:
        n: number of images.
        k: pairs to choose.
        weight: lambda.
        excluded: as in `select_pairs`.
        mode: as in `mixup_pairs`.
        seed: of the draw.
    """
    pool = PairPool(n, mode)
    candidate_pool = _Candidates(pool, excluded, None, seed)
    if as_count("k", k, low=0, high=len(pool)) > candidate_pool.count:
        raise InvalidInput(f"k is {k:,}, but only {candidate_pool.count:,} pairs may be chosen.")
    positions = candidate_pool.draw(k, np.empty(0, np.int64), seed)
    weights = as_weights([weight] * k, keep_order=True)
    return MixupSelection(pool.pairs(positions), weights, np.full(k, np.nan))


class _Candidates:
    """The pairs of a pool that may be chosen, ascending, in blocks; never all at once."""

    def __init__(self, pool: PairPool, excluded: ArrayLike | None, most: int | None, seed: int) -> None:
        self.pool, self.gone = pool, _excluded_positions(pool, excluded)
        self.few: NDArray[np.int64] | None = None
        self.count = len(pool) - len(self.gone)
        if most is not None and as_count("candidates", most, low=1, high=2**62) < self.count:
            self.few = np.sort(self.draw(most, np.empty(0, np.int64), seed))
            self.count = most

    def blocks(self) -> Iterator[NDArray[np.int64]]:
        """Positions, `BLOCK` numbers of the pool at a time, without those that are excluded."""
        if self.few is not None:
            yield from np.split(self.few, range(BLOCK, len(self.few), BLOCK))
            return
        for start in range(0, len(self.pool), BLOCK):
            block = np.arange(start, min(start + BLOCK, len(self.pool)), dtype=np.int64)
            left = block[~_member(block, self.gone)]
            if len(left):
                yield left

    def draw(self, count: int, taken: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
        """Random candidates, this many, that are not among `taken`."""
        rng = np.random.default_rng([20200614, seed])
        gone = np.union1d(self.gone, taken)
        if self.few is not None:
            return rng.permutation(np.setdiff1d(self.few, gone))[:count]
        found = np.empty(0, np.int64)
        if count > (len(self.pool) - len(gone)) // 2:  # few are left: throwing dice for the last would take long
            return rng.permutation(np.setdiff1d(np.arange(len(self.pool)), gone))[:count]
        while len(found) < count:
            more = rng.integers(0, len(self.pool), 2 * (count - len(found)))
            more = more[~_member(more, gone)]
            both = np.concatenate([found, more])
            found = both[np.sort(np.unique(both, return_index=True)[1])][:count]
        return found


def _excluded_positions(pool: PairPool, excluded: ArrayLike | None) -> NDArray[np.int64]:
    """Numbers of the excluded pairs, ascending, each once."""
    if excluded is None:
        return np.empty(0, np.int64)
    array = np.asarray(excluded)
    if array.dtype == np.bool_:
        if array.shape != (len(pool),):
            raise InvalidInput(f"excluded must have an entry for each of {len(pool)} pairs, not {array.shape}.")
        return np.flatnonzero(array)
    positions = pool.positions(as_pairs(array, pool.n))
    return np.unique(positions[positions >= 0])


def _member(values: NDArray[np.int64], ascending: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which of the values are in an ascending array."""
    if len(ascending) == 0:
        return np.zeros(len(values), np.bool_)
    place = np.minimum(np.searchsorted(ascending, values), len(ascending) - 1)
    return np.asarray(ascending[place] == values)


def _all_measured(
    student: Student,
    pixels: Tensor,
    pool: PairPool,
    candidates: _Candidates,
    k: int,
    grid: NDArray[np.float64],
    progress: Callable[[float], None] | None,
) -> Found:
    """Every candidate at every lambda; the k lowest so far are all that is kept."""
    best, done = _nothing(), 0
    for positions in candidates.blocks():
        confidence, lambdas = pair_confidence(student, pixels, pool.pairs(positions), grid)
        best = _joined(best, Found(positions, confidence, lambdas))
        order = np.lexsort((best.positions, best.confidence))[:k]
        best = Found(best.positions[order], best.confidence[order], best.lambdas[order])
        done += len(positions)
        if progress is not None:
            progress(done / candidates.count)
    return best


def _capped(lowest: Callable[[int], Found], pool: PairPool, k: int, max_uses: int, count: int) -> Found:
    """The lowest pairs, ascending, leaving out a pair one of whose images has been used `max_uses` times already."""
    wanted = k
    while True:
        wanted = min(2 * wanted, count)
        found = lowest(wanted)
        uses = np.zeros(pool.n, np.int64)
        taken: list[int] = []
        for place, pair in enumerate(pool.pairs(found.positions)):
            if len(taken) < k and (uses[pair] < max_uses).all():
                uses[pair] += 1
                taken.append(place)
        if len(taken) == k:
            return Found(found.positions[taken], found.confidence[taken], found.lambdas[taken])
        if wanted == count:
            raise InvalidInput(
                f"With max_uses={max_uses} only {len(taken):,} of {k:,} pairs could be chosen from {pool.n:,} images."
            )


def _drawn(
    student: Student,
    pixels: Tensor,
    pool: PairPool,
    candidates: _Candidates,
    count: int,
    grid: NDArray[np.float64],
    taken: NDArray[np.int64],
    seed: int,
) -> Found:
    positions = candidates.draw(count, taken, seed)
    confidence, lambdas = pair_confidence(student, pixels, pool.pairs(positions), grid)
    return Found(positions, confidence, lambdas)


def _nothing() -> Found:
    return Found(np.empty(0, np.int64), np.empty(0), np.empty(0))


def _joined(a: Found, b: Found) -> Found:
    return Found(
        np.concatenate([a.positions, b.positions]),
        np.concatenate([a.confidence, b.confidence]),
        np.concatenate([a.lambdas, b.lambdas]),
    )
