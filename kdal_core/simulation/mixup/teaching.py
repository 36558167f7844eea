"""What all students of a grid have in common: their teacher, the images they are drawn from, and the test."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from kdal_core.distillation import SoftLabel, TorchTeacher
from kdal_core.distillation.learning import HeadOnly
from kdal_core.errors import ConfigError
from kdal_core.models import Backbone, FrozenClassifier, Network, backbone
from kdal_core.models.frozen import FROZEN, is_frozen
from kdal_core.simulation.campaign import DataSettings
from kdal_core.simulation.datasets import load_dataset
from kdal_core.simulation.images import LabelledImages
from kdal_core.simulation.mixup.grid import MixupGrid
from kdal_core.tasks import ClassificationTask
from kdal_core.training import infer, train

TEACHER_SEED = 1000


@dataclass(frozen=True)
class Lesson:
    """What a student is taught with and tested on.

    Attributes:
        classes: names.
        teacher: the black box.
        accuracy: the teacher's, on the test images, in [0, 1].
        images: (N, 3, H, W) uint8, from which the students' real images are drawn.
        student: the backbone of students that are heads; None: they are trained from nothing.
        test_images: scored, never learnt from.
    """

    classes: tuple[str, ...]
    teacher: TorchTeacher
    accuracy: float
    images: Tensor
    student: Backbone | None
    test_images: LabelledImages
    taught: NDArray[np.int64]
    """(M,) what the teacher says of the test images."""
    test_features: Tensor | None = field(repr=False)
    """(M, D) of the test images, as the student's backbone sees them."""

    def test(self, student: Network) -> tuple[float, float]:
        """(accuracy, agreement with the teacher) on the test images, in [0, 1]."""
        said = _said(student, self.test_images.images, self.classes, self.test_features)
        return _share(said, self.test_images.labels), _share(said, self.taught)


def prepare(grid: MixupGrid, path: Path, root: Path | None) -> Lesson:
    """Load the data and the teacher; it is trained, and kept in this file, if it is not there.

    Raises:
        ConfigError: data that is not there or too small, images of different sizes, a model that cannot be built, a
            damaged file.
    """
    data = load_dataset(grid.data, root)
    if not isinstance(data.training, LabelledImages) or not isinstance(data.test, LabelledImages):
        raise ConfigError(f"{grid.data.name} is labelled for task: {data.task}; a grid takes classes of images.")
    training = data.training.resized(grid.data.image_size)
    count = len(data.test) if grid.data.test is None else min(grid.data.test, len(data.test))
    test = data.test.take(np.arange(count)).resized(grid.data.image_size)
    images = training.images if grid.images is None else _images(grid.images, root)
    if images.shape[1:] != training.images.shape[1:]:
        raise ConfigError(
            f"The student's images are of {images.shape[2]} x {images.shape[3]} pixels, the teacher's of "
            f"{training.images.shape[2]} x {training.images.shape[3]}: name one image_size for both."
        )
    if len(images) < max(grid.real):
        raise ConfigError(f"real asks for {max(grid.real):,} images; there are {len(images):,}.")
    model = _teacher(grid, training, data.classes, path)
    taught = _said(model, test.images, data.classes, None)
    student = backbone(grid.student.removeprefix(FROZEN)) if is_frozen(grid.student) else None
    return Lesson(
        data.classes,
        TorchTeacher(model, data.classes, device="cpu"),
        _share(taught, test.labels),
        images,
        student,
        test,
        taught,
        None if student is None else HeadOnly(student).features(test.images),
    )


def _images(settings: DataSettings, root: Path | None) -> Tensor:
    training = load_dataset(settings, root).training
    return training.resized(settings.image_size).images


def _teacher(grid: MixupGrid, training: LabelledImages, classes: tuple[str, ...], path: Path) -> Network:
    """Trained on all labels, or read from its file. Of a head, the file has no more than the head."""
    name, size = grid.teacher.model, (int(training.images.shape[2]), int(training.images.shape[3]))
    task = ClassificationTask(classes)
    if is_frozen(name):
        body = backbone(name.removeprefix(FROZEN))
        model: Network = FrozenClassifier(body, len(classes))
    else:
        model = task.build(name, size, seed=TEACHER_SEED)
    if path.is_file():
        try:
            missing, unknown = model.load_state_dict(load(path.read_bytes()), strict=False)
        except (SafetensorError, RuntimeError) as error:
            raise ConfigError(f"{str(path)!r} holds no {name}: start again with --fresh. {error}") from error
        if unknown or any(not key.startswith("backbone.") for key in missing):
            raise ConfigError(f"{str(path)!r} holds no {name}: start again with --fresh.")
        return model.eval()
    if is_frozen(name):
        answers = torch.eye(len(classes))[torch.from_numpy(training.labels)]
        model, _ = HeadOnly(body)(training.images, [SoftLabel(row) for row in answers], range(len(training)), 0)
    else:
        train(task, model, training.images, training.labels.tolist(), grid.teacher_config())
    path.parent.mkdir(parents=True, exist_ok=True)
    kept = {
        key: value
        for key, value in model.state_dict().items()
        if not key.startswith("backbone.") or not is_frozen(name)
    }
    draft = path.with_suffix(".part")
    draft.write_bytes(save(kept))
    draft.replace(path)
    return model.eval()


def _said(model: Network, images: Tensor, classes: tuple[str, ...], features: Tensor | None) -> NDArray[np.int64]:
    """(M,) class numbers; of features where they are known."""
    if features is not None and isinstance(model, FrozenClassifier):
        with torch.inference_mode():
            return model.logits(features).argmax(dim=1).numpy()
    return np.asarray(infer(ClassificationTask(classes), model, images, device="cpu").predictions.argmax(axis=1))


def _share(said: NDArray[np.int64], wanted: NDArray[np.int64]) -> float:
    return round(float((said == wanted).mean()), 6)
