"""Active learning on single mixes: near-duplicates and all."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from kdal_core.distillation.confidence import Student, confidence_curves
from kdal_core.distillation.pairs import Mode, PairPool, as_weights, mix_images, pool_of_images
from kdal_core.distillation.rivals.protocol import Problem
from kdal_core.distillation.selection import MixupSelection
from kdal_core.distillation.stages import Distilled, Proposal, Stage, distil_in_stages
from kdal_core.models import Network

BLOCK = 4096  # pairs


def vanilla_active(problem: Problem) -> Distilled:
    """The mixes of lowest C1 over all pairs and lambdas, however many of one pair that are.

    `config.candidates` bounds the pairs that are looked at in each stage; without it every one is, at every lambda.
    Source: Active Mixup paper, section 4.3 (vanilla active learning).
    """
    config = problem.config
    pool = pool_of_images(problem.images, mixed_colours=config.mixed_colours)
    pairs = PairPool(len(pool), config.mode)
    grid = as_weights(config.lambdas)

    def propose(student: Network | None, k: int, history: Sequence[Stage]) -> Proposal:
        assert student is not None  # nothing is replayed
        rng = np.random.default_rng([config.training.seed, len(history)])
        found = lowest_mixes(
            student, pool, k, grid, _taken(history, pairs, grid), rng, candidates=config.candidates, mode=config.mode
        )
        return Proposal(mix_images(pool, found.pairs, found.lambdas), found)

    return distil_in_stages(
        problem.teacher,
        pool,
        problem.student,
        problem.ledger,
        propose,
        config.training,
        most=len(pairs) * len(grid),
        on_stage=problem.on_stage,
    )


def lowest_mixes(
    student: Student,
    images: Tensor,
    k: int,
    grid: NDArray[np.float64],
    taken: NDArray[np.int64],
    rng: np.random.Generator,
    *,
    candidates: int | None = None,
    mode: Mode = "all",
) -> MixupSelection:
    """The k mixes of lowest C1, ascending; equal ones by pair number, then lambda.

    Args:
        student, images: as in `select_pairs`.
        k: mixes to choose; fewer come back when fewer candidates are left.
        grid: (L,) lambdas, ascending.
        taken: numbers of the mixes that may not be chosen: pair number · L + place in the grid.
        rng: draws the candidates.
        candidates: pairs to look at; None: all.
        mode: see `mixup_pairs`.
    """
    pool = PairPool(len(images), mode)
    few = None
    if candidates is not None and candidates < len(pool):
        few = np.sort(rng.choice(len(pool), candidates, replace=False))
    numbers: NDArray[np.int64] = np.empty(0, np.int64)
    scores: NDArray[np.float32] = np.empty(0, np.float32)
    for start in range(0, len(pool) if few is None else len(few), BLOCK):
        stop = min(start + BLOCK, len(pool))
        positions = np.arange(start, stop, dtype=np.int64) if few is None else few[start : start + BLOCK]
        curves = confidence_curves(student, images, pool.pairs(positions), grid)  # (b, L)
        mixes = (positions[:, None] * len(grid) + np.arange(len(grid))).ravel()
        free = ~np.isin(mixes, taken)
        numbers, scores = np.concatenate([numbers, mixes[free]]), np.concatenate([scores, curves.ravel()[free]])
        order = np.lexsort((numbers, scores))[:k]
        numbers, scores = numbers[order], scores[order]
    pairs = pool.pairs(numbers // len(grid))
    return MixupSelection(pairs, grid[numbers % len(grid)], scores.astype(np.float64))


def _taken(history: Sequence[Stage], pool: PairPool, grid: NDArray[np.float64]) -> NDArray[np.int64]:
    """Numbers of the mixes of earlier stages."""
    chosen = [stage.selection for stage in history if stage.selection is not None]
    parts = [pool.positions(each.pairs) * len(grid) + np.searchsorted(grid, each.lambdas) for each in chosen]
    return np.concatenate([np.empty(0, np.int64), *parts])
