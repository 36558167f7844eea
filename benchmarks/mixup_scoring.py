"""Choosing the least sure pairs of a pool: coarse to fine beside a forward for each pair and each lambda, in one run.

Both ways see the same student, images and number of threads, one after the other. The straightforward way is asked
about a part of the pool and scaled to the whole of it, unless `--whole`; recall is always that of the whole pool's true
lowest k, which takes the whole of it once. Three students: LeNet-5 as kdal builds it; the same with torch's own
max-pooling in place of kdal's (`lenet5, torch pooling`: what a plain implementation costs); `small_cnn`. The fast way
is also run with a mere callable (nothing but logits) and in bfloat16. Run as `python -m benchmarks.mixup_scoring`.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from kdal_core.distillation import DEFAULT_LAMBDAS, mixup_pairs, pair_confidence, select_pairs
from kdal_core.models import Network, build_model
from kdal_core.models.lenet import LeNet5
from kdal_core.simulation.campaign import DataSettings
from kdal_core.simulation.datasets import load_dataset
from kdal_core.simulation.images import LabelledImages


class PlainLeNet(LeNet5):
    """LeNet-5 as anybody would write it: the same values, torch's own pooling."""

    def trunk(self, maps: Tensor) -> Tensor:
        x = F.relu(F.max_pool2d(maps, 2))
        x = F.relu(F.max_pool2d(self.conv2(x), 2))
        hidden: Tensor = self.fc2(F.relu(self.fc1(x.flatten(1))))
        return hidden


@dataclass(frozen=True)
class Truth:
    """What the straightforward way says: C2 of every pair, the k lowest, and how long it took."""

    lowest: NDArray[np.int64]
    seconds: float


def trained(name: str, images: Tensor, labels: NDArray[Any], steps: int) -> Network:
    """A student trained on the pool's true labels, as certain as those of a first stage are."""
    model = build_model(name, 10, (28, 28), seed=0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    generator = torch.Generator().manual_seed(0)
    targets = torch.from_numpy(labels.astype(np.int64))
    for _ in range(steps):
        rows = torch.randint(0, len(images), (64,), generator=generator)
        loss = F.cross_entropy(model(images[rows].float() / 255), targets[rows])
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
    return model.eval()


def straightforward(model: Network, images: Tensor, pairs: NDArray[np.int64], clock: Callable[[], float]) -> Any:
    began = clock()
    confidence, _ = pair_confidence(model, images, pairs, DEFAULT_LAMBDAS)
    return confidence, clock() - began


def main() -> None:
    """Measure, print a table, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--share", type=float, default=10_000 / 499_500, help="k as a share of the pairs")
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--dataset", default="mnist")
    parser.add_argument("--ways", type=int, default=3, help="1: in float32 alone, 2: in bfloat16 too")
    parser.add_argument("--students", nargs="+", default=["lenet5", "small_cnn"])
    parser.add_argument("--steps", type=int, default=800, help="of training the student")
    parser.add_argument("--quick", action="store_true", help="200 images, LeNet-5 alone")
    parser.add_argument(
        "--cpu-time", action="store_true", help="processor time, for a machine that is busy with others"
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("artifacts/mixup_scoring.json"))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    clock = time.process_time if options.cpu_time else time.perf_counter
    n = 200 if options.quick else options.images
    students = ["lenet5"] if options.quick else options.students
    training = load_dataset(DataSettings(name=options.dataset), options.data).training
    chosen = training.take(np.random.default_rng(0).permutation(len(training))[:n])
    assert isinstance(chosen, LabelledImages)
    images, pairs = chosen.images, mixup_pairs(n)
    k = round(options.share * len(pairs))
    report: dict[str, Any] = {"images": n, "pairs": len(pairs), "lambdas": len(DEFAULT_LAMBDAS), "k": k}
    print(f"{n} images, {len(pairs):,} pairs, {len(DEFAULT_LAMBDAS)} lambdas, k = {k:,}, {options.threads} threads\n")
    print("| student | way | seconds | times faster | recall |\n|---|---|---|---|---|", flush=True)
    for name in students:
        model = trained(name, images, chosen.labels, options.steps)
        confidence, seconds = straightforward(model, images, pairs, clock)
        truth = np.argsort(confidence, kind="stable")[:k]
        print(f"| {name} | straightforward | {seconds:.1f} | 1 | 1 |", flush=True)
        rows: dict[str, Any] = {"straightforward_s": round(seconds, 2)}
        plain_seconds = None
        if isinstance(model, LeNet5):
            plain = PlainLeNet(10, (28, 28))
            plain.load_state_dict(model.state_dict())
            part = pairs[:: max(1, len(pairs) // 20_000)]
            _, of_part = straightforward(plain.eval(), images, part, clock)
            plain_seconds = of_part * len(pairs) / len(part)
            rows["torch_pooling_s"] = round(plain_seconds, 2)
            print(f"| {name} | straightforward, torch pooling, {len(part):,} pairs scaled | {plain_seconds:.1f} | | |",
                  flush=True)  # fmt: skip
        ways: dict[str, tuple[Any, dict[str, Any]]] = {
            "coarse to fine": (model, {}),
            "coarse to fine, bfloat16": (model, {"precision": "bfloat16"}),
            "coarse to fine, logits only": (lambda x, model=model: model(x), {}),
        }
        for way, (student, settings) in list(ways.items())[: options.ways]:
            began = clock()
            found = select_pairs(student, images, k, DEFAULT_LAMBDAS, exact=False, **settings)
            spent = clock() - began
            both = {tuple(pair) for pair in found.pairs.tolist()} & {tuple(pair) for pair in pairs[truth].tolist()}
            row = {"seconds": round(spent, 2), "times_faster": round(seconds / spent, 2), "recall": len(both) / k}
            beside = ""
            if plain_seconds is not None:
                row["times_faster_than_torch_pooling"] = round(plain_seconds / spent, 2)
                beside = f" ({plain_seconds / spent:.1f} beside torch pooling)"
            rows[way] = row
            print(f"| {name} | {way} | {spent:.1f} | {seconds / spent:.1f}{beside} | {len(both) / k:.4f} |", flush=True)
        report[name] = rows
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
