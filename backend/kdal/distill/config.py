"""What `kdal distill` reads: the YAML file of a distillation, checked."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator

from kdal.teachers.config import Part, problems
from kdal.teachers.terms import TeacherBudget, read_yaml
from kdal_core.distillation import MixupConfig
from kdal_core.distillation.stages import STAGE_TRAINING
from kdal_core.errors import ConfigError

Export = Literal["onnx", "torch_export", "torchscript"]


class DataSettings(Part):
    """The images to mix, whose labels are never looked at; and labelled ones for the report, where there are any."""

    name: str
    """A data set of `kdal simulate`, whose test images are scored on; or "images": a folder of image files."""
    root: Path | None = None
    """Folder that holds them, in the folder named by --data or KDAL_DATA, else in `data`; null: that one itself."""
    count: Annotated[int, Field(ge=2)] | None = None
    """How many of them, drawn by the seed; null: all."""
    image_size: Annotated[int, Field(ge=4, le=1024)] | None = None
    """Pixels of the longer side; null: their own size. It is what the teacher sees, too."""
    test: Annotated[int, Field(ge=0)] | None = None
    """Labelled test images that students are scored on, for the report alone; null: all there are."""


class Distillation(TeacherBudget):
    """A student from a black-box teacher."""

    name: Annotated[str, Field(pattern=r"^[\w.-]+$")]
    description: str = ""
    data: DataSettings
    student: str | None = None
    """Network of the student; null: by image size."""
    ledger: str | None = None
    """Name under which the store keeps what was asked and answered; null: that of the distillation. Distillations that
    share a ledger share its answers, and its budget."""
    method: Literal["active_mixup", "random_search"] = "active_mixup"
    training: dict[str, Any] = Field(default_factory=dict)
    """Settings of `TrainConfig`, for every student."""
    seed: Annotated[int, Field(ge=0, le=2**20)] = 0
    teacher_accuracy: Annotated[float, Field(gt=0, le=1)] | None = None
    """The teacher's accuracy on the test images, where it is known: the success rate is measured against it."""
    ask_about_tests: bool = False
    """Ask the teacher about the test images too, to know its accuracy. These queries have a ledger of their own, cost
    as much as others, and come on top of the budget."""
    exports: tuple[Export, ...] | None = None
    """Forms of the student beside the checkpoint; null: all that this installation can write."""

    @model_validator(mode="after")
    def _fits(self) -> Distillation:
        self.mixup_config()
        if self.teacher_accuracy is not None and self.ask_about_tests:
            raise ConfigError("teacher_accuracy is given: there is nothing to ask_about_tests for.")
        return self

    def mixup_config(self, device: str = "auto") -> MixupConfig:
        """The core's settings."""
        try:
            train = replace(STAGE_TRAINING, **{"device": device, **self.training})
        except TypeError as error:
            raise ConfigError(f"training: {error}") from error
        return self.mixes(train, self.seed)

    @property
    def account(self) -> str:
        """Name of the ledger's account in the store."""
        return f"distill/{self.ledger or self.name}"

    @property
    def fingerprint(self) -> str:
        """Of all that the result depends on."""
        told = self.model_dump(
            mode="json", exclude={"teacher", "description", "currency", "exports", "teacher_accuracy"}
        )
        told |= {"teacher": self.identity}
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:16]

    @classmethod
    def parse(cls, settings: Any) -> Distillation:
        """A distillation from a mapping, as a YAML file holds it.

        Raises:
            ConfigError: names each unknown key and each value out of range.
        """
        if not isinstance(settings, Mapping):
            raise ConfigError(f"A distillation is a mapping of settings, not {type(settings).__name__}.")
        try:
            return cls.model_validate(settings)
        except ValidationError as error:
            raise ConfigError(f"distillation: {problems(error)}") from error


def load_distillation(path: Path) -> Distillation:
    """A distillation from a YAML file.

    Raises:
        ConfigError: there is no such file, it is no YAML, or its settings do not fit.
    """
    return Distillation.parse(read_yaml(path))
