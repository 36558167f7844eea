"""Images of tasks: fetched from where they are, kept in a bounded cache, decoded with care."""

from __future__ import annotations

import base64
import binascii
import io
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any, TypeVar
from urllib.parse import parse_qs, unquote, urljoin, urlsplit

import numpy as np
import requests
import torch
from botocore.exceptions import BotoCoreError, ClientError
from PIL import Image, UnidentifiedImageError

from kdal.images.cache import ByteCache
from kdal.labelstudio.client import LabelStudioClient, LabelStudioError
from kdal.settings import Settings
from kdal.storage.assets import s3_client
from kdal_core.datasets.images import IMAGE_FORMATS, upright
from kdal_core.errors import AssetError

T = TypeVar("T")
FETCHERS = 8
"""Threads that fetch images at once."""
WORTH_A_THREAD = 0.001
"""Seconds an image above which fetching and decoding in threads pays."""
OUTAGE = 8
"""So many images out of reach, and none within, are no bad luck but an outage."""
IN_MEMORY = 4 * 1024**3
"""Bytes of decoded images up to which a set is held in memory."""


@dataclass(frozen=True)
class ImageRef:
    """A task's image: the task's id and the address in its data."""

    task_id: int
    uri: str


@dataclass(frozen=True, eq=False)
class LoadedImages:
    """Images of those tasks of a list whose images can be read: M of them."""

    images: Sequence[torch.Tensor] | torch.Tensor
    """uint8 (M, 3, H, W), or a lazy sequence of as many when they would fill the memory."""
    kept: list[int]
    """(M,) their positions in the list."""
    sizes: list[tuple[int, int]]
    """(M,) width and height in pixels before they were resized, as people see them."""
    reasons: dict[int, str]
    """Position in the list -> why its image cannot be read, for all others."""


class UnreachableError(AssetError):
    """Where an image is cannot be reached now: no answer, a fault of the server's, or no permission."""


class ImageLoader:
    """Fetches and decodes images by ``s3://``, ``http(s)://``, Label Studio path, ``file://`` or ``data:``.

    Args:
        settings: limits, cache, and where local files may be read.
        label_studio: for files that Label Studio holds; its token goes to no other host.
    """

    def __init__(self, settings: Settings, label_studio: LabelStudioClient | None) -> None:
        self._settings = settings
        self._label_studio = label_studio
        self._cache = ByteCache(settings.home_path / "cache" / "images", settings.cache_bytes)
        self._http = requests.Session()
        self._s3: Any = None
        self._lock = Lock()

    def image(self, ref: ImageRef) -> Image.Image:
        """The decoded RGB image, upright.

        Raises:
            AssetError: missing, too large, truncated or no image; names the task and the address.
        """
        return self._read(ref)[1]

    def file(self, ref: ImageRef) -> bytes:
        """The image's file as it is stored, once it is sure that it can be decoded; raises as `image`."""
        return self._read(ref)[0]

    def tensor(self, ref: ImageRef, size: tuple[int, int]) -> torch.Tensor:
        """The image as uint8 (3, H, W), resized to ``size`` = (H, W)."""
        return _tensor(self.image(ref), size)

    def load(
        self, refs: Sequence[ImageRef], size: tuple[int, int], progress: Callable[[float], None] | None = None
    ) -> LoadedImages:
        """Images of many tasks, resized to ``size`` = (H, W), those that cannot be read left out.

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

        def one(position: int) -> tuple[torch.Tensor, tuple[int, int]] | None:
            try:
                image = self.image(refs[position])
                return _tensor(image, size), image.size
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
            if progress is not None and position % 64 == 63:
                progress((position + 1) / len(refs))
        if len(unreachable) == len(refs) >= OUTAGE:
            raise UnreachableError(f"none of {len(refs)} images can be reached, for example {reasons[0]}")
        if out is None:
            return LoadedImages(LazyImages(self, [refs[i] for i in kept], size), kept, sizes, reasons)
        return LoadedImages(out[: len(kept)], kept, sizes, reasons)

    def _read(self, ref: ImageRef) -> tuple[bytes, Image.Image]:
        try:
            if not ref.uri:
                raise AssetError("the task has no image address")
            remote = _is_remote(ref.uri)
            if remote and (cached := self._cache.get(ref.uri)):
                with suppress(AssetError):  # damaged on the disk: fetched anew
                    return cached, self._decode(cached)
            data = self._fetch(ref)
            image = self._decode(data)
            if remote:
                self._cache.put(ref.uri, data)  # not before: what cannot be used today may be right tomorrow
            return data, image
        except AssetError as error:
            kind = UnreachableError if isinstance(error, UnreachableError) else AssetError
            raise kind(f"task {ref.task_id}: image {_shown(ref.uri)}: {error}") from error
        except ValueError as error:  # urlsplit, pathlib and the like, on text that is no address at all
            raise AssetError(f"task {ref.task_id}: image {_shown(ref.uri)}: not an address ({error})") from error

    # ------------------------------------------------------------------ where images are

    def _fetch(self, ref: ImageRef) -> bytes:
        uri = ref.uri
        scheme = urlsplit(uri).scheme.lower()
        if scheme == "data":
            if len(uri) * 3 // 4 > self._settings.max_image_bytes:
                raise AssetError(self._too_large())
            return _data_uri(uri)
        if scheme == "s3":
            return self._from_s3(ref)
        if scheme == "file":
            return self._from_disk(unquote(urlsplit(uri).path))
        if scheme in ("http", "https"):
            return self._from_http(uri)
        if uri.startswith("/"):
            root = self._settings.local_files_root
            local = parse_qs(urlsplit(uri).query).get("d") if uri.startswith("/data/local-files/") else None
            if local and root is not None:
                return self._from_disk(str(root / local[0]))
            return self._from_http(urljoin(self._settings.label_studio_url + "/", uri.lstrip("/")))
        raise AssetError("kdal reads s3://, http(s)://, file://, data: and Label Studio's own files (/data/...)")

    def _from_disk(self, path: str) -> bytes:
        root = self._settings.local_files_root
        if root is None:
            raise AssetError("local files are off: set KDAL_LOCAL_FILES_ROOT to the folder that may be read")
        try:
            resolved = Path(path).resolve(strict=True)
        except (OSError, RuntimeError) as error:  # a loop of links is a RuntimeError
            raise AssetError(f"no such file ({getattr(error, 'strerror', None) or error})") from error
        if not resolved.is_relative_to(root.resolve()):
            raise AssetError("outside KDAL_LOCAL_FILES_ROOT")
        if not resolved.is_file():
            raise AssetError("not a file")
        try:
            if resolved.stat().st_size > self._settings.max_image_bytes:
                raise AssetError(self._too_large())
            return resolved.read_bytes()
        except OSError as error:
            raise AssetError(f"cannot be read ({error.strerror or error})") from error

    def _from_s3(self, ref: ImageRef) -> bytes:
        # Not as a URL: "?" and "#" are letters of a key like any other.
        bucket, _, key = ref.uri[len("s3://") :].partition("/")
        try:
            with self._lock:  # boto3 makes clients in one thread only; they are used in many
                if self._s3 is None:
                    self._s3 = s3_client()
            answer = self._s3.get_object(Bucket=bucket, Key=key)
            if answer["ContentLength"] > self._settings.max_image_bytes:
                raise AssetError(self._too_large())
            return bytes(answer["Body"].read())
        except (BotoCoreError, ClientError, ValueError) as error:
            # Label Studio may hold the storage's credentials where kdal has none of its own.
            try:
                token = base64.urlsafe_b64encode(ref.uri.encode()).decode()
                path = f"{self._settings.label_studio_url}/tasks/{ref.task_id}/resolve/?fileuri={token}"
                return self._from_http(path)
            except AssetError as second:
                kind = UnreachableError if isinstance(second, UnreachableError) else AssetError
                raise kind(f"S3 says: {error}; through Label Studio: {second}") from error

    def _from_http(self, url: str) -> bytes:
        limit = self._settings.max_image_bytes
        ours = self._label_studio is not None and url.startswith(self._settings.label_studio_url + "/")
        try:
            # requests drops the Authorization header by itself when a redirect leads to another host
            headers = self._label_studio.authorization() if ours and self._label_studio is not None else {}
            with self._http.get(url, headers=headers, stream=True, timeout=(5, 30)) as response:
                if not response.ok:
                    away = response.status_code in (401, 403, 408, 429) or response.status_code >= 500
                    kind = UnreachableError if away else AssetError
                    raise kind(f"{response.status_code} {response.reason}")
                data = bytearray()
                for chunk in response.iter_content(1 << 16):
                    data += chunk
                    if len(data) > limit:
                        raise AssetError(self._too_large())
                return bytes(data)
        except LabelStudioError as error:
            raise UnreachableError(str(error)) from error
        except requests.RequestException as error:
            raise UnreachableError(f"cannot be fetched: {_why_unfetched(error)}") from error

    # ------------------------------------------------------------------ what they hold

    def _decode(self, data: bytes) -> Image.Image:
        limit = f"KDAL_MAX_IMAGE_PIXELS = {self._settings.max_image_pixels:,}"
        try:
            with Image.open(io.BytesIO(data), formats=IMAGE_FORMATS) as image:
                if image.width * image.height > self._settings.max_image_pixels:
                    raise AssetError(f"{image.width} x {image.height} pixels, more than {limit}")
                return _as_rgb(upright(image))
        except AssetError:
            raise
        except UnidentifiedImageError as error:
            raise AssetError("not an image that can be decoded" if data else "empty") from error
        except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
            raise AssetError(f"more pixels than {limit} ({error})") from error
        except Exception as error:  # on damaged bytes Pillow raises whatever its parsers trip over
            raise AssetError(f"damaged ({error or type(error).__name__})") from error

    def _too_large(self) -> str:
        return f"more than KDAL_MAX_IMAGE_BYTES = {self._settings.max_image_bytes:,} bytes"


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


def _tensor(image: Image.Image, size: tuple[int, int]) -> torch.Tensor:
    """uint8 (3, H, W) of an RGB image, resized to ``size`` = (H, W)."""
    height, width = size
    if image.size != (width, height):
        image = image.resize((width, height), Image.Resampling.BILINEAR, reducing_gap=2.0)
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()


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


def _data_uri(uri: str) -> bytes:
    head, _, body = uri.partition(",")
    if not head.endswith(";base64"):
        raise AssetError("a data: address must be base64")
    try:
        return base64.b64decode(body, validate=True)
    except (binascii.Error, ValueError) as error:
        raise AssetError(f"not base64 ({error})") from error


def _is_remote(uri: str) -> bool:
    return uri.startswith("/") or urlsplit(uri).scheme.lower() in ("s3", "http", "https")


def _as_rgb(image: Image.Image) -> Image.Image:
    """What the annotator sees: 16 bits as 8, transparent places white."""
    if image.mode.startswith("I") or image.mode == "F":
        values = np.asarray(image, dtype=np.float64)
        # Whole numbers are 16 bits deep; for fractions nothing says which is white but the image itself.
        low, high = (0.0, 65535.0) if image.mode != "F" else (float(values.min()), float(values.max()))
        scaled = (values - low) * (255 / (high - low)) if high > low else np.zeros_like(values)
        return Image.fromarray(scaled.clip(0, 255).round().astype(np.uint8)).convert("RGB")
    if "transparency" in image.info or image.mode in ("RGBA", "LA", "PA", "La", "RGBa"):
        upper = image.convert("RGBA")
        white = Image.new("RGBA", upper.size, "white")
        return Image.alpha_composite(white, upper).convert("RGB")
    return image.convert("RGB")


def _why_unfetched(error: requests.RequestException) -> str:
    # requests' own words hold the whole address, and with it a presigned URL's signature.
    if isinstance(error, requests.Timeout):
        return "its server does not answer in time"
    if isinstance(error, requests.ConnectionError):
        return "its server cannot be reached"
    if isinstance(error, requests.TooManyRedirects):
        return "it is redirected without end"
    return type(error).__name__


def _shown(uri: str) -> str:
    text = uri if len(uri) <= 120 else uri[:100] + "..." + uri[-10:]
    return text if text.isprintable() else text.encode("unicode_escape").decode()
