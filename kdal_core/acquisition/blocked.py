"""Exact nearest neighbours by float32 products of blocks, each product serving the rows of both its sides.

The graph of a set in itself needs only half of all products. A product gives an optimistic estimate of
closeness, -d²/2 plus what rounding may have taken from it; a pair whose estimate beats the k-th best
pessimistic one that a row has met so far stays that row's candidate. The few that are left in the end are
measured in float64, so rounding decides nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from kdal_core.acquisition.exhaustive import Points, exhaustive_neighbors, nearest_of_candidates

_Hits = tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.float32]]

CPU_TILE = 2048  # rows of a block: a product of 16 MB stays in a shared cache, and threads seldom wait
CUDA_TILE = 8192
LARGEST_NORM = 2.0**100  # of the scaled points: sums of two such norms stay in float32
TINY = 2.0**-100  # more than what underflow takes from a sum of products
ENTRY = 12  # bytes of a candidate: row, column, estimate
PATIENCE = 2  # candidates a row gathers before its block is tightened, in units of k
SPARE = 64  # candidates beyond 8 k that a row may keep; with more, float32 cannot tell its neighbours apart


@dataclass(frozen=True)
class _Frame:
    """Points moved, scaled and shuffled for float32.

    Attributes:
        points: (N, D + 2) float32: coordinates, 1, half the negative norm; see `_mirrored`.
        order: (N,) the row number of each point in the caller's array. A random order makes any block of
            points a sample of all, whose k-th best is a fair bound for the rest.
        slack: (N,) what rounding may take from a pair's estimate, per side.
    """

    points: torch.Tensor
    order: NDArray[np.int64]
    slack: NDArray[np.float32]


@dataclass
class _Block:
    """Consecutive rows of the frame with the candidates for their neighbours met so far."""

    start: int
    stop: int
    row: list[NDArray[np.int32]] = field(default_factory=list)  # positions within the block
    column: list[NDArray[np.int32]] = field(default_factory=list)  # positions in the frame
    estimate: list[NDArray[np.float32]] = field(default_factory=list)
    pending: int = 0  # candidates since the bound was tightened

    def add(self, row: NDArray[np.int32], column: NDArray[np.int32], estimate: NDArray[np.float32]) -> None:
        if len(row):
            self.row.append(row)
            self.column.append(column)
            self.estimate.append(estimate)
            self.pending += len(row)


def blocked_neighbors(points: Points, k: int, device: torch.device, tile: int | None = None) -> NDArray[np.int64]:
    """The k nearest other points of every point, by (float64 distance, index), exact.

    Args:
        points: (N, D) float32 or float64, finite, no point more than k + 1 times.
        k: 1 to N - 1.
        device: where the products are computed.
        tile: rows of a block; None chooses by the device.

    Returns:
        (N, k) row numbers.

    Memory: a float32 copy of the points and, for each, about 3 k candidates of 12 bytes.
    """
    size = len(points)
    tile = tile or (CUDA_TILE if device.type == "cuda" else CPU_TILE)
    edges = np.linspace(0, size, -(-size // tile) + 1).astype(np.int64)
    if np.diff(edges).min() <= k:  # no block could bound its own rows
        return exhaustive_neighbors(points, k)
    frame = _frame(points, device)
    blocks = [_Block(start, stop) for start, stop in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True)]
    threads = torch.get_num_threads()
    with _whole_float32(), ThreadPoolExecutor(threads) as pool:
        largest = int(np.diff(edges).max())
        hits = _DeviceHits() if device.type == "cuda" else _HostHits(largest, pool, threads)
        return _Search(points, frame, blocks, k, hits).run()


def bytes_needed(size: int, dimensions: int, k: int) -> int:
    """Working space of `blocked_neighbors` on a CPU, from above; rows left to float64 come on top."""
    candidates = size * (1 + 2 * PATIENCE) * k * ENTRY
    return size * (dimensions + 8) * 4 + candidates + 64 * 2**20


class _Search:
    """One pass over all pairs of blocks: the state of `blocked_neighbors` while it runs."""

    def __init__(
        self, points: Points, frame: _Frame, blocks: list[_Block], k: int, hits: _HostHits | _DeviceHits
    ) -> None:
        self.points, self.frame, self.blocks, self.k, self.hits = points, frame, blocks, k, hits
        self.bound = np.full(len(points), -np.inf, dtype=np.float32)  # no worse estimate can be a neighbour
        self.limit = 8 * k + SPARE

    def run(self) -> NDArray[np.int64]:
        result = np.empty((len(self.points), self.k), dtype=np.int64)
        for block in self.blocks:
            self._within(block)
        for i, block in enumerate(self.blocks):
            left = _mirrored(self.frame.points[block.start : block.stop])
            for other in self.blocks[i + 1 :]:
                self._between(left, block, other)
            self._tighten(block)
            self._measure(block, result)
        hard = self.frame.order[np.isposinf(self.bound)]
        if len(hard):
            result[hard] = exhaustive_neighbors(self.points, self.k, np.sort(hard))[np.argsort(np.argsort(hard))]
        return result

    def _within(self, block: _Block) -> None:
        """First candidates and bound of a block: its own k best."""
        own = self.frame.points[block.start : block.stop]
        tile = self.hits.product(_mirrored(own), own)
        tile.fill_diagonal_(-torch.inf)  # nobody is its own neighbour
        best, column = (array.cpu().numpy() for array in tile.topk(self.k, dim=1))
        slack = self.frame.slack[block.start : block.stop]
        pessimistic = best - slack[:, None] - slack[column]
        self.bound[block.start : block.stop] = np.nextafter(pessimistic.min(axis=1), np.float32(-np.inf))
        never = np.full(block.stop - block.start, np.inf, dtype=np.float32)
        row, col, estimate = self.hits.find(tile, self.bound[block.start : block.stop], never)
        block.add(row, col + np.int32(block.start), estimate)
        self._tighten(block)

    def _between(self, left: torch.Tensor, block: _Block, other: _Block) -> None:
        """One product, for the rows of both blocks."""
        tile = self.hits.product(left, self.frame.points[other.start : other.stop])
        bound, other_bound = self.bound[block.start : block.stop], self.bound[other.start : other.stop]
        row, column, estimate = self.hits.find(tile, bound, other_bound)
        mine, theirs = estimate >= bound[row], estimate >= other_bound[column]
        block.add(row[mine], column[mine] + np.int32(other.start), estimate[mine])
        other.add(column[theirs], row[theirs] + np.int32(block.start), estimate[theirs])
        for side in (block, other):
            if side.pending > PATIENCE * self.k * (side.stop - side.start):
                self._tighten(side)

    def _tighten(self, block: _Block) -> None:
        """Raise the bounds of a block to the k-th best candidate of each row; drop candidates below them."""
        if not block.row:
            return
        row, column, estimate = (np.concatenate(parts) for parts in (block.row, block.column, block.estimate))
        slack = self.frame.slack
        far = np.maximum(slack[block.start + row] + slack[column] - estimate, np.float32(0))
        # Floats from 0 up sort as their bits do, so one sort of integers orders by (row, far).
        order = np.argsort((row.astype(np.uint64) << np.uint64(32)) | far.view(np.uint32))
        row, column, estimate, far = row[order], column[order], estimate[order], far[order]
        counts = np.bincount(row, minlength=block.stop - block.start)
        enough = np.flatnonzero(counts >= self.k)
        kth = far[(np.cumsum(counts) - counts)[enough] + self.k - 1]
        bound = self.bound[block.start : block.stop]
        bound[enough] = np.maximum(bound[enough], np.nextafter(-kth, np.float32(-np.inf)))
        keep = estimate >= bound[row]
        hard = np.bincount(row[keep], minlength=len(bound)) > self.limit
        bound[hard] = np.inf  # such a row takes no more candidates and is searched in float64
        keep &= ~hard[row]
        block.row, block.column, block.estimate = [row[keep]], [column[keep]], [estimate[keep]]
        block.pending = 0

    def _measure(self, block: _Block, result: NDArray[np.int64]) -> None:
        """The neighbours of a block that has met all others, from its last candidates; lets these go."""
        told = np.flatnonzero(~np.isposinf(self.bound[block.start : block.stop]))
        if len(told):
            rows = self.frame.order[block.start + told]
            row = np.searchsorted(told, block.row[0])
            result[rows] = nearest_of_candidates(self.points, rows, row, self.frame.order[block.column[0]], self.k)
        block.row, block.column, block.estimate = [], [], []


class _HostHits:
    """Products on a CPU, and the entries above a bound. The buffers are used again for each product."""

    def __init__(self, tile: int, pool: ThreadPoolExecutor, threads: int) -> None:
        self.tile = torch.empty(tile * tile)
        self.masks = np.zeros((2, tile * tile), dtype=np.bool_)
        self.pool, self.threads = pool, threads

    def product(self, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        out = self.tile[: len(left) * len(right)].view(len(left), len(right))
        return torch.mm(left, right.T, out=out)

    def find(self, tile: torch.Tensor, rows: NDArray[np.float32], columns: NDArray[np.float32]) -> _Hits:
        """Row, column and value of the entries at or above the bound of their row or their column."""
        values = tile.numpy()
        step = -(-len(values) // (8 * self.threads)) * 8  # so that each strip is a whole number of eights
        strips = self.pool.map(lambda start: self._strip(values, rows, columns, start, step), range(0, len(rows), step))
        flat = np.concatenate(list(strips))
        row, column = np.divmod(flat, values.shape[1])
        return row.astype(np.int32), column.astype(np.int32), values.ravel()[flat]

    def _strip(
        self,
        values: NDArray[np.float32],
        rows: NDArray[np.float32],
        columns: NDArray[np.float32],
        start: int,
        step: int,
    ) -> NDArray[np.int64]:
        """Flat places of the hits in some rows. Numpy gives up the interpreter's lock, so strips run at once."""
        part, width = values[start : start + step], values.shape[1]
        masks = self.masks[:, start * width : start * width + part.size]
        np.greater_equal(part, rows[start : start + step, None], out=masks[0].reshape(part.shape))
        np.greater_equal(part, columns, out=masks[1].reshape(part.shape))
        whole = part.size // 8 * 8
        np.bitwise_or(
            masks[0, :whole].view(np.uint64), masks[1, :whole].view(np.uint64), out=masks[0, :whole].view(np.uint64)
        )
        # Hits are rare: look at eight entries at a time, then at the eights that hold some.
        eights = np.flatnonzero(masks[0, :whole].view(np.uint64) != 0)
        which, place = np.nonzero(masks[0, :whole].reshape(-1, 8)[eights])
        rest = whole + np.flatnonzero(masks[0, whole:] | masks[1, whole:])
        hits: NDArray[np.int64] = np.concatenate([eights[which] * 8 + place, rest]) + start * width
        return hits


class _DeviceHits:
    """The same on another device; only the hits travel."""

    def product(self, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        return torch.mm(left, right.T)

    def find(self, tile: torch.Tensor, rows: NDArray[np.float32], columns: NDArray[np.float32]) -> _Hits:
        """Row, column and value of the entries at or above the bound of their row or their column."""
        row_bound, column_bound = (torch.from_numpy(array).to(tile.device) for array in (rows, columns))
        row, column = torch.nonzero((tile >= row_bound[:, None]) | (tile >= column_bound), as_tuple=True)
        estimate: NDArray[np.float32] = tile[row, column].cpu().numpy()
        return row.int().cpu().numpy(), column.int().cpu().numpy(), estimate


def _frame(points: Points, device: torch.device) -> _Frame:
    """Centre on the median (which no outlier moves), scale by a power of two, shuffle, append the norms."""
    size, dimensions = points.shape
    rng = np.random.default_rng(0)
    order = rng.permutation(size)
    centre = np.median(points[order[:1000]].astype(np.float64), axis=0)
    largest = max(float(np.abs(points.max(axis=0) - centre).max()), float(np.abs(points.min(axis=0) - centre).max()))
    scale = 2.0 ** np.floor(np.log2(np.sqrt(LARGEST_NORM / max(dimensions, 1)) / largest)) if largest > 0 else 1.0
    # Unit roundoff times the number of roundings in x·y - |x|²/2 - |y|²/2, whose terms add up to at most
    # |x|² + |y|²: D + 2 of the sum (Higham, Accuracy and Stability, 3.1), the rest for rounding x, y, norms.
    relative = (dimensions + 24) * 2.0**-24
    framed = np.empty((size, dimensions + 2), dtype=np.float32)
    slack = np.empty(size, dtype=np.float32)
    for start in range(0, size, 16_384):
        part = slice(start, start + 16_384)
        moved = (points[order[part]] - centre) * scale
        norms = np.einsum("nd,nd->n", moved, moved)
        framed[part, :dimensions] = moved
        framed[part, dimensions] = 1
        framed[part, dimensions + 1] = norms * (relative - 0.5) + TINY
        slack[part] = 2 * relative * norms + 4 * TINY
    return _Frame(torch.from_numpy(framed).to(device), order, slack)


def _mirrored(framed: torch.Tensor) -> torch.Tensor:
    """The other side of a product: 1 and the norm change places, so that x·y + a(x) + a(y) comes out."""
    mirrored = framed.clone()
    mirrored[:, -2:] = framed[:, -2:].flip(1)
    return mirrored


@contextmanager
def _whole_float32() -> Iterator[None]:
    """No TF32 or bfloat16 in products, whatever the process chose; its choice comes back afterwards."""
    chosen = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(chosen)
