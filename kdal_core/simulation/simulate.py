"""A whole campaign: every arm and seed in processes side by side, each taken up where it was interrupted."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import platform
import re
import shlex
import shutil
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from kdal_core.simulation.annotator import Difficulty, make_annotator, measure_difficulty
from kdal_core.simulation.campaign import Arm, Campaign
from kdal_core.simulation.datasets import load_split
from kdal_core.simulation.results import Point, Results, Run
from kdal_core.simulation.runner import EVERY_LABEL, Setting, make_lesson, run_arm, run_every_label, run_fingerprint

# glibc gives every large tensor back to the kernel and asks for it anew: a fifth of the training time.
MALLOC = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "4000000000", "MALLOC_TOP_PAD_": "67108864"}
POLL = 0.2  # seconds


@dataclass(frozen=True)
class Job:
    """One run: an arm (None: the model that has every label) and a seed."""

    arm: Arm | None
    seed: int

    @property
    def name(self) -> str:
        """The arm's name."""
        return EVERY_LABEL if self.arm is None else self.arm.name

    @property
    def key(self) -> tuple[str, int]:
        """Arm and seed."""
        return self.name, self.seed

    def journal(self, folder: Path) -> Path:
        """Where the run is kept; readable, and different for names that differ in odd characters only."""
        readable = re.sub(r"[^\w.-]+", "_", self.name).strip("_")
        digest = hashlib.sha256(self.name.encode()).hexdigest()[:6]
        return folder / "runs" / f"{readable}-{digest}" / f"seed-{self.seed}.json"


@dataclass(frozen=True)
class Progress:
    """How far a campaign is: rounds done of all rounds, and what was done last."""

    done: int
    total: int
    last: str


def simulate(
    campaign: Campaign,
    out: Path,
    *,
    data: Path | None = None,
    workers: int | None = None,
    fresh: bool = False,
    progress: Callable[[Progress], None] | None = None,
) -> Results:
    """Run a campaign, or what is left of it, and give its results.

    Args:
        campaign: what to run.
        out: folder of the runs; those found there are taken up where they were interrupted.
        data: folder of the data sets.
        workers: processes, of one torch thread each; None: one for each CPU. With CUDA one is right.
        fresh: delete what is found in `out` first.
        progress: called after each round of each run.

    Raises:
        ConfigError: data that is not there, or runs in `out` that were made with other settings.

    The result hangs on the campaign alone: not on the number of workers, nor on interruptions.
    """
    if fresh:
        shutil.rmtree(out / "runs", ignore_errors=True)
    load_split(campaign, campaign.seeds[0], data)  # what is wrong with the data is said before anything is started
    jobs = [Job(arm, seed) for seed in campaign.seeds for arm in (*campaign.strategies, None)]
    total = sum(campaign.rounds if job.arm else 1 for job in jobs)
    done: dict[tuple[str, int], int] = {}
    finished: dict[tuple[str, int], tuple[Point, ...]] = {}
    with _processes(workers or os.cpu_count() or 1) as (executor, messages):
        if campaign.noise.kind == "difficulty":  # once a seed, before its arms ask for it
            _results([executor.submit(_difficulty, campaign, seed, out, data) for seed in campaign.seeds])
        running = {executor.submit(_run, campaign, job, out, data, messages): job for job in jobs}
        while running:
            ended, _ = wait(running, timeout=POLL, return_when=FIRST_COMPLETED)
            while not messages.empty():
                (arm, seed), count = messages.get()
                done[arm, seed] = count
                if progress is not None:
                    progress(Progress(sum(done.values()), total, f"{arm}, seed {seed}"))
            for future in ended:
                finished[running.pop(future).key] = future.result()
    runs = tuple(Run(job.name, job.seed, finished[job.key]) for job in jobs if job.arm)
    full = {seed: finished[EVERY_LABEL, seed][0] for seed in campaign.seeds}
    return Results(
        campaign=campaign.name,
        description=campaign.description,
        metric="accuracy",
        baseline=campaign.baseline,
        full={seed: point.score for seed, point in full.items()},
        full_labels=full[campaign.seeds[0]].labels,
        runs=runs,
        environment=environment(),
        settings=campaign.model_dump(mode="json"),
    )


def environment() -> dict[str, str]:
    """When, where and with what: for the results' small print."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    command = " ".join(["kdal" if Path(sys.argv[0]).name == "kdal" else Path(sys.argv[0]).name, *sys.argv[1:]])
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "machine": f"{os.cpu_count()} CPU cores ({platform.machine()}), {device}",
        "command": shlex.join(shlex.split(command)),
        "versions": ", ".join(f"{name} {version(name)}" for name in ("kdal", "torch", "numpy", "scikit-learn")),
    }


@contextmanager
def _processes(workers: int) -> Iterator[tuple[ProcessPoolExecutor, Any]]:
    """Processes of one torch thread each, and a queue to hear from them; an interruption ends them at once."""
    before = {name: os.environ.get(name) for name in MALLOC}
    os.environ.update({name: value for name, value in MALLOC.items() if before[name] is None})
    context = multiprocessing.get_context("spawn")
    try:
        with context.Manager() as manager:
            executor = ProcessPoolExecutor(workers, context, torch.set_num_threads, (1,))
            try:
                yield executor, manager.Queue()
            except BaseException:
                for process in list((executor._processes or {}).values()):
                    process.terminate()  # a run under way is taken up at its last finished round
                raise
            finally:
                executor.shutdown(cancel_futures=True)
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)


def _results(futures: list[Future[Any]]) -> list[Any]:
    return [future.result() for future in futures]


def _run(campaign: Campaign, job: Job, out: Path, data: Path | None, messages: Any) -> tuple[Point, ...]:
    """One run, in a process of its own, which ends with its parent: what it has finished is kept."""
    parent = os.getppid()
    setting = _setting(campaign, job.seed, out, data)
    if job.arm is None:
        points = [run_every_label(setting, job.journal(out))]
        messages.put((job.key, 1))
        return tuple(points)
    points = []
    for point in run_arm(setting, job.arm, job.journal(out)):
        points.append(point)
        if os.getppid() != parent:
            sys.exit("the campaign was killed")
        messages.put((job.key, len(points)))
    return tuple(points)


def _setting(campaign: Campaign, seed: int, out: Path, data: Path | None) -> Setting:
    split = load_split(campaign, seed, data)
    difficulty = _difficulty(campaign, seed, out, data) if campaign.noise.kind == "difficulty" else None
    annotator = make_annotator(
        campaign.annotator, campaign.noise, split.pool.labels, len(split.classes), seed, difficulty
    )
    return Setting(make_lesson(campaign, split), split, annotator, seed)


def _difficulty(campaign: Campaign, seed: int, out: Path, data: Path | None) -> Difficulty:
    """A seed's difficulty, measured once and kept beside the runs."""
    settings = run_fingerprint(campaign, None, seed)
    path = out / "runs" / f"difficulty-{seed}-{hashlib.sha256(settings.encode()).hexdigest()[:6]}.npz"
    if path.is_file():
        with np.load(path, allow_pickle=False) as arrays:
            return Difficulty(arrays["loss"], arrays["mistake"])
    split = load_split(campaign, seed, data)
    lesson = make_lesson(campaign, split)
    found = measure_difficulty(campaign, lesson.task, lesson.spec, split, seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f"{path.stem}-{os.getpid()}.tmp.npz")
    np.savez(fresh, loss=found.loss, mistake=found.mistake)
    fresh.replace(path)
    return found
