"""What an arm's strategy needs to see, and the models that are trained to show it: no others are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from kdal_core.acquisition import PoolScores, label_noise, prediction_gap
from kdal_core.errors import ConfigError
from kdal_core.metrics import ClassGap
from kdal_core.models import DropoutNet, Network
from kdal_core.simulation.campaign import GAPS, Arm, Campaign
from kdal_core.tasks import ClassificationTask, LearningLossTask, Task
from kdal_core.tasks.task import Detects
from kdal_core.training import TrainConfig, TrioSpec, distil, infer, train_student, train_teacher
from kdal_core.training.stochastic import dropout_samples

Wrap = Callable[[Network], Network]

GIVEN_TOO = frozenset({"labelled_probabilities", "class_difficulty"})
"""What a strategy gets of the arrays that it can do without."""

MEMBER_SEED = 1_000_000
"""Distance of the ensemble members' seeds, so that no other training of a campaign has the same."""


@dataclass(frozen=True)
class Models:
    """A round's models: the one that is scored in every arm, alike; all others only where somebody asks for them."""

    scored: Network
    """S-KD or S, as the campaign says."""
    student: Network | None = None
    teacher: Network | None = None
    distilled: Network | None = None
    ensemble: tuple[Network, ...] = ()
    dropout: Network | None = None
    loss_head: Network | None = None

    @property
    def reader(self) -> Network:
        """Whose predictions and features the strategy sees: S-KD's where there is one, whichever model is scored."""
        return self.scored if self.distilled is None else self.distilled

    def trio(self) -> dict[str, Network]:
        """Those of the three that were trained, by name."""
        found = {"student": self.student, "teacher": self.teacher, "distilled": self.distilled}
        return {name: model for name, model in found.items() if model is not None}


@dataclass(frozen=True)
class TrainingSetup:
    """How a campaign's models are built and trained."""

    campaign: Campaign
    task: Task
    spec: TrioSpec

    def of_arm(self, arm: Arm) -> TrainingSetup:
        """The same with what the arm would have otherwise.

        Raises:
            ConfigError: it compares class probabilities, and the task is about no classes of images.
        """
        setup = self.with_gap(arm.gap)
        if arm.scored is None:
            return setup
        models = self.campaign.models.model_copy(update={"scored": arm.scored})
        return replace(setup, campaign=self.campaign.model_copy(update={"models": models}))

    def with_gap(self, kind: ClassGap | None) -> TrainingSetup:
        """The same with another comparison of class probabilities; None: as it is.

        Raises:
            ConfigError: the task is about no classes of images.
        """
        if kind is None:
            return self
        if not isinstance(self.task, ClassificationTask):
            raise ConfigError(f"gap: {kind} compares class probabilities, which {self.task.kind} does not predict.")
        return replace(self, task=replace(self.task, gap_kind=kind))


def train_models(
    setup: TrainingSetup,
    images: Tensor,
    targets: Sequence[Any],
    config: TrainConfig,
    needs: frozenset[str],
    unlabelled: Tensor | None = None,
) -> Models:
    """All models that these needs ask for, from fresh parameters; none depends on what else is asked for.

    A rival's own models (members of an ensemble, dropout, loss head) are trained as the scored one is, distilled or
    not, so that strategies differ in how they choose and in nothing else.
    """
    task, spec = setup.task, setup.spec
    distils, gaps = setup.campaign.models.scored == "distilled", bool(needs & GAPS)
    teacher = train_teacher(task, spec, images, targets, config) if distils or gaps else None
    distilled = None
    if teacher is not None:
        distilled = distil(task, spec, teacher, images, targets, config, unlabelled=unlabelled)
    student = train_student(task, spec, images, targets, config) if "d_ss" in needs or not distils else None
    scored = distilled if distils else student
    assert scored is not None

    def as_scored(settings: TrainConfig, to_learn: Task = task, wrap: Wrap | None = None) -> Network:
        if teacher is not None and distils:
            return distil(to_learn, spec, teacher, images, targets, settings, unlabelled=unlabelled, wrap=wrap)
        return train_student(to_learn, spec, images, targets, settings, wrap=wrap)

    members = setup.campaign.ensemble - 1 if "ensemble" in needs else 0
    others = [replace(config, seed=config.seed + (member + 1) * MEMBER_SEED) for member in range(members)]
    rate, loss_task = setup.campaign.dropout, LearningLossTask(task)
    return Models(
        scored,
        student,
        teacher,
        distilled,
        ensemble=tuple(as_scored(other) for other in others),
        dropout=as_scored(config, wrap=lambda net: DropoutNet(net, rate)) if "dropout" in needs else None,
        loss_head=as_scored(config, loss_task) if "predicted_loss" in needs else None,
    )


def observe(
    setup: TrainingSetup,
    models: Models,
    pool: Tensor,
    labelled: Tensor,
    needs: frozenset[str],
    *,
    seed: int,
    budget: int,
    answers: Sequence[Any] = (),
) -> PoolScores:
    """The unlabelled pool (N, 3, H, W) as the strategy will see it; `labelled` (L, 3, H, W) where it asks for these.

    `answers` are the labels of these, for strategies that ask how well they are found.
    """
    task, device = setup.task, setup.campaign.train_config(seed).device

    def predictions(model: Network) -> NDArray[np.float32]:
        return infer(task, model, pool, device=device).predictions

    def distributions(model: Network) -> NDArray[np.floating] | None:
        return infer(task, model, pool, device=device, distributions=True).distributions

    dense, single = bool(needs & {"probabilities", "ensemble"}), "object_features" in needs
    seen = infer(task, models.reader, pool, device=device, distributions=dense, object_features=single)
    found: dict[str, Any] = {
        "features": seen.features,
        "probabilities": seen.distributions,
        "detections": seen.predictions,
        "object_features": seen.object_features,
    }
    if "d_ss" in needs and models.student is not None:
        found["d_ss"] = prediction_gap(task, seen.predictions, predictions(models.student))
    if "d_st" in needs and models.teacher is not None:
        found["d_st"] = prediction_gap(task, seen.predictions, predictions(models.teacher))
    if "objects" in needs:
        found["objects"] = task.objects(seen.predictions)
    if models.ensemble:
        found["ensemble"] = (seen.distributions, *map(distributions, models.ensemble))
    if isinstance(models.dropout, DropoutNet):
        passes = setup.campaign.passes
        found["dropout"] = dropout_samples(task, models.dropout, pool, passes=passes, seed=seed, device=device)
    if models.loss_head is not None:
        loss_task = LearningLossTask(task)
        predicted = infer(loss_task, models.loss_head, pool, device=device).predictions
        found["predicted_loss"] = loss_task.predicted_losses(predicted)
    if "class_difficulty" in needs and isinstance(task, Detects):
        of_labels = infer(task, models.reader, labelled, device=device).predictions
        found["class_difficulty"] = task.class_difficulty(of_labels, answers)
    if needs & {"labelled_features", "labelled_probabilities"}:
        known = infer(task, models.reader, labelled, device=device, distributions="labelled_probabilities" in needs)
        found |= {"labelled_features": known.features, "labelled_probabilities": known.distributions}
    return PoolScores(**{name: found[name] for name in needs}, seed=seed, budget=budget)


def noise_scores(setup: TrainingSetup, models: Models, labelled: Tensor) -> NDArray[np.float64] | None:
    """`label_noise` (L,) of the labelled images, where the trio was trained."""
    if models.student is None or models.teacher is None or models.distilled is None:
        return None
    task, device = setup.task, setup.campaign.train_config(0).device
    distilled, student, teacher = (
        infer(task, model, labelled, device=device).predictions
        for model in (models.distilled, models.student, models.teacher)
    )
    return label_noise(prediction_gap(task, distilled, student), prediction_gap(task, distilled, teacher))
