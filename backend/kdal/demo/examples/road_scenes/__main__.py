"""``python -m kdal.demo.examples.road_scenes ~/roads --count 200``: scenes in TuSimple's form, for `kdal import`."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from kdal.demo.examples.road_scenes.scene import SIZE, render


def write_folder(folder: Path, count: int, first_seed: int = 0) -> None:
    """Scenes as images, and a `train.jsonl` with the x of each lane at common rows."""
    rows = list(range(SIZE[0] // 4, SIZE[0], 2))
    (folder / "images").mkdir(parents=True, exist_ok=True)
    with (folder / "train.jsonl").open("w") as file:
        for seed in range(first_seed, first_seed + count):
            scene = render(seed)
            name = f"images/{seed:06d}.png"
            Image.fromarray(scene.image).save(folder / name)
            record = {
                "lanes": [_at_rows(lane.points, np.array(rows)) for lane in scene.lanes],
                "h_samples": rows,
                "raw_file": name,
                "tag": scene.kind,
                "occluded": [round(lane.occluded, 3) for lane in scene.lanes],
                "worn": [round(lane.worn, 3) for lane in scene.lanes],
            }
            file.write(json.dumps(record) + "\n")


def _at_rows(points: NDArray[np.float64], rows: NDArray[np.int64]) -> list[float]:
    """x of a lane (n, 2) at each row, -2 where it is not."""
    x = np.interp(rows, points[:, 1], points[:, 0]).round(2)
    x[(rows < points[0, 1]) | (rows > points[-1, 1])] = -2
    found: list[float] = x.tolist()
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Write rendered road scenes as a folder in TuSimple's form.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=200, help="scenes")
    parser.add_argument("--first-seed", type=int, default=0, help="seed of the first one")
    options = parser.parse_args()
    write_folder(options.folder, options.count, options.first_seed)
