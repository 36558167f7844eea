"""A whole campaign: every arm and seed in processes side by side; interrupted, each goes on where it was."""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shlex
import shutil
import sys
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from kdal_core.simulation.annotator import Annotator, Difficulty, make_annotator, measure_difficulty
from kdal_core.simulation.campaign import Arm, Campaign
from kdal_core.simulation.datasets import Split, load_split
from kdal_core.simulation.heads import PoolFeatures, pool_features, uses_features
from kdal_core.simulation.processes import POLL, processes
from kdal_core.simulation.results import Results, Run
from kdal_core.simulation.runner import (
    EVERY_LABEL,
    RunState,
    Setting,
    run_arm,
    run_every_label,
    run_fingerprint,
    training_setup,
)
from kdal_core.tasks import get_task


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
        out: folder of the runs; those found there go on where they were interrupted.
        data: folder of the data sets.
        workers: processes, of one torch thread each; None: one for each CPU. With CUDA one is right.
        fresh: delete what is found in `out` first.
        progress: called after each round of each run.

    Raises:
        ConfigError: data that is not there, or runs in `out` that were made with other settings.

    The result depends on the campaign alone: not on the number of workers, nor on interruptions.
    """
    if fresh:
        shutil.rmtree(out / "runs", ignore_errors=True)
    _check(campaign, data)
    jobs = jobs_of(campaign)
    total = sum(campaign.rounds if job.arm else 1 for job in jobs)
    done: dict[tuple[str, int], int] = {}
    with processes(workers or os.cpu_count() or 1, __name__) as (executor, messages):
        if campaign.noise.kind == "difficulty":  # once a seed, before its arms ask for it
            _results([executor.submit(_difficulty, campaign, seed, out, data) for seed in campaign.seeds])
        if uses_features(campaign):  # once, before processes side by side would each compute them
            for seed in campaign.seeds:
                executor.submit(_features, campaign.model_dump_json(), seed, out, data).result()
        running = {executor.submit(_run, campaign, job, out, data, messages) for job in jobs}
        while running:
            ended, running = wait(running, timeout=POLL, return_when=FIRST_COMPLETED)
            while not messages.empty():
                (arm, seed), count = messages.get()
                done[arm, seed] = count
                if progress is not None:
                    progress(Progress(sum(done.values()), total, f"{arm}, seed {seed}"))
            _results(ended)
    return collect(campaign, out)


def collect(campaign: Campaign, out: Path) -> Results:
    """What a campaign's folder holds so far, finished or not.

    Raises:
        ConfigError: runs that were made with other settings, or damaged ones.
    """
    runs, full, full_labels = [], {}, 0
    for job in jobs_of(campaign):
        journal = RunState.load(job.journal(out), run_fingerprint(campaign, job.arm, job.seed))
        if journal is None or not journal.points:
            continue
        if job.arm is None:
            full[job.seed], full_labels = journal.points[0].score, journal.points[0].labels
            continue
        for arm in campaign.together(job.arm):
            model = campaign.scored_by(arm)
            shown = journal if model == campaign.scored_by(job.arm) else journal.scored(model)
            if shown.points:
                runs.append(Run(arm.name, job.seed, shown.points[: campaign.rounds]))
    return Results(
        campaign=campaign.name,
        description=campaign.description,
        metric=get_task(campaign.task, ("any",)).metric_name,
        baseline=campaign.baseline,
        full=full,
        full_labels=full_labels,
        runs=tuple(runs),
        environment=environment(),
        settings=campaign.model_dump(mode="json"),
    )


def jobs_of(campaign: Campaign) -> list[Job]:
    """All runs of a campaign, seed by seed, so that an early look compares whole seeds."""
    arms = [arm for arm in campaign.strategies if arm == campaign.together(arm)[0]]
    return [Job(arm, seed) for seed in campaign.seeds for arm in (*arms, None)]


def environment() -> dict[str, str]:
    """When, where and with what: for the results' small print."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    program = Path(sys.argv[0]).stem
    command = shlex.join(["kdal" if program == "cli" else program, *sys.argv[1:]])
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "machine": f"{os.cpu_count()} CPU cores ({platform.machine()}), {device}",
        "command": command,
        "versions": ", ".join(f"{name} {version(name)}" for name in ("kdal", "torch", "numpy", "scikit-learn")),
    }


def _results(futures: Iterable[Future[Any]]) -> None:
    """Wait for all; what one of them raised is raised here."""
    for future in futures:
        future.result()


def _run(campaign: Campaign, job: Job, out: Path, data: Path | None, messages: Any) -> None:
    """One run, in a process of its own: what it has finished is kept."""
    setting = _setting(campaign, job.seed, out, data)
    if job.arm is None:
        run_every_label(setting, job.journal(out))
        messages.put((job.key, 1))
        return
    for count, _ in enumerate(run_arm(setting, job.arm, job.journal(out)), start=1):
        messages.put((job.key, count))


def _setting(campaign: Campaign, seed: int, out: Path, data: Path | None) -> Setting:
    split = _split(campaign.model_dump_json(), seed, data)
    difficulty = _difficulty(campaign, seed, out, data) if campaign.noise.kind == "difficulty" else None
    features = _features(campaign.model_dump_json(), seed, out, data) if uses_features(campaign) else None
    annotator = _annotator(campaign, split, seed, difficulty)
    return Setting(training_setup(campaign, split), split, annotator, seed, features)


def _annotator(campaign: Campaign, split: Split, seed: int, difficulty: Difficulty | None) -> Annotator:
    pool, classes = split.pool, len(split.classes)
    return make_annotator(
        campaign.annotator, campaign.noise, pool.labels, classes, seed, difficulty, attributes=pool.attributes
    )


def _check(campaign: Campaign, data: Path | None) -> None:
    """Say what is wrong with the data before anything is started."""
    split = load_split(campaign, campaign.seeds[0], data)
    if campaign.noise.kind == "attribute":
        _annotator(campaign, split, campaign.seeds[0], None)


@lru_cache(maxsize=1)
def _split(campaign: str, seed: int, data: Path | None) -> Split:
    """A seed's images, decoded once for the runs of it that follow each other in a process."""
    return load_split(Campaign.model_validate_json(campaign), seed, data)


@lru_cache(maxsize=1)
def _features(campaign: str, seed: int, out: Path, data: Path | None) -> PoolFeatures:
    """A seed's features, kept for the runs of it that follow each other in a process."""
    return pool_features(Campaign.model_validate_json(campaign), _split(campaign, seed, data), out / "features")


def _difficulty(campaign: Campaign, seed: int, out: Path, data: Path | None) -> Difficulty:
    """A seed's difficulty, measured once and kept beside the runs."""
    settings = run_fingerprint(campaign, None, seed)
    path = out / "runs" / f"difficulty-{seed}-{hashlib.sha256(settings.encode()).hexdigest()[:6]}.npz"
    if path.is_file():
        with np.load(path, allow_pickle=False) as arrays:
            return Difficulty(arrays["loss"], arrays["mistake"])
    split = _split(campaign.model_dump_json(), seed, data)
    setup = training_setup(campaign, split)
    found = measure_difficulty(campaign, setup.task, setup.spec, split, seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f"{path.stem}-{os.getpid()}.tmp.npz")
    np.savez(fresh, loss=found.loss, mistake=found.mistake)
    fresh.replace(path)
    return found
