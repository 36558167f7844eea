"""The cache of weights: checked files by their SHA-256, and for each backbone a note of which one is its own."""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from filelock import FileLock, Timeout
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import nn

from kdal_core.errors import ConfigError
from kdal_core.models.weight_files import State


@dataclass(frozen=True)
class Weights:
    """A backbone's weights, checked.

    Attributes:
        name: of the backbone.
        source: "hub", "package <name>" or "file <path>": where they came from in the first place.
        sha256: of the file, hexadecimal.
        path: the file, safetensors.
    """

    name: str
    source: str
    sha256: str
    path: Path

    def load(self, body: nn.Module) -> None:
        """Into a network without its last layer.

        Raises:
            ConfigError: the file is gone, damaged, or another network's.
        """
        try:
            data = self.path.read_bytes()
            if hashlib.sha256(data).hexdigest() != self.sha256:
                raise ConfigError(f"The weights of {self.name!r} in {str(self.path)!r} have changed: delete the file.")
            body.load_state_dict(load(data))
        except (OSError, SafetensorError, RuntimeError) as error:
            raise ConfigError(f"The weights of {self.name!r} in {str(self.path)!r} cannot be read: {error}") from error

    def as_json(self) -> dict[str, str]:
        """What a round records."""
        return {"name": self.name, "source": self.source, "sha256": self.sha256}


def own_folder() -> Path:
    """The cache of the user who runs kdal."""
    return Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "kdal" / "weights"


def usable(folder: Path) -> Path:
    """The folder, or where it cannot be written one of this process that can."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError:
        return _scratch()


@lru_cache
def _scratch() -> Path:
    return Path(tempfile.mkdtemp(prefix="kdal-weights-"))


def _note(name: str, folder: Path) -> Path:
    return folder / f"{re.sub(r'[^A-Za-z0-9._-]', '_', name)}.json"


def kept_weights(name: str, folder: Path) -> Weights | None:
    """What the cache has of a backbone, if it is whole."""
    try:
        told = json.loads(_note(name, folder).read_text())
        path = folder / f"{told['sha256']}.safetensors"
        if told["name"] == name and hashlib.sha256(path.read_bytes()).hexdigest() == told["sha256"]:
            return Weights(name, told["source"], told["sha256"], path)
    except (OSError, ValueError, KeyError, TypeError):
        pass  # there is none, or it is damaged: fetched again
    return None


def keep(name: str, source: str, state: State, folder: Path) -> Weights:
    """Write checked weights into the cache."""
    data: bytes = save({key: value.contiguous() for key, value in sorted(state.items())})
    digest = hashlib.sha256(data).hexdigest()
    found = Weights(name, source, digest, folder / f"{digest}.safetensors")
    write(found.path, data)
    write(_note(name, folder), json.dumps(found.as_json()).encode())
    return found


def write(path: Path, data: bytes) -> None:
    """Whole or not at all, whoever else writes it."""
    draft = path.with_name(f"{path.name}.{os.getpid()}.{threading.get_ident()}.part")
    try:
        draft.write_bytes(data)
        draft.replace(path)
    except OSError as error:
        raise ConfigError(f"Weights cannot be kept in {str(path.parent)!r}: {error}") from error
    finally:
        draft.unlink(missing_ok=True)


@contextmanager
def alone(name: str, folder: Path, wait: float) -> Iterator[None]:
    """One process at a time brings the weights of a backbone; the others wait this many seconds at most.

    Raises:
        ConfigError: that was too short.
    """
    try:
        with FileLock(_note(name, folder).with_suffix(".lock"), timeout=wait):
            yield
    except Timeout as error:
        raise ConfigError(f"Another process has been fetching the weights of {name!r} for too long.") from error
