"""Training and inference of lane networks against the bare network, and what decoding takes, in one run.

Training: images a second of `kdal_core.training.train` (reading, random views, labels as tensors, loss, optimiser)
against forward and backward alone, on a batch that lies ready as floats and with the outputs' gradients given.
Inference: `infer`, from uint8 images to predictions and features, against forward alone on the same blocks, ready as
floats. Decoding: its share of `infer`. All are measured in turn, as wall time and as the processor's time, which other
programs on the machine disturb less. Run as `python -m benchmarks.lane_speed`.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from kdal_core.models import Network
from kdal_core.tasks import Lane, LaneTask
from kdal_core.training import TrainConfig, infer, train
from kdal_core.training.data import to_float
from kdal_core.training.inference import block_size

CPU = torch.device("cpu")
SIZE = (144, 400)
BATCH = 32
TASK = LaneTask(("lane",))

Seconds = tuple[float, float]
"""Wall time and processor time."""
Row = dict[str, float]


def roads(count: int) -> tuple[Tensor, list[tuple[Lane, ...]]]:
    """Images (N, 3, H, W) uint8, of noise, and two to five lanes each: what they show costs no time."""
    rng = np.random.default_rng(0)
    images = torch.from_numpy(rng.integers(0, 256, (count, 3, *SIZE), dtype=np.uint8))
    y = np.linspace(0.35, 1, 20)
    feet = [np.linspace(0.05, 0.95, rng.integers(2, 6)) for _ in range(count)]
    return images, [tuple(Lane(np.stack([0.5 + (foot - 0.5) * y**2, y], axis=1)) for foot in row) for row in feet]


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


def measure_training(model: Network, images: Tensor, targets: list[tuple[Lane, ...]], steps: int, repeats: int) -> Row:
    config = TrainConfig(min_steps=steps, max_steps=steps, batch_size=BATCH, device="cpu")
    ready = to_float(images[:BATCH], CPU)
    with torch.no_grad():
        gradients = [torch.randn_like(output) for output in model(ready)]

    def bare() -> None:
        model.train()
        for _ in range(steps):
            model.zero_grad(set_to_none=True)
            torch.autograd.backward(list(model(ready)), gradients)

    alone, ours = in_turn([bare, lambda: train(TASK, model, images, targets, config)], repeats)
    return row(alone, ours, BATCH * steps)


def measure_inference(model: Network, images: Tensor, repeats: int) -> Row:
    blocks = [to_float(block, CPU) for block in torch.split(images, block_size(SIZE, "cpu"))]
    with torch.inference_mode():
        outputs = [model.eval()(block) for block in blocks]

    def bare() -> None:
        model.eval()
        with torch.inference_mode():
            for block in blocks:
                model(block)

    def decode() -> None:
        for output in outputs:
            TASK.decode(output)

    alone, ours, decoding = in_turn([bare, lambda: infer(TASK, model, images, device="cpu"), decode], repeats)
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


def main() -> None:
    """Measure, print a table, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=[TASK.default_pair(SIZE)[0], "resnet18"])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--steps", type=int, default=3, help="of training, a turn")
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--out", type=Path, default=Path("artifacts/lane_speed.json"))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    images, targets = roads(options.images)
    report: dict[str, object] = {"image_size": SIZE, "threads": options.threads, "batch": BATCH}
    print(f"{SIZE[1]} x {SIZE[0]} pixels, {options.threads} threads; training in batches of {BATCH}\n")
    print("| network | | bare, CPU ms an image | kdal | throughput | by CPU time | decoding | by CPU time |")
    print("|---|---|---|---|---|---|---|---|")
    for name in options.networks:
        model = TASK.build(name, SIZE)
        found = {
            "training": measure_training(model, images, targets, options.steps, options.repeats),
            "inference": measure_inference(model, images, options.repeats),
        }
        report[name] = found
        for what, cells in found.items():
            decoding = [f"{cells[key]:.1%}" if key in cells else "" for key in ("decoding", "decoding_cpu")]
            shares = f"{cells['share']:.0%} | {cells['share_cpu']:.0%} | {' | '.join(decoding)}"
            print(f"| {name} | {what} | {cells['bare_cpu_ms']:.1f} | {cells['cpu_ms']:.1f} | {shares} |", flush=True)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
