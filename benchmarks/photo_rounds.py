"""What a round of photos computes once their features are kept: seconds of each step, and memory.

No Label Studio and no images: the tables, assets and steps are those of a worker, the features are drawn in as many
clusters as there are classes, as wide as those of the packaged backbones, and already there. The first step finds them,
as that of every round but the first does. Each size runs in a process of its own, so that its memory is told apart.

And what the first look at photos takes, beside the bare networks with the same decoding of the same files, in turn.

Run as `python -m benchmarks.photo_rounds --photos 3000 100000 --folder data/clothing/train`.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

from kdal.aliases import Json
from kdal.backbones import RoundBackbones, features_key
from kdal.images.refs import ImageRef
from kdal.labelstudio.formats import format_for
from kdal.policy import Policy
from kdal.resources import Resources
from kdal.rounds import features, heads, scoring, training
from kdal.rounds.progress import StepReport
from kdal.rounds.snapshot import BACKBONES, Labelled, Snapshot, held_out
from kdal.rounds.store import RoundStore
from kdal.settings import Settings
from kdal.storage.features import Content, digest

CLASSES = 10
SIZE = (168, 224)
UID = "1.benchmark"
CONFIG = (
    '<View><Image name="image" value="$image"/><Choices name="what" toName="image">'
    + "".join(f'<Choice value="class {number}"/>' for number in range(CLASSES))
    + "</Choices></View>"
)
BLOCK = 4096
"""Photos whose features are written at once while the benchmark is set up."""


def address(number: int) -> str:
    """Of a photo that nobody asks for."""
    return f"https://photos.invalid/{number}.jpg"


def keep_features(resources: Resources, backbones: RoundBackbones, count: int) -> None:
    """Write features as the rounds before would have."""
    rng = np.random.default_rng(0)
    kinds = rng.integers(0, CLASSES, count)
    store = resources.features
    contents = [digest(f"photo {number}") for number in range(count)]
    rows = [
        Content(address=digest(address(i)), content=content, width=SIZE[1], height=SIZE[0])
        for i, content in enumerate(contents)
    ]
    store.note_contents(rows)
    for told in backbones.all:
        backbone = resources.backbones.load(told)
        centres = rng.normal(size=(CLASSES, backbone.width))
        for start in range(0, count, BLOCK):
            part = slice(start, start + BLOCK)
            drawn = centres[kinds[part]] + 2 * rng.normal(size=(len(kinds[part]), backbone.width))
            found = dict(zip(contents[part], np.maximum(drawn, 0).astype(np.float16), strict=True))
            store.add(features_key(backbone, SIZE), found)


def snapshot_of(resources: Resources, policy: Policy, backbones: RoundBackbones, count: int, labels: int) -> Snapshot:
    """A project of which so many photos are labelled."""
    kinds = np.random.default_rng(0).integers(0, CLASSES, count)
    refs = [ImageRef(number, address(number)) for number in range(count)]
    task = format_for(CONFIG, policy).task()
    chosen = np.random.default_rng(1).permutation(count)[:labels]
    labelled = [Labelled(refs[i], task.from_json(int(kinds[i])), held_out(policy, i)) for i in chosen.tolist()]
    known = set(chosen.tolist())
    pool = [ref for ref in refs if ref.task_id not in known]
    return Snapshot(UID, CONFIG, policy, SIZE, labelled, pool, [], None, backbones)


def opened(folder: Path) -> Resources:
    """What a worker works with."""
    settings = Settings(label_studio_url="http://127.0.0.1:9", label_studio_api_key="none", home=folder, device="cpu")
    settings.use_threads()
    return Resources.open(settings)


def prepare(count: int, labels: int, folder: Path) -> None:
    """Leave everything as it is when a round's snapshot has been taken."""
    resources, policy = opened(folder), Policy()
    backbones = resources.backbones.choose(policy, None)
    keep_features(resources, backbones, count)
    snapshot = snapshot_of(resources, policy, backbones, count, labels)
    store = RoundStore(resources.assets, UID, 1)
    store.write_json(BACKBONES, backbones.as_json())
    snapshot.save(store)


def measure(folder: Path) -> Json:
    """Seconds, and those of processors, of each step of the round that `prepare` left; the process's memory."""
    resources = opened(folder)
    store, report = RoundStore(resources.assets, UID, 1), StepReport()
    seconds: dict[str, tuple[float, float]] = {}

    @contextmanager
    def timed(name: str) -> Iterator[None]:
        began, used = time.perf_counter(), time.process_time()
        yield
        seconds[name] = (round(time.perf_counter() - began, 2), round(time.process_time() - used, 2))

    with timed("first use of the backbones"):
        for told in resources.backbones.choose(Policy(), None).all:
            resources.backbones.load(told)
    with timed("load snapshot"):
        snapshot = Snapshot.load(store)
    with timed("features"):
        for shard in range(features.shards_of(snapshot)):
            features.compute(resources, store, snapshot, shard, report)
    with timed("train heads"):
        heads.train_heads(resources, store, snapshot, report)
    with timed("promote"):
        training.promote(resources, store, snapshot, None)
    with timed("score"):
        for shard in range(scoring.shard_count(snapshot)):
            scoring.score_shard(resources, store, snapshot, shard, True, 1, report)
    with timed("select"):
        scoring.select(store, snapshot, True, resources)
    wall, used = (round(sum(row[i] for row in list(seconds.values())[1:]), 2) for i in (0, 1))
    memory = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2)
    return {"steps": seconds, "round": (wall, used), "GB": memory}


def first_look(folder: Path, count: int, home: Path) -> dict[str, float]:
    """Seconds a photo of the step that computes features, and of the bare networks; what one is of the other."""
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png"))[:count]
    settings = Settings(
        label_studio_url="http://127.0.0.1:9",
        label_studio_api_key="none",
        home=home,
        device="cpu",
        local_files_root=folder,
    )
    settings.use_threads()
    resources, policy = Resources.open(settings), Policy()
    backbones = resources.backbones.choose(policy, None)
    networks = [resources.backbones.load(told) for told in backbones.all]
    refs = [ImageRef(number, path.resolve().as_uri()) for number, path in enumerate(files)]
    halves = refs[::2], refs[1::2]  # photos that neither has read before
    bare, ours = 0.0, 0.0
    for number, (first, second) in enumerate((halves, halves[::-1])):
        began = time.perf_counter()
        for start in range(0, len(first), features.BATCH):
            batch = torch.stack([resources.images.tensor(ref, SIZE) for ref in first[start : start + features.BATCH]])
            for network in networks:
                network.features(batch)
        bare += time.perf_counter() - began
        snapshot = Snapshot(UID, CONFIG, policy, SIZE, [], second, [], "no labels yet", backbones)
        began = time.perf_counter()
        features.compute(resources, RoundStore(resources.assets, UID, number), snapshot, 0, StepReport())
        ours += time.perf_counter() - began
    return {
        "photos": len(files),
        "kdal, s a photo": round(ours / len(files), 4),
        "bare, s a photo": round(bare / len(files), 4),
        "times": round(ours / bare, 3),
    }


def main() -> None:
    """Measure, print, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=int, nargs="*", default=[3_000, 100_000])
    parser.add_argument("--labels", type=int, default=200)
    parser.add_argument("--folder", type=Path, help="photos that are looked at for the first time")
    parser.add_argument("--out", type=Path, default=Path("artifacts/photo_rounds.json"))
    parser.add_argument("--measure", type=Path, help="the folder that another process has prepared")
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(options.measure)))
        return
    found: Json = {}
    if options.folder is not None:
        with tempfile.TemporaryDirectory() as home:
            found["first look"] = first_look(options.folder, 512, Path(home))
        print(f"first look: {found['first look']}", flush=True)
    for count in options.photos:
        with tempfile.TemporaryDirectory() as folder:
            prepare(count, options.labels, Path(folder))
            command = [sys.executable, "-m", "benchmarks.photo_rounds", "--measure", folder]
            answer = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        found[count] = json.loads(answer.stdout.splitlines()[-1])
        print(f"{count:,} photos, {options.labels} labels: {found[count]}", flush=True)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
