"""A bounded folder of bytes: what was fetched once is not fetched again in each round."""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from pathlib import Path
from threading import Lock
from uuid import uuid4


class ByteCache:
    """A folder of files by hash of their key, which drops the least recently used above a size.

    Args:
        folder: where the files are; several processes may share it.
        limit: bytes that the folder may hold; each further process may exceed it by a tenth.
    """

    def __init__(self, folder: Path, limit: int) -> None:
        self._folder, self._limit = folder, limit
        self._lock = Lock()
        # Bytes that may be written before the folder is measured again: others write into it, too.
        self._room = 0

    def get(self, key: str) -> bytes | None:
        """Bytes kept under a key, if any."""
        path = self._path(key)
        try:
            data = path.read_bytes()
            os.utime(path)
        except OSError:
            return None
        return data

    def put(self, key: str, data: bytes) -> bytes:
        """Keep bytes under a key, if there is room on the disk; returns them."""
        if len(data) > self._limit // 4:
            return data
        path = self._path(key)
        draft = path.with_name(f"{path.name}.{uuid4().hex}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            draft.write_bytes(data)
            draft.replace(path)
            with self._lock:
                self._room -= len(data)
                if self._room < 0:
                    self._evict()
        except OSError:  # a full or read-only disk makes it slower, not wrong
            with suppress(OSError):
                draft.unlink(missing_ok=True)
        return data

    def _path(self, key: str) -> Path:
        digest = hashlib.sha256(key.encode()).hexdigest()
        return self._folder / digest[:2] / digest

    def _files(self) -> list[tuple[float, int, Path]]:
        files = []
        for path in self._folder.glob("*/*"):
            try:
                stat = path.stat()
            except OSError:
                continue
            files.append((stat.st_mtime, stat.st_size, path))
        return sorted(files)

    def _evict(self) -> None:
        files = self._files()
        held = sum(size for _, size, _ in files)
        if held > 0.9 * self._limit:
            # Down to 80%, so that a full cache is not walked at each image.
            for _, size, path in files:
                if held <= 0.8 * self._limit:
                    break
                path.unlink(missing_ok=True)
                held -= size
        self._room = self._limit // 10
