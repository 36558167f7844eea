"""Processes for runs side by side: of one torch thread each, and gone with their parent."""

from __future__ import annotations

import multiprocessing
import os
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing.context import BaseContext
from multiprocessing.managers import SyncManager
from typing import Any

import torch

# glibc gives every large tensor back to the kernel and asks for it again: a fifth of the training time.
MALLOC = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "4000000000", "MALLOC_TOP_PAD_": "67108864"}
POLL = 0.2  # seconds
# Where fork is safe, a process that has imported everything is forked for each worker: torch alone takes seconds.
START_METHOD = "forkserver" if sys.platform == "linux" else "spawn"


@contextmanager
def processes(workers: int, module: str) -> Iterator[tuple[ProcessPoolExecutor, Any]]:
    """Processes of one torch thread each, and a queue to hear from them; an interruption ends them at once.

    Args:
        workers: how many.
        module: name of the one whose functions they run: it is imported once for all of them.
    """
    before = {name: os.environ.get(name) for name in MALLOC}
    os.environ.update({name: value for name, value in MALLOC.items() if before[name] is None})
    context = multiprocessing.get_context(START_METHOD)
    context.set_forkserver_preload([module])
    try:
        with _manager(context) as manager:
            others = multiprocessing.active_children()
            executor = ProcessPoolExecutor(workers, context, _begin)
            try:
                yield executor, manager.Queue()
            except BaseException:
                for process in multiprocessing.active_children():
                    if process not in others:
                        process.terminate()  # a run under way goes on from what it has finished
                raise
            finally:
                executor.shutdown(cancel_futures=True)
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)


def _manager(context: BaseContext) -> SyncManager:
    """A process that holds a queue."""
    manager = SyncManager(ctx=context)
    manager.start(_end_with_parent)
    return manager


def _begin() -> None:
    """One torch thread for this process, which does not outlive its parent."""
    torch.set_num_threads(1)
    _end_with_parent()


def _end_with_parent() -> None:
    """End this process at once when its parent is gone, however that came to its end."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()  # not getppid: that is the fork server, which lives on with this process
        os._exit(1)

    threading.Thread(target=watch, name="ends with its parent", daemon=True).start()
