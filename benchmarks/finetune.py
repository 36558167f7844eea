"""Whole networks beside heads: accuracy and seconds of S-KD fine-tuned and of its head alone, over numbers of labels.

Run as `python -m benchmarks.finetune FOLDER`, a folder of photos with a folder a class. For each seed a third of the
photos is kept aside to score on, and the labels are drawn at random from the others, the pool. Both students are those
of a round with `"train": "full"`: the head is fitted first, and fine-tuning goes on from there. Their accuracies are
paired by seed. "Promoted" is how often the round's own test would let the whole network serve, were the labels that
judge it drawn from the photos kept aside: as many as it is trained on, and a ninth more, held out. In a round those
of the training set are judged by networks that learnt from half of the labels, so that this is a little too high.
"Held-out alone" is the same of that ninth.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kdal.images.decoding import decode, to_tensor
from kdal_core.evaluation import compare
from kdal_core.models import Backbone, FrozenClassifier, TunedClassifier, find_weights
from kdal_core.models.tuned import FROZEN_SHARE
from kdal_core.simulation.curves import interval
from kdal_core.tasks import ClassificationTask
from kdal_core.training import HeadPool, TrainConfig, fine_tune, fine_tuning_config, infer, lessons

STUDENT, TEACHER = "mobilenet_v2", ("mobilenet_v2", "tf_efficientnet_lite0", "tf_efficientnet_lite2")
COUNTS = (50, 200, 1000)
DRAWS = 500
PIXELS = 10**8


@dataclass(frozen=True)
class Photos:
    """N photos of one size: uint8 (N, 3, H, W), their class numbers (N,), and the names of the classes."""

    images: Tensor
    labels: NDArray[np.int64]
    classes: tuple[str, ...]


@dataclass(frozen=True)
class Row:
    """One seed and number of labels: accuracies, how often promoted, and seconds.

    Seconds are the process's own, of all cores together; `whole_waited` is the time that a round waits.
    """

    labels: int
    seed: int
    teacher: float
    head: float
    whole: float
    promoted: float
    held_out_alone: float
    steps: int
    head_seconds: float
    whole_seconds: float
    whole_waited: float


def read(folder: Path, side: int) -> Photos:
    """Photos brought to one size, the median of theirs, whose longer side has this many pixels."""
    classes = tuple(sorted(path.name for path in folder.iterdir() if path.is_dir()))
    files = [(number, file) for number, name in enumerate(classes) for file in sorted((folder / name).iterdir())]
    found = [decode(file.read_bytes(), PIXELS) for _, file in files]
    width, height = (median(image.size[axis] for image in found) for axis in (0, 1))
    size = (round(height * side / max(width, height)), round(width * side / max(width, height)))
    images = torch.stack([to_tensor(image, size) for image in found])
    return Photos(images, np.array([number for number, _ in files], dtype=np.int64), classes)


def features(photos: Photos, names: Sequence[str], device: str) -> dict[str, NDArray[np.float16]]:
    """(N, D) of each backbone."""
    found = {}
    for name in names:
        backbone = Backbone(name, find_weights(name)).to(device)
        parts = [backbone.features(batch).numpy() for batch in torch.split(photos.images, 32)]
        found[name] = np.concatenate(parts).astype(np.float16)
    return found


def measure(
    photos: Photos,
    known: dict[str, NDArray[np.float16]],
    student: str,
    teacher: Sequence[str],
    labels: int,
    seed: int,
    config: TrainConfig,
    frozen_share: float = FROZEN_SHARE,
) -> Row:
    task = ClassificationTask(photos.classes)
    order = np.random.default_rng(seed).permutation(len(photos.labels))
    pool, aside = order[: len(order) * 2 // 3], order[len(order) * 2 // 3 :]
    wanted, truth = photos.labels[pool[:labels]], photos.labels[aside]
    began = time.process_time()
    heads = HeadPool(known[student][pool], [known[name][pool] for name in teacher], seed=seed)
    trio = heads.fit(np.arange(labels), wanted, len(photos.classes))
    head_took = time.process_time() - began
    frozen = FrozenClassifier(Backbone(student, find_weights(student)), len(photos.classes))
    head = trio.distilled
    frozen.set_head(torch.from_numpy(head.weight), torch.from_numpy(head.bias), normalised=head.normalised)
    network = TunedClassifier.beginning_as(frozen, frozen=frozen_share)
    began, waited = time.process_time(), time.perf_counter()
    told = lessons(trio.teacher, np.arange(labels), wanted, trio.label_share)
    done = fine_tune(task, network, photos.images[pool], told, replace(config, seed=seed))
    took, waited = time.process_time() - began, time.perf_counter() - waited
    of_teacher = trio.teacher_head.probabilities([known[name][aside] for name in teacher])
    before = head.probabilities(known[student][aside]).argmax(axis=1) == truth
    after = infer(task, network, photos.images[aside], device=config.device).predictions.argmax(axis=1) == truth
    return Row(
        labels=labels,
        seed=seed,
        teacher=float((of_teacher.argmax(axis=1) == truth).mean()),
        head=float(before.mean()),
        whole=float(after.mean()),
        promoted=promoted(before, after, labels + labels // 9, seed),
        held_out_alone=promoted(before, after, max(1, labels // 9), seed),
        steps=done.steps,
        head_seconds=head_took,
        whole_seconds=took,
        whole_waited=waited,
    )


def promoted(before: NDArray[np.bool_], after: NDArray[np.bool_], judges: int, seed: int) -> float:
    """How often the whole network wins beyond chance on this many labels, drawn with replacement."""
    drawn = np.random.default_rng(seed).integers(len(before), size=(DRAWS, judges))
    return float(np.mean([compare(before[rows].astype(float), after[rows].astype(float)).worse() for rows in drawn]))


def table(rows: Sequence[Row]) -> str:
    """Markdown: one row for each number of labels."""
    lines = [
        "| labels | seeds | T | S-KD, head | S-KD, whole | gain | promoted | held-out alone | steps | seconds, head "
        "| whole | waited |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for labels in sorted({row.labels for row in rows}):
        of = [row for row in rows if row.labels == labels]
        found = interval([100 * (row.whole - row.head) for row in of])
        assert found is not None  # there is one seed at least
        width = "" if found.half_width is None else f" ± {found.half_width:.2f}"
        mean = {name: float(np.mean([getattr(row, name) for row in of])) for name in asdict(of[0])}
        lines.append(
            f"| {labels} | {len(of)} | {mean['teacher']:.2%} | {mean['head']:.2%} | {mean['whole']:.2%} "
            f"| {found.mean:+.2f}{width} | {mean['promoted']:.0%} | {mean['held_out_alone']:.0%} "
            f"| {mean['steps']:.0f} | {mean['head_seconds']:.1f} | {mean['whole_seconds']:.0f} "
            f"| {mean['whole_waited']:.0f} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--labels", type=int, nargs="+", default=COUNTS)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--image-size", type=int, default=224, help="of the longer side, in pixels")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--lr", type=float)
    parser.add_argument("--backbone-lr", type=float)
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--frozen", type=float, default=FROZEN_SHARE, help="share of the backbone's parameters")
    parser.add_argument("--features", type=Path, help="an .npz file, in which features are kept for the next run")
    args = parser.parse_args()
    photos = read(args.folder, args.image_size)
    if args.features is not None and args.features.is_file():
        with np.load(args.features) as held:
            known = {name: held[name] for name in held.files}
    else:
        known = features(photos, TEACHER, args.device)
        if args.features is not None:
            np.savez(args.features, **known)  # type: ignore[arg-type]  # of numpy's stubs
    settings = {name: value for name in ("lr", "backbone_lr", "epochs") if (value := getattr(args, name)) is not None}
    config = fine_tuning_config(**settings, device=args.device)
    rows = []
    for seed in args.seeds:
        for labels in args.labels:
            rows.append(measure(photos, known, STUDENT, TEACHER, labels, seed, config, args.frozen))
            print(json.dumps(asdict(rows[-1])), flush=True)
    print(table(rows))


if __name__ == "__main__":
    main()
