"""Where kdal looks for the Label Studio that it starts itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from kdal.processes.embedded import find_label_studio
from tests.paths import ROOT


def test_the_label_studio_of_a_checkout_is_found_from_any_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LABEL_STUDIO_EXECUTABLE", raising=False)
    monkeypatch.chdir(tmp_path)
    assert find_label_studio() == ROOT / ".venv-label-studio" / "bin" / "label-studio"
