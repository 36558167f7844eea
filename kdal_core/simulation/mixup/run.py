"""Run a grid, or what is left of it: one run for each row, choice and seed gives all its columns."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, wait
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kdal_core.distillation import (
    MixupSelection,
    QueryLedger,
    SoftLabel,
    SoftLabelTask,
    Stage,
    active_mixup,
    random_search,
)
from kdal_core.distillation.learning import FromScratch, HeadOnly, Learn
from kdal_core.errors import ConfigError
from kdal_core.journal import Journal
from kdal_core.models import Network
from kdal_core.simulation.mixup.cells import Cell, CellFile
from kdal_core.simulation.mixup.grid import Choice, MixupGrid
from kdal_core.simulation.mixup.teaching import Lesson, prepare
from kdal_core.simulation.processes import POLL, processes
from kdal_core.training import TrainResult

DRAW = 20200614
CELLS, TEACHER = "cells.jsonl", "teacher.safetensors"

Progress = Callable[[int, int, str], None]
"""(cells that are finished, of how many, which was the last)."""


def run_grid(
    grid: MixupGrid,
    out: Path,
    *,
    data: Path | None = None,
    workers: int = 1,
    fresh: bool = False,
    progress: Progress | None = None,
) -> tuple[float, list[Cell]]:
    """Run what is left of a grid.

    Args:
        grid: what to run.
        out: folder of its cells and its teacher; what is found there is not computed again.
        data: folder of the data sets.
        workers: processes, of one torch thread each.
        fresh: delete what is found in `out` first.
        progress: called after each cell.

    Returns:
        The teacher's accuracy in [0, 1], and all cells.

    Raises:
        ConfigError: data that is not there or too small, or cells in `out` of other settings or of another
            teacher.

    The cells depend on the grid and on the teacher alone: not on the number of workers, nor on interruptions.
    """
    if fresh:
        (out / CELLS).unlink(missing_ok=True)
        (out / TEACHER).unlink(missing_ok=True)
        shutil.rmtree(out / "runs", ignore_errors=True)
        _lesson.cache_clear()
    file = CellFile(out / CELLS, grid.fingerprint)
    taught_by, cells = file.read()
    teacher = _lesson(grid.model_dump_json(), out, data).accuracy  # before processes side by side would each train one
    if taught_by not in (None, teacher):
        raise ConfigError(
            f"The cells in {str(out)!r} are of a teacher that is right in {100 * taught_by:.2f}% of the test images; "
            f"this one is in {100 * teacher:.2f}%. Bring back its {TEACHER}, or start again with --fresh."
        )
    file.begin(teacher)
    known = {cell.key for cell in cells}
    wanted = {(real, choice, seed, mixes) for real, seed, choice, mixes in _all(grid)}
    jobs = [(real, seed) for seed in grid.seeds for real in grid.real]
    with processes(min(workers, len(jobs)), __name__) as (executor, messages):
        running = set()
        for real, seed in jobs:
            done = [key for key in known if key[0] == real and key[2] == seed]
            if len(wanted.intersection(done)) < len(grid.choices) * len(grid.mixes):
                running.add(executor.submit(_run, grid.model_dump_json(), real, seed, done, out, data, messages))
        while running:
            ended, running = wait(running, timeout=POLL, return_when=FIRST_COMPLETED)
            while not messages.empty():
                cell = Cell(**messages.get())
                file.add(cell)
                cells.append(cell)
                if progress is not None:
                    told = f"{cell.choice}, {cell.real:,} real, {cell.mixes:,} mixes, seed {cell.seed}"
                    progress(len(wanted.intersection(each.key for each in cells)), len(wanted), told)
            for future in ended:
                future.result()
    return teacher, [cell for cell in cells if cell.key in wanted]


def read_cells(grid: MixupGrid, out: Path) -> tuple[float | None, list[Cell]]:
    """The teacher's accuracy and the finished cells of a grid; those of other rows, choices and seeds stay out.

    Raises:
        ConfigError: cells that were made with other settings, or a damaged file.
    """
    teacher, cells = CellFile(out / CELLS, grid.fingerprint).read()
    wanted = {(real, choice, seed, mixes) for real, seed, choice, mixes in _all(grid)}
    return teacher, [cell for cell in cells if cell.key in wanted]


def _all(grid: MixupGrid) -> list[tuple[int, int, Choice, int]]:
    return [
        (real, seed, choice, mixes)
        for seed in grid.seeds
        for real in grid.real
        for choice in grid.choices
        for mixes in grid.mixes
    ]


class _SharedStart:
    """A way to students that remembers the first one: without a mix all choices are the same."""

    def __init__(self, learn: Learn) -> None:
        self._learn = learn
        self._first: tuple[Network, TrainResult | None] | None = None

    def __call__(
        self, images: Tensor, targets: Sequence[SoftLabel], rows: Sequence[int], number: int
    ) -> tuple[Network, TrainResult | None]:
        if number > 0:
            return self._learn(images, targets, rows, number)
        if self._first is None:
            self._first = self._learn(images, targets, rows, number)
        return self._first


def _run(
    settings: str,
    real: int,
    seed: int,
    done: list[tuple[int, str, int, int]],
    out: Path,
    data: Path | None,
    messages: Any,
) -> None:
    """All choices of a row and seed, in a process of its own; each cell is told when it is finished."""
    grid, lesson = MixupGrid.model_validate_json(settings), _lesson(settings, out, data)
    rows = np.random.default_rng([DRAW, seed]).permutation(len(lesson.images))[:real]
    images = lesson.images[torch.from_numpy(rows)].contiguous()
    config = grid.mixup_config("random", seed).training
    if lesson.student is None:
        size = (int(images.shape[2]), int(images.shape[3]))
        learn: Learn = FromScratch(SoftLabelTask(lesson.classes), grid.student, size, config.train, seed)
    else:
        learn = HeadOnly(lesson.student)
    shared = _SharedStart(learn)
    for choice in grid.choices:
        finished = sum(1 for key in done if key[1] == choice)
        if finished < len(grid.mixes):
            _run_choice(grid, choice, seed, images, lesson, shared, finished, out, messages)


def _run_choice(
    grid: MixupGrid,
    choice: Choice,
    seed: int,
    images: Tensor,
    lesson: Lesson,
    learn: Learn,
    finished: int,
    out: Path,
    messages: Any,
) -> None:
    """One run: a student at each number of mixes. The selections are kept until it ends, to go on after them."""
    journal = Journal(out / "runs" / f"{choice}-{len(images)}-{seed}.json", grid.fingerprint)
    kept = (journal.read() or {"selections": []})["selections"]
    # A run goes on from the last cell that is written down: its student is trained again, to say what comes next.
    selections = kept[: max(0, finished - 1)]
    replay = [MixupSelection(np.array(p, np.int64), np.array(w), np.array(c)) for p, w, c in selections]
    began = time.process_time()

    def on_stage(stage: Stage, student: Network) -> None:
        nonlocal began
        if stage.selection is not None and stage.number > len(replay):
            found = stage.selection
            selections.append([found.pairs.tolist(), found.lambdas.tolist(), found.confidence.tolist()])
            journal.write({"selections": selections})
        if stage.number >= finished:
            accuracy, agreement = lesson.test(student)
            told = {"real": len(images), "mixes": grid.mixes[stage.number], "choice": choice, "seed": seed}
            seconds = round(time.process_time() - began, 2)
            messages.put({**told, "accuracy": accuracy, "agreement": agreement, "seconds": seconds})
        began = time.process_time()

    distil = random_search if choice == "random" else active_mixup
    config = grid.mixup_config(choice, seed)
    ledger = QueryLedger(len(images) + grid.mixes[-1])
    distil(lesson.teacher, images, grid.student, ledger, config, replay=replay, learn=learn, on_stage=on_stage)
    journal.path.unlink(missing_ok=True)


@lru_cache(maxsize=1)
def _lesson(settings: str, out: Path, data: Path | None) -> Lesson:
    """Data and teacher, once for the runs that follow each other in a process."""
    return prepare(MixupGrid.model_validate_json(settings), out / TEACHER, data)
