"""The wheel, built and installed as a user gets it: what it holds, and that kdal runs from it alone."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from dataclasses import dataclass
from email import message_from_bytes
from email.message import Message
from pathlib import Path

import pytest
import yaml

from kdal.processes.embedded import LABEL_STUDIO_VERSION, find_label_studio
from kdal_core.tasks import get_task
from kdal_core.training import ModelSpec, save_checkpoint
from tests.paths import ROOT

PACKAGES = {"kdal": ROOT / "backend" / "kdal", "kdal_core": ROOT / "kdal_core"}
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
NOT_SOURCES = shutil.ignore_patterns(
    ".*", "artifacts", "data", "build", "dist", "docs", "__pycache__", "*.egg-info", "node_modules"
)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of a copy of the sources: a build leaves files beside them."""
    folder = tmp_path_factory.mktemp("wheel")
    shutil.copytree(ROOT, folder / "sources", ignore=NOT_SOURCES)
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", folder / "out"]
    built = subprocess.run([*command, folder / "sources"], capture_output=True, text=True, timeout=300)
    assert built.returncode == 0, built.stderr
    (made,) = (folder / "out").iterdir()
    return made


@dataclass(frozen=True)
class Installed:
    """An environment with the wheel in it, and a folder to work in that holds nothing of the checkout."""

    prefix: Path
    folder: Path

    def run(self, *command: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
        """What one of the environment's programs does, seen by nobody's settings and not by the checkout."""
        kept = {name: value for name, value in os.environ.items() if name in {"PATH", "HOME", "LANG", "TMPDIR"}}
        kept |= {"OMP_NUM_THREADS": "1", "COLUMNS": "200"} | environment
        program = self.prefix / "bin" / command[0]
        return subprocess.run(
            [program, *command[1:]], cwd=self.folder, env=kept, capture_output=True, text=True, timeout=500
        )


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """The wheel in an environment of its own, which borrows everything but kdal from the one that runs the tests.

    The checkout is installed there by a .pth file, and Python reads such files in an environment's own
    site-packages alone: named as a further folder, it gives its packages away, and the checkout not.
    """
    folder = tmp_path_factory.mktemp("installed")
    prefix = folder / "environment"
    venv.create(prefix, symlinks=True)
    own = Path(sysconfig.get_path("purelib", "venv", {"base": str(prefix), "installed_base": str(prefix)}))
    borrowed = [sysconfig.get_path("purelib"), sysconfig.get_path("platlib")]
    (own / "borrowed.pth").write_text("\n".join(dict.fromkeys(borrowed)) + "\n")
    command = [sys.executable, "-m", "pip", "--python", prefix / "bin" / "python", "install", "-q", "--no-deps"]
    done = subprocess.run([*command, wheel], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    (folder / "work").mkdir()
    return Installed(prefix, folder / "work")


def test_the_wheel_holds_every_file_of_the_two_packages_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if not name.endswith("/")}
    inside = {name for name in names if not name.startswith(f"kdal-{VERSION}.dist-info/")}
    expected = {
        f"{package}/{path.relative_to(folder).as_posix()}"
        for package, folder in PACKAGES.items()
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert inside == expected


def test_the_wheel_says_its_version_and_its_licence_and_carries_the_text(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        about: Message = message_from_bytes(archive.read(f"kdal-{VERSION}.dist-info/METADATA"))
        licence = archive.read(f"kdal-{VERSION}.dist-info/licenses/LICENSE").decode()
    assert about["Version"] == VERSION
    assert about["License-Expression"] == "Apache-2.0"
    assert about["License-File"] == "LICENSE"
    assert licence == (ROOT / "LICENSE").read_text()
    assert "Apache License\n                           Version 2.0" in licence


def test_python_finds_both_packages_in_the_installation_and_none_of_the_checkouts_folders(
    installed: Installed,
) -> None:
    program = """
import importlib.util, json
from importlib.metadata import version
import kdal, kdal_core
others = [name for name in ("backend", "examples", "tests", "benchmarks") if importlib.util.find_spec(name)]
print(json.dumps([kdal.__file__, kdal_core.__file__, version("kdal"), others]))
"""
    ended = installed.run("python", "-c", program)
    assert ended.returncode == 0, ended.stderr
    plugin, core, version, others = json.loads(ended.stdout)
    assert Path(plugin).is_relative_to(installed.prefix)
    assert Path(core).is_relative_to(installed.prefix)
    assert (version, others) == (VERSION, [])


@pytest.mark.timeout(900)
def test_the_demo_starts_from_the_wheel(installed: Installed, label_studio_template: Path) -> None:
    missing = installed.run("kdal", "demo", "digits", "--once")
    assert missing.returncode == 1
    assert f".venv-label-studio/bin/pip install label-studio=={LABEL_STUDIO_VERSION}\n" in missing.stderr
    assert "LABEL_STUDIO_EXECUTABLE" in missing.stderr
    assert not (installed.folder / ".kdal-demo").exists()
    assert "Traceback" not in missing.stderr

    # With a database that is migrated already; the demo's own first start takes a minute for that alone.
    shutil.rmtree(installed.folder / ".kdal-demo", ignore_errors=True)
    shutil.copytree(label_studio_template, installed.folder / ".kdal-demo" / "label-studio")
    shown = installed.run(
        "kdal",
        *("demo", "digits", "--once", "--images", "40", "--budget", "10"),
        LABEL_STUDIO_EXECUTABLE=str(find_label_studio()),
    )
    assert shown.returncode == 0, shown.stdout + shown.stderr
    assert 'Press "Label All Tasks": after each 10 labels' in shown.stdout
    assert (installed.folder / ".kdal-demo" / "kdal" / "kdal.sqlite").is_file()  # the migrations ran
    status = installed.run("kdal", "status", "--json", KDAL_HOME=str(installed.folder / ".kdal-demo" / "kdal"))
    assert status.returncode == 0, status.stderr
    assert '"computing"' not in status.stdout


def test_a_campaign_and_its_report_are_made_by_the_wheel(installed: Installed) -> None:
    listed = installed.run("kdal", "simulate", "--list")
    assert listed.returncode == 0, listed.stderr
    assert "mnist_noise" in listed.stdout
    (installed.folder / "small.yaml").write_text(
        yaml.safe_dump(
            {
                "name": "small",
                "data": {"name": "digits", "pool": 100, "validation": 50},
                "budget": 20,
                "rounds": 1,
                "seeds": [0],
                "models": {"student": "tiny_cnn", "teacher": "mid_cnn"},
                "training": {"epochs": 1, "min_steps": 5, "max_steps": 5},
                "strategies": ["random"],
            }
        )
    )
    ended = installed.run("kdal", "simulate", "small.yaml", "--out", "out", "--workers", "1")
    assert ended.returncode == 0, ended.stderr
    assert "<html" in (installed.folder / "out" / "index.html").read_text()


def test_a_distillation_and_its_report_are_made_by_the_wheel(installed: Installed) -> None:
    digits = tuple("0123456789")
    teacher = get_task("classification", digits).build("tiny_cnn", (8, 8))
    spec = ModelSpec("classification", "tiny_cnn", digits, (8, 8))
    (installed.folder / "teacher.safetensors").write_bytes(save_checkpoint(teacher, spec))
    (installed.folder / "distill.yaml").write_text(
        yaml.safe_dump(
            {
                "name": "small",
                "data": {"name": "digits", "count": 20, "test": 20},
                "teacher": {"kind": "checkpoint", "path": "teacher.safetensors"},
                "student": "tiny_cnn",
                "budget": 30,
                "mixup": {"stages": 1},
                "training": {"epochs": 1, "min_steps": 5, "max_steps": 5},
            }
        )
    )
    ended = installed.run("kdal", "distill", "distill.yaml", "--out", "distilled")
    assert ended.returncode == 0, ended.stderr
    assert "<html" in (installed.folder / "distilled" / "index.html").read_text()
