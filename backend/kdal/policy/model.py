"""What a project owner may decide: the JSON in "extra params" of the ML backend in Label Studio."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, model_validator

from kdal.policy.rules import OF_BOXES, OF_FINE_TUNING, OF_STRATEGY, OF_TRAINING, short, useless
from kdal_core.errors import ConfigError

if TYPE_CHECKING:  # these import torch, which takes seconds: reading a policy does not need it
    from kdal_core.acquisition import Strategy
    from kdal_core.tasks import Task
    from kdal_core.training import TrainConfig, TrioSpec

TOLD = 5
"""Wrong keys that a message names; somebody may send thousands."""
STORED = "stored"
"""Context of the validation of what was accepted before: `Policy.stored`."""


class Policy(BaseModel):
    """A project's choices, each with a default that works. Unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    budget: Annotated[int, Field(ge=1, le=100_000)] = 50
    """Labels of a batch: a round starts once this many tasks are labelled."""
    budget_unit: Literal["labels", "objects"] = "labels"
    """What the budget counts: labelled tasks, or the boxes or lanes drawn on them, where the work is; a task on which
    nothing is drawn counts as one."""
    count_outside: bool = True
    """Count labels outside the batch too; false: only the batch's own tasks (skipped ones replaced)."""
    task: str | None = None
    """Kind of labels, where the labelling config leaves it open: "lanes" says that polygons, brushes and key points are
    lanes, "classification" that the choices are meant and not the boxes beside them. Null: as the config says."""
    black_box: Annotated[str, Field(pattern=r"^[\w.-]{1,100}$")] | None = None
    """Name of a black-box teacher that the server knows (`kdal.teachers.catalogue`): its answers train the student, and
    people's labels outrank them. Null: students and teachers are trained on people's labels alone."""
    queries: Annotated[int, Field(ge=4, le=10**9)] | None = None
    """Images that the black-box teacher may be asked about at most; null: as many as the server allows."""
    strategy: str = Field(
        default_factory=lambda data: "kd_gap" if data.get("black_box") is None else "least_confidence"
    )
    """How the queue is ordered: a name of `kdal_core.acquisition.strategy_names` that needs no more than `SCORED`. By
    default kd_gap, with a black-box teacher least_confidence."""
    mode: Literal["auto", "kernel", "score", "marginal", "coverage", "static"] | None = None
    """How uncertainty and diversity are joined, see the strategy `kd_gap`; null: kdal's default, "auto"."""
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
    parameters: dict[str, bool | int | float | str | None] = {}
    """Parameters of the strategy that have no key of their own: strategies of other packages bring theirs."""

    student: str | None = None
    """Network of the student and of the distilled student; null: by image size."""
    teacher: str | None = None
    """Network of the teacher, at least 4 times the student's parameters, or several, joined by "+", whose features it
    sees side by side; null: by image size."""
    weights: str = "auto"
    """Where training starts: "auto", pretrained weights wherever they can be had (`kdal_core.models.weights`); "none",
    nothing; "default", torchvision's, downloaded; or a .safetensors or .pth file of the student's weights."""
    teacher_weights: str | None = None
    """The same of the teacher's; null: as `weights` says, but for a file, which holds one network's weights."""
    train: Literal["heads", "full"] | None = None
    """What is trained of pretrained networks of classes: their last layers alone, "heads", in seconds; or the student
    whole after that, "full", which serves only if it wins on held-out labels. Null: the last layers, for images above
    64 pixels."""
    image_size: Annotated[int, Field(ge=8, le=2048)] | None = None
    """Longer side in pixels that the networks see; null: the images' own, at most 224, for lanes at
    most 400, for boxes at most 512."""
    epochs: Annotated[int, Field(ge=1, le=10_000)] | None = None
    """Passes over the labels; null: as many as few labels need."""
    batch_size: Annotated[int, Field(ge=2, le=4096)] | None = None
    """Images of a training step."""
    lr: Annotated[float, Field(gt=0, le=10)] | None = None
    """Peak learning rate."""
    backbone_lr: Annotated[float, Field(gt=0, le=10)] | None = None
    """The same of the pretrained layers, where the whole student is trained from them ("train": "full")."""
    temperature: Annotated[float, Field(gt=0, le=100)] | None = None
    """Of the soft targets."""
    kd_weight: Annotated[float, Field(ge=0, le=100)] | None = None
    """Of the distillation loss beside the labels' loss."""
    unlabelled: bool | None = None
    """Whether the distilled student hears from its teacher about images without a label, too; null: for lanes."""

    holdout: Annotated[float, Field(ge=0, le=0.5)] = 0.1
    """Share of the labels never trained on, which decide whether a new model may serve."""
    explore: Annotated[float, Field(ge=0, le=0.5)] = 0.1
    """Share of each batch that is drawn from the pool at random and marked as such: what is seen on these labels, which
    did not choose themselves, holds for the whole pool."""
    suggest_above: Annotated[float, Field(ge=0, le=1)] | None = None
    """Confidence, calibrated on held-out labels, from which on a suggestion is shown; 0: always. Null: that from which
    on it saves more time than it costs, for classes 2/3, for boxes and lanes 1/2."""
    target: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Score of the model, in the metric of the kind of labels, that is good enough: kdal says when it is reached."""
    price: Annotated[float, Field(ge=0)] | None = None
    """Of a label, in any currency: kdal says when the next batch costs more than it is worth."""
    worth: Annotated[float, Field(ge=0)] | None = None
    """Of one more point, a hundredth, of the metric, in the same currency."""
    queue: Annotated[int, Field(ge=1, le=100_000)] = 500
    """Tasks pushed to Label Studio in kdal's order, each with its pre-annotation, and at least two batches; the rest
    stays servable behind them, in random order. On SQLite, Label Studio makes annotators wait some 5 ms for each
    when the next round replaces them, and refuses them beyond 5 s."""
    seed: Annotated[int, Field(ge=0, le=2**31 - 1)] = 0

    @model_validator(mode="after")
    def _every_key_counts(self, info: ValidationInfo) -> Policy:
        if info.context != STORED and (reasons := list(useless(self))):
            raise ValueError("; ".join(reasons))
        return self

    @property
    def served(self) -> int:
        """Tasks that are pushed in order."""
        return max(self.queue, 2 * self.budget)

    def trio(self, task: Task, image_size: tuple[int, int]) -> TrioSpec:
        """The networks to train for images of this (H, W), with the task's defaults where the policy names none."""
        from kdal_core.training import TrioSpec

        return TrioSpec.suited(
            task,
            image_size,
            student=self.student,
            teacher=self.teacher,
            weights="none" if self.black_box is not None and self.weights == "auto" else self.weights,
            teacher_weights=self.teacher_weights,
        )

    def on_features(self, task: Task, image_size: tuple[int, int]) -> bool:
        """Whether the round trains heads on the features of pretrained backbones, for images of this (H, W)."""
        from kdal_core.models import has_pretrained_features, suits_small_networks

        if self.black_box is not None or not task.defaults.features:
            return False
        if self.weights in ("none", "default"):
            return False
        named = [name for name in (self.student, self.teacher) if name is not None]
        if self.weights != "auto" and self.student is None:
            return False  # a file of the network that suits the image size, which is trained whole
        if named:
            return all(has_pretrained_features(name) for name in named)
        return self.train is not None or not suits_small_networks(image_size)

    def training(self, task: Task, device: str) -> TrainConfig:
        """How to train, with the task's defaults where the policy names nothing."""
        from kdal_core.training import TrainConfig

        # An owner who names a number of epochs gets that many, not the least number of steps.
        bounds = {"min_steps": 1, "max_steps": 10_000_000} if self.epochs is not None else {}
        return TrainConfig.suited(task, **self._named(OF_TRAINING), **bounds, seed=self.seed, device=device)

    def fine_tuning(self, device: str) -> TrainConfig:
        """How to train the student whole, once its head is fitted."""
        from kdal_core.training import fine_tuning_config

        bounds = {"min_steps": 1, "max_steps": 10_000_000} if self.epochs is not None else {}
        return fine_tuning_config(**self._named(OF_FINE_TUNING), **bounds, seed=self.seed, device=device)

    def from_nothing(self) -> Policy:
        """The same where the pretrained weights that it asks for cannot be had: kdal's own networks, fresh ones."""
        none = {"student": None, "teacher": None, "weights": "none", "teacher_weights": None, "train": None}
        none |= {"backbone_lr": None}
        return self.model_copy(update=none)

    def chosen_strategy(self, task: Task) -> Strategy:
        """The strategy, with the parameters that the policy names, else the task, where the strategy has them."""
        from kdal_core.acquisition import strategy

        accepted = strategy(self.strategy).accepts
        of_task = task.defaults.acquisition if self.strategy == "kd_gap" else {}
        named = {**of_task, **self._named(OF_STRATEGY), **self.parameters}
        return strategy(self.strategy, **{key: value for key, value in named.items() if key in accepted})

    def check(self, task: Task) -> None:
        """Refuse what does not suit the kind of labels, or is not there: networks, files of weights.

        Raises:
            ConfigError: names the key, or the network.
        """
        chosen = self.chosen_strategy(task)
        if self.eps is not None and self.formula is None and chosen.parameters.get("formula") == "four_case":
            raise ConfigError(
                f'extra params: "eps" does nothing with the formula that {task.kind} have by default: say '
                '"formula": "published" too'
            )
        if self.budget_unit == "objects" and task.kind == "classification":
            raise ConfigError(
                'extra params: "budget_unit": "objects" counts boxes or lanes, and these labels are classes of images'
            )
        if chosen.needs & OF_BOXES and task.kind != "boxes":
            raise ConfigError(
                f'extra params: "strategy": "{self.strategy}" compares boxes, and these labels are {task.kind}'
            )
        if self.parameters:
            self._try(chosen)
        for key, weights in (("weights", self.weights), ("teacher_weights", self.teacher_weights)):
            if weights not in (None, "auto", "none", "default") and not _is_file(weights):
                raise ConfigError(
                    f'extra params: "{key}": there is no file "{short(weights)}" on the machine where kdal runs'
                )
        if self.train == "heads" and not task.defaults.features:
            raise ConfigError(
                f'extra params: "train": "heads" is for classes of images, and these labels are {task.kind}'
            )
        side = self.image_size or task.defaults.longest_side
        if self.backbone_lr is not None and not self.on_features(task, (side, side)):
            raise ConfigError(
                'extra params: "backbone_lr" is about pretrained networks of classes, and this project trains others'
            )
        if self.black_box is None and (self.student or self.teacher):
            if self.on_features(task, (side, side)):
                self._check_backbones()
            else:
                spec = self.trio(task, (side, side))
                task.check_pair(spec.student, spec.teacher, spec.image_size)

    def _check_backbones(self) -> None:
        from kdal_core.models import TEACHER_FACTOR, backbone_parameters

        if self.student is None or self.teacher is None or "+" in self.teacher:
            return
        sizes = [backbone_parameters(name) for name in (self.student, self.teacher)]
        if sizes[1] < TEACHER_FACTOR * sizes[0] and self.student != self.teacher:
            raise ConfigError(
                f"The teacher {self.teacher!r} has {sizes[1]:,} parameters, the student {self.student!r} {sizes[0]:,}. "
                f"A teacher needs at least {TEACHER_FACTOR} times as many: choose a larger one, or join several: "
                f'"{self.student}+{self.teacher}".'
            )

    def _try(self, chosen: Strategy) -> None:
        """Let a strategy order four images, to see whether it takes its parameters."""
        import numpy as np

        from kdal_core.acquisition import PoolScores

        shapes = {"d_ss": (4,), "d_st": (4,), "features": (4, 2), "probabilities": (4, 2), "objects": (4, 2)}
        shapes |= {"labelled_features": (1, 2), "labelled_probabilities": (1, 2), "class_difficulty": (1,)}
        shapes |= {"detections": (4, 1, 6), "object_features": (4, 1, 2)}
        try:
            arrays: dict[str, Any] = {name: np.full(shapes[name], 0.5) for name in chosen.needs | {"features"}}
            chosen(PoolScores(**arrays))
        except Exception as error:  # of another package, perhaps: whatever it raises, the owner has to know now
            raise ConfigError(f'extra params: "parameters": "{self.strategy}" does not take them: {error}') from error

    def _named(self, keys: tuple[str, ...]) -> dict[str, Any]:
        """Those of these keys that are not null."""
        return {key: value for key in keys if (value := getattr(self, key)) is not None}

    @classmethod
    def stored(cls, value: Any) -> Policy:
        """A policy that was accepted before, as `model_dump` wrote it; keys that do nothing are passed over.

        Raises:
            ConfigError: it is damaged, or of a newer kdal.
        """
        try:
            return cls.model_validate(value, context=STORED)
        except ValidationError as error:
            raise ConfigError(f"extra params: {_explained(error)}") from error

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
            raise ConfigError(f"extra params: {_explained(error)}") from error


def _is_file(path: str | None) -> bool:
    try:
        return path is not None and Path(path).is_file()
    except OSError:  # too long a name, or a folder that is closed to us
        return False


def _explained(error: ValidationError) -> str:
    """What is wrong in one sentence; of very many wrong keys a few speak for all."""
    # A default that depends on another key is not made up, and complained about, while any key is wrong.
    wrong = [each for each in error.errors(include_url=False) if each["type"] != "default_factory_not_called"]
    left = len(wrong) - TOLD
    return "; ".join(_explain(each) for each in wrong[:TOLD]) + (f"; and {left:,} more" if left > 0 else "")


def _explain(error: Any) -> str:
    if error["type"] == "value_error":  # a rule of ours about several keys, which it names
        return str(error["ctx"]["error"])
    key = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        return f'unknown key "{short(key)}" (known: {", ".join(sorted(Policy.model_fields))})'
    return f'"{short(key)}": {error["msg"]}, got {short(error["input"])}'
