"""What a campaign is: the YAML file that `kdal simulate` reads, checked."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from kdal_core.acquisition import Strategy, strategy, strategy_names
from kdal_core.errors import ConfigError
from kdal_core.metrics import ClassGap
from kdal_core.tasks import get_task
from kdal_core.training import TrainConfig

Count = Annotated[int, Field(ge=1, le=100_000_000)]
Share = Annotated[float, Field(ge=0, le=1)]
Scored = Literal["distilled", "student"]
GAPS = frozenset({"d_ss", "d_st"})
"""What strategies need that see where the three models disagree."""
OF_BOXES = frozenset({"detections", "object_features", "class_difficulty"})
"""What strategies need that see single boxes."""
WAYS: tuple[Literal["shifted", "cut", "missing"], ...] = ("shifted", "cut", "missing")
SHIPPED = resources.files("kdal_core.simulation") / "campaigns"


class Part(BaseModel):
    """A part of a campaign file. Unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class DataSettings(Part):
    """Which labelled data set, and how much of it."""

    name: str
    """One of `kdal_core.simulation.datasets.dataset_names()`."""
    root: Path | None = None
    """Folder that holds the data, in the folder named by --data or KDAL_DATA, else in `data`; null: that one itself."""
    image_size: Annotated[int, Field(ge=4, le=1024)] | None = None
    """Pixels of the longer side that the networks see; null: the images' own."""
    pool: Count | None = None
    """Images of the pool, drawn for each seed; null: all training images but the validation ones."""
    validation: Annotated[int, Field(ge=0)] = 0
    """Training images kept out of the pool, to choose settings on."""
    test: Count | None = None
    """Test images scored; null: all."""


class InitialSettings(Part):
    """The labels before the first model."""

    size: Count | None = None
    """How many; null: one budget."""


class ModelSettings(Part):
    """Networks of student and teacher; null: the default pair for the image size."""

    student: str | None = None
    teacher: str | None = None
    weights: str = "none"
    """Where training starts: "none", "default" (torchvision's, downloaded), a .safetensors file of the student's, or
    "auto": pretrained weights of backbones from wherever they can be had; with classes, heads on their features."""
    scored: Scored = "distilled"
    """The model whose score the curves show and that the rivals read. student: S, which has nothing but the labels, so
    that their worth alone is compared, and no rival waits for a teacher."""


class NoiseSettings(Part):
    """Wrong labels of the simulated annotator; every image has one answer, right or wrong, in all arms of a seed."""

    kind: Literal["none", "uniform", "difficulty", "attribute"] = "none"
    """uniform: any image alike and any wrong class alike, or any lane alike. difficulty (classes): only the hardest
    images, and the wrong class is the one that a model trained on the other images finds most probable. attribute
    (lanes): only the hardest lanes."""
    rate: Share = 0.0
    """Probability that an image, or a lane, that may be labelled wrong is."""
    share: Share = 1.0
    """difficulty, attribute: the share of the images, or of the lanes, hardest first, that may be labelled wrong."""
    attributes: tuple[str, ...] = ()
    """attribute: what the data set says of each lane; the largest of its numbers tells how hard a lane is."""
    ways: Annotated[tuple[Literal["shifted", "cut", "missing"], ...], Field(min_length=1)] = WAYS
    """Lanes: how they are labelled wrong, one way as often as another: drawn beside their place and bent, cut short in
    the distance, or left out."""
    pixels: Annotated[float, Field(gt=0, le=1000)] = 30.0
    """Lanes: how far beside their place they are drawn, on average; of an image 1,000 pixels wide."""


class AnnotatorSettings(Part):
    """How long labels take."""

    seconds: Annotated[float, Field(ge=0)] = 3.0
    """Median time for a label, or for an object where budgets count these; log-normal."""
    spread: Annotated[float, Field(ge=0, le=3)] = 0.5
    """Standard deviation of the time's logarithm."""
    ahead: Annotated[int, Field(ge=0)] = 0
    """Labels of each batch given in the previous order, while the new one is being computed."""


def _as_arm(value: Any) -> Any:
    return {"strategy": value} if isinstance(value, str) else value


class Arm(Part):
    """One curve of the campaign: a strategy with its parameters, and how it starts."""

    strategy: str
    parameters: dict[str, Any] = {}
    label: str | None = None
    start: Literal["random", "cold_start", "own"] | None = None
    """The first batch: random, kdal's cold start (diversity alone), or the strategy's own on the same features.
    null: cold_start for kd_gap, own for strategies that can, random for all others."""
    scored: Scored | None = None
    """The model whose score the curve shows; null: the campaign's."""
    gap: ClassGap | None = None
    """How two models' class probabilities are compared, for strategies that need gaps; null: the task's own choice."""

    @property
    def name(self) -> str:
        """The label, or else the strategy's name and parameters."""
        given = ", ".join(f"{key}={value}" for key, value in self.parameters.items())
        return self.label or (f"{self.strategy} ({given})" if given else self.strategy)

    @property
    def first(self) -> str:
        """How it starts, with the default filled in."""
        if self.start is not None:
            return self.start
        if self.strategy == "kd_gap":
            return "cold_start"
        return "own" if self.bound().cold else "random"

    def bound(self) -> Strategy:
        """The strategy with its parameters."""
        return strategy(self.strategy, **self.parameters)

    def chooses_as(self, other: Arm) -> bool:
        """Whether both ask for the same images, all else being equal, and differ at most in the model that is scored.

        Only strategies that see the gaps are sure of it: the three models are trained for them whichever is scored.
        """
        if not self.bound().needs & GAPS:
            return self == other
        mine, theirs = ((arm.strategy, arm.parameters, arm.first, arm.gap) for arm in (self, other))
        return mine == theirs

    @model_validator(mode="after")
    def _exists(self) -> Arm:
        if not self.bound().cold and self.start == "own":
            raise ConfigError(f"{self.strategy!r} cannot start by itself; use start: random or cold_start.")
        return self


class Campaign(Part):
    """A whole labelling campaign, for several arms and seeds."""

    name: Annotated[str, Field(pattern=r"^[\w.-]+$")]
    description: str = ""
    task: Literal["classification", "lanes", "boxes"] = "classification"
    data: DataSettings
    initial: InitialSettings = InitialSettings()
    budget: Count
    """Labels of a round."""
    budget_unit: Literal["labels", "objects"] = "labels"
    """What budgets and curves count: labelled images, or the boxes or lanes drawn on them, an image without any as one.
    A batch then ends with the image that fills it; what it holds too many of, the next one has fewer."""
    rounds: Count
    """Trainings: after the initial labels, and after each batch behind them."""
    seeds: tuple[Annotated[int, Field(ge=0, le=2**20)], ...] = (0, 1, 2, 3, 4)
    strategies: tuple[Annotated[Arm, BeforeValidator(_as_arm)], ...]
    baseline: str = "random"
    """The arm that the others are paired against."""
    models: ModelSettings = ModelSettings()
    training: dict[str, Any] = {}
    """Settings of `TrainConfig`."""
    noise: NoiseSettings = NoiseSettings()
    annotator: AnnotatorSettings = AnnotatorSettings()
    score_on: Literal["test", "validation"] = "test"
    """validation: for choosing settings; the test images are then not even loaded."""
    ensemble: Annotated[int, Field(ge=2, le=50)] = 5
    """Members, for strategies that need an ensemble."""
    dropout: Annotated[float, Field(gt=0, lt=1)] = 0.25
    """Rate, for strategies that need dropout."""
    passes: Annotated[int, Field(ge=2, le=1000)] = 100
    """Stochastic passes, for strategies that need dropout."""

    @model_validator(mode="after")
    def _fits(self) -> Campaign:
        names = [arm.name for arm in self.strategies]
        if len(set(names)) != len(names) or not names:
            raise ConfigError(f"strategies must be at least one, with distinct labels, not {names}.")
        if self.baseline not in names:
            raise ConfigError(f"The baseline {self.baseline!r} is not among the strategies: {', '.join(names)}.")
        if len(set(self.seeds)) != len(self.seeds) or not self.seeds:
            raise ConfigError(f"seeds must be at least one, all different, not {list(self.seeds)}.")
        if self.score_on == "validation" and self.data.validation == 0:
            raise ConfigError("score_on is validation, but data.validation keeps no image for it.")
        if self.annotator.ahead > self.budget:
            raise ConfigError("annotator.ahead must be at most the budget.")
        if self.counts_objects and (self.task == "classification" or self.annotator.ahead):
            raise ConfigError("budget_unit: objects is for boxes and lanes, with annotator.ahead: 0.")
        self._suits_the_task()
        self.train_config(0)
        return self

    def _suits_the_task(self) -> None:
        """Refuse noise and strategies that the task has no meaning for."""
        if self.task == "boxes" and self.noise.kind != "none":
            raise ConfigError(
                f"noise.kind is {self.noise.kind}, but boxes are drawn right: there is no noise for them."
            )
        kind = "attribute" if self.task == "classification" else "difficulty"
        if self.noise.kind == kind:
            raise ConfigError(f"noise.kind is {kind}, which task: {self.task} has no meaning for.")
        if (self.noise.kind == "attribute") != bool(self.noise.attributes):
            raise ConfigError("noise.attributes must name what noise.kind: attribute is bound to, and nothing else.")
        if self.task != "boxes" and (blind := [arm.name for arm in self.strategies if arm.bound().needs & OF_BOXES]):
            raise ConfigError(f"{', '.join(blind)} compares the boxes of images, and task is {self.task}.")
        if self.task != "classification" and (
            deaf := [arm.name for arm in self.strategies if "dropout" in arm.bound().needs]
        ):
            raise ConfigError(
                f"{', '.join(deaf)} asks a network many times with dropout in front of its head; a network for "
                f"{self.task} has no head over its features. Ask an ensemble instead."
            )

    def train_config(self, seed: int) -> TrainConfig:
        """How to train, with this seed."""
        try:
            return TrainConfig.suited(get_task(self.task, ("any",)), **{**self.training, "seed": seed})
        except TypeError as error:
            raise ConfigError(f"training: {error}") from error

    def scored_by(self, arm: Arm) -> Scored:
        """The model whose score the arm's curve shows."""
        return arm.scored or self.models.scored

    def together(self, arm: Arm) -> tuple[Arm, ...]:
        """The arms that choose as this one does, in their order: one run, that of the first, holds all their curves."""
        return tuple(other for other in self.strategies if other.chooses_as(arm))

    @property
    def first_size(self) -> int:
        """Labels before the first model."""
        return self.initial.size or self.budget

    @property
    def counts_objects(self) -> bool:
        """Whether budgets and curves count boxes or lanes."""
        return self.budget_unit == "objects"

    def labels_after(self, number: int) -> int:
        """Labels that the model of round `number`, from 0, is trained on."""
        return self.first_size + number * self.budget

    @classmethod
    def parse(cls, settings: Any) -> Campaign:
        """A campaign from a mapping, as a YAML file holds it.

        Raises:
            ConfigError: names each unknown key and each value out of range.
        """
        if not isinstance(settings, Mapping):
            raise ConfigError(f"A campaign is a mapping of settings, not {type(settings).__name__}.")
        try:
            return cls.model_validate(settings)
        except ValidationError as error:
            raise ConfigError("campaign: " + "; ".join(_explained(part) for part in error.errors())) from error


def shipped_campaigns() -> dict[str, Campaign]:
    """The campaigns that come with kdal, by name."""
    files = sorted((entry for entry in SHIPPED.iterdir() if entry.name.endswith(".yaml")), key=lambda entry: entry.name)
    campaigns = [Campaign.parse(yaml.safe_load(entry.read_text())) for entry in files]
    return {campaign.name: campaign for campaign in campaigns}


def load_campaign(name_or_path: str) -> Campaign:
    """A campaign from a YAML file, or a shipped one by its name.

    Raises:
        ConfigError: there is no such file or name, it is no YAML, or its settings do not fit.
    """
    path = Path(name_or_path)
    if not path.is_file():
        shipped = shipped_campaigns()
        if name_or_path in shipped:
            return shipped[name_or_path]
        raise ConfigError(
            f"There is no campaign file {name_or_path!r}, and no shipped campaign of this name: {', '.join(shipped)}."
        )
    try:
        return Campaign.parse(yaml.safe_load(path.read_text()))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"The campaign file {name_or_path!r} is no YAML: {error}") from error


def _explained(error: Any) -> str:
    key = ".".join(str(part) for part in error["loc"]) or "the campaign"
    hint = f" (strategies: {', '.join(strategy_names())})" if key.endswith(".strategy") else ""
    return f"{key}: {error['msg']}{hint}"
