import subprocess
import sys

import numpy as np
import pytest

from kdal.images.loader import ImageLoader
from kdal.images.refs import ImageRef
from kdal.storage.assets import Assets, MissingAssetError
from kdal.storage.s3 import s3_client
from kdal_core.errors import AssetError
from tests.kdal.images.files import PHOTO, encode
from tests.kdal.storage.stores import PlainStore
from tests.paths import PYTHONPATH


@pytest.fixture
def reach(env, tmp_path):
    """`reach(store)`: the standard variables lead there, and nothing else of this machine's is read."""

    def made(url):
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            env.setenv(name, "x")
        env.setenv("AWS_ENDPOINT_URL", url)
        env.setenv("AWS_DEFAULT_REGION", "us-east-1")
        env.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))

    return made


def presigned():
    return s3_client().generate_presigned_url("get_object", {"Bucket": "bucket", "Key": "a/b.png"})


# ---------------------------------------------------------------------- checksums


def test_a_store_that_knows_no_checksums_works(reach):
    """boto3 sends a CRC32 with each upload by default, which such stores refuse."""
    with PlainStore() as store:
        reach(store.url)
        assets = Assets("s3://bucket/prefix")
        assets.write("empty", b"")
        assets.write("large", bytes(5_000_000))
        assets.write_arrays("arrays.npz", tasks=np.arange(5))
        assert assets.read("empty") == b""
        assert assets.read("large") == bytes(5_000_000)
        np.testing.assert_array_equal(assets.read_arrays("arrays.npz")["tasks"], np.arange(5))
        with pytest.raises(MissingAssetError):
            assets.read("absent")
    assert set(store.objects) == {"/bucket/prefix/empty", "/bucket/prefix/large", "/bucket/prefix/arrays.npz"}


def test_images_of_a_store_that_knows_no_checksums_are_read(reach, make_settings):
    with PlainStore() as store:
        reach(store.url)
        store.objects["/bucket/a.png"] = encode(PHOTO)
        assert (
            ImageLoader(make_settings(image_sources="s3://bucket"), None).image(ImageRef(1, "s3://bucket/a.png")).size
            == PHOTO.size
        )


def test_whoever_asks_for_checksums_gets_them_and_is_told_when_the_store_does_not_know_them(reach, env):
    env.setenv("AWS_REQUEST_CHECKSUM_CALCULATION", "when_supported")
    with PlainStore() as store:
        reach(store.url)
        with pytest.raises(AssetError, match=r"NotImplemented.*AWS_REQUEST_CHECKSUM_CALCULATION.*when_required"):
            Assets("s3://bucket").write("a", b"x")
    assert store.objects == {}


# ---------------------------------------------------------------------- how a bucket is addressed


def test_a_store_of_ones_own_is_asked_for_the_bucket_in_the_path(reach):
    reach("https://store.example.com:9000")
    assert presigned().startswith("https://store.example.com:9000/bucket/a/b.png?")


def test_a_store_that_wants_the_bucket_in_its_name_is_set_up_in_the_config_file(reach, tmp_path):
    (tmp_path / "config").write_text("[default]\ns3 =\n  addressing_style = virtual\n")
    reach("https://store.example.com")
    assert presigned().startswith("https://bucket.store.example.com/a/b.png?")


def test_aws_itself_is_asked_for_the_bucket_in_its_name(reach, env):
    reach("")
    env.delenv("AWS_ENDPOINT_URL")
    assert presigned().startswith("https://bucket.s3.amazonaws.com/a/b.png?")


# ---------------------------------------------------------------------- rights


def test_a_refusal_is_not_taken_for_a_missing_asset_and_says_which_rights_are_needed(reach):
    """Without the right to list a bucket, S3 answers 403 for what is not there: nobody can tell it from a secret."""
    with PlainStore(lists=False) as store:
        reach(store.url)
        with pytest.raises(AssetError, match=r"AccessDenied.*s3:ListBucket") as caught:
            Assets("s3://bucket").read("absent")
    assert not isinstance(caught.value, MissingAssetError)


# ---------------------------------------------------------------------- what it takes


def test_a_folder_of_assets_needs_no_boto3():
    program = (
        "import sys; from kdal.storage.assets import Assets; import kdal.images.refs, kdal.images.sources\n"
        "Assets('/tmp'); print(*sys.modules)"
    )
    environment = {"PYTHONPATH": PYTHONPATH, "PATH": ""}
    shown = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True, timeout=120
    )
    assert not {name.partition(".")[0] for name in shown.stdout.split()} & {"boto3", "botocore", "torch"}
