import io
import os
import pickle
import secrets
import threading
from pathlib import Path

import boto3
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kdal.processes.child import free_port
from kdal.storage.assets import Assets, DamagedAssetError, MissingAssetError
from kdal.storage.s3 import s3_client
from kdal_core.errors import AssetError, ConfigError
from tests.kdal.values import outcome


@pytest.fixture
def folder(tmp_path):
    return Assets(str(tmp_path / "assets"))


@pytest.fixture
def bucket(s3_server, env):
    for name, value in s3_server.env.items():
        env.setenv(name, value)
    name = f"kdal-{secrets.token_hex(8)}"
    boto3.client("s3").create_bucket(Bucket=name)
    return name


@pytest.fixture(params=["folder", "s3"])
def assets(request):
    if request.param == "folder":
        return request.getfixturevalue("folder")
    return Assets(f"s3://{request.getfixturevalue('bucket')}/some/prefix")


def test_what_is_written_is_read_again(assets):
    data = bytes(range(256)) * 1000
    assert assets.write("projects/3.1/rounds/0000/a.bin", data) == "projects/3.1/rounds/0000/a.bin"
    assert assets.read("projects/3.1/rounds/0000/a.bin") == data


def test_an_empty_asset_is_an_asset(assets):
    assets.write("empty", b"")
    assert assets.read("empty") == b""


def test_a_second_write_replaces_the_first(assets):
    assets.write("a", b"long long ago")
    assets.write("a", b"new")
    assert assets.read("a") == b"new"


def test_what_is_deleted_is_gone_and_may_be_deleted_again(assets):
    assets.write("a/b", b"new")
    assets.write("a/c", b"stays")
    assets.delete("a/b")
    assets.delete("a/b")
    assert not assets.exists("a/b")
    assert assets.read("a/c") == b"stays"


def test_of_a_deleted_file_nothing_is_left_in_its_folder(tmp_path):
    assets = Assets(str(tmp_path))
    assets.write("a/b", b"new")
    assets.delete("a/b")
    assert list((tmp_path / "a").iterdir()) == []


def test_json_comes_back_as_it_was(assets):
    value = {"tasks": list(range(1000)), "name": "数字", "nothing": None}
    assets.write_json("order.json", value)
    assert assets.read_json("order.json") == value


def test_arrays_come_back_with_their_types_and_shapes(assets):
    arrays = {
        "tasks": np.arange(5, dtype=np.int64),
        "features": np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32),
        "nothing": np.zeros((0, 7)),
    }
    assets.write_arrays("a.npz", **arrays)
    found = assets.read_arrays("a.npz")
    assert set(found) == set(arrays)
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array, strict=True)


def test_a_missing_key_is_an_asset_error_that_names_it(assets):
    for read in (assets.read, assets.read_json, assets.read_arrays):
        with pytest.raises(AssetError, match=r"cannot read .*no/such\.key"):
            read("no/such.key")


def test_the_key_of_an_asset_is_below_the_prefix(bucket):
    Assets(f"s3://{bucket}/some/prefix").write("a/b", b"x")
    (found,) = boto3.client("s3").list_objects_v2(Bucket=bucket)["Contents"]
    assert found["Key"] == "some/prefix/a/b"


def test_a_bucket_without_a_prefix_works(bucket):
    Assets(f"s3://{bucket}").write("a/b", b"x")
    assert Assets(f"s3://{bucket}").read("a/b") == b"x"


# ---------------------------------------------------------------------- nothing is unpickled


class Trap:
    """Unpickling it would make a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_arrays_of_objects_are_not_written(assets):
    with pytest.raises(AssetError, match="bad would have to be pickled"):
        assets.write_arrays("a.npz", good=np.zeros(2), bad=np.array([{}, []], dtype=object))


def test_arrays_of_objects_are_not_read(assets, tmp_path):
    file = io.BytesIO()
    np.savez(file, bad=np.array([Trap(tmp_path / "sprung")], dtype=object))
    assets.write("a.npz", file.getvalue())
    with pytest.raises(AssetError, match=r"a\.npz is damaged"):
        assets.read_arrays("a.npz")
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("wrap", [lambda trap: pickle.dumps(trap), lambda trap: pickle.dumps({"tasks": trap})])
def test_a_pickle_is_not_read_as_arrays(folder, tmp_path, wrap):
    folder.write("a.npz", wrap(Trap(tmp_path / "sprung")))
    with pytest.raises(AssetError):
        folder.read_arrays("a.npz")
    assert not (tmp_path / "sprung").exists()


def npz():
    file = io.BytesIO()
    np.savez_compressed(file, tasks=np.arange(50), features=np.ones((50, 4), dtype=np.float32))
    return file.getvalue()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary() | st.builds(lambda cut: npz()[:cut], st.integers(0, 700)))
def test_any_bytes_give_arrays_or_an_asset_error(folder, data):
    folder.write("a.npz", data)
    found = outcome(AssetError, lambda: folder.read_arrays("a.npz"))
    assert isinstance(found, AssetError | dict)


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(0, len(npz()) - 1), st.integers(0, 255)), min_size=1, max_size=5))
def test_arrays_with_flipped_bytes_give_arrays_or_an_asset_error(folder, flips):
    data = bytearray(npz())
    for position, value in flips:
        data[position] = value
    folder.write("a.npz", bytes(data))
    found = outcome(AssetError, lambda: folder.read_arrays("a.npz"))
    assert isinstance(found, AssetError | dict)


@pytest.mark.parametrize("data", [b"", b"{", b"\xff\xfe\x00", b"[" * 100_000])
def test_damaged_json_is_an_asset_error(folder, data):
    folder.write("a.json", data)
    with pytest.raises(AssetError, match=r"a\.json is damaged"):
        folder.read_json("a.json")


# ---------------------------------------------------------------------- whole or not at all


def test_a_write_that_fails_leaves_the_old_asset_and_nothing_else(folder, tmp_path):
    folder.write("a", b"old")
    with pytest.raises(TypeError):
        folder.write("a", "no bytes")
    assert folder.read("a") == b"old"
    assert {path.name for path in (tmp_path / "assets").iterdir()} == {"a", ".a.sha256"}


def test_writers_of_the_same_key_never_mix_or_fail(folder, tmp_path):
    """Two workers may repeat the same step: readers see one of the two, whole."""
    sizes = (10, 300_000)
    faults = []
    done = threading.Event()

    def write(size):
        try:
            for _ in range(50):
                folder.write("a", bytes([size % 251]) * size)
        except AssetError as error:
            faults.append(error)

    def read():
        while not done.is_set():
            found = folder.read("a")
            if found not in {bytes([size % 251]) * size for size in sizes}:
                faults.append(f"mixed: {len(found)} bytes")

    folder.write("a", bytes([10]) * 10)
    reader = threading.Thread(target=read)
    writers = [threading.Thread(target=write, args=(size,)) for size in sizes * 2]
    for thread in (reader, *writers):
        thread.start()
    for thread in writers:
        thread.join()
    done.set()
    reader.join()
    assert faults == []
    assert {path.name for path in (tmp_path / "assets").iterdir()} == {"a", ".a.sha256"}


def test_an_asset_of_a_folder_is_as_readable_as_any_file(folder, tmp_path):
    """The server and the worker may run as different users of a group."""
    plain = tmp_path / "plain"
    plain.write_bytes(b"")
    folder.write("a", b"x")
    assert (tmp_path / "assets" / "a").stat().st_mode == plain.stat().st_mode


# ---------------------------------------------------------------------- what does not work


def test_a_folder_that_cannot_be_written_is_an_asset_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(AssetError, match="cannot write"):
        Assets(str(tmp_path / "file")).write("a", b"x")


def test_an_unreachable_s3_is_an_asset_error(env):
    env.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    env.setenv("AWS_ACCESS_KEY_ID", "x")
    env.setenv("AWS_SECRET_ACCESS_KEY", "x")
    assets = Assets("s3://bucket/prefix")
    with pytest.raises(AssetError, match="cannot write s3://bucket/prefix/a"):
        assets.write("a", b"x")
    with pytest.raises(AssetError, match="cannot read s3://bucket/prefix/a"):
        assets.read("a")


def test_s3_that_does_not_answer_is_given_up_within_a_minute(env):
    """Read from the client itself, since nothing here is timed: each try may take so long to connect."""
    config = s3_client().meta.config
    assert config.connect_timeout * config.retries["total_max_attempts"] < 60


def test_a_missing_bucket_is_an_asset_error(s3_server, env):
    for name, value in s3_server.env.items():
        env.setenv(name, value)
    with pytest.raises(AssetError, match=r"cannot read .*bucket"):
        Assets("s3://no-such-bucket-anywhere").read("a")


def test_wrong_credentials_are_an_asset_error_without_the_secret(bucket, env):
    env.setenv("AWS_SECRET_ACCESS_KEY", "not-the-secret")
    with pytest.raises(AssetError, match="cannot write") as caught:
        Assets(f"s3://{bucket}").write("a", b"x")
    assert "not-the-secret" not in str(caught.value)


def test_no_credentials_at_all_are_an_asset_error(env, tmp_path, web):
    env.setenv("AWS_ENDPOINT_URL", web.url)
    env.setenv("AWS_EC2_METADATA_DISABLED", "true")
    env.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
    env.setenv("AWS_CONFIG_FILE", os.devnull)
    with pytest.raises(AssetError, match="credentials"):
        Assets("s3://bucket").read("a")


def test_an_endpoint_that_is_no_address_is_a_config_error(env):
    env.setenv("AWS_ENDPOINT_URL", "not an address")
    with pytest.raises(ConfigError, match="KDAL_ASSETS is s3://bucket"):
        Assets("s3://bucket")


# ---------------------------------------------------------------------- damage


def flip(data, position):
    return data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :]


@pytest.mark.parametrize("position", [0, 17, -1])
def test_a_flipped_bit_is_damage_whatever_the_file_holds(folder, position):
    written = {
        "model.safetensors": bytes(range(256)),
        "order.json": b'{"tasks": [1, 2, 3, 4, 5, 6]}',
        "a.npz": bytes(range(100)),
    }
    for key, data in written.items():
        folder.write(f"rounds/{key}", data)
        path = Path(folder.root, "rounds", key)
        path.write_bytes(flip(path.read_bytes(), position % len(data)))
        with pytest.raises(DamagedAssetError, match=f"rounds/{key} is damaged"):
            folder.read(f"rounds/{key}")
        folder.write(f"rounds/{key}", data)
        assert folder.read(f"rounds/{key}") == data


def test_a_truncated_file_is_damage(folder):
    folder.write("a", b"whole")
    for text in (b"who", b""):
        Path(folder.root, "a").write_bytes(text)
        with pytest.raises(DamagedAssetError):
            folder.read("a")


def test_a_changed_object_of_s3_is_damage(bucket):
    assets = Assets(f"s3://{bucket}/some/prefix")
    assets.write("a", b"whole")
    assert assets.read("a") == b"whole"
    client = boto3.client("s3")
    told = client.head_object(Bucket=bucket, Key="some/prefix/a")["Metadata"]
    client.put_object(Bucket=bucket, Key="some/prefix/a", Body=b"other", Metadata=told)
    with pytest.raises(DamagedAssetError, match="some/prefix/a is damaged"):
        assets.read("a")


def test_files_of_an_older_kdal_have_no_digest_and_are_read(folder):
    Path(folder.root).mkdir()
    Path(folder.root, "old").write_bytes(b"as it is")
    assert folder.read("old") == b"as it is"


def test_writers_at_the_same_time_never_make_a_file_look_damaged(folder):
    contents = [bytes([number]) * 10_000 for number in range(8)]
    stop, wrong = threading.Event(), []

    def write(data):
        for _ in range(30):
            folder.write("contended", data)

    def read():
        while not stop.is_set():
            try:
                if folder.read("contended") not in contents:
                    wrong.append("torn")
            except MissingAssetError:
                pass
            except AssetError as error:
                wrong.append(str(error))

    reader = threading.Thread(target=read)
    writers = [threading.Thread(target=write, args=(data,)) for data in contents[:4]]
    reader.start()
    for thread in writers:
        thread.start()
    for thread in writers:
        thread.join()
    stop.set()
    reader.join()
    assert wrong == []
