"""S3 and the stores that speak like it: MinIO, Ceph, SeaweedFS, Cloudflare R2, Google, OVH and others.

They are reached by the standard variables of AWS: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_DEFAULT_REGION,
AWS_ENDPOINT_URL, a profile, and what else boto3 reads.
"""

from __future__ import annotations

import os
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, ParamValidationError

from kdal.storage.assets import DamagedAssetError, MissingAssetError, digest_of
from kdal_core.errors import AssetError, ConfigError

FAULTS = (OSError, BotoCoreError, ClientError, ValueError)
"""What boto3 raises."""
DIGEST = "kdal-sha256"
"""Under which an object's metadata holds the digest of its content."""
CHECKSUMS = ("AWS_REQUEST_CHECKSUM_CALCULATION", "AWS_RESPONSE_CHECKSUM_VALIDATION")


def s3_client() -> Any:
    """A boto3 client by the standard variables as they are now; gives up in seconds rather than minutes.

    Left alone, boto3 adds a CRC32 to each upload, in a trailer or header that many stores refuse. Uploads and downloads
    are signed with the SHA-256 of their content anyway, so kdal asks for checksums only where S3 requires one, unless
    AWS_REQUEST_CHECKSUM_CALCULATION or AWS_RESPONSE_CHECKSUM_VALIDATION say otherwise.

    A store of one's own (AWS_ENDPOINT_URL) is asked at ``endpoint/bucket/key``, AWS at ``bucket.endpoint/key``. Stores
    that know the second form alone are set up in AWS's config file: ``s3 = addressing_style = virtual``.
    """
    calculation, validation = (os.environ.get(name) or "when_required" for name in CHECKSUMS)
    config = Config(
        connect_timeout=5,
        read_timeout=60,
        retries={"max_attempts": 3},
        request_checksum_calculation=calculation,
        response_checksum_validation=validation,
    )
    # A session of its own: the default one belongs to the process, and is not made to be shared by threads.
    return boto3.Session().client("s3", config=config)


def is_missing(error: Exception) -> bool:
    """Whether an error says that there is nothing under a key."""
    return _code(error) in ("NoSuchKey", "404")


def is_outage(error: Exception) -> bool:
    """Whether an error says that the store is down or refuses us, rather than anything about the object."""
    named_wrong = isinstance(error, ValueError | ParamValidationError) or _code(error) == "NoSuchBucket"
    return not named_wrong and not is_missing(error)


def explained(error: Exception) -> str:
    """An error of S3's in its own words, and what to do about it where those do not say."""
    code, advice = _code(error), ""
    if code in ("AccessDenied", "403"):
        # Not taken for missing: a key that may be there and cannot be read is no reason to go on without it.
        advice = (
            ". Without the right s3:ListBucket on the bucket, stores answer the same for what is not there: "
            "grant s3:GetObject, s3:PutObject, s3:DeleteObject and s3:ListBucket"
        )
    elif any(os.environ.get(name, "").lower() == "when_supported" for name in CHECKSUMS):
        advice = f". If the store does not know checksums, set {' and '.join(CHECKSUMS)} to when_required"
    return f"{error}{advice}"


class S3Store:
    """Assets below a prefix of a bucket.

    Args:
        root: ``s3://bucket/prefix``.

    Raises:
        ConfigError: the AWS_* variables make no client.
    """

    def __init__(self, root: str) -> None:
        self.root = root
        self._bucket, _, self._prefix = root.removeprefix("s3://").partition("/")
        try:
            self._client = s3_client()
        except FAULTS as error:
            raise ConfigError(f"KDAL_ASSETS is {root}: S3 cannot be used by AWS_* as they are set: {error}") from error

    def write(self, key: str, data: bytes) -> None:
        """See `kdal.storage.assets.AssetStore`."""
        try:
            self._client.put_object(**self._place(key), Body=data, Metadata={DIGEST: digest_of(data)})
        except FAULTS as error:
            raise AssetError(f"cannot write {self.root}/{key}: {explained(error)}") from error

    def read(self, key: str) -> bytes:
        """See `kdal.storage.assets.AssetStore`."""
        try:
            answer = self._client.get_object(**self._place(key))
            data, wanted = bytes(answer["Body"].read()), answer.get("Metadata", {}).get(DIGEST)
        except FAULTS as error:
            if is_missing(error):
                raise MissingAssetError(f"cannot read {self.root}/{key}: {error}") from error
            raise AssetError(f"cannot read {self.root}/{key}: {explained(error)}") from error
        if wanted is not None and wanted != digest_of(data):
            raise DamagedAssetError(f"{self.root}/{key} is damaged: it does not hold what was written there")
        return data

    def exists(self, key: str) -> bool:
        """See `kdal.storage.assets.AssetStore`."""
        try:
            self._client.head_object(**self._place(key))
        except FAULTS as error:
            if is_missing(error):
                return False
            raise AssetError(f"cannot look for {self.root}/{key}: {explained(error)}") from error
        return True

    def delete(self, key: str) -> None:
        """See `kdal.storage.assets.AssetStore`."""
        try:
            self._client.delete_object(**self._place(key))
        except FAULTS as error:
            if not is_missing(error):
                raise AssetError(f"cannot delete {self.root}/{key}: {explained(error)}") from error

    def _place(self, key: str) -> dict[str, str]:
        return {"Bucket": self._bucket, "Key": f"{self._prefix}/{key}".lstrip("/")}


def _code(error: Exception) -> str:
    return str(error.response.get("Error", {}).get("Code", "")) if isinstance(error, ClientError) else ""
