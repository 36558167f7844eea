"""A round's model for other programs: the whole student in one ONNX file, and a short program that uses it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from kdal import onnx_files
from kdal.resources import Resources
from kdal.rounds.exported import Exportable, exportable
from kdal.rounds.models import ModelVersion, version
from kdal.rounds.store import RoundStore
from kdal.rounds.suggestions import Confidence
from kdal_core.errors import AssetError, ConfigError
from kdal_core.evaluation import Calibration, uncalibrated
from kdal_core.tasks import get_task
from kdal_core.tasks.task import Graded

MODEL, ABOUT, EXAMPLE = "model.onnx", "model.json", "predict.py"
TOLERANCE = 1e-4
"""Largest difference between two probabilities, or places in shares of the image, that pass for the same."""


@dataclass(frozen=True)
class Exported:
    """What was written."""

    folder: Path
    model: ModelVersion
    difference: float
    """The largest between a number that the file gives and the network's."""


def export_model(resources: Resources, project: int, number: int, folder: Path) -> Exported:
    """Write the model of a round into a new folder: `model.onnx`, `model.json` and the example `predict.py`.

    The file takes "images", uint8 (N, H, W, 3) as they are read from files and resized, and gives what kdal suggests
    by, calibrated: "probabilities" (N, C), or of boxes "scores" and "boxes". Everything between is inside. It is read
    back, and compared with the network.

    Args:
        resources: what it works with.
        project: its number.
        number: of the round.
        folder: it is made; one that is there must be empty.

    Raises:
        ConfigError: no such model, packages are missing, the folder is not empty, or models of its kind
            cannot be exported.
        AssetError: the weights cannot be read, or the file answers differently.
    """
    if lacking := onnx_files.missing():
        raise ConfigError(f'the export needs {", ".join(lacking)}, which is not installed: pip install "kdal[export]"')
    known, row = version(resources.storage, project, number), resources.storage.project(project)
    if not known.kept or row is None:
        raise ConfigError(f"project {project}: the weights of {known.name} were deleted by `kdal models prune`")
    network, spec = RoundStore(resources.assets, row.uid, number).load_model()
    task = get_task(spec.kind, spec.classes, **spec.options)
    facts = [one.facts for one in reversed(resources.storage.rounds(project))]
    usual = uncalibrated(task) if isinstance(task, Graded) else Calibration()
    whole = exportable(network, task, Confidence.of_model(number, *facts) or usual)
    _make_empty(folder)
    height, width = spec.image_size
    about = {
        "classes": list(spec.classes),
        "height": height,
        "width": width,
        "temperature": whole.temperature,
        **whole.about,
        **{name: getattr(known, name) for name in ("number", "code", "seed", "labels", "metric", "score", "weights")},
    }
    difference = _write(whole, (height, width), folder / MODEL, spec.classes)
    (folder / ABOUT).write_text(json.dumps(about, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    (folder / EXAMPLE).write_text(whole.program, encoding="utf-8")
    return Exported(folder, known, difference)


def _write(whole: Exportable, size: tuple[int, int], path: Path, classes: Sequence[str]) -> float:
    """Write the file, read it back; returns how far its answers are from the network's."""
    # Of noise of all shades: smooth ones would not tell channels and places apart.
    noise = np.random.default_rng(0).integers(0, 256, (4, *size, 3), dtype=np.uint8)
    images = torch.from_numpy(noise)
    with torch.inference_mode():
        answer = whole(images)
        expected = [part.numpy() for part in ([answer] if isinstance(answer, torch.Tensor) else answer)]
    try:
        names = {"classes": json.dumps(list(classes))}
        session = onnx_files.write_onnx(whole, images, path, names, whole.outputs)
        # One image, and several: the number of images must not be built in.
        parts = zip(*[session.run(None, {"images": part}) for part in (noise[:1], noise[1:])], strict=True)
        found = [np.concatenate(part) for part in parts]
    except Exception as error:  # exporters raise whatever they trip over
        path.unlink(missing_ok=True)
        raise AssetError(f"the model cannot be written as ONNX: {type(error).__name__}: {error}") from error
    difference = max(float(np.abs(one - other).max()) for one, other in zip(found, expected, strict=True))
    if not difference <= TOLERANCE:
        path.unlink(missing_ok=True)
        raise AssetError(f"the model answers differently as ONNX, by up to {difference:.2g}; update torch and onnx")
    return difference


def _make_empty(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise ConfigError(f"{folder} is not empty: name a folder that is not there yet")
    except OSError as error:
        raise ConfigError(f"{folder} cannot be made: {error.strerror}") from error
