"""Checkpoints, scores, orders: files under one root, a local folder or an S3 prefix."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import boto3
import numpy as np
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from cloudpathlib import S3Client, S3Path
from cloudpathlib.exceptions import CloudPathException
from numpy.typing import NDArray

from kdal_core.errors import AssetError

FAULTS = (OSError, BotoCoreError, ClientError, CloudPathException, ValueError)


class Assets:
    """A key-value store of bytes. Keys are relative paths such as ``projects/3/rounds/2/order.json``.

    Args:
        root: a folder or ``s3://bucket/prefix``. S3's credentials, region and endpoint are the standard
            ``AWS_*`` variables and ``AWS_ENDPOINT_URL``.
    """

    def __init__(self, root: str) -> None:
        self.root = root
        self._base: Path | S3Path
        if root.startswith("s3://"):
            self._base = S3Path(root, client=S3Client(boto3_session=boto3.Session(), no_sign_request=False))
        else:
            self._base = Path(root)

    def write(self, key: str, data: bytes) -> str:
        """Store bytes, whole or not at all; returns the key."""
        path = self._base / key
        try:
            if isinstance(path, S3Path):
                path.client.client.put_object(Bucket=path.bucket, Key=path.key, Body=data)
            else:
                path.parent.mkdir(parents=True, exist_ok=True)
                draft = path.with_name(path.name + ".part")
                draft.write_bytes(data)
                draft.replace(path)
        except FAULTS as error:
            raise AssetError(f"cannot write {path}: {error}") from error
        return key

    def read(self, key: str) -> bytes:
        """Bytes stored under a key; `AssetError` when there are none."""
        path = self._base / key
        try:
            if isinstance(path, S3Path):
                body = path.client.client.get_object(Bucket=path.bucket, Key=path.key)["Body"]
                return bytes(body.read())
            return path.read_bytes()
        except FAULTS as error:
            raise AssetError(f"cannot read {path}: {error}") from error

    def write_json(self, key: str, value: Any) -> str:
        """Store a JSON value."""
        return self.write(key, json.dumps(value, separators=(",", ":")).encode())

    def read_json(self, key: str) -> Any:
        """A JSON value stored under a key."""
        return json.loads(self.read(key))

    def write_arrays(self, key: str, **arrays: NDArray[Any]) -> str:
        """Store named arrays (npz, compressed)."""
        buffer = io.BytesIO()
        np.savez_compressed(buffer, allow_pickle=False, **arrays)
        return self.write(key, buffer.getvalue())

    def read_arrays(self, key: str) -> dict[str, NDArray[Any]]:
        """Named arrays stored under a key. Nothing is unpickled."""
        with np.load(io.BytesIO(self.read(key)), allow_pickle=False) as arrays:
            return dict(arrays)


def s3_client() -> Any:
    """A boto3 client by the standard variables, which gives up in seconds rather than minutes."""
    return boto3.client("s3", config=Config(connect_timeout=5, read_timeout=60, retries={"max_attempts": 3}))
