"""A round's model for other programs: the whole student in one ONNX file, and a short program that uses it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from kdal import onnx_files
from kdal.resources import Resources
from kdal.rounds.models import ModelVersion, version
from kdal.rounds.store import RoundStore
from kdal.rounds.suggestions import Confidence
from kdal_core.errors import AssetError, ConfigError
from kdal_core.evaluation import uncalibrated
from kdal_core.evaluation.calibration import TINY
from kdal_core.models import Network
from kdal_core.tasks import ClassificationTask, get_task

MODEL, ABOUT, EXAMPLE = "model.onnx", "model.json", "predict.py"
TOLERANCE = 1e-4
"""Largest difference between two probabilities that pass for the same."""
PROGRAM = '''"""What the model sees: python predict.py photo.jpg ... (needs numpy, pillow and onnxruntime)."""
import json, pathlib, sys
import numpy, onnxruntime
from PIL import Image, ImageOps

here = pathlib.Path(__file__).parent
about = json.loads((here / "model.json").read_text())
session = onnxruntime.InferenceSession(here / "model.onnx")
for file in sys.argv[1:]:
    image = ImageOps.exif_transpose(Image.open(file)).convert("RGBA")
    image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    image = image.resize((about["width"], about["height"]), Image.Resampling.BILINEAR, reducing_gap=2.0)
    probabilities = session.run(None, {"images": numpy.asarray(image)[None]})[0][0]
    print(json.dumps({"file": file, **dict(zip(about["classes"], map(float, probabilities)))}))
'''


@dataclass(frozen=True)
class Exported:
    """What was written."""

    folder: Path
    model: ModelVersion
    difference: float
    """The largest between a probability of the file and one of the network."""


class _Whole(nn.Module):
    """Pixels as an image file has them to calibrated probabilities."""

    def __init__(self, network: Network, temperature: float) -> None:
        super().__init__()
        self.network, self.temperature = network, temperature

    def forward(self, images: Tensor) -> Tensor:
        """uint8 (N, H, W, 3) -> (N, C)."""
        logits: Tensor = self.network(images.permute(0, 3, 1, 2).float() / 255)
        probabilities = logits.softmax(dim=1).clamp_min(TINY)
        return (probabilities.log() / self.temperature).softmax(dim=1)


def export_model(resources: Resources, project: int, number: int, folder: Path) -> Exported:
    """Write the model of a round into a new folder: `model.onnx`, `model.json` and the example `predict.py`.

    The file takes "images", uint8 (N, H, W, 3) as they are read from files and resized, and gives "probabilities",
    float32 (N, C): those that kdal suggests by, calibrated. Everything between is inside. It is read back, and compared
    with the network.

    Args:
        resources: what it works with.
        project: its number.
        number: of the round.
        folder: it is made; one that is there must be empty.

    Raises:
        ConfigError: no such model, packages are missing, the folder is not empty, or the model is no classifier.
        AssetError: the weights cannot be read, or the file answers differently.
    """
    if lacking := onnx_files.missing():
        raise ConfigError(f'the export needs {", ".join(lacking)}, which is not installed: pip install "kdal[export]"')
    known, row = version(resources.storage, project, number), resources.storage.project(project)
    if not known.kept or row is None:
        raise ConfigError(f"project {project}: the weights of {known.name} were deleted by `kdal models prune`")
    network, spec = RoundStore(resources.assets, row.uid, number).load_model()
    task = get_task(spec.kind, spec.classes, **spec.options)
    if not isinstance(task, ClassificationTask):
        raise ConfigError(f"project {project}: only classifiers can be exported so far, and this is {spec.kind}")
    _make_empty(folder)
    facts = [one.facts for one in reversed(resources.storage.rounds(project))]
    calibration = Confidence.of_model(number, *facts) or uncalibrated(task)
    whole = _Whole(network, calibration.temperature).eval()
    height, width = spec.image_size
    about = {
        "classes": list(spec.classes),
        "height": height,
        "width": width,
        "temperature": calibration.temperature,
        **{name: getattr(known, name) for name in ("number", "code", "seed", "labels", "metric", "score", "weights")},
    }
    difference = _write(whole, (height, width), folder / MODEL, spec.classes)
    (folder / ABOUT).write_text(json.dumps(about, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    (folder / EXAMPLE).write_text(PROGRAM, encoding="utf-8")
    return Exported(folder, known, difference)


def _write(whole: nn.Module, size: tuple[int, int], path: Path, classes: Sequence[str]) -> float:
    """Write the file, read it back; returns how far its answers are from the network's."""
    # Of noise of all shades: smooth ones would not tell channels and places apart.
    noise = np.random.default_rng(0).integers(0, 256, (4, *size, 3), dtype=np.uint8)
    images = torch.from_numpy(noise)
    with torch.inference_mode():
        expected = whole(images).numpy()
    try:
        session = onnx_files.write_onnx(whole, images, path, {"classes": json.dumps(list(classes))})
        found = np.concatenate([session.run(None, {"images": part})[0] for part in (noise[:1], noise[1:])])
    except Exception as error:  # exporters raise whatever they trip over
        path.unlink(missing_ok=True)
        raise AssetError(f"the model cannot be written as ONNX: {type(error).__name__}: {error}") from error
    difference = float(np.abs(found - expected).max())
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
