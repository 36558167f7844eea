"""One arm of a campaign with one seed, round after round; interrupted, it goes on from its last round."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from kdal_core.acquisition import PoolScores, cold_start, cold_start_features, strategy, thumbnails_tell
from kdal_core.journal import Journal
from kdal_core.simulation.annotator import Annotator
from kdal_core.simulation.attributes import EPS, look, means
from kdal_core.simulation.campaign import GAPS, Arm, Campaign, Scored
from kdal_core.simulation.datasets import Split
from kdal_core.simulation.heads import PoolFeatures, backbone_names, uses_features
from kdal_core.simulation.observation import GIVEN_TOO, Models, TrainingSetup, noise_scores, observe, train_models
from kdal_core.simulation.results import Point, with_new_names
from kdal_core.tasks import get_task
from kdal_core.training import HeadTrio, TrioSpec, infer

EVERY_LABEL = "every label"
"""Name of the arm that trains once, on the whole pool."""

Indices = NDArray[np.int64]


@dataclass(frozen=True)
class Setting:
    """A seed's data and annotator, the same for all arms."""

    setup: TrainingSetup
    split: Split
    annotator: Annotator
    seed: int
    features: PoolFeatures | None = None
    """Of the pool and the held-out images, where the models are heads on these."""

    def counted(self, images: Indices) -> int:
        """How much of the budget images cost: labels, or the objects drawn on them."""
        return int(self.annotator.objects[images].sum()) if self.setup.campaign.counts_objects else len(images)

    def batch(self, order: Indices, labelled: Indices, number: int) -> Indices:
        """The first images of an order, those that round `number` buys and those that are labelled ahead of the next.

        Where objects are counted, up to the image with which all batches so far are full.
        """
        campaign = self.setup.campaign
        if not campaign.counts_objects:
            return order[: (campaign.budget if number else campaign.first_size) + campaign.annotator.ahead]
        left = campaign.labels_after(number) - self.counted(labelled)
        before = np.cumsum(self.annotator.objects[order]) - self.annotator.objects[order]
        return order[: max(1, int((before < left).sum()))]

    def images_of_batch(self, labelled: Indices) -> int:
        """About how many images the next batch has: where objects are counted, as if they showed as many as so far."""
        campaign = self.setup.campaign
        if not campaign.counts_objects:
            return campaign.budget + campaign.annotator.ahead
        return -(-campaign.budget * len(labelled) // max(1, self.counted(labelled)))

    def config_seed(self, number: int) -> int:
        """Seed of the training of a round: the same in all arms."""
        return 10_000 * self.seed + number


@dataclass(frozen=True)
class RunState:
    """What an interrupted run goes on from.

    Attributes:
        points: rounds done.
        labelled: images labelled so far, in their order.
        batch: images to label next, and behind them those that the annotator goes on with while the machine
            computes; empty behind the last round.
        ahead: images of the batch before that the annotator is going on with meanwhile.
    """

    points: tuple[Point, ...]
    labelled: tuple[int, ...]
    batch: tuple[int, ...]
    ahead: tuple[int, ...]

    def save(self, path: Path, fingerprint: str) -> None:
        """Write it whole or not at all."""
        _journal(path, fingerprint).write(asdict(self))

    def scored(self, model: Scored) -> RunState:
        """As if another model were scored: up to the first round in which it was not."""
        known = takewhile(lambda point: model in point.scores, self.points)
        return replace(self, points=tuple(replace(point, score=point.scores[model]) for point in known))

    def before(self, number: int, ahead: int) -> RunState:
        """As it was when the rounds from `number` on were to come, with ``ahead`` images labelled ahead in each."""
        bought = self.points[number - 1].labels if number else 0
        waiting = (*self.labelled, *self.ahead)[bought : self.points[number].labels + ahead]
        return replace(self, points=self.points[:number], labelled=self.labelled[:bought], batch=waiting, ahead=())

    @classmethod
    def load(cls, path: Path, fingerprint: str) -> RunState | None:
        """The state that the journal of this path holds; None when there is none.

        Raises:
            ConfigError: it belongs to a run with other settings, or is damaged.
        """
        journal = _journal(path, fingerprint)
        if (data := journal.read()) is None:
            return None
        try:
            data["points"] = tuple(Point(**with_new_names(point)) for point in data["points"])
            return cls(**data | {name: tuple(data[name]) for name in ("labelled", "batch", "ahead")})
        except (ValueError, TypeError, KeyError) as error:
            raise journal.damaged(error) from error


def _journal(path: Path, fingerprint: str) -> Journal:
    return Journal(path, fingerprint, "delete it, or start again with --fresh")


def training_setup(campaign: Campaign, split: Split) -> TrainingSetup:
    """Task and networks for these images."""
    task = get_task(campaign.task, split.classes)
    models = campaign.models
    if uses_features(campaign):
        backbone, others = backbone_names(campaign)
        return TrainingSetup(campaign, task, TrioSpec(backbone, "+".join(others), split.image_size, "auto", "auto"))
    spec = TrioSpec.suited(
        task, split.image_size, student=models.student, teacher=models.teacher, weights=models.weights
    )
    return TrainingSetup(campaign, task, spec)


def run_arm(setting: Setting, arm: Arm, journal: Path) -> Iterator[Point]:
    """The points of an arm, one each round; rounds that the journal knows come at once.

    A round: label the batch, train from scratch on all labels so far, score S-KD (or S) on the held-out images, look
    at the unlabelled pool, choose the next batch. Where arms of the campaign differ in the model that is scored alone,
    this run scores the models of all.
    """
    campaign = setting.setup.campaign
    fingerprint = run_fingerprint(campaign, arm, setting.seed)
    others = {campaign.scored_by(each) for each in campaign.together(arm)} - {campaign.scored_by(arm)}
    setting = replace(setting, setup=setting.setup.of_arm(arm))
    state = RunState.load(journal, fingerprint)
    if state is not None:
        unscored = [number for number, point in enumerate(state.points) if not others <= point.scores.keys()]
        if unscored:
            state = None if campaign.counts_objects else state.before(unscored[0], campaign.annotator.ahead)
    if state is None:
        first = _first_order(setting, arm)
        state = RunState((), (), _ints(setting.batch(first, np.zeros(0, dtype=np.int64), 0)), ())
    yield from state.points[: campaign.rounds]
    for number in range(len(state.points), campaign.rounds):
        start = time.perf_counter()
        if not state.batch:  # the campaign had ended here and was given more rounds
            labelled = np.array(state.labelled)
            models, again = _trained(setting, labelled, number - 1, needs(arm), start)
            batch, correlations = _next_batch(setting, arm, models, labelled, state.ahead, number - 1)
            last = replace(
                state.points[-1], noise_auroc=again.noise_auroc, scores=again.scores, correlations=correlations
            )
            state = replace(state, points=(*state.points[:-1], last), batch=batch)
        size = campaign.first_size if number == 0 else campaign.budget
        size = len(state.batch) if campaign.counts_objects else size
        bought, before = np.array(state.batch[:size], dtype=np.int64), np.array(state.labelled, dtype=np.int64)
        offered = np.setdiff1d(np.arange(len(setting.split.pool)), before)
        labelled = np.concatenate([before, bought])
        goes_on = number + 1 < campaign.rounds
        wanted = needs(arm) if goes_on or others else frozenset()
        models, point = _trained(setting, labelled, number, wanted, start)
        ahead = state.batch[size:]
        batch, correlations = _next_batch(setting, arm, models, labelled, ahead, number) if goes_on else ((), {})
        traits = setting.split.pool.traits
        point = replace(
            point,
            compute_seconds=time.perf_counter() - start,
            picked=means(traits, bought),
            offered=means(traits, offered),
            correlations=correlations,
        )
        state = RunState((*state.points, point), _ints(labelled), batch, ahead)
        state.save(journal, fingerprint)
        yield point


def run_every_label(setting: Setting, journal: Path) -> Point:
    """The one point of a model that has every label of the pool."""
    campaign = setting.setup.campaign
    fingerprint = run_fingerprint(campaign, None, setting.seed)
    if (state := RunState.load(journal, fingerprint)) is not None:
        return state.points[0]
    start = time.perf_counter()
    everything = np.arange(len(setting.split.pool))
    _, point = _trained(setting, everything, 999, frozenset(), start)
    point = replace(point, compute_seconds=time.perf_counter() - start)
    RunState((point,), (), (), ()).save(journal, fingerprint)
    return point


def needs(arm: Arm) -> frozenset[str]:
    """What the arm's strategy reads."""
    chosen = arm.bound()
    return chosen.needs | chosen.uses & GIVEN_TOO


def run_fingerprint(campaign: Campaign, arm: Arm | None, seed: int) -> str:
    """All settings that a run depends on, as text: a run may be resumed only with the same.

    How many rounds, which other arms and which seeds are not among them, so a campaign may grow. How the task is
    trained where the campaign does not say otherwise is: kdal's defaults change.
    """
    settings = campaign.model_dump(mode="json", exclude={"strategies", "seeds", "rounds", "description", "baseline"})
    settings["training"] = {**get_task(campaign.task, ("any",)).defaults.training, **campaign.training}
    settings["data"].pop("root")
    if not campaign.counts_objects:  # younger than many a finished run, as is what follows
        settings.pop("budget_unit")
    if campaign.models.scored == "distilled":  # younger than many a finished run
        settings["models"].pop("scored")
    if campaign.task == "classification":
        for name in ("attributes", "ways", "pixels"):  # of lanes alone, and younger than many a finished run
            settings["noise"].pop(name)
    chosen: dict[str, Any] = (
        {} if arm is None else {"strategy": arm.strategy, "parameters": arm.parameters, "gap": arm.gap}
    )
    if arm is not None and arm.scored is not None:
        chosen["scored"] = arm.scored
    return json.dumps({**settings, **chosen, "start": None if arm is None else arm.first, "seed": seed}, sort_keys=True)


def _trained(
    setting: Setting, labelled: Indices, number: int, wanted: frozenset[str], start: float
) -> tuple[Models | HeadTrio, Point]:
    setup, split, annotator = setting.setup, setting.split, setting.annotator
    if setting.features is not None:
        return _trained_heads(setting, setting.features, labelled, number, start)
    config = setup.campaign.train_config(setting.config_seed(number))
    images, answers = split.pool.take(labelled).images, annotator.labels[labelled]
    others = split.pool.take(np.setdiff1d(np.arange(len(split.pool)), labelled)).images if config.unlabelled else None
    models = train_models(setup, images, answers.tolist(), config, wanted, others)
    scores = {
        name: setup.task.score(
            infer(setup.task, model, split.held_out.images, device=config.device).predictions,
            split.held_out.labels.tolist(),
        )
        for name, model in models.trio().items()
    }
    wrong = annotator.wrong(labelled)
    suspicion = noise_scores(setup, models, images) if 0 < wrong.sum() < len(wrong) else None
    return models, _point(setting, labelled, number, scores, suspicion, start)


def _trained_heads(
    setting: Setting, features: PoolFeatures, labelled: Indices, number: int, start: float
) -> tuple[HeadTrio, Point]:
    task, answers = setting.setup.task, setting.annotator.labels[labelled].tolist()
    trio = features.trained(labelled, answers, len(setting.split.classes))
    scores = features.scores(task, trio, setting.split.held_out.labels.tolist())
    wrong = setting.annotator.wrong(labelled)
    suspicion = features.suspicion(task, trio, labelled) if 0 < wrong.sum() < len(wrong) else None
    return trio, _point(setting, labelled, number, scores, suspicion, start)


def _point(
    setting: Setting,
    labelled: Indices,
    number: int,
    scores: dict[str, float],
    suspicion: NDArray[np.float64] | None,
    start: float,
) -> Point:
    setup, annotator = setting.setup, setting.annotator
    wrong = annotator.wrong(labelled)
    counted, everything = setting.counted(labelled), len(labelled) == len(setting.split.pool)
    seconds = annotator.seconds * (annotator.objects if setup.campaign.counts_objects else 1)
    return Point(
        round=number,
        labels=counted if everything else min(counted, setup.campaign.labels_after(number)),
        score=scores[setup.campaign.models.scored],
        scores=scores,
        wrong=int(wrong.sum()),
        annotator_seconds=float(seconds[labelled].sum()),
        compute_seconds=time.perf_counter() - start,
        noise_auroc=None if suspicion is None else float(roc_auc_score(wrong, suspicion)),
    )


def _first_order(setting: Setting, arm: Arm) -> Indices:
    """The whole pool before any model."""
    if arm.first == "random":
        return strategy("random")(
            PoolScores(features=np.zeros((len(setting.split.pool), 1)), seed=setting.seed)
        ).indices
    campaign = setting.setup.campaign
    budget = campaign.first_size + campaign.annotator.ahead
    if setting.features is not None:
        return _first_order_on_features(setting, setting.features, arm, budget)
    images, look = setting.split.pool.images, setting.setup.task.defaults.cold_start
    if look == "thumbnails" and not thumbnails_tell(images):
        return strategy("random")(PoolScores(features=np.zeros((len(images), 1)), seed=setting.seed)).indices
    features = cold_start_features(images, look=look)
    if arm.first == "cold_start":
        return cold_start(features, seed=setting.seed).indices
    nothing = np.empty((0, features.shape[1]))
    pool = PoolScores(features=features, labelled_features=nothing, seed=setting.seed, budget=budget)
    return arm.bound()(pool).indices


def _first_order_on_features(setting: Setting, features: PoolFeatures, arm: Arm, budget: int) -> Indices:
    if arm.first == "cold_start":
        return cold_start(features.spaces[1], mode="kernel", seed=setting.seed, budget=budget).indices
    everything, none = np.arange(len(setting.split.pool)), np.zeros(0, dtype=np.int64)
    wanted, task = arm.bound().reads, setting.setup.task
    pool = features.observed(task, None, everything, none, wanted, seed=setting.seed, budget=budget)
    return arm.bound()(pool).indices


def _next_batch(
    setting: Setting, arm: Arm, models: Models | HeadTrio, labelled: Indices, ahead: Sequence[int], number: int
) -> tuple[tuple[int, ...], dict[str, dict[str, float]]]:
    """The next images to label: `ahead` in the old order, then the best of the others in the new one.

    And what the scores correlate with, where the arm sees the gaps and the images have traits: `Point.correlations`.
    """
    setup, everything, correlations = setting.setup, setting.split.pool, {}
    unlabelled = np.setdiff1d(np.arange(len(everything)), labelled)
    seed, size = setting.config_seed(number), setting.images_of_batch(labelled)
    if isinstance(models, HeadTrio):
        assert setting.features is not None
        wanted = arm.bound().reads
        pool = setting.features.observed(setup.task, models, unlabelled, labelled, wanted, seed=seed, budget=size)
    elif needs(arm):
        left = everything.take(unlabelled)
        seen, answers = everything.images[labelled], setting.annotator.labels[labelled].tolist()
        pool = observe(setup, models, left.images, seen, needs(arm), seed=seed, budget=size, answers=answers)
        if left.traits and needs(arm) >= GAPS:
            wrong = setting.annotator.wrong(unlabelled)
            correlations = look(setup, models, left, wrong, pool, arm.parameters.get("eps", EPS))
    else:
        pool = _unseen(len(unlabelled), seed)
    order = unlabelled[arm.bound()(pool).indices]
    whole = np.concatenate([np.array(ahead, dtype=np.int64), order[~np.isin(order, ahead)]])
    return _ints(setting.batch(whole, labelled, number + 1)), correlations


def _unseen(size: int, seed: int) -> PoolScores:
    """A pool for strategies that look at nothing."""
    return PoolScores(features=np.zeros((size, 1)), seed=seed)


def _ints(values: Indices) -> tuple[int, ...]:
    return tuple(values.tolist())
