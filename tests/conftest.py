"""What all tests share: how many threads they use, in which order their files run, where coverage is measured."""

from __future__ import annotations

import os
from pathlib import Path

# Before anything imports torch, and for the processes that tests start: networks as small as those of the tests are
# fastest on one thread, and two processes of one thread each are faster than one of two.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch
from hypothesis import settings

settings.register_profile("untimed", deadline=None)  # a busy machine is no bug
settings.load_profile("untimed")

HERE = Path(__file__).parent
COVERED = (HERE / "kdal" / "rounds", HERE / "kdal" / "labelstudio" / "test_connection.py")
"""The tests of the modules whose coverage is measured, see pyproject.toml."""


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    torch.set_num_threads(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if not any(item.path.is_relative_to(path) for path in COVERED):
            item.add_marker(pytest.mark.no_cover)
