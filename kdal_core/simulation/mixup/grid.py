"""What a grid is: the YAML file that `kdal simulate` reads, checked."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from importlib import resources
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, ValidationError, model_validator

from kdal_core.distillation import DEFAULT_LAMBDAS, MixupConfig, StageConfig
from kdal_core.distillation.stages import STAGE_TRAINING
from kdal_core.errors import ConfigError
from kdal_core.simulation.campaign import Count, DataSettings, Part
from kdal_core.training import TrainConfig

Choice = Literal["published", "active", "random"]
SHIPPED = resources.files("kdal_core.simulation.mixup") / "grids"
FREE = frozenset({"name", "description", "real", "choices", "baseline", "seeds"})
"""Settings that change no cell: which of them there are, and how they are shown."""


class TeacherSettings(Part):
    """The teacher, trained on every label of the training images, and asked as a black box."""

    model: str = "lenet5"
    """A name that `build_model` knows; "frozen/" and a backbone: a head on its pretrained features."""
    training: dict[str, Any] = Field(default_factory=dict)
    """Settings of `TrainConfig`; a head has none."""


class MixupGrid(Part):
    """Students by real images (rows), mixes (columns), choice of the mixes and seed."""

    kind: Literal["mixup_grid"]
    """Tells the file from that of a labelling campaign."""
    name: Annotated[str, Field(pattern=r"^[\w.-]+$")]
    description: str = ""
    data: DataSettings
    """What the teacher is trained on, and all are tested on; `pool` and `validation` have no meaning here."""
    images: DataSettings | None = None
    """Where the student's real images come from, if not from the teacher's domain; null: from the training images."""
    teacher: TeacherSettings = Field(default_factory=TeacherSettings)
    student: str = "lenet5"
    """As the teacher's model; a head on a frozen backbone is all that is trained then."""
    real: Annotated[tuple[Count, ...], Field(min_length=1)]
    """The rows: real images, drawn for each seed; a larger number holds the images of a smaller one."""
    mixes: tuple[Annotated[int, Field(ge=0, le=10**8)], ...]
    """The columns, ascending from 0. One run gives them all: at each of them a student says what to ask about next."""
    choices: Annotated[tuple[Choice, ...], Field(min_length=1)] = ("published", "random")
    """published: the least sure of `candidates` pairs. active: as kdal chooses by default. random: pairs at random, at
    lambda 1/2."""
    baseline: Choice = "random"
    """The choice that the others are compared with."""
    seeds: Annotated[tuple[Annotated[int, Field(ge=0, le=2**20)], ...], Field(min_length=1)] = (0, 1, 2)
    training: dict[str, Any] = Field(default_factory=dict)
    """Settings of `TrainConfig`, of every student; a head has none."""
    candidates: Count = 100_000
    """published: pairs that are looked at in each stage at most."""
    lambdas: tuple[Annotated[float, Field(ge=0, le=1)], ...] = DEFAULT_LAMBDAS

    @model_validator(mode="after")
    def _fits(self) -> MixupGrid:
        if self.mixes[:1] != (0,) or any(after <= before for before, after in pairwise(self.mixes)):
            raise ConfigError(f"mixes must begin with 0 and grow, not {list(self.mixes)}.")
        for key in ("real", "choices", "seeds"):
            values = getattr(self, key)
            if len(set(values)) != len(values):
                raise ConfigError(f"{key} must all be different, not {list(values)}.")
        if min(self.real) < 2:
            raise ConfigError("real must be at least 2: a mix is made of two images.")
        most = min(self.real) * (min(self.real) - 1) // 2
        if self.mixes[-1] > most:
            raise ConfigError(
                f"{min(self.real):,} real images have {most:,} pairs, fewer than {self.mixes[-1]:,} mixes."
            )
        self.mixup_config("random", 0)
        self.teacher_config()
        return self

    @property
    def cells(self) -> int:
        """How many cells there are in all."""
        return len(self.real) * len(self.mixes) * len(self.choices) * len(self.seeds)

    @property
    def fingerprint(self) -> str:
        """All settings that a cell depends on, as text."""
        return json.dumps(self.model_dump(mode="json", exclude=set(FREE)), sort_keys=True)

    def mixup_config(self, choice: Choice, seed: int) -> MixupConfig:
        """How mixes are chosen and students trained."""
        training = StageConfig(
            train=_configured(STAGE_TRAINING, self.training, "training"),
            seed=seed,
            stages=0,
            sizes=tuple(after - before for before, after in pairwise(self.mixes)),
        )
        if choice == "published":
            return MixupConfig(training, self.lambdas, selectivity=1.0, candidates=self.candidates)
        return MixupConfig(training, self.lambdas)

    def teacher_config(self) -> TrainConfig:
        """How the teacher is trained."""
        return _configured(TrainConfig(), self.teacher.training, "teacher.training")


def shipped_grids() -> dict[str, MixupGrid]:
    """The grids that come with kdal, by name."""
    files = sorted((entry for entry in SHIPPED.iterdir() if entry.name.endswith(".yaml")), key=lambda entry: entry.name)
    grids = [parse_grid(yaml.safe_load(entry.read_text())) for entry in files]
    return {grid.name: grid for grid in grids}


def find_grid(name_or_path: str) -> MixupGrid | None:
    """A grid from a YAML file that says so by its `kind`, or a shipped one by its name; None: it is neither.

    Raises:
        ConfigError: a grid whose settings do not fit.
    """
    path = Path(name_or_path)
    if not path.is_file():
        return shipped_grids().get(name_or_path)
    try:
        settings = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError):
        return None  # whoever reads it as a campaign says what is wrong
    if not isinstance(settings, Mapping) or settings.get("kind") != "mixup_grid":
        return None
    return parse_grid(settings)


def parse_grid(settings: Mapping[str, Any]) -> MixupGrid:
    """A grid from a mapping, as a YAML file holds it.

    Raises:
        ConfigError: names each unknown key and each value out of range.
    """
    try:
        return MixupGrid.model_validate(settings)
    except ValidationError as error:
        found = "; ".join(f"{'.'.join(map(str, part['loc'])) or 'grid'}: {part['msg']}" for part in error.errors())
        raise ConfigError(f"grid: {found}") from error


def _configured(config: TrainConfig, settings: Mapping[str, Any], key: str) -> TrainConfig:
    try:
        return replace(config, **settings)
    except TypeError as error:
        raise ConfigError(f"{key}: {error}") from error
