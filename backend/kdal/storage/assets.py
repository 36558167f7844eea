"""Checkpoints, scores, orders: files under one root, a local folder or an S3 prefix."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any
from uuid import uuid4

import boto3
import numpy as np
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from numpy.typing import NDArray

from kdal_core.errors import AssetError, ConfigError

FAULTS = (OSError, BotoCoreError, ClientError, ValueError)
"""What folders and S3 raise."""


class MissingAssetError(AssetError):
    """There is nothing under a key, as opposed to a store that is out of reach."""


class Assets:
    """A key-value store of bytes. Keys are relative paths such as ``projects/3/rounds/2/order.json``.

    Args:
        root: a folder or ``s3://bucket/prefix``. S3's credentials, region and endpoint are the standard
            ``AWS_*`` variables and ``AWS_ENDPOINT_URL``.

    Raises:
        ConfigError: those variables make no client.
    """

    def __init__(self, root: str) -> None:
        self.root = root.rstrip("/")
        self._s3: Any = None
        if root.startswith("s3://"):
            try:
                self._s3 = s3_client()
            except FAULTS as error:
                raise ConfigError(
                    f"KDAL_ASSETS is {root}: S3 cannot be used by AWS_* as they are set: {error}"
                ) from error

    def write(self, key: str, data: bytes) -> str:
        """Store bytes, whole or not at all; returns the key."""
        try:
            if self._s3 is not None:
                self._s3.put_object(**self._place(key), Body=data)
            else:
                _write_file(Path(self.root, key), data)
        except FAULTS as error:
            raise AssetError(f"cannot write {self.root}/{key}: {error}") from error
        return key

    def read(self, key: str) -> bytes:
        """Bytes stored under a key; `MissingAssetError` when there are none."""
        try:
            if self._s3 is not None:
                return bytes(self._s3.get_object(**self._place(key))["Body"].read())
            return Path(self.root, key).read_bytes()
        except FAULTS as error:
            kind = MissingAssetError if _is_missing(error) else AssetError
            raise kind(f"cannot read {self.root}/{key}: {error}") from error

    def _place(self, key: str) -> dict[str, str]:
        bucket, _, prefix = self.root.removeprefix("s3://").partition("/")
        return {"Bucket": bucket, "Key": f"{prefix}/{key}".lstrip("/")}

    def write_json(self, key: str, value: Any) -> str:
        """Store a JSON value."""
        return self.write(key, json.dumps(value, separators=(",", ":")).encode())

    def read_json(self, key: str) -> Any:
        """A JSON value stored under a key."""
        data = self.read(key)
        try:
            return json.loads(data)
        except (ValueError, RecursionError) as error:
            raise AssetError(f"{self.root}/{key} is damaged, it is not JSON: {error}") from error

    def write_arrays(self, key: str, **arrays: NDArray[Any]) -> str:
        """Store named arrays (npz, compressed); arrays of objects are refused, they would be pickled."""
        if objects := [name for name, array in arrays.items() if array.dtype.hasobject]:
            raise AssetError(f"cannot write {key}: {', '.join(objects)} would have to be pickled")
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]  # numpy 1 has no such argument
        return self.write(key, buffer.getvalue())

    def read_arrays(self, key: str) -> dict[str, NDArray[Any]]:
        """Named arrays stored under a key. Nothing is unpickled."""
        data = self.read(key)
        try:
            with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
                return dict(arrays)
        except Exception as error:  # on damaged bytes numpy raises whatever its parsers trip over
            raise AssetError(f"{self.root}/{key} is damaged, it holds no plain arrays: {error}") from error


def _is_missing(error: Exception) -> bool:
    code = error.response.get("Error", {}).get("Code") if isinstance(error, ClientError) else None
    return isinstance(error, FileNotFoundError) or code in ("NoSuchKey", "404")


def _write_file(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # A name of its own: two workers may write the same key at once.
    draft = path.with_name(f"{path.name}.{uuid4().hex}.part")
    try:
        draft.write_bytes(data)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def s3_client() -> Any:
    """A boto3 client by the standard variables as they are now; gives up in seconds rather than minutes."""
    # A session of its own: the default one belongs to the process, and is not made to be shared by threads.
    config = Config(connect_timeout=5, read_timeout=60, retries={"max_attempts": 3})
    return boto3.Session().client("s3", config=config)
