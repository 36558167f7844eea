"""Black-box teachers by their description, and their ledger in the project's store."""

from __future__ import annotations

from kdal.teachers.config import (
    CheckpointTeacherSettings,
    HttpTeacherSettings,
    MLBackendTeacherSettings,
    RecordedTeacherSettings,
    TeacherSettings,
    TransportSettings,
    parse_teacher,
)
from kdal.teachers.endpoints import HttpTeacher, MLBackendTeacher
from kdal.teachers.ledger import StoredLedger, open_ledger
from kdal_core.distillation import RecordedTeacher, SoftLabelTask, Teacher, TorchTeacher
from kdal_core.errors import AssetError, ConfigError
from kdal_core.training import load_checkpoint


def open_teacher(settings: TeacherSettings, *, device: str = "auto") -> Teacher:
    """The teacher that a description names. Nothing is asked yet.

    Raises:
        ConfigError: a secret is not set, or the checkpoint is no classifier.
        AssetError: a file is missing or damaged.
    """
    if isinstance(settings, HttpTeacherSettings):
        return HttpTeacher(settings)
    if isinstance(settings, MLBackendTeacherSettings):
        return MLBackendTeacher(settings)
    if isinstance(settings, RecordedTeacherSettings):
        return RecordedTeacher(settings.path)
    return _checkpoint(settings, device)


def classes_of(settings: TeacherSettings) -> tuple[str, ...]:
    """The classes that a teacher knows. Nothing is asked, and no secret is needed.

    Raises:
        ConfigError: the checkpoint is no classifier.
        AssetError: a file is missing or damaged.
    """
    return settings.classes if isinstance(settings, TransportSettings) else open_teacher(settings, device="cpu").classes


def _checkpoint(settings: CheckpointTeacherSettings, device: str) -> Teacher:
    try:
        model, spec = load_checkpoint(settings.path.read_bytes())
    except OSError as error:
        raise AssetError(f"The teacher {str(settings.path)!r} cannot be read: {error.strerror}") from error
    if spec.kind != SoftLabelTask.kind:
        raise ConfigError(f"The teacher {str(settings.path)!r} is for task: {spec.kind}; it must classify images.")
    return TorchTeacher(model, spec.classes, device=device)


__all__ = [
    "HttpTeacher",
    "MLBackendTeacher",
    "StoredLedger",
    "TeacherSettings",
    "classes_of",
    "open_ledger",
    "open_teacher",
    "parse_teacher",
]
