"""The trio of the lane paper: student S, larger teacher T, and the student distilled from it, S-KD.

Two steps, so that a round can make each of them durable: `train_pair` gives S and T from the labels,
`distil` gives S-KD from the labels and T. All three start from fresh parameters (methods.md, section 2).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from kdal_core.models import Network
from kdal_core.tasks import Task
from kdal_core.training.checkpoints import ModelSpec
from kdal_core.training.config import TrainConfig
from kdal_core.training.data import ImageSource, in_memory
from kdal_core.training.loop import train

Progress = Callable[[float], None]


@dataclass(frozen=True)
class TrioSpec:
    """Which networks, for which (height, width), from which weights ("none", "default" or a path)."""

    student: str
    teacher: str
    image_size: tuple[int, int]
    student_weights: str = "none"
    teacher_weights: str = "none"

    def model_spec(self, task: Task, role: str) -> ModelSpec:
        """The checkpoint spec of a role: "student", "teacher" or "distilled"."""
        architecture = self.teacher if role == "teacher" else self.student
        return ModelSpec(task.kind, architecture, tuple(task.classes), self.image_size, task.options)


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
