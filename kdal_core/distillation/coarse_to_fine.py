"""The pairs of a pool that a student is least sure of, without a forward for each pair and lambda.

A sketch that is fitted to a few thousand pairs guesses where along lambda each pair is least sure, and the student is
asked there: one forward a pair. That corrects the guess; the pairs that look lowest then are asked once more, where
they look lowest now, the lowest of those again, and so on, and what is lowest in the end is measured in the
straightforward way. Each round goes down the order of the one before it until that yields next to nothing more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kdal_core.distillation.confidence import Student, as_float, highest_of_columns, inference, pair_confidence
from kdal_core.distillation.curves import Sketch, corrected, inner, places_to_fit, sketch
from kdal_core.distillation.pairs import PairPool
from kdal_core.distillation.submodules import Submodules, submodules_of
from kdal_core.errors import ConfigError
from kdal_core.training.inference import block_size

Precision = Literal["float32", "bfloat16"]
Blocks = Callable[[], Iterator[NDArray[np.int64]]]
Progress = Callable[[float], None]

ROUNDS = 6  # at most; the later ones look at few pairs
FITTED, LEAST_FITTED = 12_000, 500  # pairs to which the sketch is fitted: a 25th of the pool, in these bounds
LEAST_TOGETHER, TOGETHER = 64, 1024  # pairs whose curves are computed together
SHARE_KEPT = 0.6  # of the pairs, after the first round
TIMES_KEPT = 8  # at least this many times k
LITTLE = 0.0002  # share of k: when a stretch of k candidates yields no more than that, the round is done
RARE = 0.005  # share of a stretch: when no more than that of the last one measured is among the lowest, all is done
SHORTEST = 256  # candidates of a stretch, if k is smaller: of fewer, none that counts may be among them by chance


@dataclass(frozen=True)
class Found:
    """Pairs and what the straightforward way measured for them, ascending by (confidence, position)."""

    positions: NDArray[np.int64]
    confidence: NDArray[np.float64]
    lambdas: NDArray[np.float64]


@dataclass(frozen=True)
class _Told:
    """What a round has brought for B pairs.

    Attributes:
        guess: (B,) float32 C2.
        logits: (B, C) what the student said now.
        asked: (B,) the place in the grid where that was.
        next: (B,) the place that looks lowest of those not asked about yet.
    """

    guess: NDArray[np.float32]
    logits: Tensor
    asked: Tensor
    next: Tensor


@dataclass
class _Kept:
    """The best candidates so far in slots of a fixed number.

    Attributes:
        positions: (M,) numbers of the pairs.
        guess: (M,) float32 guessed C2; inf in a free slot.
        logits: (R, M, C) what the student said in each round.
        places: (R + 1, M) where in the grid it was asked, and where it is to be asked next.
        filled: slots in use; they are used from the front.
    """

    positions: NDArray[np.int64]
    guess: NDArray[np.float32]
    logits: Tensor
    places: Tensor
    filled: int = 0

    def offer(self, positions: NDArray[np.int64], told: _Told) -> None:
        """Take in what is better than the worst that is kept, by (guess, position)."""
        guess = told.guess
        free = min(len(self.guess) - self.filled, len(guess))
        self._write(np.arange(self.filled, self.filled + free), np.arange(free), positions, told)
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
        self._write(gone, rest[won[len(self.guess) :]], positions, told)

    def _write(
        self, slots: NDArray[np.int64], rows: NDArray[np.int64], positions: NDArray[np.int64], told: _Told
    ) -> None:
        self.positions[slots] = positions[rows]
        self.tell(slots, 0, told, torch.from_numpy(rows))

    def tell(self, slots: NDArray[np.int64], number: int, told: _Told, rows: Tensor | None = None) -> None:
        """Keep what these rows (all, if None) have been told in a round for the pairs in these slots."""
        rows = torch.arange(len(told.guess)) if rows is None else rows
        where = torch.from_numpy(slots)
        self.guess[slots] = told.guess[rows.numpy()]
        if number < len(self.logits):
            self.logits[number, where] = told.logits[rows.to(told.logits.device)]
            self.places[number, where] = told.asked[rows.to(told.asked.device)].to(self.places.dtype)
            self.places[number + 1, where] = told.next[rows.to(told.next.device)].to(self.places.dtype)


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
        for number in range(1, search.rounds):
            places = search.refine(kept, places, number, k)
        return search.measure(kept.positions[places], k)


class _Search:
    """What stays the same through the rounds of one call of `lowest_pairs`."""

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
        self.parts: Submodules = submodules_of(student)
        self.rounds = min(ROUNDS, len(inner(grid)))
        self.lambdas = torch.from_numpy(grid).float().to(device)
        self.size = block_size(pixels.shape[2:], device.type)
        self.stems = self._stems()
        self.sketch = self._sketch()
        self.classes = self.sketch.first.shape[2]
        # Some six arrays of this size live at a time.
        fitting = memory // 16 // (6 * 4 * len(grid) * self.classes)
        self.together = min(max(fitting // LEAST_TOGETHER * LEAST_TOGETHER, LEAST_TOGETHER), TOGETHER)
        self.open = torch.zeros(len(grid), dtype=torch.bool, device=device)  # places that can be asked about
        self.open[torch.from_numpy(inner(grid))] = True

    def first(self, blocks: Blocks, count: int, k: int, progress: Progress | None) -> _Kept:
        """All candidates through the first round; the best of them, as many as may be needed and fit."""
        later = max(0, self.rounds - 1)  # what the last round brings is not looked at again
        each = later * (self.classes * 4 + 4) + 64
        slots = min(count, max(int(SHARE_KEPT * count), TIMES_KEPT * k), self.memory // 2 // each)
        if slots < min(count, 2 * k):
            raise ConfigError(
                f"{2 * k:,} candidates for {k:,} pairs take {4 * k * each:,} bytes, memory is {self.memory:,}: allow "
                "more, or select fewer pairs at a time."
            )
        kept = _Kept(
            np.zeros(slots, np.int64),
            np.full(slots, np.inf, np.float32),
            torch.empty(later, slots, self.classes, device=self.device),
            torch.zeros(later + 1, slots, dtype=torch.int16, device=self.device),
        )
        done = 0
        for positions in blocks():
            for part in np.split(positions, range(self.together, len(positions), self.together)):
                kept.offer(part, self._ask(part, None, None))
            done += len(positions)
            if progress is not None:
                progress(done / count)
        return kept

    def refine(self, kept: _Kept, places: NDArray[np.int64], number: int, k: int) -> NDArray[np.int64]:
        """Go down the candidates at these places of `kept`, best first, and order again those gone through."""
        step = max(k, SHORTEST)
        for start in range(0, len(places), step):
            stretch = places[start : start + step]
            for part in np.split(stretch, range(self.together, len(stretch), self.together)):
                rows = torch.from_numpy(part)
                known = kept.places[: number + 1, rows].long(), kept.logits[:number, rows]
                kept.tell(part, number, self._ask(kept.positions[part], *known))
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
            if start and np.isin(stretch, found.positions).sum() <= RARE * len(stretch):
                break
            start, step = start + step, max(k // 50, 64)  # the guesses are exact by now, but for rounding
        return found

    @staticmethod
    def order(guess: NDArray[np.float32], positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """Places by (guess, position)."""
        order: NDArray[np.int64] = np.lexsort((positions, guess))
        return order

    def _ask(self, positions: NDArray[np.int64], places: Tensor | None, known: Tensor | None) -> _Told:
        """Ask the student once about each of B pairs and guess their C2 from all that it said so far.

        Args:
            positions: of the pairs.
            places: (r + 1, B) where it was asked before, and where it is to be asked now; None: never, and where the
                sketch is lowest.
            known: (r, B, C) what it said before.
        """
        pairs = torch.from_numpy(self.pool.pairs(positions)).to(self.device)  # (B, 2)
        curves = self.sketch.curves(pairs)  # (L, C, B)
        if self.rounds == 0:
            guess: NDArray[np.float32] = highest_of_columns(curves).amin(dim=0).cpu().numpy()
            nowhere = torch.zeros(len(pairs), dtype=torch.int64)
            return _Told(guess, torch.empty(len(pairs), self.classes), nowhere, nowhere)
        if places is None or known is None:
            certain = highest_of_columns(curves).masked_fill_(~self.open[:, None], torch.inf)
            places, known = certain.argmin(dim=0)[None], curves.new_empty(0, len(pairs), self.classes)
        now = self._logits(pairs, self.lambdas[places[-1]])
        certain = highest_of_columns(corrected(curves, self.lambdas, places, torch.cat([known, now[None]])))  # (L, B)
        guess = certain.amin(dim=0).cpu().numpy()
        certain.scatter_(0, places, torch.inf).masked_fill_(~self.open[:, None], torch.inf)
        return _Told(guess, now, places[-1], certain.argmin(dim=0))

    def _logits(self, pairs: Tensor, lambdas: Tensor) -> Tensor:
        """What the student says to mixes of pairs (B, 2), each at a lambda of its own: (B, C)."""
        found = []
        for start in range(0, len(pairs), self.size):
            first, second = pairs[start : start + self.size].T
            if bool((first == first[0]).all()):
                first = first[:1]  # most blocks of a pool are a stretch of a row
            maps = self._maps(second)
            weights = lambdas[start : start + self.size].view(-1, *[1] * (maps.ndim - 1))
            found.append(self.parts.tail(self._trunk(maps.lerp_(self._maps(first), weights))))
        return torch.cat(found).float()

    def _sketch(self) -> Sketch:
        """The sketch of all pairs, from a forward for each image and three for each of a few thousand pairs."""
        blocks = torch.split(torch.arange(len(self.pixels), device=self.device), self.size)
        hidden = torch.cat([self._trunk(self._maps(rows)) for rows in blocks])  # (N, D)
        logits = self.parts.tail(hidden).float()  # (N, C)
        places = places_to_fit(self.grid)
        if 8 * (len(places) + 2) * logits.numel() > self.memory // 4:
            places = []
        count = min(max(len(self.pool) // 25, LEAST_FITTED), FITTED, self.memory // (128 * logits.shape[1]) + 1)
        drawn = np.random.default_rng(0).integers(0, len(self.pool), count)
        pairs = torch.from_numpy(self.pool.pairs(np.sort(drawn))).to(self.device)
        asked = [self._logits(pairs, self.lambdas[place].expand(count)) for place in places]
        return sketch(logits, hidden, self.grid, places, pairs, torch.stack(asked) if asked else logits[:0])

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
            return self.stems.index_select(0, rows)
        return as_float(self.pixels.index_select(0, rows.to(self.pixels.device)), self.device)

    def _trunk(self, maps: Tensor) -> Tensor:
        """Hidden values (B, D) float32 of mixed maps or images, which are overwritten."""
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
