"""The systemd units start commands that there are, as a user of their own, and end them as kdal ends."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.main import get_command

from kdal.cli.main import app
from kdal.settings import Settings
from tests.paths import ROOT

UNITS = sorted((ROOT / "deploy" / "systemd").glob("*.service"))
SECTIONS = {"Unit", "Service", "Install"}


def read(unit: Path) -> dict[str, dict[str, list[str]]]:
    """Section -> key -> its values, of which a unit may give several."""
    found: dict[str, dict[str, list[str]]] = {}
    section = ""
    for line in unit.read_text().splitlines():
        if not line or line.startswith(("#", ";")):
            continue
        if match := re.fullmatch(r"\[(\w+)\]", line):
            section = match[1]
            found[section] = {}
            continue
        key, separator, value = line.partition("=")
        assert separator, line
        assert re.fullmatch(r"[A-Z]\w+", key), line
        found[section].setdefault(key, []).append(value)
    return found


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_a_unit_starts_a_command_of_kdal_with_options_that_it_has(unit: Path) -> None:
    found = read(unit)
    assert set(found) == SECTIONS
    service = found["Service"]
    program, name, *options = service["ExecStart"][0].split()
    assert Path(program).name == "kdal"
    command = get_command(app).commands[name]  # type: ignore[attr-defined]
    command.make_context(name, options)
    assert int(service["TimeoutStopSec"][0]) > 10  # in which kdal ends by itself
    assert service["Restart"] == ["always"]
    assert service["User"] == ["kdal"]
    names = {line.partition("=")[0] for line in service["Environment"]}
    assert {name.removeprefix("KDAL_").lower() for name in names} <= set(Settings.model_fields)


@pytest.mark.parametrize("instance", ["1", "2"])
def test_workers_of_one_machine_and_of_several_have_names_that_kdal_takes(instance: str, monkeypatch) -> None:
    (unit,) = (unit for unit in UNITS if "@" in unit.name)
    (line,) = (line for line in read(unit)["Service"]["Environment"] if line.startswith("KDAL_WORKER_ID="))
    name = line.partition("=")[2].replace("%H", "node-7.example.com").replace("%i", instance)
    monkeypatch.setenv("KDAL_WORKER_ID", name)
    assert Settings.load().worker_id == name


def test_systemd_itself_finds_nothing_wrong_where_it_is_installed(tmp_path: Path) -> None:
    """Where it is not, as in most containers, the tests above are what there is."""
    analyze = shutil.which("systemd-analyze")
    copies = []
    for unit in UNITS:
        copies.append(tmp_path / unit.name)
        copies[-1].write_text(unit.read_text().replace("/opt/kdal/bin/kdal", sys.executable))
    assert len(copies) == 2
    if analyze is not None:
        done = subprocess.run([analyze, "verify", *map(str, copies)], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")
