import base64
import os
from urllib.parse import quote

import boto3
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kdal.images.allowed import REFUSED, Sources
from kdal.images.errors import UnreachableError
from kdal.images.refs import ImageRef
from kdal_core.errors import AssetError
from tests.kdal.conftest import TOKEN
from tests.kdal.images.files import PHOTO, data_uri, decode, encode, pixels, read, refused
from tests.kdal.servers import Answer
from tests.kdal.values import outcome


def test_a_web_address_is_fetched(loader, photo):
    np.testing.assert_array_equal(pixels(read(loader, photo)), pixels(PHOTO))


def test_a_file_comes_as_it_is_stored_and_is_fetched_once(loader, web, photo):
    for _ in range(2):
        assert loader.file(ImageRef(1, photo)) == web.answers["/photo.png"].body
    assert len(web.seen) == 1


def test_a_file_that_is_no_image_is_refused(loader, web):
    web.answers["/page"] = Answer(b"<html>")
    with pytest.raises(AssetError, match=r"task 1: image .*: not an image"):
        loader.file(ImageRef(1, f"{web.url}/page"))


def test_a_data_address_is_decoded(loader):
    np.testing.assert_array_equal(pixels(decode(loader, encode(PHOTO))), pixels(PHOTO))


@pytest.mark.parametrize("uri", ["data:image/png,abc", "data:image/png;base64,@@@", "data:;base64,abc", "data:"])
def test_a_data_address_that_is_not_base64_is_refused(loader, uri):
    assert "base64" in refused(loader, uri)


@pytest.mark.parametrize("uri", ["ftp://host/a.png", "gs://bucket/a.png", "a.png", "C:\\a.png", "javascript:alert(1)"])
def test_an_unknown_kind_of_address_is_refused_with_the_known_ones(loader, uri):
    assert "kdal reads s3://, http(s)://, file://" in refused(loader, uri)


def test_a_task_without_an_address_is_refused(loader):
    assert "no image address" in refused(loader, "")


def test_a_data_address_of_too_many_bytes_is_refused(make_loader):
    assert "KDAL_MAX_IMAGE_BYTES" in refused(make_loader(max_image_bytes=1000), data_uri(bytes(2000)))


# ---------------------------------------------------------------------- files of this machine


@pytest.fixture
def local(make_loader, root):
    return make_loader(local_files_root=root)


def test_a_file_inside_the_root_is_read(local, root):
    assert read(local, f"file://{root}/sub/a%20photo.png").size == (64, 48)


def test_label_studios_local_files_are_read_from_the_root(local):
    assert read(local, "/data/local-files/?d=sub/a%20photo.png").size == (64, 48)


def test_local_files_are_off_without_a_root(loader, root):
    assert "set KDAL_LOCAL_FILES_ROOT" in refused(loader, f"file://{root}/sub/a%20photo.png")


def test_nothing_outside_the_root_is_read(local, root, tmp_path):
    (root / "link.png").symlink_to(tmp_path / "secret.png")
    (root / "up").symlink_to(tmp_path)
    (root / "loop").symlink_to(root / "loop")
    outside = [
        f"file://{tmp_path}/secret.png",
        f"file://{root}/../secret.png",
        f"file://{root}/sub/%2e%2e/%2e%2e/secret.png",
        f"file://{root}/link.png",
        f"file://{root}/up/secret.png",
        "file:///etc/passwd",
        "/data/local-files/?d=../secret.png",
        "/data/local-files/?d=link.png",
        f"/data/local-files/?d={quote(str(tmp_path / 'secret.png'))}",
        f"FILE://{tmp_path}/secret.png",
    ]
    outside.append(f"file://{root}/loop")
    assert ["no file below KDAL_LOCAL_FILES_ROOT" in refused(local, uri) for uri in outside] == [True] * len(outside)


def test_a_folder_next_to_the_root_whose_name_begins_alike_is_outside(local, root, tmp_path):
    (tmp_path / "images-of-others").mkdir()
    (tmp_path / "images-of-others" / "a.png").write_bytes(encode(PHOTO))
    assert "no file below" in refused(local, f"file://{tmp_path}/images-of-others/a.png")


def test_what_is_not_a_plain_file_is_refused(local, root):
    os.mkfifo(root / "pipe")
    assert "no file below" in refused(local, f"file://{root}/sub")
    assert "no file below" in refused(local, f"file://{root}/pipe")
    assert "no file below" in refused(local, f"file://{root}/missing.png")
    assert "not an address" in refused(local, f"file://{root}/%00.png")


def test_a_local_file_that_changes_is_read_again(local, root):
    uri = f"file://{root}/a.png"
    for size in ((8, 8), (5, 4)):
        (root / "a.png").write_bytes(encode(PHOTO.resize(size)))
        assert read(local, uri).size == size


def test_a_large_file_is_refused_before_it_is_read(make_loader, root):
    loader = make_loader(local_files_root=root, max_image_bytes=100)
    assert "KDAL_MAX_IMAGE_BYTES" in refused(loader, f"file://{root}/sub/a%20photo.png")


# ---------------------------------------------------------------------- S3


@pytest.mark.parametrize("key", ["a.png", "deep/er/a.png", "a photo?x=1&y=2#z.png", "100%25.png", "größe.png"])
def test_an_object_is_read_whatever_its_key(bucket, make_loader, key):
    boto3.client("s3").put_object(Bucket=bucket, Key=key, Body=encode(PHOTO))
    assert read(make_loader(sources=Sources(buckets={bucket})), f"s3://{bucket}/{key}").size == (64, 48)


def test_a_large_object_is_refused(bucket, make_loader):
    boto3.client("s3").put_object(Bucket=bucket, Key="a.png", Body=os.urandom(5000))
    assert "KDAL_MAX_IMAGE_BYTES" in refused(
        make_loader(max_image_bytes=1000, sources=Sources(buckets={bucket})), f"s3://{bucket}/a.png"
    )


def test_what_s3_refuses_is_asked_of_label_studio(bucket, make_loader, web):
    """It answers with a redirect to a presigned address, as measured on Label Studio 1.23.2."""
    uri = f"s3://{bucket}/only label studio knows it?.png"
    web.answers["/tasks/7/resolve/"] = Answer(status=303, headers={"Location": "/storage-data/presigned.png"})
    web.answers["/storage-data/presigned.png"] = Answer(encode(PHOTO))
    loader = make_loader(label_studio_url=web.url, sources=Sources(buckets={bucket}))
    assert read(loader, uri, task=7).size == (64, 48)
    asked = web.seen[0].path.partition("fileuri=")[2]
    assert base64.urlsafe_b64decode(asked).decode() == uri
    assert web.seen[0].headers["Authorization"] == f"Token {TOKEN}"


def test_when_label_studio_cannot_help_either_both_reasons_are_told(bucket, make_loader, web):
    message = refused(
        make_loader(label_studio_url=web.url, sources=Sources(buckets={bucket})), f"s3://{bucket}/missing.png"
    )
    assert "S3 says: " in message
    assert "through Label Studio: 404" in message


@pytest.fixture
def s3_away(env):
    """An S3 store that is down."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        env.setenv(name, "x")
    env.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")


@pytest.mark.parametrize("status", [404, 403, 500])
def test_a_store_that_is_down_is_out_of_reach_whatever_label_studio_says(s3_away, make_loader, web, status):
    web.answers["/tasks/7/resolve/"] = Answer(b"", status)
    with pytest.raises(UnreachableError) as caught:
        read(make_loader(label_studio_url=web.url, image_sources="s3://bucket"), "s3://bucket/a.png", task=7)
    assert "S3 says: Could not connect" in str(caught.value)
    assert f"through Label Studio: {status}" in str(caught.value)


@pytest.mark.parametrize(("status", "away"), [(404, False), (403, True), (503, True)])
def test_an_object_that_is_missing_is_so_unless_label_studio_is_away(bucket, make_loader, web, status, away):
    web.answers["/tasks/7/resolve/"] = Answer(b"", status)
    with pytest.raises(AssetError) as caught:
        read(
            make_loader(label_studio_url=web.url, image_sources=f"s3://{bucket}"), f"s3://{bucket}/missing.png", task=7
        )
    assert isinstance(caught.value, UnreachableError) is away
    assert "NoSuchKey" in str(caught.value)


def test_a_store_that_refuses_us_is_out_of_reach(bucket, env, make_loader, web):
    env.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(UnreachableError, match=r"SignatureDoesNotMatch.*through Label Studio: 404"):
        read(make_loader(label_studio_url=web.url, image_sources=f"s3://{bucket}"), f"s3://{bucket}/a.png")


@pytest.mark.parametrize("uri", ["s3://", "s3://bucket", "s3:///key", "s3://not a bucket/key", "s3://UPPER/\ud800"])
def test_what_is_no_object_is_refused(s3_server, env, make_loader, uri):
    for name, value in s3_server.env.items():
        env.setenv(name, value)
    with pytest.raises(AssetError, match="task 41"):
        read(make_loader(label_studio_url="http://127.0.0.1:1"), uri, task=41)


@pytest.mark.parametrize("sources", [None, Sources(), Sources(buckets=frozenset({"another"}))])
def test_no_bucket_is_read_but_those_of_the_project(bucket, make_loader, web, sources):
    """Neither by kdal's own keys, nor by Label Studio's, nor out of the cache."""
    boto3.client("s3").put_object(Bucket=bucket, Key="a.png", Body=encode(PHOTO))
    uri = f"s3://{bucket}/a.png"
    read(make_loader(sources=Sources(buckets=frozenset({bucket}))), uri)
    loader = make_loader(label_studio_url=web.url, sources=sources)
    answers = {refused(loader, each).partition(": ")[2].partition(": ")[2] for each in (uri, f"s3://{bucket}x/a.png")}
    assert answers == {REFUSED}
    assert web.seen == []


# ---------------------------------------------------------------------- anything at all


@pytest.fixture
def nowhere(make_loader, root):
    """A loader that reaches nothing but the files of `root`."""
    return make_loader(local_files_root=root, label_studio_url="http://127.0.0.1:1")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    st.text()
    | st.builds(
        lambda scheme, rest: scheme + rest,
        st.sampled_from(
            ["file://", "file:", "data:", "data:;base64,", "gs://", "//", "s3:", "http:", "/data/local-files/?d="]
        ),
        st.text(max_size=20),
    )
)
def test_any_text_as_an_address_is_an_asset_error(nowhere, text):
    found = outcome(AssetError, lambda: read(nowhere, text, task=5))
    assert str(found).startswith("task 5: image ")
    assert str(found).encode()  # fit to be stored and shown
