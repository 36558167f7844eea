"""Where kdal looks for the Label Studio that it starts itself, and which ports an S3 server gets."""

from __future__ import annotations

from pathlib import Path

import pytest

from kdal.processes.embedded import _side_ports, find_label_studio
from tests.paths import ROOT


def test_the_label_studio_of_a_checkout_is_found_from_any_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LABEL_STUDIO_EXECUTABLE", raising=False)
    monkeypatch.chdir(tmp_path)
    assert find_label_studio() == ROOT / ".venv-label-studio" / "bin" / "label-studio"


def test_the_inner_servers_of_a_store_leave_its_own_ports_alone():
    """Each takes a second port, 10,000 above its own: it may be none that the store listens on."""
    ports = [int(flag.partition("=")[2]) for flag in _side_ports(range(20_000, 29_000))]
    assert len(set(ports)) == 4
    assert all(19_000 <= port < 20_000 for port in ports)
