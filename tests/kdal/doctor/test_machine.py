"""Each fault of a machine, made for real, is told with what mends it."""

import secrets
from pathlib import Path

import boto3
import pytest
from sqlalchemy import text

from kdal.doctor import machine
from kdal.doctor.finding import checked
from kdal.storage.database import Storage
from kdal.storage.tables import now
from tests.kdal.storage.stores import PlainStore


def wrong(check, *arguments):
    """What a check says is wrong, and what mends it."""
    found = checked("part", lambda: check(*arguments))
    assert not found.ok
    return f"{found.said}; {found.fix}"


@pytest.fixture
def started(make_settings):
    """Settings of a kdal that was started: its home and its tables are there."""
    settings = make_settings()
    Storage(settings.sqlalchemy_url).close()
    return settings


def test_versions_name_kdal_python_and_torch():
    assert machine.versions().startswith("kdal ")
    assert "torch" in machine.versions()


def test_a_home_that_is_not_there_or_cannot_be_written_to(started, make_settings, tmp_path):
    assert machine.home(started) == str(started.home_path)
    assert list(started.home_path.glob("doctor-*")) == []
    assert "set KDAL_HOME" in wrong(machine.home, make_settings(home=tmp_path / "none"))
    assert "chown" in wrong(machine.home, make_settings(home=Path("/proc")))  # for root, too


def test_a_disk_with_too_little_room(started):
    assert "GB are free" in machine.disk(started.home_path, least=1)
    assert "kdal models prune" in wrong(machine.disk, started.home_path, 10**18)


def test_a_database_that_is_missing_newer_or_broken(started, make_settings, tmp_path):
    assert machine.database(started) == "sqlite, 0 connected projects"
    assert "kdal up" in wrong(machine.database, make_settings(home=tmp_path / "none"))
    storage = Storage(started.sqlalchemy_url)
    with storage.engine.begin() as connection:
        connection.execute(text("ALTER TABLE projects RENAME TO elsewhere"))
    assert "no such table" in wrong(machine.database, started)
    with storage.engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    assert "update kdal" in wrong(machine.database, started)
    storage.close()


def test_a_folder_of_assets_that_is_a_file(started, make_settings, tmp_path):
    assert machine.assets(started) == started.assets_root
    assert list(Path(started.assets_root).rglob("doctor*")) == []
    (tmp_path / "file").touch()
    assert "cannot be written to" in wrong(machine.assets, make_settings(assets=str(tmp_path / "file")))


def test_rights_of_an_s3_store(s3_server, env, make_settings):
    for name, value in s3_server.env.items():
        env.setenv(name, value)
    bucket = f"kdal-{secrets.token_hex(8)}"
    settings = make_settings(assets=f"s3://{bucket}/some")
    client = boto3.client("s3")
    client.create_bucket(Bucket=bucket)
    assert machine.assets(settings) == f"s3://{bucket}/some"
    assert "Contents" not in client.list_objects_v2(Bucket=bucket)
    with env.context() as other:
        other.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
        assert "cannot be written to" in wrong(machine.assets, settings)
    with PlainStore() as store:  # it takes objects, and lets nobody delete them
        env.setenv("AWS_ENDPOINT_URL", store.url)
        said = wrong(machine.assets, settings)
    assert "deleting fails" in said
    assert "s3:DeleteObject" in said


def test_a_device_that_is_not_there(make_settings):
    assert machine.device(make_settings(device="cpu")).startswith("cpu, ")
    assert "KDAL_DEVICE=auto" in wrong(machine.device, make_settings(device="cuda:99"))


def test_weights_are_named_with_where_they_are_from(started):
    assert "package" in machine.weights(started) or "hub" in machine.weights(started)


def test_a_worker_that_is_missing_or_silent(started):
    assert "kdal worker" in wrong(machine.worker, started)
    storage = Storage(started.sqlalchemy_url)
    storage.beat("worker-7")
    assert machine.worker(started) == "worker-7"
    with storage.session() as session:
        session.execute(text("UPDATE workers SET beat_at = '2020-01-01 00:00:00.000000'"))
    assert "worker-7, was seen at 2020-01-01" in wrong(machine.worker, started)
    assert now().year > 2020
    storage.close()
