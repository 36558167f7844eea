"""What a command imports."""

import os
import subprocess
import sys

import pytest
import structlog

HEAVY = ("torch", "torchvision", "sklearn", "scipy", "faiss", "dbos", "alembic", "prometheus_client", "boto3")
"""What training, storage of many machines and serving need, each slow to import."""
PROGRAM = f"""
import sys
from kdal.cli.main import main
try:
    main()
finally:
    print("loaded:", *sorted(set({HEAVY!r}) & set(sys.modules)))
"""


@pytest.fixture(autouse=True)
def _log_to_what_is_open():
    """A command that runs in this process logs to its own output, which is closed when it ends."""
    yield
    structlog.reset_defaults()


@pytest.fixture
def loaded_by(env, tmp_path):
    """`loaded_by("status", **variables) -> (output, names of HEAVY that the command has imported)`."""

    def run(*arguments, **variables):
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, *arguments],
            capture_output=True,
            text=True,
            timeout=120,
            cwd=tmp_path,
            env={**os.environ, **variables},
            check=False,
        )
        assert done.returncode == 0, done.stderr
        shown, _, loaded = done.stdout.rpartition("loaded:")
        return shown, loaded.split()

    return run
