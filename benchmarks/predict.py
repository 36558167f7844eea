"""/predict for a batch of 64 against the bare torch forward plus decoding, in one run.

Both read the same image files and use the same network and number of threads; the bare side is what anybody
would write in a script: Pillow, numpy, one forward of the batch. Run as `python -m benchmarks.predict`.
"""

from __future__ import annotations

import argparse
import io
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import requests
import torch
from PIL import Image
from sklearn.datasets import load_digits, load_sample_images

from kdal.policy import Policy
from kdal.processes.child import KDAL, Child, free_port
from kdal.resources import Resources
from kdal.rounds.snapshot import Snapshot
from kdal.rounds.store import DISTILLED, Order, RoundStore
from kdal.settings import Settings
from kdal.storage.tables import now
from kdal_core.models import build_model
from kdal_core.training import ModelSpec

BATCH = 64
CLASSES = tuple("0123456789")
CONFIG = (
    '<View><Image name="image" value="$image"/><Choices name="digit" toName="image">'
    + "".join(f'<Choice value="{name}"/>' for name in CLASSES)
    + "</Choices></View>"
)


def digit_files(folder: Path) -> list[Path]:
    """64 real digits, PNG, 8 x 8."""
    paths = []
    for i, picture in enumerate(load_digits().images[:BATCH]):
        paths.append(folder / f"digit-{i}.png")
        Image.fromarray((picture * 255 / 16).round().astype(np.uint8)).save(paths[-1])
    return paths


def photo_files(folder: Path) -> list[Path]:
    """64 crops of scikit-learn's two photographs, JPEG, 480 x 360."""
    rng = np.random.default_rng(0)
    photos = load_sample_images().images
    paths = []
    for i in range(BATCH):
        photo = photos[i % 2]
        y, x = rng.integers(0, photo.shape[0] - 360), rng.integers(0, photo.shape[1] - 480)
        paths.append(folder / f"photo-{i}.jpg")
        Image.fromarray(photo[y : y + 360, x : x + 480]).save(paths[-1], quality=90)
    return paths


def serve(folder: Path, number: int, network: str, size: tuple[int, int], settings: Settings) -> None:
    """Put a project with a serving model into kdal's tables and assets, as a round does."""
    resources = Resources.open(settings)
    uid = f"{number}.1"
    snapshot = Snapshot(uid, CONFIG, Policy(), size, [], [], [], None)
    resources.storage.put_project(number, uid, CONFIG, {})
    resources.storage.begin_round(number, 0, "connect")
    store = RoundStore(resources.assets, uid, 0)
    snapshot.save(store)
    store.save_order(Order([], 0, 0), np.zeros(0, dtype=np.int64), np.zeros(0))
    spec = ModelSpec("classification", network, CLASSES, size)
    model = build_model(network, len(CLASSES), size)
    store.save_model(DISTILLED, model, spec)
    resources.storage.update_round(number, 0, state="open", opened_at=now(), version="kdal-r0")
    resources.storage.update_project(number, serving_round=0, version="kdal-r0")


def median_ms(one: Callable[[], object], repeats: int) -> list[float]:
    """Milliseconds of each call."""
    seconds = []
    for _ in range(repeats):
        began = time.perf_counter()
        one()
        seconds.append(1000 * (time.perf_counter() - began))
    return seconds


def main() -> None:
    """Measure, print a table, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=40)
    parser.add_argument("--out", type=Path, default=Path("artifacts/predict.json"))
    options = parser.parse_args()
    threads = 1
    torch.set_num_threads(threads)
    report = {}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        port = free_port()
        settings = Settings(home=folder / "kdal", label_studio_api_key="unused", local_files_root=folder)
        cases = {
            "digits 8 x 8, small_cnn": (1, "small_cnn", (8, 8), digit_files(folder)),
            "photos 480 x 360, mobilenet_v3_large": (2, "mobilenet_v3_large", (168, 224), photo_files(folder)),
        }
        for number, network, size, _ in cases.values():
            serve(folder, number, network, size, settings)
        environment = {
            "KDAL_HOME": str(folder / "kdal"),
            "KDAL_LOCAL_FILES_ROOT": str(folder),
            "KDAL_THREADS": str(threads),
            "OMP_NUM_THREADS": str(threads),
            "LABEL_STUDIO_API_KEY": "unused",
        }
        command = [*KDAL, "serve", "--port", str(port)]
        with Child("kdal serve", command, env=environment, log=folder / "serve.log") as server:
            server.wait_until_healthy(f"http://127.0.0.1:{port}/health", timeout=120)
            session = requests.Session()
            for name, (number, network, size, paths) in cases.items():
                tasks = [{"id": i, "data": {"image": f"file://{path}"}} for i, path in enumerate(paths)]
                body = {"project": f"{number}.1", "tasks": tasks, "label_config": CONFIG}
                model = build_model(network, len(CLASSES), size).eval()

                def bare(
                    model: torch.nn.Module = model, paths: list[Path] = paths, size: tuple[int, int] = size
                ) -> None:
                    images = []
                    for path in paths:
                        image = Image.open(io.BytesIO(path.read_bytes())).convert("RGB")
                        if image.size != size[::-1]:
                            image = image.resize(size[::-1], Image.Resampling.BILINEAR)
                        images.append(torch.from_numpy(np.array(image)).permute(2, 0, 1))
                    with torch.inference_mode():
                        model(torch.stack(images).float() / 255).softmax(1).numpy()

                def through_kdal(body: object = body) -> None:
                    answer = session.post(f"http://127.0.0.1:{port}/predict", json=body, timeout=100).json()
                    assert len(answer["results"]) == BATCH, answer
                    assert all(result["result"] for result in answer["results"]), answer

                for warm in (bare, through_kdal):
                    median_ms(warm, 3)
                pairs = [(median_ms(bare, 1)[0], median_ms(through_kdal, 1)[0]) for _ in range(options.repeats)]
                a, b = (statistics.median(column) for column in zip(*pairs, strict=True))
                report[name] = {"bare_ms": round(a, 2), "predict_ms": round(b, 2), "ratio": round(b / a, 3)}
                print(f"{name}: bare {a:.1f} ms, /predict {b:.1f} ms, ratio {b / a:.2f}")
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
