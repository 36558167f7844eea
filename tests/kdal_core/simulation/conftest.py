import json

import numpy as np
import pytest
from PIL import Image, ImageDraw

from kdal_core.simulation import Campaign

SMALL = {
    "name": "small",
    "data": {"name": "digits", "pool": 300, "validation": 100, "test": 200},
    "budget": 10,
    "rounds": 3,
    "seeds": [0, 1],
    "models": {"student": "tiny_cnn", "teacher": "mid_cnn"},
    "training": {"epochs": 1, "min_steps": 8, "max_steps": 8, "device": "cpu"},
    "strategies": ["random", "kd_gap"],
}
LANES = {
    "name": "roads",
    "task": "lanes",
    "data": {"name": "tusimple", "root": "roads", "image_size": 48},
    "budget": 4,
    "rounds": 2,
    "seeds": [0],
    "models": {"student": "tiny_rows", "teacher": "mid_rows"},
    "training": {"epochs": 1, "batch_size": 4, "min_steps": 3, "max_steps": 3, "device": "cpu"},
    "strategies": ["random", {"strategy": "kd_gap", "parameters": {"eps": 1.0}, "label": "kd_gap"}],
}
ROWS = list(range(8, 32, 4))


@pytest.fixture
def small():
    """Makes a campaign of seconds, with changes."""
    return lambda **changes: Campaign.parse({**SMALL, **changes})


@pytest.fixture
def lanes_campaign():
    """Makes a campaign of seconds on `roads`, with changes."""
    return lambda **changes: Campaign.parse({**LANES, **changes})


def draw_road(path, rng, size=(64, 32)):
    """A dark image with up to three straight white lanes; their x at `ROWS`, -2 beside the image."""
    image = Image.new("RGB", size, tuple(rng.integers(0, 120, 3).tolist()))
    lanes = []
    for number in range(int(rng.integers(1, 4))):
        foot, head = size[0] * (0.2 + 0.3 * number + 0.1 * rng.random()), size[0] * (0.35 + 0.15 * number)
        ImageDraw.Draw(image).line([(foot, size[1]), (head, 0)], fill=(255, 255, 255), width=2)
        x = [head + (foot - head) * row / size[1] for row in ROWS]
        lanes.append([round(value, 1) if 0 <= value < size[0] else -2 for value in x])
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)
    return lanes


@pytest.fixture(scope="session")
def roads(tmp_path_factory):
    """A folder that holds `roads`, a lane data set in TuSimple's form: 24 images to label, 6 for testing."""
    folder, rng = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    for part, count in (("train", 24), ("test", 6)):
        records = []
        for number in range(count):
            name = f"{part}/{number:03d}.png"
            lanes = draw_road(folder / "roads" / name, rng)
            worn = np.round(rng.random(len(lanes)), 3).tolist()
            hidden = np.round(rng.random(len(lanes)) ** 4, 3).tolist()
            records.append(
                {"raw_file": name, "h_samples": ROWS, "lanes": lanes, "tag": "night", "occluded": hidden, "worn": worn}
            )
        text = "".join(f"{json.dumps(record)}\n" for record in records)
        (folder / "roads" / f"{part}.jsonl").write_text(text)
    return folder
