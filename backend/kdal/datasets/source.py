"""The images of a folder that is imported: in files here, or where Label Studio reads them itself."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from kdal.datasets.identity import Present, digest, digest_of_folder
from kdal.datasets.tasks import Origin, Size
from kdal.images.loader import ImageLoader
from kdal.images.refs import ImageRef
from kdal.labelstudio.client import FILE_BYTES, FILES
from kdal_core.datasets import Scene
from kdal_core.datasets.images import image_size
from kdal_core.errors import AssetError


@dataclass(frozen=True, eq=False)
class SourceImage:
    """An image that is to become a task."""

    scene: Scene
    size: Size
    origin: Origin
    data: bytes
    """Of its file; empty where Label Studio reads it itself."""


class Source:
    """The images of a folder, in files here or where Label Studio reads them itself."""

    def __init__(self, folder: Path, address: str | None, images: ImageLoader, follow_links: bool) -> None:
        self._folder, self._images, self._follow_links = folder, images, follow_links
        self._address = None if address is None else address.rstrip("/")
        self._real = folder.resolve()
        self._name = digest_of_folder(folder, self._address)

    def is_in(self, present: Present, scene: Scene, label: str) -> bool:
        """Whether an image is a task already."""
        return present.holds(scene.path, self._folder / scene.path, self._name, label, self._where(scene))

    def batches(self, scenes: Sequence[Scene]) -> Iterator[list[Scene]]:
        """As many scenes as Label Studio takes at once."""
        batch: list[Scene] = []
        held = 0
        for scene in scenes:
            path = self._folder / scene.path
            size = path.stat().st_size if self._address is None and _is_file(path) else 0
            if batch and (len(batch) == FILES or held + size > FILE_BYTES):
                yield batch
                batch, held = [], 0
            batch.append(scene)
            held += size
        if batch:
            yield batch

    def open(self, scene: Scene, label: str) -> SourceImage:
        """An image with its size, and its file where that is uploaded.

        Raises:
            AssetError, ConfigError: it is not there, no image, or a link out of the folder; names it.
        """
        file, where = self._folder / scene.path, self._where(scene)
        if where is not None:
            size = image_size(file) if _is_file(file) else self._images.image(ImageRef(0, where)).size
            return SourceImage(scene, size, Origin(path=scene.path, label=label, folder=self._name), b"")
        try:
            if not self._follow_links and not file.resolve().is_relative_to(self._real):
                raise AssetError(f"{file}: it is a link to a file outside the folder; --follow-links takes it")
            if file.exists() and not file.is_file():
                raise AssetError(f"{file}: it is no file")
            size, data = image_size(file), file.read_bytes()
        except (OSError, RuntimeError) as error:  # a loop of links is a RuntimeError
            raise AssetError(f"{file}: it cannot be read ({getattr(error, 'strerror', None) or error})") from error
        origin = Origin(path=scene.path, image=digest(data), label=label, folder=self._name)
        return SourceImage(scene, size, origin, data)

    def addresses(self, images: Sequence[SourceImage]) -> list[tuple[SourceImage, str]]:
        """Each image with its address where Label Studio reads it itself."""
        return [(image, str(self._where(image.scene))) for image in images]

    def _where(self, scene: Scene) -> str | None:
        return None if self._address is None else f"{self._address}/{scene.path}"


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # one of its folders cannot be read
        return False
