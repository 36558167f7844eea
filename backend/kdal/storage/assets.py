"""Checkpoints, scores, orders: files under one root, a local folder or an S3 prefix."""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path
from typing import Any, Protocol
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray

from kdal_core.errors import AssetError


class MissingAssetError(AssetError):
    """There is nothing under a key, as opposed to a store that is out of reach, or that does not let us read it."""


class DamagedAssetError(AssetError):
    """What is under a key cannot be what was written there."""


def digest_of(data: bytes) -> str:
    """What tells bytes from damaged ones: their SHA-256 in hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


class AssetStore(Protocol):
    """Where bytes are kept, by key. A key is a relative path such as ``projects/3/rounds/2/order.json``."""

    root: str
    """What the store is called: a folder, or ``s3://bucket/prefix``."""

    def write(self, key: str, data: bytes) -> None:
        """Store bytes with their digest, whole or not at all.

        Raises:
            AssetError: they cannot be stored; names the key.
        """

    def read(self, key: str) -> bytes:
        """Bytes stored under a key.

        Raises:
            MissingAssetError: there are none.
            DamagedAssetError: they are not those that were stored.
            AssetError: whether there are any cannot be told; names the key.
        """

    def exists(self, key: str) -> bool:
        """Whether there is something under a key.

        Raises:
            AssetError: that cannot be told; names the key.
        """

    def delete(self, key: str) -> None:
        """Delete what is under a key, if there is anything.

        Raises:
            AssetError: it cannot be deleted; names the key.
        """


KEPT_DIGESTS = 8
"""Contents of a file, the last ones written, that are known again."""


class FolderStore:
    """Assets as files below a folder. Beside each lies a hidden file with the digest of what was written.

    That file is added to before the asset is replaced, so it knows the earlier content and the new one, whenever the
    power fails, and whoever else writes at the same time.
    """

    def __init__(self, root: str) -> None:
        self.root = root

    def write(self, key: str, data: bytes) -> None:
        """See `AssetStore`."""
        path = Path(self.root, key)
        # A name of its own: two workers may write the same key at once.
        draft = path.with_name(f"{path.name}.{uuid4().hex}.part")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._note(path, digest_of(data))
            try:
                draft.write_bytes(data)
                draft.replace(path)
            finally:
                draft.unlink(missing_ok=True)
        except (OSError, ValueError) as error:
            raise AssetError(f"cannot write {self.root}/{key}: {error}") from error

    def read(self, key: str) -> bytes:
        """See `AssetStore`."""
        path = Path(self.root, key)
        try:
            data = path.read_bytes()
        except FileNotFoundError as error:
            raise MissingAssetError(f"cannot read {self.root}/{key}: {error}") from error
        except (OSError, ValueError) as error:
            raise AssetError(f"cannot read {self.root}/{key}: {error}") from error
        known = self._noted(path)
        if known and digest_of(data) not in known:
            raise DamagedAssetError(f"{self.root}/{key} is damaged: it does not hold what was written there")
        return data

    def _note(self, path: Path, digest: str) -> None:
        known, note = self._noted(path), self._note_of(path)
        if len(known) > 2 * KEPT_DIGESTS:
            draft = note.with_name(f"{note.name}.{uuid4().hex}.part")
            draft.write_text("".join(f"{each}\n" for each in known[-KEPT_DIGESTS:]))
            draft.replace(note)
        if digest not in known[-KEPT_DIGESTS:]:
            with note.open("a") as file:  # in one piece, whoever else adds one at the same time
                file.write(f"{digest}\n")

    def _noted(self, path: Path) -> list[str]:
        """The digests of what was written, the last ones; nothing of an older kdal's file."""
        try:
            return [line for line in self._note_of(path).read_text().split("\n") if len(line) == 64]
        except (OSError, UnicodeDecodeError):
            return []

    @staticmethod
    def _note_of(path: Path) -> Path:
        return path.with_name(f".{path.name}.sha256")

    def exists(self, key: str) -> bool:
        """See `AssetStore`."""
        try:
            return Path(self.root, key).is_file()
        except (OSError, ValueError) as error:
            raise AssetError(f"cannot look for {self.root}/{key}: {error}") from error

    def delete(self, key: str) -> None:
        """See `AssetStore`."""
        try:
            path = Path(self.root, key)
            path.unlink(missing_ok=True)
            self._note_of(path).unlink(missing_ok=True)
        except (OSError, ValueError) as error:
            raise AssetError(f"cannot delete {self.root}/{key}: {error}") from error


def open_store(root: str) -> AssetStore:
    """The store for a folder or for ``s3://bucket/prefix``.

    Raises:
        ConfigError: S3 cannot be used by the AWS_* variables as they are set.
    """
    if root.startswith("s3://"):
        from kdal.storage.s3 import S3Store  # boto3 is slow to import, and a folder needs none

        return S3Store(root)
    return FolderStore(root)


class Assets:
    """Checkpoints, scores, orders and other bytes by key, in a folder or an S3 store.

    Args:
        root: a folder or ``s3://bucket/prefix``; see `kdal.storage.s3` for how S3 is reached.

    Raises:
        ConfigError: S3 cannot be used by the AWS_* variables as they are set.
    """

    def __init__(self, root: str) -> None:
        self.root = root.rstrip("/")
        self._store = open_store(self.root)

    def write(self, key: str, data: bytes) -> str:
        """Store bytes, whole or not at all; returns the key. Raises as `AssetStore.write`."""
        self._store.write(key, data)
        return key

    def read(self, key: str) -> bytes:
        """Bytes stored under a key; `MissingAssetError` when there are none. Raises as `AssetStore.read`."""
        return self._store.read(key)

    def exists(self, key: str) -> bool:
        """Whether there is something under a key. Raises as `AssetStore.exists`."""
        return self._store.exists(key)

    def delete(self, key: str) -> None:
        """Delete what is under a key, if there is anything. Raises as `AssetStore.delete`."""
        self._store.delete(key)

    def write_json(self, key: str, value: Any) -> str:
        """Store a JSON value."""
        return self.write(key, json.dumps(value, separators=(",", ":")).encode())

    def read_json(self, key: str) -> Any:
        """A JSON value stored under a key."""
        data = self.read(key)
        try:
            return json.loads(data)
        except (ValueError, RecursionError) as error:
            raise DamagedAssetError(f"{self.root}/{key} is damaged, it is not JSON: {error}") from error

    def write_arrays(self, key: str, compressed: bool = True, /, **arrays: NDArray[Any]) -> str:
        """Store named arrays (npz); arrays of objects are refused, they would be pickled."""
        if objects := [name for name, array in arrays.items() if array.dtype.hasobject]:
            raise AssetError(f"cannot write {key}: {', '.join(objects)} would have to be pickled")
        buffer = io.BytesIO()
        write = np.savez_compressed if compressed else np.savez
        write(buffer, **arrays)  # type: ignore[arg-type]  # numpy 1 has no such argument
        return self.write(key, buffer.getvalue())

    def read_arrays(self, key: str) -> dict[str, NDArray[Any]]:
        """Named arrays stored under a key. Nothing is unpickled."""
        data = self.read(key)
        try:
            with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
                return dict(arrays)
        except Exception as error:  # on damaged bytes numpy raises whatever its parsers trip over
            raise DamagedAssetError(f"{self.root}/{key} is damaged, it holds no plain arrays: {error}") from error
