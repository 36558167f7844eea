"""Training and inference against the bare network, and what decoding takes, in one run: what all tasks share.

Training: images a second of `kdal_core.training.train` (reading, random views, labels as tensors, loss, optimiser)
against forward and backward alone, on a batch that lies ready as floats and with the outputs' gradients given.
Inference: `infer`, from uint8 images to predictions and features, against forward alone on the same blocks, ready as
floats. Decoding: its share of `infer`. All are measured in turn, as wall time and as the processor's time, which other
programs on the machine disturb less.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kdal_core.models import Network
from kdal_core.models.pretrained_body import PRETRAINED
from kdal_core.tasks import Task
from kdal_core.training import TrainConfig, infer, train
from kdal_core.training.data import to_float
from kdal_core.training.inference import block_size

CPU = torch.device("cpu")

Seconds = tuple[float, float]
"""Wall time and processor time."""
Row = dict[str, float]


@dataclass(frozen=True)
class Subject:
    """What is measured: images (N, 3, H, W) uint8 with their targets, in batches of `batch`."""

    task: Task
    images: Tensor
    targets: list[Any]
    batch: int

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.images.shape[2], self.images.shape[3]


def clocked(call: Callable[[], object]) -> Seconds:
    wall, processor = time.perf_counter(), time.process_time()
    call()
    return time.perf_counter() - wall, time.process_time() - processor


def in_turn(calls: Sequence[Callable[[], object]], repeats: int) -> list[list[Seconds]]:
    """For each call its times; the calls take turns, so that what else the machine does falls on all of them."""
    for call in calls:
        call()
    rounds = [[clocked(call) for call in calls] for _ in range(repeats)]
    return [list(times) for times in zip(*rounds, strict=True)]


def share(part: list[Seconds], whole: list[Seconds], clock: int) -> float:
    """The median, over the turns, of how much of the second's time the first takes."""
    return statistics.median(a[clock] / b[clock] for a, b in zip(part, whole, strict=True))


def measure_training(subject: Subject, model: Network, steps: int, repeats: int) -> Row:
    config = TrainConfig(min_steps=steps, max_steps=steps, batch_size=subject.batch, device="cpu")
    ready = to_float(subject.images[: subject.batch], CPU)
    gradients = [torch.randn_like(output) for output in computed(model.train()(ready))]

    def bare() -> None:
        model.train()
        for _ in range(steps):
            model.zero_grad(set_to_none=True)
            torch.autograd.backward(computed(model(ready)), gradients)

    alone, ours = in_turn([bare, lambda: train(subject.task, model, subject.images, subject.targets, config)], repeats)
    return row(alone, ours, subject.batch * steps)


def computed(outputs: Any) -> list[Tensor]:
    """Of a network's outputs those that gradients come back through."""
    return [output for output in outputs if isinstance(output, Tensor) and output.requires_grad]


def measure_inference(subject: Subject, model: Network, repeats: int) -> Row:
    images = subject.images
    blocks = [to_float(block, CPU) for block in torch.split(images, block_size(subject.size, "cpu"))]
    with torch.inference_mode():
        outputs = [model.eval()(block) for block in blocks]

    def bare() -> None:
        model.eval()
        with torch.inference_mode():
            for block in blocks:
                model(block)

    def decode() -> None:
        for output in outputs:
            subject.task.decode(output)

    alone, ours, decoding = in_turn([bare, lambda: infer(subject.task, model, images, device="cpu"), decode], repeats)
    found = row(alone, ours, len(images))
    return found | {"decoding": round(share(decoding, ours, 0), 4), "decoding_cpu": round(share(decoding, ours, 1), 4)}


def row(alone: list[Seconds], ours: list[Seconds], images: int) -> Row:
    """Milliseconds of processor time an image, and throughput as a share of the bare network's by both clocks."""
    return {
        "bare_cpu_ms": round(1000 * statistics.median(cpu for _, cpu in alone) / images, 2),
        "cpu_ms": round(1000 * statistics.median(cpu for _, cpu in ours) / images, 2),
        "share": round(share(alone, ours, 0), 3),
        "share_cpu": round(share(alone, ours, 1), 3),
    }


def options_for(doc: str | None, networks: Sequence[str], out: str) -> argparse.Namespace:
    """The command line of a benchmark of one task."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=networks)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--steps", type=int, default=3, help="of training, a turn")
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--out", type=Path, default=Path(out))
    return parser.parse_args()


def compare(subject: Subject, options: argparse.Namespace) -> None:
    """Measure, print a table, write JSON."""
    torch.set_num_threads(options.threads)
    (height, width), task = subject.size, subject.task
    report: dict[str, object] = {"image_size": subject.size, "threads": options.threads, "batch": subject.batch}
    print(f"{width} x {height} pixels, {options.threads} threads; training in batches of {subject.batch}\n")
    print("| network | | bare, CPU ms an image | kdal | throughput | by CPU time | decoding | by CPU time |")
    print("|---|---|---|---|---|---|---|---|")
    for name in options.networks:
        # Of a pretrained backbone the first layers are not trained, of a fresh one all are.
        model = task.build(name, subject.size, weights="auto" if name.startswith(PRETRAINED) else "none")
        found = {
            "training": measure_training(subject, model, options.steps, options.repeats),
            "inference": measure_inference(subject, model, options.repeats),
        }
        report[name] = found
        for what, cells in found.items():
            decoding = [f"{cells[key]:.1%}" if key in cells else "" for key in ("decoding", "decoding_cpu")]
            shares = f"{cells['share']:.0%} | {cells['share_cpu']:.0%} | {' | '.join(decoding)}"
            print(f"| {name} | {what} | {cells['bare_cpu_ms']:.1f} | {cells['cpu_ms']:.1f} | {shares} |", flush=True)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(report, indent=2))
