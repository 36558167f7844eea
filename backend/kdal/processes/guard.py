"""Runs one command and takes it, and everything that it forked, down with the process that asked for it.

`python -I -S guard.py PARENT_PID GRACE_SECONDS COMMAND...`, run as a file of its own and with nothing but the
standard library: it stays beside every child of kdal, so it has to start in milliseconds and stay small.

Linux can tell a child that its parent died (PR_SET_PDEATHSIG), but a grandchild, a worker of gunicorn or
of Label Studio, is not told, and lives on with the port. So the command gets a session of its own, and this
guard ends that whole group: asked to (SIGTERM, SIGINT), when the parent is gone, or when the command ended.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from types import FrameType

_POLL_SECONDS = 0.1
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36


def _prctl(option: int, value: int) -> None:
    """Linux only; elsewhere the guard works too, but must not itself be killed with SIGKILL."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def _die_with_the_guard() -> None:
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _reap() -> None:
    """Collect orphans: as a subreaper the guard inherits them, and a zombie would keep its group alive."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _signal_group(group: int, number: int) -> bool:
    """Whether anyone of the group is left to get the signal."""
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        return False
    except PermissionError:  # macOS says so of a group of zombies
        return False
    return True


def _end_group(leader: subprocess.Popen[bytes], grace: float) -> None:
    """SIGTERM, then SIGKILL for whoever of the leader's group is left after `grace` seconds."""
    deadline = time.monotonic() + grace
    alive = _signal_group(leader.pid, signal.SIGTERM)
    while alive and time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS / 2)
        leader.poll()  # first, so that its status goes to Popen and not to the reaper
        _reap()
        alive = _signal_group(leader.pid, 0)
    _signal_group(leader.pid, signal.SIGKILL)


def main(arguments: list[str]) -> int:
    """Run the command to its end; its exit status, 128 + n when signal n ended it."""
    parent, grace, command = int(arguments[0]), float(arguments[1]), arguments[2:]
    asked_to_stop = False

    def stop(_number: int, _frame: FrameType | None) -> None:
        nonlocal asked_to_stop
        asked_to_stop = True

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    try:
        child = subprocess.Popen(command, start_new_session=True, preexec_fn=_die_with_the_guard)
    except OSError as error:
        sys.stderr.write(f"cannot run {command[0]}: {error.strerror}\n")
        return 127
    # The parent's id is compared, not only watched: it may have died before this line.
    while child.poll() is None and not asked_to_stop and os.getppid() == parent:
        time.sleep(_POLL_SECONDS)
    child.poll()
    _end_group(child, grace)
    status = child.wait()
    return status if status >= 0 else 128 - status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
