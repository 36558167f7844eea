"""The compose file and the Dockerfile say what is true of kdal, and pin what they start."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from kdal.settings import Settings
from tests.paths import PYTHONPATH, ROOT

COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
DOCKERFILE = (ROOT / "deploy" / "Dockerfile").read_text()
VARIABLES = {
    field.validation_alias if isinstance(field.validation_alias, str) else f"KDAL_{name.upper()}"
    for name, field in Settings.model_fields.items()
}


def test_kdal_is_given_every_setting_that_it_reads_and_no_other() -> None:
    given = set(SERVICES["kdal"]["environment"])
    # KDAL_HOME is the volume, set in the image; a worker's name matters where there are several.
    assert {name for name in given if not name.startswith(("AWS_", "HF_"))} == VARIABLES - {
        "KDAL_HOME",
        "KDAL_WORKER_ID",
    }
    assert {name for name in given if name.startswith("AWS_")} >= {
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
        "AWS_DEFAULT_REGION",
        "AWS_ENDPOINT_URL",
        "AWS_REQUEST_CHECKSUM_CALCULATION",
        "AWS_RESPONSE_CHECKSUM_VALIDATION",
    }


def test_workers_have_the_servers_settings_and_volume() -> None:
    kdal, worker, gpu = SERVICES["kdal"], SERVICES["worker"], SERVICES["worker-gpu"]
    assert worker["environment"] == kdal["environment"]
    assert gpu["environment"] == kdal["environment"] | {"KDAL_DEVICE": "cuda", "KDAL_WORKER_ID": "gpu"}
    assert worker["volumes"] == gpu["volumes"] == kdal["volumes"]
    assert worker["command"] == gpu["command"] == ["kdal", "worker"]
    assert gpu["profiles"] == ["gpu"]
    (device,) = gpu["deploy"]["resources"]["reservations"]["devices"]
    assert device["driver"] == "nvidia"
    assert device["capabilities"] == ["gpu"]
    assert "profiles" not in worker


def test_services_reach_each_other_by_the_names_they_have() -> None:
    kdal, label_studio, postgres = (SERVICES[name]["environment"] for name in ("kdal", "label-studio", "postgres"))
    assert kdal["LABEL_STUDIO_URL"] == "http://label-studio:8080"
    assert kdal["KDAL_URL"] == "http://kdal:9090"
    # People and the containers reach Label Studio by two names; it writes the one, and kdal must know it.
    assert kdal["LABEL_STUDIO_PUBLIC_URL"] == label_studio["LABEL_STUDIO_HOST"]
    assert label_studio["USE_DEFAULT_BANNED_SUBNETS"] == "false"
    assert label_studio["DJANGO_DB"] == "default"
    assert label_studio["POSTGRE_HOST"] == "postgres"
    assert label_studio["POSTGRE_USER"] == postgres["POSTGRES_USER"]
    assert label_studio["POSTGRE_NAME"] == postgres["POSTGRES_DB"]
    address = "postgresql+psycopg://label_studio:${POSTGRES_PASSWORD}@postgres:5432/kdal"
    assert kdal["KDAL_DATABASE_URL"] == "${KDAL_DATABASE_URL:-" + address + "}"
    assert "CREATE DATABASE kdal;" in (ROOT / "deploy" / "postgres" / "kdal.sql").read_text()
    assert "./deploy/postgres:/docker-entrypoint-initdb.d:ro" in SERVICES["postgres"]["volumes"]
    for service in SERVICES.values():
        for name, condition in service.get("depends_on", {}).items():
            assert "healthcheck" in SERVICES[name] or SERVICES[name]["image"].startswith("kdal:")
            assert condition == {"condition": "service_healthy"}


def test_every_image_is_pinned_and_kdals_has_its_version() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    for name, service in SERVICES.items():
        assert re.fullmatch(r"[\w/.-]+:\d+\.\d+(\.\d+)*", service["image"]), name
    assert {SERVICES[name]["image"] for name in ("kdal", "worker", "worker-gpu")} == {f"kdal:{version}"}
    (base,) = re.findall(r"^FROM (.*)$", DOCKERFILE, re.MULTILINE)
    assert re.fullmatch(r"python:\d+\.\d+\.\d+-slim-\w+", base)


def test_the_image_installs_what_is_locked_and_does_not_run_as_root() -> None:
    for line in re.findall(r"pip install (.*?)(?: \\| &&|$)", DOCKERFILE, re.MULTILINE):
        assert "--require-hashes" in line or "${TORCH}" in line or line.endswith("--no-deps --no-build-isolation ."), (
            line
        )
    assert 'ARG TORCH="--require-hashes -r requirements/torch.txt"' in DOCKERFILE
    user = re.findall(r"^USER (\d+)$", DOCKERFILE, re.MULTILINE)
    assert user
    assert user[-1] != "0"


def test_the_image_copies_files_that_exist_and_that_docker_is_shown() -> None:
    copied = {name for line in re.findall(r"^COPY (.*) \S+$", DOCKERFILE, re.MULTILINE) for name in line.split()}
    shown = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert {Path(name).parts[0] for name in copied} == shown
    assert all((ROOT / name).exists() for name in copied)


def test_the_containers_run_commands_that_kdal_has() -> None:
    assert re.findall(r'^CMD \["kdal", (.*)\]$', DOCKERFILE, re.MULTILINE) == ['"serve", "--host", "0.0.0.0"']
    for arguments in (["serve", "--host", "0.0.0.0"], ["worker"]):
        shown = subprocess.run(
            [sys.executable, "-m", "kdal", *arguments, "--help"], capture_output=True, text=True, timeout=120
        )
        assert shown.returncode == 0, shown.stderr


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """`kdal worker`, just started, on a home of its own."""
    environment = os.environ | {
        "KDAL_HOME": str(tmp_path / "home"),
        "LABEL_STUDIO_API_KEY": "0" * 40,  # it asks Label Studio nothing as long as no project is connected
        "PYTHONPATH": PYTHONPATH,
    }
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen([sys.executable, "-m", "kdal", "worker"], env=environment, stderr=log, cwd=tmp_path)
    yield process
    process.kill()
    process.wait()


def test_the_workers_healthcheck_tells_a_worker_that_lives_from_one_that_does_not(
    tmp_path: Path, worker: subprocess.Popen[bytes]
) -> None:
    kind, command = SERVICES["worker"]["healthcheck"]["test"]
    assert kind == "CMD-SHELL"

    def healthy(**names: str) -> bool:
        environment = os.environ | {"KDAL_HOME": str(tmp_path / "home")} | names
        return subprocess.run(["sh", "-c", command.replace("$$", "$")], env=environment, timeout=20).returncode == 0

    assert not healthy(KDAL_HOME=str(tmp_path / "nowhere"))
    deadline = time.monotonic() + 120
    while not (tmp_path / "home" / "worker-1.lock").exists() or not healthy():
        assert worker.poll() is None, (tmp_path / "log").read_text()
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert not healthy(KDAL_WORKER_ID="gpu")
    worker.kill()
    worker.wait()
    assert not healthy()
