"""Kernel coverage: every image of a pool should be like one that is labelled; picks are made greedily.

How well an image x is covered is the kernel K(x, v) of the labelled or picked image v that is most like it. The
coverage of a set is the weighted sum of that over the pool. It is monotone and submodular, so greedy picks reach
1 - 1/e of the best (Nemhauser et al. 1978).

Rows are laid on a grid of 1/4000 of their length, so that their products are whole numbers below 2^24, which float32
holds without rounding: copies tie exactly, and nothing depends on how the products were cut into blocks.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kdal_core.acquisition.strategies.points import Points, squared_lengths

Floats32 = NDArray[np.float32]
Floats = NDArray[np.float64]

GRID = 4_000  # steps of a length of 1
COMPONENTS = 128
CANDIDATES = 5_000  # images among which the picks are sought; in a larger pool a random choice of them
SEEN = 50_000  # images whose coverage tells what a pick adds; in a larger pool a random choice of them
LEARNT_FROM = 10_000  # rows that the principal components are taken of, at most
BLOCK = 256, 2_048  # pool images and candidates whose kernel is held at a time, 2 MB
FAINT = 1e-6  # of the first gain: less than that float32 sums cannot tell


@dataclass(frozen=True)
class UnitRows:
    """Pool (N, D) and labelled images (L, D) as float32 whole numbers, each row 4000 long; L may be 0."""

    pool: Floats32
    labelled: Floats32


@dataclass(frozen=True)
class Cover:
    """What `kernel_cover` found.

    Attributes:
        picks: (B,) row numbers of the pool.
        gains: (B,) what the coverage grew by with each pick, in units of the weights.
        left: (N,) how much each image's own coverage lacks after the last pick, times its weight.
    """

    picks: NDArray[np.int64]
    gains: Floats
    left: Floats


def unit_rows(points: Points) -> UnitRows:
    """Rows less their mean, at length 1.

    Features of pretrained networks all point about the same way, and only after centring do their angles tell images
    apart. More than 128 columns are first reduced to as many principal components, which keep the distances of such
    features and save the time of the rest. A row that equals the mean stays zero.
    """
    everything = points.everything
    if len(everything):
        everything = everything - everything.mean(axis=0)
    if everything.shape[1] > COMPONENTS:
        some = everything[np.linspace(0, len(everything) - 1, min(len(everything), LEARNT_FROM)).astype(np.int64)]
        _, axes = np.linalg.eigh(some.T @ some)
        everything = everything @ axes[:, : -COMPONENTS - 1 : -1]
    lengths = np.sqrt(squared_lengths(everything))
    nothing = lengths <= 1e-9 * max(lengths.max(initial=0.0), 1.0)  # rounding alone
    whole = np.rint(everything * np.where(nothing, 0.0, GRID / np.where(nothing, 1.0, lengths))[:, None])
    rows = whole.astype(np.float32)
    size = len(points.pool)
    return UnitRows(rows[:size], rows[size:])


def kernel_cover(rows: UnitRows, weights: Floats, width: float, count: int) -> Cover:
    """Pick `count` images, each the one that adds most to the coverage by K(x, v) = exp(-|x - v|² / width²).

    Args:
        rows: pool (N, D) and labelled images, which count as picked already.
        weights: (N,) >= 0, what it is worth to cover each image.
        width: > 0, of the kernel, in units of the rows' length (two rows lie 0 to 2 apart).
        count: picks, 0 to N.

    Returns:
        Cover. Gains never rise. Equal gains: the lowest index, which in a shuffled pool is a random one.

    Up to 5,000 images the picks are those of the greedy algorithm; gains that differ by less than 1e-6 of the first are
    equal. In a larger pool they are sought among the first 5,000 (or four times as many as picks), a random choice in
    a shuffled pool. What a pick adds is told by the first 50,000 images, which speak for the rest.

    A pick changes the coverage of those images alone that are more like it than like any before it, about N / i of
    them at the i-th: all gains are brought up to date by their kernels with the candidates. Time
    O(M · C · D · log(1 + B / L) + N · B · D) for C candidates and M images that speak, memory O((N + C) · D).

    Source: Bae et al. 2024 (arXiv:2407.12212), generalised coverage and its greedy algorithm, MaxHerding.
    """
    kernel = _Kernel(rows.pool, width)
    size = len(rows.pool)
    candidates = min(size, max(CANDIDATES, 4 * count))
    seen = min(size, max(SEEN, candidates))
    held = kernel.nearest(rows.labelled)
    weighed = weights[:seen].astype(np.float32)
    gain = kernel.added(np.arange(seen), held[:seen], np.ones(seen, dtype=np.float32), weighed, candidates)
    faint = FAINT * gain.max(initial=0.0) or 1.0
    open_ = np.ones(candidates, dtype=np.bool_)
    picks, gains = np.empty(count, dtype=np.int64), np.empty(count)
    for i in range(count):
        pick = int(np.where(open_, np.maximum(np.rint(gain / faint), 0.0), -1.0).argmax())
        picks[i], gains[i], open_[pick] = pick, max(gain[pick], 0.0), False
        reached = kernel.to(rows.pool[pick])
        changed = np.flatnonzero(reached[:seen] > held[:seen])
        if len(changed):
            gain -= kernel.added(changed, held[changed], reached[changed], weighed[changed], candidates)
        np.maximum(held, reached, out=held)
    all_told = weights.sum() / spoken if seen < size and (spoken := weights[:seen].sum()) > 0 else 1.0
    return Cover(picks, np.minimum.accumulate(gains) * all_told, weights * (1.0 - held.astype(np.float64)))


class _Kernel:
    """exp(-|x - y|² / width²) of rows of the pool, computed when asked."""

    def __init__(self, pool: Floats32, width: float) -> None:
        self._pool = pool
        self._half = _half_of(pool)
        self._scale = np.float32(2 / (GRID * width) ** 2)

    def to(self, row: Floats32) -> Floats32:
        """(N,) of all rows with this one (D,)."""
        return self._finished((self._pool @ row)[:, None], self._half[:, None], _half_of(row[None]))[:, 0]

    def nearest(self, targets: Floats32) -> Floats32:
        """(N,) the largest of each row with any of these (M, D); 0 where there are none."""
        result = np.zeros(len(self._pool), dtype=np.float32)
        height, width = BLOCK
        for first in range(0, len(targets), width):
            some = targets[first : first + width]
            columns, half = np.ascontiguousarray(some.T), _half_of(some)
            for start in range(0, len(result), height):
                part = slice(start, start + height)
                block = self._finished(self._pool[part] @ columns, self._half[part, None], half)
                np.maximum(result[part], block.max(axis=1), out=result[part])
        return result

    def added(self, which: NDArray[np.int64], low: Floats32, high: Floats32, weights: Floats32, count: int) -> Floats:
        """(count,) sum over some rows of weight · (K clipped to [low, high] - low), for each of the first rows.

        With high = 1 that is what each would add to the coverage, with high = the coverage after a pick what it would
        add less. Sums run down the columns one row after the other, so those of copies are the same.
        """
        result = np.zeros(count)
        height, width = BLOCK
        for first in range(0, count, width):
            some = slice(first, min(first + width, count))
            columns, half = np.ascontiguousarray(self._pool[some].T), self._half[some]
            for start in range(0, len(which), height):
                part = slice(start, start + height)
                chosen = which[part]
                block = self._finished(self._pool[chosen] @ columns, self._half[chosen, None], half)
                np.maximum(block, low[part, None], out=block)
                np.minimum(block, high[part, None], out=block)
                block -= low[part, None]
                block *= weights[part, None]
                result[some] += block.sum(axis=0)
        return result

    def _finished(self, products: Floats32, left: Floats32, right: Floats32) -> Floats32:
        """Products x · y (n, m) into kernels, given half the squared lengths of both sides."""
        products -= left
        products -= right
        products *= self._scale
        np.minimum(products, 0, out=products)
        return np.exp(products, out=products)


def _half_of(rows: Floats32) -> Floats32:
    """Half the squared lengths (M,) of rows (M, D)."""
    half: Floats32 = (np.einsum("nd,nd->n", rows.astype(np.float64), rows) / 2).astype(np.float32)
    return half
