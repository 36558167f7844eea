"""A model as bytes: safetensors, its header says what to build. Nothing is unpickled."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save

from kdal_core.errors import AssetError, ConfigError
from kdal_core.models import Network
from kdal_core.tasks import get_task

KEY = "kdal"


@dataclass(frozen=True)
class ModelSpec:
    """What a checkpoint's weights belong to."""

    kind: str
    architecture: str
    classes: tuple[str, ...]
    image_size: tuple[int, int]  # (height, width), pixels
    options: Mapping[str, int] = field(default_factory=dict, hash=False)
    """`Task.options`; those that are missing are the task's defaults."""


def save_checkpoint(model: Network, spec: ModelSpec) -> bytes:
    """The model's weights and its spec as safetensors bytes; the same weights give the same bytes."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    data: bytes = save(tensors, metadata={KEY: json.dumps(asdict(spec), sort_keys=True)})
    return data


def load_checkpoint(data: bytes) -> tuple[Network, ModelSpec]:
    """The model, on the CPU in eval mode, and its spec.

    Raises:
        AssetError: bytes that are damaged, are no checkpoint of kdal, or do not fit the model they name.
    """
    try:
        spec = _read_spec(data)
        task = get_task(spec.kind, spec.classes, **spec.options)
        model = task.build(spec.architecture, spec.image_size)
        model.load_state_dict(load(data))
    except (
        SafetensorError,
        ConfigError,
        RuntimeError,
        ValueError,
        TypeError,
        KeyError,
        AttributeError,
    ) as error:
        raise AssetError(
            f"The checkpoint cannot be read, fetch or train it again: {type(error).__name__}: {error}"
        ) from error
    return model.eval(), spec


def _read_spec(data: bytes) -> ModelSpec:
    """The spec in a safetensors header: 8 bytes of length, little-endian, then JSON."""
    length = int.from_bytes(data[:8], "little")
    if len(data) < 8 or length > len(data) - 8:
        raise ValueError("the file is cut short")
    header: dict[str, Any] = json.loads(data[8 : 8 + length])
    fields: dict[str, Any] = json.loads(header["__metadata__"][KEY])
    height, width = (int(side) for side in fields["image_size"])
    return ModelSpec(
        kind=str(fields["kind"]),
        architecture=str(fields["architecture"]),
        classes=tuple(str(name) for name in fields["classes"]),
        image_size=(height, width),
        options={str(name): int(value) for name, value in fields.get("options", {}).items()},
    )
