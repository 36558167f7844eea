"""Files of weights: tensors read without unpickling anything else, under the names that a backbone has for them."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from kdal_core.errors import ConfigError

State = Mapping[str, Tensor]


def read_tensors(path: Path, sha256: str | None) -> State:
    """The tensors of a file; nothing is unpickled but tensors."""
    try:
        if sha256 is not None and hashlib.sha256(path.read_bytes()).hexdigest() != sha256:
            raise ConfigError(
                f"The weights file {str(path)!r} is not the one that kdal knows: install its package anew."
            )
        if path.suffix == ".safetensors":
            return dict(load_file(path))
        found = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, SafetensorError, RuntimeError, EOFError, ValueError, pickle.UnpicklingError) as error:
        raise ConfigError(f"The weights file {str(path)!r} cannot be read: {first_line(error)}") from error
    if isinstance(found, dict) and isinstance(inner := found.get("state_dict", found.get("model")), dict):
        found = inner
    if not isinstance(found, dict) or not all(isinstance(value, Tensor) for value in found.values()):
        raise ConfigError(f"The weights file {str(path)!r} holds no dictionary of tensors.")
    return found


def renamed(name: str, state: State, *, by_order: bool = False) -> State:
    """The tensors that a backbone takes, under its own names; those of a last layer are left out.

    Raises:
        ConfigError: they are another network's.
    """
    from kdal_core.models.backbones import empty_body

    wanted = empty_body(name).state_dict()
    if by_order:
        state = dict(zip(wanted, state.values(), strict=False))
    elif not wanted.keys() & state.keys():  # a checkpoint of ours, or of a training that wrapped the network
        prefixes = {key.partition(".")[0] + "." for key in state}
        inner = next((p for p in sorted(prefixes) if any(p + key in state for key in wanted)), "")
        state = {key.removeprefix(inner): value for key, value in state.items()}
    missing = [key for key, value in wanted.items() if key not in state or state[key].shape != value.shape]
    if missing:
        raise ConfigError(
            f"These weights do not fit {name!r}: {len(missing)} of {len(wanted)} tensors are missing or have another "
            f"shape, the first is {missing[0]!r}."
        )
    return {key: state[key] for key in wanted}


def first_line(error: Exception) -> str:
    """What went wrong, in 200 characters at most."""
    return str(error).partition("\n")[0][:200] or type(error).__name__
