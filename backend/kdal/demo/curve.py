"""The demo's learning curve: kdal's models against models trained alike on as many randomly chosen labels.

Both are measured on the images that neither of them had labels of, the same images for both. What kdal asked
for is left out for both, which takes hard images from the random model's test, too: the comparison leans
against kdal if anything.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from kdal.console import Report, progress
from kdal.demo.example import Example, index_of, target
from kdal.labelstudio.formats import format_for
from kdal.policy import Policy
from kdal.resources import Resources
from kdal.rounds import heads
from kdal.rounds.features import RoundImages
from kdal.rounds.snapshot import Snapshot, held_out
from kdal.rounds.store import RoundStore
from kdal_core.simulation.report.formatting import capital
from kdal_core.tasks import Task
from kdal_core.training import HeadPool, distil, infer
from kdal_core.training.trio import train_teacher


@dataclass(frozen=True)
class Point:
    """One round: labels, and the two scores in [0, 1] on images that neither had labels of."""

    labels: int
    kdal: float
    random: float


def show(shown: Example, resources: Resources, project: int, *, rounds: int, folder: Path, out: Console) -> list[Point]:
    """Print the curve as a table and write it as a picture."""
    with progress(out, "Training on random labels, to compare") as report:
        points = measure(shown, resources, project, rounds, report)
    task = format_for(shown.label_config, Policy.parse(shown.policy)).task()
    what = f"{task.metric_name} on images nobody labelled"
    table = Table(title=capital(what))
    for column in ("labels", "kdal", "random labels", "difference"):
        table.add_column(column, justify="right")
    for point in points:
        difference = f"{100 * (point.kdal - point.random):+.1f}"
        table.add_row(str(point.labels), f"{point.kdal:.1%}", f"{point.random:.1%}", difference)
    out.print(table)
    picture = folder / f"{shown.name}-curve.png"
    plot(points, picture, shown.title, what)
    return points


def measure(shown: Example, resources: Resources, project: int, rounds: int, report: Report) -> list[Point]:
    """The curve's points, one a round, averaged over the example's number of random choices."""
    row = resources.storage.project(project)
    if row is None:
        return []
    stores = [RoundStore(resources.assets, row.uid, number) for number in range(1, rounds + 1)]
    snapshots = [Snapshot.load(store) for store in stores]
    last = snapshots[-1]
    resources = replace(resources, images=resources.images.within(last.sources))
    task = last.format.task()
    refs = sorted([i.ref for i in last.labelled] + last.pool, key=lambda ref: ref.task_id)
    resources.settings.use_threads()
    if last.backbones is None:
        loaded = resources.images.load(refs, last.image_size)
        images = torch.stack(list(loaded.images))
        refs = [refs[i] for i in loaded.kept]
        ours = [infer(task, store.load_model()[0], images).predictions for store in stores]
    else:
        seen = RoundImages.load(stores[-1], last)
        by_task = {ref.task_id: ref for ref in refs}
        refs = [by_task[number] for number in seen.tasks.tolist()]
        ours = [heads.predictions_of(resources, store, last, seen, by_task) for store in stores]
        features, joined = heads.features_of(resources, last, seen)
        pool = HeadPool(features, joined)
    numbers = [index_of(ref.uri) for ref in refs]
    truth = [target(last.format, shown.truth(number)) for number in numbers]
    answers = [target(last.format, shown.answer(number)) for number in numbers]
    asked = {item.ref.task_id for item in last.labelled}
    scores = np.zeros((shown.draws, len(snapshots), 2))
    steps = [(draw, s) for draw in range(shown.draws) for s in range(len(snapshots))]
    for done, (draw, s) in enumerate(steps):
        report(done, len(steps))
        order = np.random.default_rng(draw).permutation(len(refs))
        chosen = order[: len(snapshots[s].labelled)]
        final = order[: len(last.labelled)]
        unseen = sorted({i for i in range(len(refs)) if refs[i].task_id not in asked} - set(final.tolist()))
        used = [i for i in chosen.tolist() if not held_out(last.policy, refs[i].task_id)]
        if last.backbones is None:
            others = np.setdiff1d(np.arange(len(images)), chosen)
            random = _random_model(resources, task, last, images, answers, used, others, draw)
        else:
            trio = pool.fit(used, [answers[i] for i in used], len(task.classes))
            random = trio.distilled.probabilities(features)
        for column, predictions in enumerate((ours[s], random)):
            scores[draw, s, column] = task.score(predictions[unseen], [truth[i] for i in unseen])
    report(len(steps), len(steps))
    means = scores.mean(axis=0)
    return [Point(len(snapshots[s].labelled), *means[s].tolist()) for s in range(len(snapshots))]


def _random_model(
    resources: Resources,
    task: Task,
    snapshot: Snapshot,
    images: torch.Tensor,
    answers: list[Any],
    used: list[int],
    others: NDArray[np.int64],
    draw: int,
) -> NDArray[np.float32]:
    """Predictions for all images of an S-KD trained on randomly chosen labels, as a round trains it."""
    policy = snapshot.policy.model_copy(update={"seed": snapshot.policy.seed + draw})
    config = policy.training(task, resources.settings.device)
    spec = resources.backbones.started(policy.trio(task, snapshot.image_size), snapshot.starts)
    targets = [answers[i] for i in used]
    teacher = train_teacher(task, spec, images[used], targets, config)  # S takes no part in what serves
    student = distil(task, spec, teacher, images[used], targets, config, unlabelled=images[others])
    return infer(task, student, images).predictions


def plot(points: list[Point], path: Path, title: str, what: str) -> None:
    """Write the curve as a picture; `what` was measured."""
    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4.2), layout="constrained")
    labels = [point.labels for point in points]
    axes.plot(labels, [100 * p.kdal for p in points], marker="o", color="#1f6feb", label="in kdal's order")
    axes.plot(labels, [100 * p.random for p in points], marker="o", color="#8b949e", label="in random order")
    axes.set(xlabel="labels", ylabel=f"{what}, %", title=title)
    axes.set_xticks(labels)
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, loc="lower right")
    figure.savefig(path, dpi=150)
    plt.close(figure)
