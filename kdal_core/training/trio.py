"""The trio of the lane paper: student S, larger teacher T, and the student distilled from it, S-KD.

Two steps, so that a round can make each of them durable: `train_pair` gives S and T from the labels,
`distil` gives S-KD from the labels and T. All three start from fresh parameters (methods.md, section 2).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

from kdal_core.models import Network
from kdal_core.models.backbones import is_backbone
from kdal_core.models.pretrained import torchvision_names
from kdal_core.models.pretrained_body import PRETRAINED
from kdal_core.tasks import Task
from kdal_core.training.checkpoints import ModelSpec
from kdal_core.training.config import TrainConfig
from kdal_core.training.data import ImageSource, in_memory
from kdal_core.training.loop import train

Progress = Callable[[float], None]


@dataclass(frozen=True)
class TrioSpec:
    """Which networks, for which (height, width), from which weights ("none", "default", a path, or, where the name
    begins with "pretrained/", "auto")."""

    student: str
    teacher: str
    image_size: tuple[int, int]
    student_weights: str = "none"
    teacher_weights: str = "none"

    @classmethod
    def suited(
        cls,
        task: Task,
        image_size: tuple[int, int],
        *,
        student: str | None = None,
        teacher: str | None = None,
        weights: str = "none",
        teacher_weights: str | None = None,
    ) -> Self:
        """The networks that somebody names, or else those that suit the task.

        Args:
            task: what is labelled.
            image_size: (height, width).
            student, teacher: names; of backbones, too, where the task's networks can be built on them; None: by size.
            weights: where training starts, "auto": from pretrained weights, where the network is a backbone's.
            teacher_weights: the same of the teacher; None: as `weights`, but for a file, which is the student's.
        """
        names = task.default_pair(image_size)
        if teacher_weights is None:
            teacher_weights = weights if weights in ("none", "default", "auto") else "none"
        student, student_weights = _started(task, student or names[0], weights)
        teacher, teacher_weights = _started(task, teacher or names[1], teacher_weights)
        return cls(student, teacher, image_size, student_weights, teacher_weights)

    def model_spec(self, task: Task, role: str) -> ModelSpec:
        """The checkpoint spec of a role: "student", "teacher" or "distilled"."""
        architecture = self.teacher if role == "teacher" else self.student
        return ModelSpec(task.kind, architecture, tuple(task.classes), self.image_size, task.options)


def _started(task: Task, name: str, weights: str) -> tuple[str, str]:
    """A network's full name, and where its training starts."""
    by_name = weights == "auto" or name not in torchvision_names()  # which a task can build without weights, too
    if task.defaults.pretrained and by_name and is_backbone(name):
        return PRETRAINED + name, weights
    return name, "none" if weights == "auto" and not name.startswith(PRETRAINED) else weights


@dataclass(frozen=True)
class Pair:
    """S and T, trained on the labels alone."""

    student: Network
    teacher: Network


@dataclass(frozen=True)
class Trio:
    """S, T and S-KD."""

    student: Network
    teacher: Network
    distilled: Network


def train_pair(
    task: Task,
    spec: TrioSpec,
    images: ImageSource,
    targets: Sequence[Any],
    config: TrainConfig,
    *,
    progress: Progress | None = None,
) -> Pair:
    """S and T, each from fresh parameters, on the same labels.

    Raises:
        ConfigError: a teacher with less than 4 times the student's parameters, or labels that train no model.
    """
    task.check_pair(spec.student, spec.teacher, spec.image_size)  # before S costs time
    images = in_memory(images)
    student = train_student(task, spec, images, targets, config, progress=_part(progress, 0, 2))
    return Pair(student, train_teacher(task, spec, images, targets, config, progress=_part(progress, 1, 2)))


def train_student(
    task: Task,
    spec: TrioSpec,
    images: ImageSource,
    targets: Sequence[Any],
    config: TrainConfig,
    *,
    rows: Sequence[int] | None = None,
    wrap: Callable[[Network], Network] | None = None,
    progress: Progress | None = None,
) -> Network:
    """S: a fresh student, trained on the labels alone.

    `rows` are as in `train`; `wrap` may put something around the fresh student before it is trained, dropout or a head
    of its own.
    """
    student = task.build(spec.student, spec.image_size, weights=spec.student_weights, seed=_seed(config, 0))
    if wrap is not None:
        student = wrap(student)
    train(task, student, images, targets, replace(config, seed=_seed(config, 0)), rows=rows, progress=progress)
    return student


def train_teacher(
    task: Task,
    spec: TrioSpec,
    images: ImageSource,
    targets: Sequence[Any],
    config: TrainConfig,
    *,
    progress: Progress | None = None,
) -> Network:
    """T: the fresh larger network, trained on the labels alone.

    Raises:
        ConfigError: a teacher with less than 4 times the student's parameters.
    """
    task.check_pair(spec.student, spec.teacher, spec.image_size)
    teacher = task.build(spec.teacher, spec.image_size, weights=spec.teacher_weights, seed=_seed(config, 1))
    train(task, teacher, images, targets, replace(config, seed=_seed(config, 1)), progress=progress)
    return teacher


def distil(
    task: Task,
    spec: TrioSpec,
    teacher: Network,
    images: ImageSource,
    targets: Sequence[Any],
    config: TrainConfig,
    *,
    unlabelled: ImageSource | None = None,
    wrap: Callable[[Network], Network] | None = None,
    progress: Progress | None = None,
) -> Network:
    """S-KD: a fresh student, trained on the labels and on the teacher's soft targets; `wrap` as in `train_student`.

    `unlabelled` are images for which there are soft targets only, as many as there may be; they are looked at where
    `config.unlabelled` says so.
    """
    student = task.build(spec.student, spec.image_size, weights=spec.student_weights, seed=_seed(config, 2))
    if wrap is not None:
        student = wrap(student)
    own = replace(config, seed=_seed(config, 2))
    extra = unlabelled if config.unlabelled else None
    train(task, student, images, targets, own, teacher=teacher, unlabelled=extra, progress=progress)
    return student


def train_trio(
    task: Task,
    spec: TrioSpec,
    images: ImageSource,
    targets: Sequence[Any],
    config: TrainConfig,
    *,
    progress: Progress | None = None,
) -> Trio:
    """Both steps in one call: `train_pair`, then `distil`."""
    images = in_memory(images)
    pair = train_pair(task, spec, images, targets, config, progress=_part(progress, 0, 2))
    distilled = distil(task, spec, pair.teacher, images, targets, config, progress=_part(progress, 1, 2))
    return Trio(pair.student, pair.teacher, distilled)


def _seed(config: TrainConfig, part: int) -> int:
    """A seed of its own for each of the three models, from the one of the config."""
    return config.seed * 3 + part


def _part(progress: Progress | None, part: int, parts: int) -> Progress | None:
    return None if progress is None else lambda share: progress((part + share) / parts)
