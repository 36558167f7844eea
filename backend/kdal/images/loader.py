"""Images of tasks: read from where they are, kept in a bounded cache, decoded; many at once in threads."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from copy import copy
from dataclasses import replace
from typing import Any, TypeVar

import torch
from PIL import Image

from kdal.images.allowed import Sources
from kdal.images.cache import ByteCache
from kdal.images.decoding import decode, to_tensor
from kdal.images.errors import UnreachableError
from kdal.images.refs import ImageRef, LoadedImages
from kdal.images.sources import ImageSources, S3Client
from kdal.labelstudio.client import LabelStudioClient
from kdal.logs import printable, redacted
from kdal.settings import Settings
from kdal.storage.features import digest
from kdal_core.errors import AssetError

T = TypeVar("T")
FETCHERS = 8
"""Threads that fetch images at once."""
WORTH_A_THREAD = 0.001
"""Seconds an image above which fetching and decoding in threads pays."""
OUTAGE = 8
"""As many images out of reach, and not one within, are no bad luck but an outage."""
IN_MEMORY = 4 * 1024**3
"""Bytes of decoded images up to which a set is held in memory."""


class ImageLoader:
    """Reads and decodes images by ``s3://``, ``http(s)://``, Label Studio path, ``file://`` or ``data:``.

    Args:
        settings: limits, cache, where Label Studio is, and where local files may be read.
        label_studio: for files that Label Studio holds; its token goes to no other host.
        sources: of the project whose images are asked for, see `within`; none: any public host, and no S3 bucket but
            those of KDAL_IMAGE_SOURCES.
    """

    def __init__(
        self, settings: Settings, label_studio: LabelStudioClient | None, sources: Sources | None = None
    ) -> None:
        self._settings, self._label_studio = settings, label_studio
        self._max_pixels = settings.max_image_pixels
        self._s3 = S3Client()
        self._sources = ImageSources(settings, label_studio, sources, self._s3)
        self._cache = ByteCache(settings.home_path / "cache" / "images", settings.cache_bytes)

    def within(self, sources: Sources) -> ImageLoader:
        """The same for a project that has its images there, and reads none elsewhere."""
        loader = copy(self)
        loader._sources = ImageSources(self._settings, self._label_studio, sources, self._s3)
        return loader

    def image(self, ref: ImageRef) -> Image.Image:
        """The decoded RGB image, upright.

        Raises:
            AssetError: missing, too large, truncated or no image; names the task and the address.
            UnreachableError: where it is cannot be reached now.
        """
        return self._read(ref)[1]

    def file(self, ref: ImageRef) -> bytes:
        """The image's file as it is stored, once it is sure that it can be decoded; raises as `image`."""
        return self._read(ref)[0]

    def identity(self, ref: ImageRef) -> str:
        """What stands for the image's file as long as it is the same, without reading it; raises as `image`."""
        with _named(ref):
            return self._sources.of(ref).identity(ref)

    def tensor(self, ref: ImageRef, size: tuple[int, int]) -> torch.Tensor:
        """The image as uint8 (3, H, W), resized to ``size`` = (H, W)."""
        return to_tensor(self.image(ref), size)

    def load(
        self,
        refs: Sequence[ImageRef],
        size: tuple[int, int],
        progress: Callable[[float], None] | None = None,
        *,
        seconds: float | None = None,
    ) -> LoadedImages:
        """Images of many tasks, resized to ``size`` = (H, W), those that cannot be read left out.

        What needs one image at least asks for `LoadedImages.required`.

        Args:
            refs: the tasks' images.
            size: (H, W) in pixels.
            progress: told the share of them that is read.
            seconds: after which no further image is begun, for who has to answer in time; none: all are.

        Raises:
            UnreachableError: `OUTAGE` images or more, and where they are is out of reach for each of them. They
                are not bad images, and nothing should be concluded from it.
        """
        lazy = len(refs) * 3 * size[0] * size[1] > IN_MEMORY
        out = None if lazy else torch.empty((len(refs), 3, *size), dtype=torch.uint8)
        reasons: dict[int, str] = {}
        unreachable: set[int] = set()
        kept: list[int] = []
        sizes: list[tuple[int, int]] = []
        digests: list[bytes] = []

        ends = None if seconds is None else time.monotonic() + seconds

        def one(position: int) -> tuple[torch.Tensor, tuple[int, int], bytes] | None:
            try:
                if ends is not None and time.monotonic() > ends:
                    raise UnreachableError(f"task {refs[position].task_id}: there was no time left to read its image")
                data, image = self._read(refs[position])
                return to_tensor(image, size), image.size, digest(data)
            except AssetError as error:
                reasons[position] = str(error)
                if isinstance(error, UnreachableError):
                    unreachable.add(position)
                return None

        for position, read in enumerate(_in_turn_or_at_once(one, len(refs))):
            if read is not None:
                if out is not None:
                    out[len(kept)] = read[0]
                kept.append(position)
                sizes.append(read[1])
                digests.append(read[2])
            if progress is not None and position % 64 == 63:
                progress((position + 1) / len(refs))
        if len(unreachable) == len(refs) >= OUTAGE:
            raise UnreachableError(f"not one of {len(refs):,} images can be reached, for example {reasons[0]}")
        images = LazyImages(self, [refs[i] for i in kept], size) if out is None else out[: len(kept)]
        return LoadedImages(images, kept, sizes, digests, dict(sorted(reasons.items())))

    def _read(self, ref: ImageRef) -> tuple[bytes, Image.Image]:
        with _named(ref):
            source = self._sources.of(ref)
            key = source.key(ref)
            if key is not None and (cached := self._cache.get(key)):
                with suppress(AssetError):  # damaged on the disk: fetched again
                    return cached, decode(cached, self._max_pixels)
            data = source.read(ref)
            image = decode(data, self._max_pixels)
            if key is not None:
                self._cache.put(key, data)  # not before: what cannot be used today may be right tomorrow
            return data, image


def sources_of(client: LabelStudioClient, project: int) -> Sources:
    """Where images may be of a project whose tasks are read from Label Studio's API: so their hosts need no list."""
    return replace(Sources.of((), client.s3_storages(project)), hosts=None)


@contextmanager
def _named(ref: ImageRef) -> Iterator[None]:
    """What is wrong with an image, with its task and address."""
    if ref.missing:
        raise AssetError(f"task {ref.task_id}: {ref.missing}")
    try:
        if not ref.uri:
            raise AssetError("the task has no image address")
        yield
    except AssetError as error:
        kind = UnreachableError if isinstance(error, UnreachableError) else AssetError
        raise kind(f"task {ref.task_id}: image {_shown(ref.uri)}: {redacted(str(error))}") from error
    except ValueError as error:  # urlsplit, pathlib and the like, on text that is no address at all
        raise AssetError(
            f"task {ref.task_id}: image {_shown(ref.uri)}: not an address ({redacted(str(error))})"
        ) from error


class LazyImages(Sequence[torch.Tensor]):
    """Images decoded when they are asked for: for sets that do not fit into memory."""

    def __init__(self, loader: ImageLoader, refs: Sequence[ImageRef], size: tuple[int, int]) -> None:
        self._loader, self._refs, self._size = loader, refs, size

    def __len__(self) -> int:
        return len(self._refs)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return LazyImages(self._loader, self._refs[index], self._size)
        return self._loader.tensor(self._refs[int(index)], self._size)


def _in_turn_or_at_once(one: Callable[[int], T], count: int) -> Iterator[T]:
    """Results of ``one(0)``, ``one(1)``, ...: one by one while that is fast, in threads as soon as it is slow.

    Small images that are at hand are decoded in less time than a thread takes to start.
    """
    began = time.perf_counter()
    done = 0
    while done < count and time.perf_counter() - began <= done * WORTH_A_THREAD + WORTH_A_THREAD:
        yield one(done)
        done += 1
    if done < count:
        with ThreadPoolExecutor(FETCHERS) as pool:
            yield from pool.map(one, range(done, count))


def _shown(uri: str) -> str:
    text = redacted(uri)  # first: a secret that is cut is none that is recognised
    return printable(text if len(text) <= 120 else text[:100] + "..." + text[-10:])
