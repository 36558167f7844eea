"""What `kdal distill` reads: the YAML file of a distillation, checked; and what it has in common with a project's."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, ValidationError, model_validator

from kdal.teachers.config import Part, TeacherSettings, problems
from kdal_core.distillation import MixupConfig
from kdal_core.distillation.stages import STAGE_TRAINING, StageConfig
from kdal_core.errors import ConfigError
from kdal_core.training import TrainConfig

Count = Annotated[int, Field(ge=1, le=10**9)]
Export = Literal["onnx", "torch_export", "torchscript"]


class DataSettings(Part):
    """The images to mix, none of whose labels are looked at; and labelled ones for the report, where there are any."""

    name: str
    """A data set of `kdal simulate`, whose test images are scored on; or "images": a folder of image files."""
    root: Path | None = None
    """Folder that holds them, in the folder named by --data or KDAL_DATA, else in `data`; null: that one itself."""
    count: Annotated[int, Field(ge=2)] | None = None
    """So many of them, drawn by the seed; null: all."""
    image_size: Annotated[int, Field(ge=4, le=1024)] | None = None
    """Pixels of the longer side; null: their own size. It is what the teacher sees, too."""
    test: Annotated[int, Field(ge=0)] | None = None
    """Labelled test images that students are scored on, for the report alone; null: all there are."""


class MixupSettings(Part):
    """Which mixes are asked about, and how students are taught; null: as `MixupConfig` and `StageConfig` have it."""

    stages: Annotated[int, Field(ge=0, le=10_000)] | None = None
    lambdas: tuple[Annotated[float, Field(ge=0, le=1)], ...] | None = None
    mode: Literal["all", "code"] | None = None
    exact: bool | None = None
    memory: Count | None = None
    max_uses: Count | None = None
    random_share: Annotated[float, Field(ge=0, le=1)] | None = None
    real_share: Annotated[float, Field(ge=0, lt=1)] | None = None
    views: Literal["real", "all"] | None = None
    selectivity: Annotated[float, Field(ge=0, le=1)] | None = None
    candidates: Count | None = None
    precision: Literal["float32", "bfloat16"] | None = None
    mixed_colours: bool | None = None


class Terms(Part):
    """A black-box teacher, on what terms it may be asked, and about which mixes."""

    teacher: TeacherSettings
    budget: Count
    """Images that the teacher may be asked about at most, the real ones included."""
    price: Annotated[float, Field(ge=0)] = 0.0
    """Money for one image."""
    money: Annotated[float, Field(ge=0)] | None = None
    """The most that may be spent; null: whatever the budget costs."""
    currency: str = ""
    """What it is called where people read it: "EUR"."""
    mixup: MixupSettings = MixupSettings()

    @property
    def identity(self) -> str:
        """Tells the teacher from others."""
        return self.teacher.identity(self.teacher.kind)

    def mixes(self, train: TrainConfig, seed: int, **defaults: Any) -> MixupConfig:
        """The core's settings; `defaults` for those that are null here."""
        given = defaults | {name: value for name, value in self.mixup.model_dump().items() if value is not None}
        of_stages = {name: given.pop(name) for name in ("stages", "real_share", "views") if name in given}
        return MixupConfig(StageConfig(train=train, seed=seed, **of_stages), **given)


class Distillation(Terms):
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
        """Of all that the result hangs on."""
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


def read_yaml(path: Path) -> Any:
    """What a YAML file holds.

    Raises:
        ConfigError: there is no such file, or it is no YAML.
    """
    try:
        return yaml.safe_load(path.read_text())
    except OSError as error:
        raise ConfigError(f"The file {str(path)!r} cannot be read: {error.strerror}.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"The file {str(path)!r} is no YAML: {error}") from error
