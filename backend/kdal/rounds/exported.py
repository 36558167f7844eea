"""What an exported model computes, from pixels to what kdal suggests by, and the short programs that use it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from kdal.aliases import Json
from kdal_core.errors import ConfigError
from kdal_core.evaluation import Calibration
from kdal_core.evaluation.calibration import TINY
from kdal_core.models import Network
from kdal_core.tasks import ClassificationTask, Task
from kdal_core.tasks.box_places import CANDIDATES, around
from kdal_core.tasks.boxes import LEAST, OVERLAP, BoxTask

BEGIN = '''"""What the model sees: python predict.py photo.jpg ... (needs numpy, pillow and onnxruntime)."""
import json, pathlib, sys
import numpy, onnxruntime
from PIL import Image, ImageOps

here = pathlib.Path(__file__).parent
about = json.loads((here / "model.json").read_text(encoding="utf-8"))
session = onnxruntime.InferenceSession(here / "model.onnx")
'''
READ = """for file in sys.argv[1:]:
    image = ImageOps.exif_transpose(Image.open(file)).convert("RGBA")
    image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    small = image.resize((about["width"], about["height"]), Image.Resampling.BILINEAR, reducing_gap=2.0)
    found = session.run(None, {"images": numpy.asarray(small)[None]})
"""
OF_CLASSES = f"""{BEGIN}{READ}    names = dict(zip(about["classes"], map(float, found[0][0])))
    print(json.dumps({{"file": file, **names}}))
"""
OF_BOXES = f"""{BEGIN}

def overlap(a, b):
    width, height = numpy.minimum(a[2:], b[2:]) - numpy.maximum(a[:2], b[:2])
    shared = max(width, 0) * max(height, 0)
    return shared / ((a[2:] - a[:2]).prod() + (b[2:] - b[:2]).prod() - shared)


{READ}    scores, corners, kept = found[0][0], found[1][0], []
    best = numpy.argsort(-scores, axis=None)[: about["candidates"]]
    for place, kind in zip(*numpy.unravel_index(best, scores.shape)):
        lost = any(k == kind and overlap(corners[place], corners[p]) > about["overlap"] for p, k in kept)
        if scores[place, kind] >= about["least"] and not lost:
            kept.append((place, kind))
    for place, kind in kept[: about["most"]]:
        box = [round(float(x), 2) for x in corners[place] * (image.size * 2)]  # left, top, right, bottom in pixels
        name, score = about["classes"][kind], float(scores[place, kind])
        print(json.dumps({{"file": file, "class": name, "score": score, "box": box}}))
"""


class Exportable(nn.Module):
    """A network with all that is before and after it: uint8 images (N, H, W, 3), as files have them, go in.

    Attributes:
        outputs: names of what comes out.
        program: that uses it.
        about: what the program needs to know.
    """

    outputs: tuple[str, ...]
    program: str
    about: Json

    def __init__(self, network: Network, calibration: Calibration) -> None:
        super().__init__()
        self.network, self.temperature, self.offset = network, calibration.temperature, calibration.offset

    def seen(self, images: Tensor) -> Tensor:
        """uint8 (N, H, W, 3) -> (N, 3, H, W) in [0, 1], as networks take it."""
        return images.permute(0, 3, 1, 2).float() / 255


class ExportedClassifier(Exportable):
    """Gives "probabilities" (N, C), calibrated."""

    outputs = ("probabilities",)
    program = OF_CLASSES

    def __init__(self, network: Network, calibration: Calibration) -> None:
        super().__init__(network, calibration)
        self.about = {}

    def forward(self, images: Tensor) -> Tensor:
        """uint8 (N, H, W, 3) -> (N, C)."""
        probabilities = self.network(self.seen(images)).softmax(dim=1).clamp_min(TINY)
        calibrated: Tensor = (probabilities.log() / self.temperature).softmax(dim=1)
        return calibrated


class ExportedDetector(Exportable):
    """Gives calibrated "scores" (N, A, C) of all A places, and "boxes" (N, A, 4) around them in shares of the image.

    Which of them overlap, the program finds out.
    """

    outputs = ("scores", "boxes")
    program = OF_BOXES

    def __init__(self, network: Network, calibration: Calibration, task: BoxTask) -> None:
        super().__init__(network, calibration)
        least = float(calibration.scores([LEAST])[0])
        self.about = {
            "least": least,
            "overlap": OVERLAP,
            "most": task.boxes,
            "candidates": CANDIDATES * task.boxes,
        }

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """uint8 (N, H, W, 3) -> (N, A, C), (N, A, 4)."""
        found = self.network(self.seen(images))
        scores = (found.logits.sigmoid() * found.centre.sigmoid()[..., None]).sqrt()  # (N, A, C)
        grid: Tensor = found.grid
        boxes = (grid[:, :2].repeat(1, 2) + around(found.reach) * grid[:, 2:].repeat(1, 2)).clamp(0, 1)
        return torch.sigmoid(scores.logit(TINY) / self.temperature + self.offset), boxes


def exportable(network: Network, task: Task, calibration: Calibration) -> Exportable:
    """A model of these kinds of task as other programs can use it.

    Raises:
        ConfigError: it is of another kind.
    """
    if isinstance(task, ClassificationTask):
        return ExportedClassifier(network, calibration).eval()
    if isinstance(task, BoxTask):
        return ExportedDetector(network, calibration, task).eval()
    raise ConfigError(f"models of classes and of boxes can be exported so far, and this is one of {task.kind}")
