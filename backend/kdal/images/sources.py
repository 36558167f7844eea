"""Where the bytes of images come from: one small class for each kind of address."""

from __future__ import annotations

import base64
import binascii
import re
from pathlib import Path
from threading import Lock
from typing import Any, Protocol
from urllib.parse import parse_qs, unquote, urlsplit

from kdal.images.allowed import REFUSED, Allowed, Sources
from kdal.images.downloads import Downloads, LabelStudioDownloads
from kdal.images.errors import UnreachableError
from kdal.images.refs import ImageRef
from kdal.labelstudio.addresses import Addresses
from kdal.labelstudio.client import LabelStudioClient
from kdal.settings import Settings
from kdal_core.errors import AssetError

FILES = re.compile(
    r"/(data|static|storage-data)/|/tasks/[0-9]+/(resolve|presign)/?\?|/projects/[0-9]+/(resolve|presign)/?\?"
)
"""The paths at which Label Studio has files. Its others do things, or are another program's: they get no token."""
LOCAL_FILES = "/data/local-files/"
"""The path at which Label Studio serves files of its own disk."""


class ImageSource(Protocol):
    """Reads images that have one kind of address."""

    def read(self, ref: ImageRef) -> bytes:
        """The image's file.

        Raises:
            AssetError: there is none, it is too large, or the address is none.
            UnreachableError: where it is cannot be reached now.
        """

    def key(self, ref: ImageRef) -> str | None:
        """Under which key a cache may keep the file; none where reading it again costs no more."""

    def identity(self, ref: ImageRef) -> str:
        """What stands for the file as long as it is the same, without reading it.

        Raises:
            AssetError: there is none.
        """


class ImageSources:
    """All kinds of addresses that kdal reads.

    Args:
        settings: limits, where Label Studio is, and where local files may be read.
        label_studio: signs requests to Label Studio; none leaves them unsigned.
        sources: where the images of the project are whose images are asked for; none: of no project in particular.
        s3: has the client of the S3 store, which others may share.
    """

    def __init__(
        self,
        settings: Settings,
        label_studio: LabelStudioClient | None,
        sources: Sources | None = None,
        s3: S3Client | None = None,
    ) -> None:
        limit = settings.max_image_bytes
        too_large = f"more than KDAL_MAX_IMAGE_BYTES = {limit:,} bytes"
        self._addresses = Addresses(settings.label_studio_url, settings.label_studio_public_url)
        self._allowed = Allowed.by(settings, sources)
        downloads = Downloads(limit, too_large, self._allowed)
        auth = None if label_studio is None else label_studio.auth
        own = LabelStudioDownloads(self._addresses, auth, downloads)
        local = LocalFiles(settings.local_files_root, limit, too_large)
        self._web: ImageSource = WebImages(downloads)
        self._own: ImageSource = LabelStudioImages(self._addresses, own, local)
        self._schemes: dict[str, ImageSource] = {
            "data": DataImages(limit, too_large),
            "file": local,
            "s3": S3Images(limit, too_large, own, s3 or S3Client()),
        }

    def of(self, ref: ImageRef) -> ImageSource:
        """The source that reads an image.

        Raises:
            AssetError: an address that kdal does not read, or none of the project's.
            ValueError: text that is no address at all.
        """
        scheme = urlsplit(ref.uri).scheme.lower()
        if scheme == "s3" and not self._allowed.bucket(S3Images.place(ref)[0]):
            raise AssetError(REFUSED)
        if scheme in self._schemes:
            return self._schemes[scheme]
        path = self._addresses.path(ref.uri)
        if path is not None and FILES.match(path):
            return self._own
        if scheme in ("http", "https"):
            if not self._allowed.host(ref.uri):
                raise AssetError(REFUSED)
            return self._web
        if ref.uri.startswith("/"):
            raise AssetError("not an address at which Label Studio has files")
        raise AssetError("kdal reads s3://, http(s)://, file://, data: and Label Studio's own files (/data/...)")


class DataImages:
    """Images that are in their addresses: ``data:image/png;base64,...``."""

    def __init__(self, limit: int, too_large: str) -> None:
        self._limit, self._too_large = limit, too_large

    def read(self, ref: ImageRef) -> bytes:
        """See `ImageSource`."""
        if len(ref.uri) * 3 // 4 > self._limit:
            raise AssetError(self._too_large)
        head, _, body = ref.uri.partition(",")
        if not head.endswith(";base64"):
            raise AssetError("a data: address must be base64")
        try:
            return base64.b64decode(body, validate=True)
        except (binascii.Error, ValueError) as error:
            raise AssetError(f"not base64 ({error})") from error

    def key(self, ref: ImageRef) -> str | None:
        """See `ImageSource`."""
        return None

    def identity(self, ref: ImageRef) -> str:
        """See `ImageSource`."""
        return ref.uri


class LocalFiles:
    """Files below one folder of this machine: ``file:///images/a.png``, and Label Studio's local files."""

    def __init__(self, root: Path | None, limit: int, too_large: str) -> None:
        self.root, self._limit, self._too_large = root, limit, too_large

    def read(self, ref: ImageRef) -> bytes:
        """See `ImageSource`."""
        return self.file(unquote(urlsplit(ref.uri).path))

    def key(self, ref: ImageRef) -> str | None:
        """See `ImageSource`."""
        return None

    def identity(self, ref: ImageRef) -> str:
        """See `ImageSource`."""
        return self.state(unquote(urlsplit(ref.uri).path))

    def state(self, path: str) -> str:
        """A file's name, size and time of its last change."""
        file = self._checked(path)
        try:
            stat = file.stat()
        except OSError as error:
            raise AssetError(f"cannot be read ({error.strerror or error})") from error
        return f"{file}\0{stat.st_size}\0{stat.st_mtime_ns}"

    def file(self, path: str) -> bytes:
        """The file at a path, if that is below the root."""
        resolved = self._checked(path)
        try:
            if resolved.stat().st_size > self._limit:
                raise AssetError(self._too_large)
            return resolved.read_bytes()
        except OSError as error:
            raise AssetError(f"cannot be read ({error.strerror or error})") from error

    def _checked(self, path: str) -> Path:
        if self.root is None:
            raise AssetError("local files are off: set KDAL_LOCAL_FILES_ROOT to the folder that may be read")
        try:
            resolved = Path(path).resolve(strict=True)
            found = resolved.is_relative_to(self.root.resolve()) and resolved.is_file()
        except (OSError, RuntimeError):  # a loop of links is a RuntimeError
            found = False
        if not found:  # one answer, whatever is there
            raise AssetError("no file below KDAL_LOCAL_FILES_ROOT")
        return resolved


class WebImages:
    """Images of other servers: ``https://images.example.com/a.png``."""

    def __init__(self, downloads: Downloads) -> None:
        self._downloads = downloads

    def read(self, ref: ImageRef) -> bytes:
        """See `ImageSource`."""
        return self._downloads.get(ref.uri)

    def key(self, ref: ImageRef) -> str | None:
        """See `ImageSource`."""
        return ref.uri

    def identity(self, ref: ImageRef) -> str:
        """See `ImageSource`."""
        return ref.uri


class LabelStudioImages:
    """Label Studio's own files, under whichever of its names: ``/data/upload/1/a.png``."""

    def __init__(self, addresses: Addresses, downloads: LabelStudioDownloads, local: LocalFiles) -> None:
        self._addresses, self._downloads, self._local = addresses, downloads, local

    def read(self, ref: ImageRef) -> bytes:
        """See `ImageSource`."""
        if (file := self._local_file(ref)) is not None:
            return self._local.file(file)
        return self._downloads.get(self._path(ref))

    def key(self, ref: ImageRef) -> str | None:
        """See `ImageSource`."""
        return self._addresses.url + self._path(ref) if self._local_file(ref) is None else None

    def identity(self, ref: ImageRef) -> str:
        """See `ImageSource`."""
        file = self._local_file(ref)
        return self._addresses.url + self._path(ref) if file is None else self._local.state(file)

    def _path(self, ref: ImageRef) -> str:
        path = self._addresses.path(ref.uri)
        if path is None:
            raise AssetError("not an address below Label Studio's")
        return path

    def _local_file(self, ref: ImageRef) -> str | None:
        """Where the file is on this machine, if it has the folder that Label Studio serves files from."""
        path, _, query = self._path(ref).partition("?")
        named = parse_qs(query).get("d") if path == LOCAL_FILES else None
        return str(self._local.root / named[0]) if named and self._local.root is not None else None


class S3Client:
    """The client of the S3 store: made when it is first needed, for all threads."""

    def __init__(self) -> None:
        self._client: Any = None
        self._lock = Lock()

    def get(self) -> Any:
        """boto3's."""
        from kdal.storage.s3 import s3_client  # boto3 is slow to import

        with self._lock:  # boto3 makes clients in one thread only; they are used in many
            if self._client is None:
                self._client = s3_client()
            return self._client


class S3Images:
    """Objects of an S3 store: ``s3://bucket/key``, by kdal's own credentials or, failing that, by Label Studio's."""

    def __init__(self, limit: int, too_large: str, label_studio: LabelStudioDownloads, client: S3Client) -> None:
        self._limit, self._too_large, self._label_studio, self._client = limit, too_large, label_studio, client

    def read(self, ref: ImageRef) -> bytes:
        """See `ImageSource`."""
        from kdal.storage.s3 import FAULTS, explained, is_outage  # boto3 is slow to import

        try:
            return self._object(ref)
        except FAULTS as error:
            # Label Studio may hold the storage's credentials where kdal has none of its own.
            token = base64.urlsafe_b64encode(ref.uri.encode()).decode()
            try:
                return self._label_studio.get(f"/tasks/{ref.task_id}/resolve/?fileuri={token}")
            except AssetError as second:
                away = isinstance(second, UnreachableError) or is_outage(error)
                kind = UnreachableError if away else AssetError
                raise kind(f"S3 says: {explained(error)}; through Label Studio: {second}") from error

    def key(self, ref: ImageRef) -> str | None:
        """See `ImageSource`."""
        return ref.uri

    def identity(self, ref: ImageRef) -> str:
        """See `ImageSource`."""
        return ref.uri

    @staticmethod
    def place(ref: ImageRef) -> tuple[str, str]:
        """Bucket and key."""
        # Not as a URL: "?" and "#" are letters of a key like any other.
        bucket, _, key = ref.uri[len("s3://") :].partition("/")
        return bucket, key

    def _object(self, ref: ImageRef) -> bytes:
        bucket, key = self.place(ref)
        answer = self._client.get().get_object(Bucket=bucket, Key=key)
        if answer["ContentLength"] > self._limit:
            raise AssetError(self._too_large)
        return bytes(answer["Body"].read(self._limit + 1))
