"""Images of tasks: fetched from where they are, kept in a bounded cache, decoded with care."""

from __future__ import annotations

import base64
import binascii
import hashlib
import io
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any
from urllib.parse import parse_qs, unquote, urljoin, urlsplit

import numpy as np
import requests
import torch
from botocore.exceptions import BotoCoreError, ClientError
from PIL import Image, ImageOps, UnidentifiedImageError

from backend.assets import s3_client
from backend.labelstudio import LabelStudioClient
from backend.settings import Settings
from kdal_core.errors import AssetError

FETCHERS = 8
"""Threads that fetch images at once."""
IN_MEMORY = 4 * 1024**3
"""Bytes of decoded images up to which a set is held in memory."""


@dataclass(frozen=True)
class ImageRef:
    """A task's image: the task's id and the address in its data."""

    task_id: int
    uri: str


class ImageLoader:
    """Fetches and decodes images by ``s3://``, ``http(s)://``, Label Studio path, ``file://`` or ``data:``.

    Args:
        settings: limits, cache, and where local files may be read.
        label_studio: for files that Label Studio holds; its token goes to no other host.
    """

    def __init__(self, settings: Settings, label_studio: LabelStudioClient | None) -> None:
        self._settings = settings
        self._label_studio = label_studio
        self._cache = ByteCache(settings.home_folder / "cache" / "images", settings.cache_bytes)
        self._http = requests.Session()
        self._s3: Any = None

    def image(self, ref: ImageRef) -> Image.Image:
        """The decoded RGB image, upright.

        Raises:
            AssetError: missing, too large, truncated or no image; names the task and the address.
        """
        try:
            data = self._cache.get(ref.uri) or self._cache.put(ref.uri, self._fetch(ref))
            return self._decode(data)
        except AssetError as error:
            raise AssetError(f"task {ref.task_id}: image {_shown(ref.uri)}: {error}") from error

    def tensor(self, ref: ImageRef, size: tuple[int, int]) -> torch.Tensor:
        """The image as uint8 (3, H, W), resized to ``size`` = (H, W)."""
        image = self.image(ref)
        height, width = size
        if image.size != (width, height):
            image = image.resize((width, height), Image.Resampling.BILINEAR, reducing_gap=2.0)
        return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()

    def load(
        self, refs: Sequence[ImageRef], size: tuple[int, int], progress: Callable[[float], None] | None = None
    ) -> tuple[Sequence[torch.Tensor] | torch.Tensor, list[int], dict[int, str]]:
        """Images of many tasks, those that cannot be read left out.

        Returns:
            images: uint8 (M, 3, H, W), or a lazy sequence of as many when they would fill the memory;
            kept: positions in ``refs`` of the M that could be read;
            reasons: position in ``refs`` -> why it could not.
        """
        lazy = len(refs) * 3 * size[0] * size[1] > IN_MEMORY
        out = None if lazy else torch.empty((len(refs), 3, *size), dtype=torch.uint8)
        reasons: dict[int, str] = {}
        kept: list[int] = []

        def one(position: int) -> torch.Tensor | None:
            try:
                return self.tensor(refs[position], size)
            except AssetError as error:
                reasons[position] = str(error)
                return None

        with ThreadPoolExecutor(FETCHERS) as pool:
            for position, tensor in enumerate(pool.map(one, range(len(refs)))):
                if tensor is not None:
                    if out is not None:
                        out[len(kept)] = tensor
                    kept.append(position)
                if progress is not None and position % 64 == 63:
                    progress((position + 1) / len(refs))
        if out is None:
            return LazyImages(self, [refs[i] for i in kept], size), kept, reasons
        return out[: len(kept)], kept, reasons

    # ------------------------------------------------------------------ where images are

    def _fetch(self, ref: ImageRef) -> bytes:
        uri = ref.uri
        scheme = urlsplit(uri).scheme.lower()
        if scheme == "data":
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
        raise AssetError("kdal reads s3://, http(s)://, file:// and Label Studio's own files")

    def _from_disk(self, path: str) -> bytes:
        root = self._settings.local_files_root
        if root is None:
            raise AssetError("local files are off: set KDAL_LOCAL_FILES_ROOT to the folder that may be read")
        try:
            resolved = Path(path).resolve(strict=True)
        except OSError as error:
            raise AssetError(f"no such file ({error.strerror or error})") from error
        if not resolved.is_relative_to(root.resolve()):
            raise AssetError("outside KDAL_LOCAL_FILES_ROOT")
        if resolved.stat().st_size > self._settings.max_image_bytes:
            raise AssetError(self._too_large())
        return resolved.read_bytes()

    def _from_s3(self, ref: ImageRef) -> bytes:
        parts = urlsplit(ref.uri, allow_fragments=False)
        try:
            if self._s3 is None:
                self._s3 = s3_client()
            answer = self._s3.get_object(Bucket=parts.netloc, Key=parts.path.lstrip("/"))
            if answer["ContentLength"] > self._settings.max_image_bytes:
                raise AssetError(self._too_large())
            return bytes(answer["Body"].read())
        except (BotoCoreError, ClientError) as error:
            # Label Studio may hold the storage's credentials where kdal has none of its own.
            try:
                token = base64.b64encode(ref.uri.encode()).decode()
                path = f"{self._settings.label_studio_url}/tasks/{ref.task_id}/resolve/?fileuri={token}"
                return self._from_http(path)
            except AssetError as second:
                raise AssetError(f"S3 says: {error}; through Label Studio: {second}") from error

    def _from_http(self, url: str) -> bytes:
        limit = self._settings.max_image_bytes
        ours = self._label_studio is not None and url.startswith(self._settings.label_studio_url + "/")
        # requests drops the Authorization header by itself when a redirect leads to another host
        headers = self._label_studio.authorization() if ours and self._label_studio is not None else {}
        try:
            with self._http.get(url, headers=headers, stream=True, timeout=(5, 30)) as response:
                if not response.ok:
                    raise AssetError(f"{response.status_code} {response.reason}")
                data = bytearray()
                for chunk in response.iter_content(1 << 16):
                    data += chunk
                    if len(data) > limit:
                        raise AssetError(self._too_large())
                return bytes(data)
        except requests.RequestException as error:
            raise AssetError(f"cannot be fetched ({error})") from error

    # ------------------------------------------------------------------ what they hold

    def _decode(self, data: bytes) -> Image.Image:
        try:
            with Image.open(io.BytesIO(data)) as image:
                if image.width * image.height > self._settings.max_image_pixels:
                    raise AssetError(
                        f"{image.width} x {image.height} pixels, more than "
                        f"KDAL_MAX_IMAGE_PIXELS = {self._settings.max_image_pixels:,}"
                    )
                return ImageOps.exif_transpose(image).convert("RGB")
        except UnidentifiedImageError as error:
            raise AssetError("not an image that can be decoded") from error
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError, EOFError) as error:
            raise AssetError(f"damaged ({error})") from error

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


class ByteCache:
    """A folder of files by hash of their key, which drops the least recently used above a size.

    Args:
        folder: where the files are; several processes may share it.
        limit: bytes that the folder may hold.
    """

    def __init__(self, folder: Path, limit: int) -> None:
        self._folder, self._limit = folder, limit
        self._lock = Lock()
        self._size: int | None = None

    def get(self, key: str) -> bytes | None:
        """Bytes kept under a key, if any."""
        path = self._path(key)
        try:
            data = path.read_bytes()
            os.utime(path)
        except OSError:
            return None
        return data

    def put(self, key: str, data: bytes) -> bytes:
        """Keep bytes under a key; returns them."""
        if len(data) > self._limit // 4:
            return data
        path = self._path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(f"{path.name}.{os.getpid()}.{id(data)}")
        draft.write_bytes(data)
        draft.replace(path)
        with self._lock:
            self._size = (self._measure() if self._size is None else self._size) + len(data)
            if self._size > self._limit:
                self._evict()
        return data

    def _path(self, key: str) -> Path:
        digest = hashlib.sha256(key.encode()).hexdigest()
        return self._folder / digest[:2] / digest

    def _files(self) -> list[tuple[float, int, Path]]:
        files = []
        for path in self._folder.glob("*/*"):
            try:
                stat = path.stat()
            except OSError:
                continue
            files.append((stat.st_mtime, stat.st_size, path))
        return sorted(files)

    def _measure(self) -> int:
        return sum(size for _, size, _ in self._files())

    def _evict(self) -> None:
        # Down to 80%, so that a full cache is not walked at each image.
        files = self._files()
        self._size = sum(size for _, size, _ in files)
        for _, size, path in files:
            if self._size <= 0.8 * self._limit:
                return
            path.unlink(missing_ok=True)
            self._size -= size


def _data_uri(uri: str) -> bytes:
    head, _, body = uri.partition(",")
    if not head.endswith(";base64"):
        raise AssetError("a data: address must be base64")
    try:
        return base64.b64decode(body, validate=True)
    except (binascii.Error, ValueError) as error:
        raise AssetError(f"not base64 ({error})") from error


def _shown(uri: str) -> str:
    return uri if len(uri) <= 120 else uri[:100] + "..." + uri[-10:]
