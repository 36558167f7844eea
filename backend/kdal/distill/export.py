"""A student for other programs: ONNX, torch.export and TorchScript, each checked to answer as the student does.

All take "images", float32 (N, 3, H, W) in [0, 1] for any N, and give "probabilities", float32 (N, C). The names of
the classes go with them.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from kdal import onnx_files
from kdal.onnx_files import exported_program, write_onnx
from kdal_core.errors import AssetError, ConfigError
from kdal_core.models import Network

TOLERANCE = 1e-4
"""Largest difference between two probabilities that pass for the same."""
CHECKED = 64
CLASSES = "classes.json"
FILES = {"onnx": "student.onnx", "torch_export": "student.pt2", "torchscript": "student.torchscript.pt"}

Answer = Callable[[Tensor], NDArray[np.float32]]


@dataclass(frozen=True)
class Exported:
    """A file that was written and read back."""

    kind: str
    path: Path
    size: int
    """Bytes."""
    difference: float
    """The largest between its probabilities and the student's, on the images it was checked with."""


class ExportError(AssetError):
    """A student that cannot be written in a form, or answers differently in it."""


def available() -> tuple[str, ...]:
    """The forms that this installation can write and check."""
    return tuple(kind for kind in FILES if not _missing(kind))


def check_available(kinds: Sequence[str]) -> None:
    """Refuse forms that need packages which are not installed."""
    for kind in kinds:
        if missing := _missing(kind):
            raise ConfigError(
                f'exports: {kind} needs {", ".join(missing)}, which is not installed: pip install "kdal[export]".'
            )


def export(
    student: Network, classes: Sequence[str], images: Tensor, folder: Path, kinds: Sequence[str]
) -> list[Exported]:
    """Write a student in some forms, read each back and compare its answers.

    Args:
        student: a classifier on the CPU.
        classes: names of its C classes.
        images: uint8 (N, 3, H, W), N >= 1, to compare on; the first 64 are enough.
        folder: where to.
        kinds: keys of `FILES`.

    Raises:
        ExportError: a form cannot hold it, or answers differently by more than `TOLERANCE` or in a likeliest class.
    """
    whole = _Whole(student).eval()
    floats = images[:CHECKED].float() / 255
    with torch.inference_mode():
        expected = whole(floats).numpy()
    found = []
    for kind in kinds:
        path = folder / FILES[kind]
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # torch's own, about its exporters' future
                answer = WRITERS[kind](whole, floats, path, json.dumps(list(classes), ensure_ascii=False))
                # One image, and as many as there are: the number of images must not be built in.
                answers = np.concatenate([answer(floats[:1]), answer(floats)])
        except Exception as error:  # exporters raise whatever they trip over
            raise ExportError(f"The student cannot be written as {kind}: {type(error).__name__}: {error}") from error
        found.append(_compared(kind, path, answers, np.concatenate([expected[:1], expected])))
    return found


def _compared(kind: str, path: Path, answers: NDArray[np.float32], expected: NDArray[np.float32]) -> Exported:
    difference = float(np.abs(answers - expected).max()) if answers.shape == expected.shape else float("inf")
    ranked = np.sort(expected, axis=1)
    clear = ranked[:, -1] - ranked[:, -2] > 2 * TOLERANCE if expected.shape[1] > 1 else np.ones(len(expected), bool)
    if not difference <= TOLERANCE or (answers.argmax(axis=1) != expected.argmax(axis=1))[clear].any():
        path.unlink(missing_ok=True)
        raise ExportError(
            f"The student answers differently as {kind}, by up to {difference:.2g}; the file was not kept. Leave "
            f"{kind} out of exports, or update torch."
        )
    return Exported(kind, path, path.stat().st_size, difference)


class _Whole(nn.Module):
    """Images to probabilities."""

    def __init__(self, student: Network) -> None:
        super().__init__()
        self.student = student

    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) in [0, 1] -> (N, C)."""
        probabilities: Tensor = self.student(images).softmax(dim=1)
        return probabilities


def _write_onnx(whole: nn.Module, images: Tensor, path: Path, classes: str) -> Answer:
    session = write_onnx(whole, images, path, {CLASSES: classes})
    return lambda batch: np.asarray(session.run(["probabilities"], {"images": batch.numpy()})[0], dtype=np.float32)


def _write_torch_export(whole: nn.Module, images: Tensor, path: Path, classes: str) -> Answer:
    torch.export.save(exported_program(whole, images), path, extra_files={CLASSES: classes})
    read: Any = torch.export.load(path).module()
    return lambda batch: read(batch).detach().numpy()


def _write_torchscript(whole: nn.Module, images: Tensor, path: Path, classes: str) -> Answer:
    jit: Any = torch.jit  # it has no types
    with torch.no_grad():
        traced = jit.trace(whole, images[:2], check_trace=False)
    jit.save(traced, str(path), _extra_files={CLASSES: classes})
    read = jit.load(str(path))
    return lambda batch: read(batch).detach().numpy()


WRITERS: dict[str, Callable[[nn.Module, Tensor, Path, str], Answer]] = {
    "onnx": _write_onnx,
    "torch_export": _write_torch_export,
    "torchscript": _write_torchscript,
}


def _missing(kind: str) -> list[str]:
    """Packages that a form needs beside torch, and that are not installed."""
    return onnx_files.missing() if kind == "onnx" else []
