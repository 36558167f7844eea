"""On what terms a black-box teacher may be asked: how often, at what price, and about which mixes of images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field

from kdal.teachers.config import Part, TeacherSettings
from kdal_core.distillation import MixupConfig
from kdal_core.distillation.stages import StageConfig
from kdal_core.errors import ConfigError
from kdal_core.training import TrainConfig

Count = Annotated[int, Field(ge=1, le=10**9)]


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


class TeacherBudget(Part):
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
