"""What a GPU must still show of whole networks; run where torch finds CUDA, it shows it.

Run as `python -m benchmarks.finetune_gpu FOLDER`, a folder of photos with a folder a class. What fine-tuning
MobileNetV2 brings on a CPU, at 160 pixels, stands in docs/results/photos.md. Open is:

1. *The same on a GPU*: at 224 pixels, in bfloat16, with more seeds. The gain should be no smaller than the CPU's.
2. *How long a round waits*: on a CPU minutes. Under 60 seconds for 4,000 photos would let a policy with a GPU have it
   by default.
3. *More of the same*: all layers trained, and three times the epochs, which nobody waits for on a CPU.
4. *The pair of the hub*: DINOv2's ViT-S as the student, ViT-L as the teacher. Its frozen features are far better, so
   there is less to win, and transformers are easier to spoil. Left out where the hub cannot be reached.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch

from benchmarks.finetune import COUNTS, STUDENT, TEACHER, Photos, features, measure, read, table
from kdal_core.errors import ConfigError
from kdal_core.models.tuned import FROZEN_SHARE
from kdal_core.models.weights import CUDA_PAIR, find_weights
from kdal_core.training import TrainConfig, fine_tuning_config

NO_GPU = (
    "torch finds no CUDA device here, and this script measures nothing else. What pays on a CPU: "
    "python -m benchmarks.finetune FOLDER"
)


def compare(
    photos: Photos,
    title: str,
    pair: tuple[str, tuple[str, ...]],
    config: TrainConfig,
    frozen_share: float,
    labels: Sequence[int],
    seeds: int,
) -> None:
    """Print one table."""
    student, teacher = pair
    known = features(photos, list(dict.fromkeys((student, *teacher))), config.device)
    rows = []
    for seed in range(seeds):
        for count in labels:
            rows.append(measure(photos, known, student, teacher, count, seed, config, frozen_share))
            print(json.dumps(asdict(rows[-1])), flush=True)
    print(f"\n{title}\n\n{table(rows)}\n", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--labels", type=int, nargs="+", default=COUNTS)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--image-size", type=int, default=224, help="of the longer side, in pixels")
    args = parser.parse_args()
    if not torch.cuda.is_available():
        raise SystemExit(NO_GPU)
    photos = read(args.folder, args.image_size)
    config = fine_tuning_config(device="cuda")
    longer = fine_tuning_config(device="cuda", epochs=3 * config.epochs, max_steps=3 * config.max_steps)
    packaged = (STUDENT, TEACHER)
    for title, settings, share in (
        ("as on a CPU", config, FROZEN_SHARE),
        ("all layers trained", config, 0.0),
        ("all layers, three times as long", longer, 0.0),
    ):
        compare(photos, f"{STUDENT}, {title}", packaged, settings, share, args.labels, args.seeds)
    try:
        for name in (CUDA_PAIR.student, *CUDA_PAIR.teacher):
            find_weights(name)
    except ConfigError as error:
        print(f"The pair of the hub is left out: {error}")
        return
    hub = (CUDA_PAIR.student, CUDA_PAIR.teacher)
    for rate in (1e-5, 5e-5, 2e-4):  # transformers want a smaller one
        own = fine_tuning_config(device="cuda", backbone_lr=rate)
        compare(photos, f"{hub[0]}, backbone_lr {rate:g}", hub, own, FROZEN_SHARE, args.labels, args.seeds)


if __name__ == "__main__":
    main()
