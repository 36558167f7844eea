"""Accuracy against queries: Active Mixup, its rivals and its variants on MNIST and Fashion-MNIST, over several seeds.

The teacher is trained here, on the whole training set, and asked as a black box. The real images are drawn again for
each seed. Test images score the student of every stage and choose nothing: what is better is judged by the answers
of the teacher to `JUDGES` other training images, whose labels nobody looks at and which no method gets (but
vanilla_kd, which gets all). A run that is finished is kept in a JSON file of its own and not repeated; one that was
interrupted goes on after its last stage. Run as `python -m benchmarks.mixup_curves mnist`; `--quick` is a small version
of it that takes a minute or two.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.mixup_report import draw, summary, table
from kdal_core.distillation import (
    Distilled,
    MixupConfig,
    MixupSelection,
    Problem,
    QueryLedger,
    Stage,
    StageConfig,
    TorchTeacher,
    active_mixup,
    method,
    mix_images,
    random_search,
)
from kdal_core.models import Network
from kdal_core.simulation.campaign import DataSettings
from kdal_core.simulation.datasets import load_dataset
from kdal_core.simulation.images import Dataset, LabelledImages
from kdal_core.tasks import ClassificationTask
from kdal_core.training import ModelSpec, TrainConfig, infer, load_checkpoint, save_checkpoint, train

JUDGES = 5000
QUERIES = {"mnist": 24_000, "fashion_mnist": 48_000}
VARIANTS: dict[str, dict[str, Any]] = {
    "active_mixup": {},  # as kdal chooses by default
    "active_least_sure": {"selectivity": 1.0},  # chosen as published, trained as kdal does
    "active_as_published": {"selectivity": 1.0, "as_published": True},  # all as often in training, random views of all
    "active_capped": {"cap": 2.0},  # an image in at most twice as many pairs as if all were used equally
    "active_half_random": {"selectivity": 1.0, "random_share": 0.5},
    "active_capped_half_random": {"cap": 2.0, "random_share": 0.5},
    "random_pairs": {},  # lambda 1/2
    "random_as_published": {"as_published": True},
    "real_only": {},
    "vanilla_active": {},
    "fskd": {},
    "zskd": {},
    "vanilla_kd": {},
}


DEFAULT = ["active_mixup", "random_pairs", "active_least_sure", "vanilla_active", "fskd", "zskd", "vanilla_kd"]


@dataclass(frozen=True)
class Experiment:
    """What is the same for all runs.

    Attributes:
        dataset, real, queries, stages, candidates: sizes; `candidates` pairs are looked at in each stage.
        student_steps: (epochs, min_steps, max_steps) of each student.
        teacher_steps: (epochs, max_steps) of the teacher.
    """

    dataset: str
    real: int
    queries: int
    stages: int
    candidates: int
    student_steps: tuple[int, int, int]
    teacher_steps: tuple[int, int]


def student_training(experiment: Experiment) -> TrainConfig:
    epochs, least, most = experiment.student_steps
    return TrainConfig(epochs=epochs, batch_size=128, lr=4e-3, min_steps=least, max_steps=most, device="cpu")


def teacher_of(experiment: Experiment, data: Dataset, folder: Path) -> tuple[Network, float]:
    """LeNet-5 trained on all labels, from its file if it is there; and its accuracy on the test images."""
    training, test = data.training, data.test
    assert isinstance(training, LabelledImages)
    assert isinstance(test, LabelledImages)
    epochs, most = experiment.teacher_steps
    path = folder / f"teacher-{experiment.dataset}-{epochs}-{most}.safetensors"
    task = ClassificationTask(data.classes)
    if path.exists():
        model, _ = load_checkpoint(path.read_bytes())
    else:
        model = task.build("lenet5", (28, 28), seed=1000)
        config = TrainConfig(epochs=epochs, batch_size=128, lr=4e-3, min_steps=1, max_steps=most, device="cpu")
        train(task, model, training.images, training.labels.tolist(), config)
        path.write_bytes(save_checkpoint(model, ModelSpec("classification", "lenet5", data.classes, (28, 28))))
    return model, accuracy(model, data)


def accuracy(model: Network, data: Dataset) -> float:
    """Share of the test images, in percent."""
    assert isinstance(data.test, LabelledImages)
    task = ClassificationTask(data.classes)
    return 100 * task.score(infer(task, model, data.test.images, device="cpu").predictions, data.test.labels.tolist())


def closeness(model: Network, images: Tensor, answers: NDArray[np.float32], data: Dataset) -> dict[str, float]:
    """How well a student says what the teacher answered: same class in percent, and cross-entropy in nats."""
    said = infer(ClassificationTask(data.classes), model, images, device="cpu").predictions
    return {
        "agreement": round(100 * float((said.argmax(1) == answers.argmax(1)).mean()), 3),
        "cross_entropy": round(float(-(answers * np.log(said.clip(1e-12))).sum(1).mean()), 5),
    }


def chosen(selection: MixupSelection, images: Tensor, box: TorchTeacher, model: Network) -> dict[str, float]:
    """What mixes a stage asked about: how unsure the teacher is of them, how far the student, which was trained on
    them, is from it in the end (KL), and how unevenly the images are used."""
    mixes = mix_images(images, selection.pairs, selection.lambdas)
    answers = box.query(mixes).numpy()
    said = infer(ClassificationTask(box.classes), model, mixes, device="cpu").predictions
    entropy = -(answers * np.log(answers.clip(1e-12))).sum(1)
    uses = np.sort(np.bincount(selection.pairs.ravel(), minlength=len(images)))[::-1]
    return {
        "teacher_entropy": round(float(entropy.mean()), 4),
        "teacher_top": round(float(answers.max(1).mean()), 4),
        "student_kl": round(float((-(answers * np.log(said.clip(1e-12))).sum(1) - entropy).mean()), 4),
        "uses_of_top_tenth": round(float(uses[: len(uses) // 10].sum() / uses.sum()), 4),
        "never_used": round(float((uses == 0).mean()), 4),
        "mean_distance_from_half": round(float(np.abs(selection.lambdas - 0.5).mean()), 4),
    }


def run(experiment: Experiment, variant: str, seed: int, data: Dataset, teacher: Network, folder: Path) -> None:
    """One method, one seed; the result grows stage by stage in its file."""
    path = folder / f"{experiment.dataset}-{variant}-{seed}.json"
    same = asdict(experiment) | {"student_steps": list(experiment.student_steps)}
    same |= {"teacher_steps": list(experiment.teacher_steps)}
    found = json.loads(path.read_text()) if path.exists() else {}
    if found.get("experiment") != same:
        found = {"experiment": same, "curve": [], "selections": [], "stages": [], "done": False, "seconds": 0.0}
    if found["done"]:
        return
    assert isinstance(data.training, LabelledImages)
    rows = np.random.default_rng([20200614, seed]).permutation(len(data.training))
    judges = data.training.take(rows[experiment.real : experiment.real + JUDGES]).images
    rows = rows[: experiment.real]
    everything = variant == "vanilla_kd"
    images = data.training.images if everything else data.training.take(rows).images
    budget = len(images) if everything or variant == "real_only" else experiment.queries
    box = TorchTeacher(teacher, data.classes, device="cpu")
    answers = box.query(judges).numpy()
    cap = VARIANTS[variant].get("cap")
    config = MixupConfig(
        training=StageConfig(
            stages=experiment.stages,
            train=student_training(experiment),
            seed=seed,
            real_share=0.0 if "as_published" in VARIANTS[variant] else StageConfig().real_share,
            views="all" if "as_published" in VARIANTS[variant] else StageConfig().views,
        ),
        candidates=experiment.candidates,
        selectivity=VARIANTS[variant].get("selectivity", MixupConfig().selectivity),
        random_share=VARIANTS[variant].get("random_share", 0.0),
        max_uses=None if cap is None else round(cap * 2 * budget / experiment.stages / experiment.real),
    )
    began, before = time.perf_counter(), found["seconds"]

    def on_stage(stage: Stage, model: Network) -> None:
        if stage.selection is not None:
            found["selections"].append(
                [stage.selection.pairs.tolist(), stage.selection.lambdas.tolist(), stage.selection.confidence.tolist()]
            )
        found["curve"].append([stage.images if variant == "zskd" else stage.spent, accuracy(model, data)])
        about = {"queries": found["curve"][-1][0], **closeness(model, judges, answers, data)}
        if stage.selection is not None:
            about |= chosen(stage.selection, images, box, model)
        found["stages"].append(about)
        found["seconds"] = before + time.perf_counter() - began
        write(path, found)
        print(f"  {experiment.dataset} {variant} seed {seed}: {found['curve'][-1]} {about}", flush=True)

    replay = [MixupSelection(np.array(p, np.int64), np.array(w), np.array(c)) for p, w, c in found["selections"]]
    if variant.startswith(("random", "active")):
        # The stages that are in the file are replayed; the last of them is trained again, so its entry is replaced.
        found["curve"], found["stages"] = found["curve"][: len(replay)], found["stages"][: len(replay)]
        found["selections"] = found["selections"][: max(0, len(replay) - 1)]
        distil: Callable[..., Distilled] = random_search if variant.startswith("random") else active_mixup
        distil(box, images, "lenet5", QueryLedger(budget), config, replay=replay, on_stage=on_stage)
    else:
        found["curve"], found["selections"], found["stages"] = [], [], []
        if variant == "vanilla_active":
            config = replace(config, candidates=max(1, experiment.candidates // 5))
        name = "vanilla_kd" if variant == "real_only" else variant
        white = teacher if variant == "zskd" else None
        method(name)(Problem(box, images, "lenet5", QueryLedger(budget), config, white, on_stage))
    found["done"] = True
    found.pop("selections")
    write(path, found)


def write(path: Path, found: dict[str, Any]) -> None:
    """Whole or not at all."""
    beside = path.with_suffix(".part")
    beside.write_text(json.dumps(found))
    beside.replace(path)


def main() -> None:
    """Run what is missing, print a table, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("datasets", nargs="*", default=["mnist", "fashion_mnist"])
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--methods", nargs="+", choices=list(VARIANTS), default=DEFAULT)
    parser.add_argument("--candidates", type=int, default=100_000, help="pairs looked at in each stage at most")
    parser.add_argument("--queries", type=int, help="budget; as published if not given")
    parser.add_argument("--stages", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=40, help="of each student")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="one seed, 100 images, 300 queries: does it run?")
    parser.add_argument("--out", type=Path, default=Path("artifacts/mixup_curves"))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    folder: Path = options.out / "quick" if options.quick else options.out
    folder.mkdir(parents=True, exist_ok=True)
    for name in options.datasets:
        queries = options.queries or QUERIES[name]
        experiment = Experiment(
            name, 2000, queries, options.stages, options.candidates, (options.epochs, 4000, 100_000), (20, 100_000)
        )
        if options.quick:
            experiment = Experiment(name, 100, 300, 2, 1000, (1, 60, 60), (1, 300))
        seeds = 1 if options.quick else options.seeds
        data = load_dataset(DataSettings(name=name), options.data)
        teacher, score = teacher_of(experiment, data, folder)
        print(f"{name}: teacher {score:.2f}", flush=True)
        for seed in range(seeds):
            for variant in options.methods:
                run(experiment, variant, seed, data, teacher, folder)
        report = summary(name, folder, options.methods, seeds, score)
        (folder / f"{name}.json").write_text(json.dumps({"experiment": asdict(experiment), **report}, indent=2))
        draw(report).savefig(folder / f"{name}.png", dpi=150)
        print(f"\n{table(report)}\n")


if __name__ == "__main__":
    main()
