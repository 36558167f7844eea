"""The pairs of a pool that a student is least sure of, without a forward for each pair and lambda.

The first level asks the student about every pair at two lambdas only and guesses the curve between; the pairs that
look lowest are asked at a third lambda, the lowest of those at two more, then at all that are left, and what is lowest
then is measured in the straightforward way. Each level goes down the order of the one before it until that yields next
to nothing more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kdal_core.distillation.confidence import Student, as_float, inference, pair_confidence
from kdal_core.distillation.curves import Level, levels, lowest_on_grid
from kdal_core.distillation.pairs import PairPool
from kdal_core.distillation.parts import Parts, parts_of
from kdal_core.errors import ConfigError
from kdal_core.training.inference import block_size

Precision = Literal["float32", "bfloat16"]
Blocks = Callable[[], Iterator[NDArray[np.int64]]]
Progress = Callable[[float], None]

SHARE_KEPT = 0.35  # of the pairs, after the first level; see `levels` for how many the next one needs
TIMES_KEPT = 8  # at least so many times k
LITTLE = 0.001  # share of k: when a stretch of k candidates yields no more than that, the level is done
SHORTEST = 256  # candidates of a stretch, if k is smaller: of fewer, none that counts may be among them by chance


@dataclass(frozen=True)
class Found:
    """Pairs and what the straightforward way measured for them, ascending by (confidence, position)."""

    positions: NDArray[np.int64]
    confidence: NDArray[np.float64]
    lambdas: NDArray[np.float64]


@dataclass
class _Kept:
    """The best candidates so far in slots of a fixed number.

    Attributes:
        positions: (M,) numbers of the pairs.
        guess: (M,) float32 guessed C2; inf in a free slot.
        hidden: (M, asked, D) hidden values at the lambdas asked so far.
        filled: slots in use; they are used from the front.
    """

    positions: NDArray[np.int64]
    guess: NDArray[np.float32]
    hidden: Tensor
    filled: int = 0

    def offer(self, positions: NDArray[np.int64], guess: NDArray[np.float32], hidden: list[Tensor]) -> None:
        """Take in what is better than the worst that is kept, by (guess, position)."""
        free = min(len(self.guess) - self.filled, len(guess))
        self._write(np.arange(self.filled, self.filled + free), np.arange(free), positions, guess, hidden)
        self.filled += free
        if free == len(guess):
            return
        rest = np.arange(free, len(guess))
        rest = rest[guess[rest] <= self.guess.max()]
        if len(rest) == 0:
            return
        both = np.concatenate([self.guess, guess[rest]])
        won = _lowest(both, np.concatenate([self.positions, positions[rest]]), len(self.guess))
        gone = np.flatnonzero(~won[: len(self.guess)])
        self._write(gone, rest[won[len(self.guess) :]], positions, guess, hidden)

    def _write(
        self,
        slots: NDArray[np.int64],
        rows: NDArray[np.int64],
        positions: NDArray[np.int64],
        guess: NDArray[np.float32],
        hidden: list[Tensor],
    ) -> None:
        self.positions[slots], self.guess[slots] = positions[rows], guess[rows]
        where, which = torch.from_numpy(slots), torch.from_numpy(rows)
        for node, values in enumerate(hidden):
            self.hidden[where, node] = values[which]


def lowest_pairs(
    student: Student,
    pixels: Tensor,
    pool: PairPool,
    blocks: Blocks,
    count: int,
    k: int,
    grid: NDArray[np.float64],
    *,
    memory: int,
    precision: Precision = "float32",
    progress: Progress | None = None,
) -> Found:
    """Nearly the k pairs of lowest C2; each with the confidence and lambda that `pair_confidence` gives it.

    Args:
        student, pixels: as in `pair_confidence`, checked.
        pool: whose pairs.
        blocks: gives the positions of the candidates, in blocks, ascending.
        count: candidates in all.
        k: at most `count`.
        grid: (L,) lambdas, ascending.
        memory: bytes that candidates and stems may take.
        precision: of the trunk in the guesses. What is returned is measured in float32.
        progress: called with the share of the first level that is done, in [0, 1].

    Raises:
        ConfigError: so little memory that not even 2 k candidates fit.
    """
    with inference(student) as device:
        search = _Search(student, pixels, pool, grid, device, precision, memory)
        kept = search.first(blocks, count, k, progress)
        places = search.order(kept.guess[: kept.filled], kept.positions[: kept.filled])
        for level in search.levels[1:]:
            places = search.refine(kept, places, level, k)
        return search.measure(kept.positions[places], k)


class _Search:
    """What stays the same through the levels of one call of `lowest_pairs`."""

    def __init__(
        self,
        student: Student,
        pixels: Tensor,
        pool: PairPool,
        grid: NDArray[np.float64],
        device: torch.device,
        precision: Precision,
        memory: int,
    ) -> None:
        self.student, self.pixels, self.pool, self.grid = student, pixels, pool, grid
        self.device, self.half, self.memory = device, precision == "bfloat16", memory
        self.parts: Parts = parts_of(student)
        self.levels: list[Level] = levels(grid)
        self.size = block_size(pixels.shape[2:], device.type)
        self.stems = self._stems()
        self.ends = torch.cat(
            [self._trunk(self._maps(rows)) for rows in torch.split(torch.arange(len(pixels)), self.size)]
        )

    def first(self, blocks: Blocks, count: int, k: int, progress: Progress | None) -> _Kept:
        """All candidates through the first level; the best of them, as many as may be needed and fit."""
        asked, width = sum(len(level.new) for level in self.levels[:-1]), self.ends.shape[1]  # the last keeps none
        each = asked * width * 4 + 64
        slots = min(count, max(int(SHARE_KEPT * count), TIMES_KEPT * k), self.memory // 2 // each)
        if slots < min(count, 2 * k):
            raise ConfigError(
                f"{2 * k:,} candidates for {k:,} pairs take {4 * k * each:,} bytes, memory is {self.memory:,}: allow "
                "more, or select fewer pairs at a time."
            )
        kept = _Kept(
            np.zeros(slots, np.int64),
            np.full(slots, np.inf, np.float32),
            torch.empty(slots, asked, width, device=self.device),
        )
        done = 0
        for positions in blocks():
            hidden, guess = self._ask(positions, [], self.levels[0])
            kept.offer(positions, guess, hidden if len(self.levels) > 1 else [])
            done += len(positions)
            if progress is not None:
                progress(done / count)
        return kept

    def refine(self, kept: _Kept, places: NDArray[np.int64], level: Level, k: int) -> NDArray[np.int64]:
        """Go down the candidates at these places of `kept`, best first, and order those gone through anew."""
        before = len(level.nodes) - 2 - len(level.new)
        step = max(k, SHORTEST)
        for start in range(0, len(places), step):
            stretch = places[start : start + step]
            for part in np.split(stretch, range(4096, len(stretch), 4096)):
                rows = torch.from_numpy(part)
                known = [kept.hidden[rows, node] for node in range(before)]
                hidden, kept.guess[part] = self._ask(kept.positions[part], known, level)
                if level is not self.levels[-1]:
                    for node, values in enumerate(hidden[before:], start=before):
                        kept.hidden[rows, node] = values
            seen = places[: start + step]
            limit = np.partition(kept.guess[seen], min(k, len(seen)) - 1)[min(k, len(seen)) - 1]
            if start and (kept.guess[stretch] <= limit).sum() <= LITTLE * k:
                break
        return seen[self.order(kept.guess[seen], kept.positions[seen])]

    def measure(self, positions: NDArray[np.int64], k: int) -> Found:
        """Measure candidates, best guess first, until a stretch of them adds next to nothing to the k lowest."""
        found = Found(np.empty(0, np.int64), np.empty(0), np.empty(0))
        start, step = 0, k
        while start < len(positions):
            stretch = positions[start : start + step]
            confidence, lambdas = pair_confidence(self.student, self.pixels, self.pool.pairs(stretch), self.grid)
            found = _merged(found, Found(stretch, confidence, lambdas), k)
            if start and np.isin(stretch, found.positions).sum() <= LITTLE * k:
                break
            start, step = start + step, max(k // 50, 64)  # the guesses are exact by now, but for rounding
        return found

    @staticmethod
    def order(guess: NDArray[np.float32], positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """Places by (guess, position)."""
        order: NDArray[np.int64] = np.lexsort((positions, guess))
        return order

    def _ask(
        self, positions: NDArray[np.int64], known: list[Tensor], level: Level
    ) -> tuple[list[Tensor], NDArray[np.float32]]:
        """Hidden values of pairs at the lambdas asked up to a level, and the C2 guessed from them."""
        rows = torch.from_numpy(self.pool.pairs(positions))  # (m, 2)
        lambdas = [float(self.grid[place]) for place in level.new]
        parts: list[list[Tensor]] = [[] for _ in lambdas]
        guesses = []
        for start in range(0, len(rows), self.size):
            pairs = rows[start : start + self.size]
            first, second = self._maps(pairs[:, 0]), self._maps(pairs[:, 1])  # (B, ...)
            new = [self._trunk(torch.lerp(second, first, weight)) for weight in lambdas]  # (B, D) each
            old = [values[start : start + self.size] for values in known]
            ends = [self.ends[pairs[:, 1]], self.ends[pairs[:, 0]]]  # lambda 0 is the second image, 1 the first
            guesses.append(lowest_on_grid(self.parts.tail, [*ends, *old, *new], level))
            for part, values in zip(parts, new, strict=True):
                part.append(values)
        guess: NDArray[np.float32] = torch.cat(guesses).cpu().numpy()
        return [*known, *(torch.cat(part) for part in parts)], guess

    def _stems(self) -> Tensor | None:
        """The stems of all images, where there are such and they take no more than a quarter of the memory."""
        if self.parts.stem is None:
            return None
        blocks = torch.split(torch.arange(len(self.pixels)), self.size)
        first = self.parts.stem(as_float(self.pixels[blocks[0]], self.device))
        if first[0].numel() * 4 * len(self.pixels) > self.memory // 4:
            return None
        rest = [self.parts.stem(as_float(self.pixels[rows], self.device)) for rows in blocks[1:]]
        return torch.cat([first, *rest])

    def _maps(self, rows: Tensor) -> Tensor:
        """What is mixed, of these images, as a copy: their stems, or they themselves."""
        if self.stems is not None:
            return self.stems.index_select(0, rows.to(self.stems.device))
        return as_float(self.pixels.index_select(0, rows), self.device).clone()

    def _trunk(self, maps: Tensor) -> Tensor:
        """Hidden values (B, D) float32 of mixed maps or images, which may be overwritten."""
        if self.stems is None and self.parts.stem is not None:
            maps = self.parts.stem(maps)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.half):
            return self.parts.trunk(maps).float()


def _lowest(guess: NDArray[np.float32], positions: NDArray[np.int64], k: int) -> NDArray[np.bool_]:
    """Which are the k lowest by (guess, position); a partition is far quicker than sorting them all."""
    limit = np.partition(guess, k - 1)[k - 1]
    chosen = np.asarray(guess < limit)
    equal = np.flatnonzero(guess == limit)
    chosen[equal[np.argsort(positions[equal])][: k - chosen.sum()]] = True
    return chosen


def _merged(a: Found, b: Found, k: int) -> Found:
    """The k lowest of both."""
    positions, confidence, lambdas = (
        np.concatenate(both)
        for both in ((a.positions, b.positions), (a.confidence, b.confidence), (a.lambdas, b.lambdas))
    )
    order = np.lexsort((positions, confidence))[:k]
    return Found(positions[order], confidence[order], lambdas[order])
