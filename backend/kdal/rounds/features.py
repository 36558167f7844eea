"""The features of a round's images, by the pretrained backbones: computed once for each image, kept as assets."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from kdal.aliases import Json
from kdal.backbones import Told, features_key
from kdal.images.refs import ImageRef, LoadedImages
from kdal.resources import Resources
from kdal.rounds.progress import StepReport
from kdal.rounds.snapshot import Snapshot
from kdal.rounds.store import SHARD, RoundStore
from kdal.storage.features import Content, FeatureStore, Half, digest
from kdal_core.errors import AssetError
from kdal_core.models.backbones import Backbone

BLOCK = 256
"""Images whose features are written at once: what a killed worker computes again."""
BATCH = 32
"""Images that a backbone looks at at once."""
LARGEST = float(np.finfo(np.float16).max)


def shards_of(snapshot: Snapshot) -> int:
    """How many shards a round's images make."""
    return -(-len(snapshot.images) // SHARD)


def compute(resources: Resources, store: RoundStore, snapshot: Snapshot, shard: int, report: StepReport) -> Json:
    """Compute the features of one shard of a round's images that are not there yet; note which images these are.

    Raises:
        UnreachableError: images have to be read, and where they are is out of reach.
    """
    if snapshot.backbones is None:
        raise AssetError("this round has no backbones")
    refs = snapshot.images[shard * SHARD : (shard + 1) * SHARD]
    kept = resources.features
    backbones = [resources.backbones.load(told) for told in snapshot.backbones.all]
    keys = [features_key(backbone, snapshot.image_size) for backbone in backbones]
    addresses, reasons = _addresses(resources, refs)
    known = kept.contents(list(addresses.values()))
    found = {i: known[address] for i, address in addresses.items() if address in known}
    contents = {row.content for row in found.values()}
    lacking = set().union(*(contents - kept.readable(key, list(contents)) for key in keys))
    wanted = [i for i in range(len(refs)) if i not in reasons and (i not in found or found[i].content in lacking)]
    for done, positions in _blocks(wanted):
        loaded = resources.images.load([refs[i] for i in positions], snapshot.image_size)
        reasons |= {positions[i]: why for i, why in loaded.reasons.items()}
        for i in loaded.reasons:
            found.pop(positions[i], None)
        found |= _noted(kept, addresses, positions, loaded)
        for left, key, backbone in zip(range(len(keys) - 1, -1, -1), keys, backbones, strict=True):
            _compute_missing(kept, key, backbone, loaded)
            report.progress((done - len(positions) * left / len(keys)) / len(wanted))
    report.unusable({refs[i].task_id: why for i, why in reasons.items()})
    places = sorted(found)
    store.write_arrays(
        _file(shard),
        tasks=np.array([refs[i].task_id for i in places], dtype=np.int64),
        contents=np.array([list(found[i].content) for i in places], dtype=np.uint8).reshape(len(places), 16),
        sizes=np.array([(found[i].width, found[i].height) for i in places], dtype=np.int64).reshape(len(places), 2),
        reason=np.array(next(iter(reasons.values()), "")),
    )
    return {}


@dataclass(frozen=True)
class RoundImages:
    """The images of a round that can be read, by task."""

    tasks: NDArray[np.int64]
    """(N,)."""
    contents: NDArray[np.uint8]
    """(N, 16) digests of their files."""
    sizes: NDArray[np.int64]
    """(N, 2) width and height in pixels."""
    reason: str
    """Why one of the others cannot be read, for example; empty where there is none."""

    @classmethod
    def load(cls, store: RoundStore, snapshot: Snapshot, tasks: NDArray[np.int64] | None = None) -> RoundImages:
        """What `compute` noted: of all images, by task, or of these tasks (M,) in their order."""
        if tasks is None:
            return cls._read(store, range(shards_of(snapshot)))
        everything = np.array([ref.task_id for ref in snapshot.images], dtype=np.int64)
        shards = np.unique(np.searchsorted(everything, tasks) // SHARD).tolist()
        return cls._read(store, [shard for shard in shards if shard < shards_of(snapshot)]).of(tasks)

    @classmethod
    def _read(cls, store: RoundStore, shards: Sequence[int]) -> RoundImages:
        parts = [store.read_arrays(_file(shard)) for shard in shards]
        if not parts:
            empty = np.zeros((0, 2), dtype=np.int64)
            return cls(empty[:, 0], np.zeros((0, 16), dtype=np.uint8), empty, "")
        return cls(
            tasks=np.concatenate([part["tasks"] for part in parts]),
            contents=np.concatenate([part["contents"] for part in parts]),
            sizes=np.concatenate([part["sizes"] for part in parts]),
            reason=next((str(part["reason"]) for part in parts if str(part["reason"])), ""),
        )

    def at(self, rows: NDArray[np.int64]) -> RoundImages:
        """Those in these places."""
        return RoundImages(self.tasks[rows], self.contents[rows], self.sizes[rows], self.reason)

    def of(self, tasks: NDArray[np.int64]) -> RoundImages:
        """Those of these tasks, in the order of the tasks."""
        ascending = np.argsort(self.tasks, kind="stable")
        places = np.searchsorted(self.tasks, tasks, sorter=ascending)
        known = places < len(self.tasks)
        rows = ascending[places[known]]
        return self.at(rows[self.tasks[rows] == tasks[known]])

    def and_also(self, others: RoundImages) -> RoundImages:
        """These, and the others behind them."""
        return RoundImages(
            np.concatenate([self.tasks, others.tasks]),
            np.concatenate([self.contents, others.contents]),
            np.concatenate([self.sizes, others.sizes]),
            self.reason or others.reason,
        )

    def features(self, resources: Resources, snapshot: Snapshot, told: Told) -> Half:
        """(N, D) by one of the round's backbones.

        Raises:
            LostFeaturesError: they are not there any more; a round that begins again computes them.
        """
        key = features_key(resources.backbones.load(told), snapshot.image_size)
        return resources.features.read(key, [row.tobytes() for row in self.contents])


def _file(shard: int) -> str:
    return f"images/{shard:05d}.npz"


def _addresses(resources: Resources, refs: Sequence[ImageRef]) -> tuple[dict[int, bytes], dict[int, str]]:
    """Digests of what stands for images before they are read, by position; and why some cannot be read."""
    addresses: dict[int, bytes] = {}
    reasons: dict[int, str] = {}
    for position, ref in enumerate(refs):
        try:
            addresses[position] = digest(resources.images.identity(ref))
        except AssetError as error:
            reasons[position] = str(error)
    return addresses, reasons


def _noted(
    kept: FeatureStore, addresses: dict[int, bytes], positions: list[int], loaded: LoadedImages
) -> dict[int, Content]:
    """Contents of images that were just read, by position; noted for later rounds."""
    rows: dict[int, Content] = {}
    for place, content, (width, height) in zip(loaded.kept, loaded.digests, loaded.sizes, strict=True):
        position = positions[place]
        rows[position] = Content(address=addresses[position], content=content, width=width, height=height)
    kept.note_contents(list({row.address: row for row in rows.values()}.values()))
    return rows


def _compute_missing(kept: FeatureStore, key: bytes, backbone: Backbone, loaded: LoadedImages) -> None:
    there = kept.known(key, loaded.digests)
    first = {content: i for i, content in reversed(list(enumerate(loaded.digests))) if content not in there}
    computed: dict[bytes, Half] = {}
    order = sorted(first.items(), key=lambda item: item[1])
    for start in range(0, len(order), BATCH):
        part = order[start : start + BATCH]
        features = backbone.features(torch.stack([loaded.images[i] for _, i in part])).numpy()
        clipped = features.clip(-LARGEST, LARGEST).astype(np.float16)
        computed |= {content: row for (content, _), row in zip(part, clipped, strict=True)}
    kept.add(key, computed)


def _blocks(positions: list[int]) -> Iterator[tuple[int, list[int]]]:
    """Blocks of positions, and how many are done with each."""
    for start in range(0, len(positions), BLOCK):
        block = positions[start : start + BLOCK]
        yield start + len(block), block
