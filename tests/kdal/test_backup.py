"""The steps of docs/operations.md for backup, restore and upgrade, done as they are written there."""

from __future__ import annotations

import os
import re
import shutil
import subprocess

import numpy as np
import pytest
from alembic import command
from alembic.config import Config

from kdal.images.refs import ImageRef
from kdal.policy import Policy
from kdal.resources import Resources
from kdal.rounds.snapshot import Snapshot
from kdal.rounds.status import status
from kdal.rounds.store import Order, RoundStore
from kdal.storage.database import Storage
from kdal.storage.tables import now
from kdal.web.service import Service
from kdal_core.errors import ConfigError
from tests.kdal.conftest import DIGITS_CONFIG
from tests.kdal.web.requests import UID, task
from tests.paths import ROOT

PAGE = (ROOT / "docs" / "operations.md").read_text()


def steps(name):
    """The commands of a section that are the same on every machine: all but those that start and stop kdal."""
    section = PAGE.partition(f"<!-- tested: {name} -->")[2].partition("\n## ")[0]
    lines = [line.strip() for line in section.splitlines() if line.startswith("    ")]
    found = [line for line in lines if not line.startswith("systemctl")]
    assert found
    return found


def do(name, settings, folder):
    script = "\n".join(["set -eu", *steps(name)])
    subprocess.run(["bash", "-c", script], cwd=folder, env={**os.environ, "KDAL_HOME": str(settings.home)}, check=True)


@pytest.fixture
def served(open_resources, trained):
    """A kdal with a project, an open round and a model that serves; what it answers for two digits."""
    resources = open_resources()
    storage = resources.storage
    storage.put_project(3, UID, DIGITS_CONFIG, {"suggest_above": 0.0})
    store = RoundStore(resources.assets, UID, 0)
    resources.assets.write(store.key("distilled.safetensors"), trained.checkpoint)
    resources.assets.write("weights/ab.safetensors", b"shared")
    Snapshot(UID, DIGITS_CONFIG, Policy(), (8, 8), [], [ImageRef(5, "x")], [], None).save(store)
    store.save_order(Order(tasks=[5, 3], budget=2, selected=2), np.array([5, 3]), np.zeros(2))
    storage.begin_round(3, 0, "connect")
    storage.update_round(3, 0, state="open", version="kdal-r0", opened_at=now(), budget=2, counted=1)
    storage.update_project(3, serving_round=0, version="kdal-r0", connected_at=now())
    storage.add_event(3, "ANNOTATION_CREATED")
    cache = resources.settings.home_path / "cache" / "images"
    cache.mkdir(parents=True)
    (cache / "large").write_bytes(bytes(10_000))
    asked = {"project": UID, "tasks": [task(5, trained.files[0]), task(3, trained.files[1])]}
    return resources, asked


def test_a_backup_that_is_restored_on_another_disk_serves_as_before(served, tmp_path):
    resources, asked = served
    settings = resources.settings
    before, answer, secret = status(resources.storage), Service(resources).predict(asked), settings.secret
    resources.storage.close()  # kdal is stopped
    do("backup", settings, tmp_path)
    shutil.rmtree(settings.home_path)
    do("restore", settings, tmp_path)
    assert not (settings.home_path / "cache").exists()
    again = Resources.open(type(settings)(home=settings.home, label_studio_api_key=settings.label_studio_api_key))
    try:
        assert status(again.storage) == before
        assert Service(again).predict(asked) == answer
        assert answer["results"][0]["result"]
        assert again.settings.secret == secret
        assert again.assets.read("weights/ab.safetensors") == b"shared"
        assert [event.action for event in again.storage.waiting_events()] == ["ANNOTATION_CREATED"]
    finally:
        again.storage.close()


def revision(storage, wanted):
    """Bring the tables to those of an earlier release."""
    config = Config()
    config.set_main_option("script_location", "kdal.storage:migrations")
    with storage.engine.begin() as connection:
        config.attributes["connection"] = connection
        command.downgrade(config, wanted)


def test_an_upgrade_keeps_what_kdal_knows_and_a_backup_leads_back(served, tmp_path):
    assert re.search(r"^1\. Make a backup\.$", PAGE, re.MULTILINE)
    resources, asked = served
    settings, before = resources.settings, status(resources.storage)["projects"]
    revision(resources.storage, "0003")
    resources.storage.close()
    do("backup", settings, tmp_path)
    with pytest.raises(ConfigError, match="made by an older kdal"):
        Storage.of_running_kdal(settings)
    upgraded = Resources.open(settings)  # as `kdal serve` does
    assert status(upgraded.storage)["projects"] == before
    assert Service(upgraded).predict(asked)["results"][0]["result"]
    upgraded.storage.close()
    Storage.of_running_kdal(settings).close()
    shutil.rmtree(settings.home_path)
    do("restore", settings, tmp_path)
    with pytest.raises(ConfigError, match=r"made by an older kdal \(its tables are at 0003\)"):
        Storage.of_running_kdal(settings)
