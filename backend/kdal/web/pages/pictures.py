"""Pictures of tasks, small and from our own address: read as kdal reads all images, and kept once they are made."""

from __future__ import annotations

import hashlib
import io
import json
from dataclasses import dataclass
from threading import BoundedSemaphore
from typing import Any

from PIL import Image

from kdal.aliases import Json
from kdal.images.allowed import Sources
from kdal.images.cache import ByteCache
from kdal.images.refs import ImageRef
from kdal.resources import Resources
from kdal.rounds.map import Point, load_map
from kdal.rounds.queue import QueueFile
from kdal.rounds.snapshot import SnapshotHeader
from kdal.rounds.store import RoundStore
from kdal.storage.assets import MissingAssetError
from kdal.web.pages import drawing
from kdal.web.predictor import PerProject
from kdal_core.errors import AssetError, KdalError

SIZES = {"small": 320, "large": 1280}
"""Pixels of a picture's longer side."""
QUALITY = 82
"""Of JPEG."""
CACHED = 256 * 1024**2
"""Bytes of pictures that are kept."""
AT_ONCE = 2
"""Pictures that are made at the same time: the server's other threads stay with annotators."""
PATIENCE = 0.3
"""Seconds that one waits for its turn; then the browser is told to ask again, and the thread is free."""
MADE = "1"
"""Changes with how pictures are made, so that old ones are made anew."""


class BusyError(KdalError):
    """Other pictures are being made: ask again in a moment."""


@dataclass(frozen=True)
class Addresses:
    """Where the images of a round's tasks are."""

    of_task: dict[int, tuple[str, str]]
    """Task id -> address, and why there is none."""

    def ref(self, task: int) -> ImageRef | None:
        """A task's image; None for a task that the round did not know."""
        found = self.of_task.get(task)
        return None if found is None else ImageRef(task, *found)


class Pictures:
    """Makes pictures of a project's tasks.

    Args:
        resources: how images are read, and where rounds keep what they know.
    """

    def __init__(self, resources: Resources) -> None:
        self._resources = resources
        self._addresses = PerProject(self._load_addresses, size=4)
        self._sources = PerProject(
            lambda uid, number: SnapshotHeader.load(RoundStore(resources.assets, uid, number)).sources
        )
        self._queues = PerProject(lambda uid, number: QueueFile.load(RoundStore(resources.assets, uid, number)))
        self._maps = PerProject(lambda uid, number: load_map(RoundStore(resources.assets, uid, number)))
        self._cache = ByteCache(resources.settings.home_path / "cache" / "pictures", CACHED)
        self._turn = BoundedSemaphore(AT_ONCE)

    def ref(self, uid: str, number: int, task: int) -> ImageRef | None:
        """A task's image as a round knew it; None where it did not know the task."""
        return self._addresses.get(uid, number).ref(task)

    def sources(self, uid: str, number: int) -> Sources:
        """Where the project's images may be read, as a round found it."""
        return self._sources.get(uid, number)

    def queue(self, uid: str, number: int) -> QueueFile:
        """What a published round has written of the first tasks of its order."""
        return self._queues.get(uid, number)

    def map(self, uid: str, number: int) -> list[Point]:
        """The map of a published round."""
        return self._maps.get(uid, number)

    def jpeg(self, ref: ImageRef, sources: Sources, size: str, regions: list[Json]) -> bytes:
        """A picture as a JPEG file.

        Args:
            ref: its image.
            sources: where the project's images may be read.
            size: one of `SIZES`.
            regions: drawn in.

        Raises:
            AssetError: the image cannot be read.
            BusyError: others are being made.
        """
        if ref.missing or not ref.uri:
            raise AssetError(f"task {ref.task_id}: {ref.missing or 'the task has no image address'}")
        images = self._resources.images.within(sources)
        drawn = hashlib.sha256(json.dumps(regions).encode()).hexdigest()
        key = "\0".join((MADE, size, drawn, images.identity(ref)))
        if (kept := self._cache.get(key)) is not None:
            return kept
        if not self._turn.acquire(timeout=PATIENCE):
            raise BusyError("other pictures are being made")
        try:
            return self._cache.put(key, _jpeg(images.image(ref), SIZES[size], regions))
        finally:
            self._turn.release()

    def _load_addresses(self, uid: str, number: int) -> Addresses:
        """From a round's snapshot. Of 100,000 tasks that takes half a second, once."""
        try:
            value: Any = RoundStore(self._resources.assets, uid, number).read_json("snapshot.json")
            refs = [item["ref"] for item in value["labelled"]] + value["pool"]
            return Addresses({int(ref["task_id"]): (str(ref["uri"]), str(ref.get("missing", ""))) for ref in refs})
        except MissingAssetError:
            return Addresses({})
        except (KeyError, TypeError, ValueError) as error:
            raise AssetError(f"the snapshot of round {number} is damaged: {error}") from error


def _jpeg(image: Image.Image, longest: int, regions: list[Json]) -> bytes:
    small = image.copy()
    small.thumbnail((longest, longest), Image.Resampling.LANCZOS, reducing_gap=2.0)
    if max(small.size) < longest // 4:  # icons and digits: enlarged with their pixels kept
        factor = longest // 2 // max(small.size)
        small = small.resize((small.width * factor, small.height * factor), Image.Resampling.NEAREST)
    file = io.BytesIO()
    drawing.draw(small, regions).save(file, "JPEG", quality=QUALITY, optimize=True)
    return file.getvalue()
