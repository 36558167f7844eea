"""What all tests share: how many threads they use, in which order their files run, where coverage is measured."""

from __future__ import annotations

import os
from pathlib import Path

# Before anything imports torch, and for the processes that tests start: networks as small as those of the tests are
# fastest on one thread, and two processes of one thread each are faster than one of two.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Pretrained weights come from packages; the tests of the hub have one of their own.
os.environ["HF_HUB_OFFLINE"] = "1"

import pytest
import torch
from hypothesis import settings

settings.register_profile("untimed", deadline=None)  # a busy machine is no bug
settings.load_profile("untimed")

HERE = Path(__file__).parent
SERVERLESS = HERE / "kdal_core" / "simulation" / "test_simulate.py"
"""Takes a minute, and no server."""
COVERED = (HERE / "kdal" / "rounds", HERE / "kdal" / "labelstudio" / "test_connection.py")
"""The tests of the modules whose coverage is measured, see pyproject.toml."""


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    torch.set_num_threads(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # Files run in this order, each in the process that is free: the long ones of integration/ before the others. One
    # that needs no server comes first, for whichever process is not the one that sets Label Studio up.
    items.sort(key=lambda item: item.path != SERVERLESS)
    for item in items:
        if not any(item.path.is_relative_to(path) for path in COVERED):
            item.add_marker(pytest.mark.no_cover)
