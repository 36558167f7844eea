"""What a project owner may decide: the JSON in "extra params" of the ML backend in Label Studio."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from kdal_core.errors import ConfigError

if TYPE_CHECKING:  # these import torch, which takes seconds: reading a policy does not need it
    from kdal_core.acquisition import Strategy
    from kdal_core.tasks import Task
    from kdal_core.training import TrainConfig, TrioSpec

OF_KD_GAP = ("k", "beta", "eps", "mode", "formula", "rarity")
"""Keys that are parameters of the strategy `kd_gap`."""
OF_TRAINING = ("epochs", "batch_size", "lr", "temperature", "kd_weight", "unlabelled")
"""Keys that are settings of `kdal_core.training.TrainConfig`."""
FOR_THREE_NETWORKS = ("teacher", "weights", "temperature", "kd_weight", "unlabelled")
"""Keys that say how the trio is trained, and nothing about a student of a black-box teacher."""


class Policy(BaseModel):
    """A project's choices, each with a default that works. Unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    budget: Annotated[int, Field(ge=1, le=100_000)] = 50
    """Labels of a batch: a round starts when so many tasks are labelled."""
    count_outside: bool = True
    """Count labels outside the batch too; false: only the batch's own tasks (skipped ones replaced)."""
    black_box: Annotated[str, Field(pattern=r"^[\w.-]{1,100}$")] | None = None
    """Name of a black-box teacher that the server knows (`kdal.teachers.catalogue`): its answers train the student, and
    people's labels outrank them. Null: students and teachers are trained on people's labels alone."""
    queries: Annotated[int, Field(ge=4, le=10**9)] | None = None
    """Images that the black-box teacher may be asked about at most; null: as many as the server allows."""
    strategy: Literal["kd_gap", "random", "entropy", "least_confidence", "margin", "badge", "acd"] = Field(
        default_factory=lambda data: "kd_gap" if data.get("black_box") is None else "least_confidence"
    )
    """How the queue is ordered; by default kd_gap, with a black-box teacher least_confidence."""
    mode: Literal["score", "marginal", "coverage", "static"] | None = None
    """How the greedy pass joins uncertainty and diversity, see `kdal_core.acquisition.greedy_select`; null: kdal's
    default."""
    beta: Annotated[float, Field(ge=0, le=1000)] | None = None
    """Weight of diversity beside uncertainty; null: kdal's default."""
    k: Annotated[int, Field(ge=1, le=1000)] | None = None
    """Neighbours of an image that its diversity counts; null: kdal's default."""
    eps: Annotated[float, Field(ge=0, le=1000)] | None = None
    """Regularises the ratio of the two gaps; 0 is the paper's strict form; null: kdal's default."""

    formula: Literal["published", "four_case"] | None = None
    """What is made of the two gaps: the paper's formula, or one that avoids images on which both are large, where
    labels are often wrong; null: kdal's default."""
    rarity: Annotated[float, Field(ge=0, le=1000)] | None = None
    """How much rare classes draw the queue beside uncertainty; null: kdal's default, for boxes 1, else 0."""

    student: str | None = None
    """Network of the student and of the distilled student; null: by image size."""
    teacher: str | None = None
    """Network of the teacher, at least 4 times the student's parameters; null: by image size."""
    weights: str = "none"
    """Where training starts: "none", "default" (torchvision's, downloaded) or a local .safetensors file."""
    image_size: Annotated[int, Field(ge=8, le=2048)] | None = None
    """Longer side in pixels that the networks see; null: the images' own, at most 224, for lanes at
    most 400, for boxes at most 512."""
    epochs: Annotated[int, Field(ge=1, le=10_000)] | None = None
    """Passes over the labels; null: as many as few labels need."""
    batch_size: Annotated[int, Field(ge=2, le=4096)] | None = None
    """Images of a training step."""
    lr: Annotated[float, Field(gt=0, le=10)] | None = None
    """Peak learning rate."""
    temperature: Annotated[float, Field(gt=0, le=100)] | None = None
    """Of the soft targets."""
    kd_weight: Annotated[float, Field(ge=0, le=100)] | None = None
    """Of the distillation loss beside the labels' loss."""
    unlabelled: bool | None = None
    """Whether the distilled student hears from its teacher about images without a label, too; null: for lanes."""

    holdout: Annotated[float, Field(ge=0, le=0.5)] = 0.1
    """Share of the labels never trained on, which decide whether a new model may serve."""
    queue: Annotated[int, Field(ge=1, le=100_000)] = 500
    """Tasks pushed to Label Studio in kdal's order, each with its pre-annotation, and at least two batches; the rest
    stays servable behind them, in random order. On SQLite, Label Studio makes annotators wait some 5 ms for each
    when the next round replaces them, and refuses them beyond 5 s."""
    seed: Annotated[int, Field(ge=0, le=2**31 - 1)] = 0

    @model_validator(mode="after")
    def _fits_a_black_box(self) -> Policy:
        if self.black_box is None:
            if self.queries is not None:
                raise ValueError('"queries" are those to a black-box teacher: name one under "black_box"')
            return self
        from kdal_core.acquisition import strategy

        if strategy(self.strategy).needs & {"d_ss", "d_st"}:
            raise ValueError(
                f'"strategy": "{self.strategy}" compares three networks, and with "black_box" there is one: '
                "leave it out, or choose one such as least_confidence, margin, entropy or random"
            )
        defaults = type(self).model_fields
        for name in FOR_THREE_NETWORKS:
            if getattr(self, name) != defaults[name].default:
                raise ValueError(f'"{name}" is about training three networks, and with "black_box" there is one')
        return self

    @property
    def served(self) -> int:
        """Tasks that are pushed in order."""
        return max(self.queue, 2 * self.budget)

    def trio(self, task: Task, image_size: tuple[int, int]) -> TrioSpec:
        """The networks to train for images of this (H, W), with the task's defaults where the policy names none."""
        from kdal_core.training import TrioSpec

        student, teacher = task.default_pair(image_size)
        return TrioSpec(
            student=self.student or student,
            teacher=self.teacher or teacher,
            image_size=image_size,
            student_weights=self.weights,
            # a file holds one network's weights: the student's
            teacher_weights=self.weights if self.weights in ("none", "default") else "none",
        )

    def training(self, task: Task, device: str) -> TrainConfig:
        """How to train, with the task's defaults where the policy names nothing."""
        from kdal_core.training import TrainConfig

        # An owner who names a number of epochs gets that many, not the least number of steps.
        bounds = {"min_steps": 1, "max_steps": 10_000_000} if self.epochs is not None else {}
        return TrainConfig.suited(task, **self._named(OF_TRAINING), **bounds, seed=self.seed, device=device)

    def chosen_strategy(self, task: Task) -> Strategy:
        """The strategy, with the parameters that the policy names, else the task, where the strategy has them."""
        from kdal_core.acquisition import strategy

        of_kd_gap = {**task.acquisition, **self._named(OF_KD_GAP)}
        return strategy(self.strategy, **(of_kd_gap if self.strategy == "kd_gap" else {}))

    def _named(self, keys: tuple[str, ...]) -> dict[str, Any]:
        """Those of these keys that are not null."""
        return {key: value for key in keys if (value := getattr(self, key)) is not None}

    @classmethod
    def parse(cls, extra_params: Any) -> Policy:
        """Read "extra params": a JSON text, an object or nothing.

        Raises:
            ConfigError: names each unknown key and each value out of range.
        """
        if extra_params is None or extra_params == "":
            return cls()
        if isinstance(extra_params, str):
            try:
                extra_params = json.loads(extra_params)
            except (ValueError, RecursionError) as error:
                raise ConfigError(f"extra params: not valid JSON ({error})") from error
        if extra_params is None:
            return cls()
        if not isinstance(extra_params, dict):
            raise ConfigError(
                f'extra params: expected an object such as {{"budget": 50}}, got {type(extra_params).__name__}'
            )
        try:
            return cls.model_validate(extra_params)
        except ValidationError as error:
            # A default that depends on another key is not made up, and complained about, while any key is wrong.
            wrong = [e for e in error.errors() if e["type"] != "default_factory_not_called"]
            raise ConfigError("extra params: " + "; ".join(_explain(e) for e in wrong)) from error


def _explain(error: Any) -> str:
    if error["type"] == "value_error":  # a rule of ours about several keys, which it names
        return str(error["ctx"]["error"])
    key = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        return f'unknown key "{_short(key)}" (known: {", ".join(sorted(Policy.model_fields))})'
    return f'"{_short(key)}": {error["msg"]}, got {_short(error["input"])}'


def _short(value: Any) -> str:
    try:
        text = value if isinstance(value, str) else json.dumps(value)
    except (ValueError, TypeError, RecursionError):  # a number of a million digits, say
        text = type(value).__name__
    return text if len(text) <= 60 else text[:57] + "..."
