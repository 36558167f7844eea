"""Processes of a campaign, as its own process leaves them."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import torch

from kdal_core.simulation.processes import processes

KILLED = """
import sys
from kdal_core.simulation.processes import processes
from tests.kdal_core.simulation.test_processes import sleep

if __name__ == "__main__":
    with processes(1, "kdal_core.simulation.processes") as (executor, messages):
        executor.submit(sleep, sys.argv[1]).result()
"""


def sleep(path):
    """Write down this process and its fork server, which lives until all of its processes have ended; then stay."""
    draft = Path(f"{path}.part")
    draft.write_text(f"{os.getpid()} {os.getppid()}")
    draft.rename(path)
    time.sleep(300)


def threads(_):
    return torch.get_num_threads()


def is_there(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def until(condition, seconds=120):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.05)


def test_they_end_when_their_parent_is_killed(tmp_path):
    root = Path(__file__).parents[3]
    path = os.pathsep.join([str(root), str(root / "backend")])
    told = tmp_path / "pid"
    parent = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(told)], cwd=root, env={**os.environ, "PYTHONPATH": path}
    )
    until(told.exists)
    others = [int(word) for word in told.read_text().split()]
    assert all(is_there(other) for other in others)
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    until(lambda: not any(is_there(other) for other in others))


def test_each_has_one_torch_thread():
    with processes(1, __name__) as (executor, _):
        assert executor.submit(threads, None).result() == 1
