"""Secrets that kdal makes by itself: once, and for all processes that share a folder."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from kdal_core.errors import ConfigError


def kept_once(path: Path, make: Callable[[], str], what: str) -> str:
    """The text of a file, which is made where there is none, readable by its owner only.

    Args:
        path: the file, in a folder that is there.
        make: makes the text.
        what: what messages call it, "the webhook's secret" for example.

    Raises:
        ConfigError: it cannot be made or read, or is empty; says what to do.
    """
    try:
        if not path.exists():
            _write_once(path, make())
        text = path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{what} {path} cannot be made or read: {error}") from error
    if not text:
        raise ConfigError(f"{path} is empty: delete it, and kdal will make {what} anew")
    return text


def _write_once(path: Path, text: str) -> None:
    """Make a file with all of its text at once, for our eyes only; a file that is there already stays.

    Of two processes that start together one writes and both read the same: a file that is linked under its
    name only when it is full is never seen half-written.
    """
    descriptor, draft = tempfile.mkstemp(prefix=path.name, dir=path.parent)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
        with contextlib.suppress(FileExistsError):
            os.link(draft, path)
    finally:
        Path(draft).unlink()
