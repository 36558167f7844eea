"""The servers that kdal starts itself."""

from __future__ import annotations

import socket
from pathlib import Path

import boto3
import pytest
from botocore.exceptions import ClientError

from kdal.processes.child import free_port, port_is_free
from kdal.processes.embedded import EmbeddedLabelStudio, EmbeddedS3, find_label_studio
from kdal_core.errors import ConfigError
from tests.integration.harness import Bucket


def client_of(server: EmbeddedS3) -> object:
    return boto3.client(
        "s3",
        endpoint_url=server.url,
        aws_access_key_id=server.access_key,
        aws_secret_access_key=server.secret_key,
        region_name="us-east-1",
    )


def test_s3_refuses_to_overwrite_under_if_none_match(s3: Bucket) -> None:
    s3.client.put_object(Bucket=s3.name, Key="manifest", Body=b"first", IfNoneMatch="*")
    with pytest.raises(ClientError) as error:
        s3.client.put_object(Bucket=s3.name, Key="manifest", Body=b"second", IfNoneMatch="*")
    assert error.value.response["Error"]["Code"] == "PreconditionFailed"
    assert s3.client.get_object(Bucket=s3.name, Key="manifest")["Body"].read() == b"first"


def test_the_environment_is_all_that_boto3_needs(s3: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in s3.env.items():
        monkeypatch.setenv(name, value)
    client = boto3.session.Session().client("s3")
    client.put_object(Bucket=s3.name, Key="a", Body=b"1")
    assert [item["Key"] for item in client.list_objects_v2(Bucket=s3.name)["Contents"]] == ["a"]
    client.close()


def test_s3_refuses_a_wrong_secret(s3: Bucket) -> None:
    client = boto3.client(
        "s3",
        endpoint_url=s3.url,
        aws_access_key_id=s3.env["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key="wrong",
        region_name="us-east-1",
    )
    with pytest.raises(ClientError, match="SignatureDoesNotMatch"):
        client.list_objects_v2(Bucket=s3.name)
    client.close()


def test_two_stores_run_side_by_side_and_keep_their_objects_across_a_restart(tmp_path: Path) -> None:
    keys = {"access_key": "key", "secret_key": "secret"}
    with (
        EmbeddedS3(tmp_path / "a", free_port(), **keys) as first,
        EmbeddedS3(tmp_path / "b", free_port(), **keys) as second,
    ):
        for server, body in ((first, b"a"), (second, b"b")):
            client = client_of(server)
            client.create_bucket(Bucket="bucket")
            client.put_object(Bucket="bucket", Key="key", Body=body)
            client.close()
    with EmbeddedS3(tmp_path / "a", free_port(), **keys) as again:
        client = client_of(again)
        assert client.get_object(Bucket="bucket", Key="key")["Body"].read() == b"a"
        client.close()
    assert port_is_free(again.port)


def test_the_number_of_buckets_does_not_hang_on_the_free_disk(tmp_path: Path) -> None:
    # SeaweedFS's own default is a gigabyte of free disk or more for each: 120 of them are more than CI has.
    with EmbeddedS3(tmp_path / "s3", free_port()) as server:
        client = client_of(server)
        for number in range(120):
            client.create_bucket(Bucket=f"bucket-{number}")
            client.put_object(Bucket=f"bucket-{number}", Key="key", Body=b"1")
        client.close()


def test_a_taken_port_is_an_error_that_names_it(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        for server in (EmbeddedS3(tmp_path / "s3", port), EmbeddedLabelStudio(tmp_path / "ls", port)):
            with pytest.raises(ConfigError, match=f"port {port} is taken"):
                server.start()


def test_a_label_studio_that_is_not_there_is_an_error_that_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LABEL_STUDIO_EXECUTABLE", str(tmp_path / "missing"))
    with pytest.raises(ConfigError, match=r"LABEL_STUDIO_EXECUTABLE is .*missing"):
        find_label_studio()
