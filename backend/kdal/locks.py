"""A lock between processes of one machine, which ends with the process that holds it, however it ends."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kdal_core.errors import ConfigError


@contextmanager
def only_one(path: Path, refusal: str) -> Iterator[None]:
    """Hold the lock of a file.

    Args:
        path: the file; it is made where it is not there.
        refusal: what to say if another process holds the lock.

    Raises:
        ConfigError: it does.
    """
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ConfigError(refusal) from error
        yield
