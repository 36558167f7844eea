"""Networks as ONNX files."""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

NEEDED = ("onnx", "onnxscript", "onnxruntime")
"""Packages beside torch: the extra `export`."""


def missing() -> list[str]:
    """Those of them that are not installed."""
    return [name for name in NEEDED if importlib.util.find_spec(name) is None]


def exported_program(network: nn.Module, images: Tensor) -> torch.export.ExportedProgram:
    """A network's computation for any number of images.

    Args:
        network: in eval mode; its `forward` takes one argument, "images".
        images: (N, ...), an example.
    """
    count = torch.export.Dim("N", min=1, max=2**16)
    # An example of one image, or of none but the smallest, would be taken for a constant.
    example = torch.cat([images, images])[: max(2, min(len(images), 8))]
    return torch.export.export(network, (example,), dynamic_shapes={"images": {0: count}})


def write_onnx(
    network: nn.Module,
    images: Tensor,
    path: Path,
    metadata: Mapping[str, str],
    outputs: Sequence[str] = ("probabilities",),
) -> Any:
    """Write a network that takes "images"; returns an onnxruntime session on the file.

    Args:
        network: as for `exported_program`.
        images: (N, ...), an example.
        path: where to; weights are inside.
        metadata: kept in the file.
        outputs: names of what it gives.
    """
    import onnx
    import onnxruntime

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own, about its exporters' future
        program: Any = torch.onnx.export(
            exported_program(network, images),
            dynamo=True,
            input_names=["images"],
            output_names=list(outputs),
            verbose=False,
        )
    program.save(str(path), external_data=False)
    model = onnx.load(str(path))
    for key, value in metadata.items():
        model.metadata_props.add(key=key, value=value)
    onnx.checker.check_model(model)
    onnx.save(model, str(path))
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
