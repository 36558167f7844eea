"""A step of each round: what its labels say of the models, and of the labels themselves, written for people.

It comes once the round is open, so that annotators do not wait for it, and never fails a round: whatever cannot be told
is logged, and told by a later round.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import structlog
from numpy.typing import NDArray

from kdal.aliases import Json
from kdal.policy import Policy
from kdal.resources import Resources
from kdal.rounds import gate
from kdal.rounds.estimates import at_random_alone, statements
from kdal.rounds.estimates.kept import FACT, Kept
from kdal.rounds.estimates.met import Met, last_opened, new_labels
from kdal.rounds.progress import SupersededError
from kdal.rounds.snapshot import Snapshot
from kdal.rounds.store import HEADS, RoundStore
from kdal.storage.assets import MissingAssetError
from kdal.storage.tables import Project, Round
from kdal_core.evaluation import CurvePoint, LearningCurve, image_scores, learning_curve
from kdal_core.tasks import Task
from kdal_core.tasks.task import Detects

TIMED = 5_000
"""Tasks whose times are kept, the last ones: who labelled them, and how, is what counts now."""
ROWS = 500
"""Predictions of one model that its point of the curve stands on, at most, where they are objects: a bootstrap of
their mAP takes some ten seconds for 50 images. The last ones."""
log = structlog.get_logger()


def collect(resources: Resources, project: Project, store: RoundStore, snapshot: Snapshot, serving: int | None) -> Json:
    """Write a round's estimates.

    Args:
        resources: what the step works with.
        project: whose they are.
        store: of the round.
        snapshot: of the round.
        serving: the round whose model serves now.

    Returns:
        A fact of the round that says where they are; without one, where they could not be made, why.
    """
    try:
        rounds = resources.storage.rounds(project.id)
        earlier = Kept.newest(resources.storage, resources.assets, project, before=store.number)
        kept = _labels_met(resources, project, rounds, store, snapshot, earlier)
        _told(Policy.stored(project.policy), rounds, store, snapshot, serving, kept).save(store)
        at_random_alone.train(resources, store, snapshot, kept)
    except SupersededError:
        raise
    except Exception as error:
        log.warning("no estimates", project=project.id, round=store.number, error=str(error), exc_info=True)
        return {"no_estimates": str(error) or type(error).__name__}
    return {FACT: {"model": serving}}


def _labels_met(
    resources: Resources, project: Project, rounds: list[Round], store: RoundStore, snapshot: Snapshot, earlier: Kept
) -> Kept:
    """What was kept before, and what the labels made since add to it."""
    before = last_opened(rounds, store.number)
    if before is None:
        return earlier
    met = new_labels(resources, project, before, _model_of(rounds, before), store, snapshot)
    earlier = at_random_alone.scored(resources, store, snapshot, earlier, met)
    labels = _trained_on(rounds, met.model)
    kept = replace(
        earlier,
        counts=[*earlier.counts, *met.counts],
        timed=[*earlier.timed, *met.timed()][-TIMED:],
        at_random=[*earlier.at_random, *((task, met.round) for task in sorted(met.at_random))],
    )
    if met.model is None or labels is None:
        return kept
    return _with_point(kept, met, met.model, labels, snapshot.format.task())


def _with_point(kept: Kept, met: Met, model: int, labels: int, task: Task) -> Kept:
    """The curve with what is known now of the model that served."""
    drawn = [item for item in met.items if item.ref.task_id in met.at_random and item.ref.task_id in met.predictions]
    chosen = len(met.predictions) - len(drawn)
    kept = replace(kept, left_out=kept.left_out + chosen)
    if not drawn:
        return kept
    predictions = np.stack([met.predictions[item.ref.task_id] for item in drawn])
    targets = [item.target for item in drawn]
    # Of a model that went on serving there are predictions of earlier rounds.
    rows = [row for row in kept.rows if row["model"] == model]
    if isinstance(task, Detects):
        rows += [
            {"model": model, "prediction": _found(prediction), "target": task.as_json(target)}
            for prediction, target in zip(predictions, targets, strict=True)
        ]
        rows = rows[-ROWS:]
        point = _point_of_set(task, labels, rows, predictions.shape[1:])
    else:
        rows += [{"model": model, "score": float(score)} for score in image_scores(task, predictions, targets)]
        scores = [row["score"] for row in rows]
        point = _only(learning_curve([labels] * len(rows), scores, [True] * len(rows)))
    others = [pair for pair in zip(kept.models, kept.points, strict=True) if pair[0] != model]
    pairs = sorted([*others, (model, vars(point))], key=lambda pair: (pair[1]["labels"], pair[0]))
    return replace(kept, rows=rows, models=[model for model, _ in pairs], points=[point for _, point in pairs])


def _point_of_set(task: Task, labels: int, rows: list[Json], shape: tuple[int, ...]) -> CurvePoint:
    """A point of a curve whose metric is that of a set of images, as mAP is."""
    predictions = np.full((len(rows), *shape), np.nan, dtype=np.float32)
    for place, row in enumerate(rows):
        found = np.array(row["prediction"], dtype=np.float32).reshape(-1, shape[-1])[: shape[0]]
        predictions[place, : len(found)] = found
    targets = [task.from_json(row["target"]) for row in rows]

    def score(of: NDArray[np.int64]) -> float:
        return task.score(predictions[of], [targets[row] for row in of])

    return _only(learning_curve([labels] * len(rows), score, [True] * len(rows)))


def _only(curve: LearningCurve) -> CurvePoint:
    (point,) = curve.points
    return point


def _found(prediction: NDArray[np.float32]) -> list[list[float]]:
    """The objects of a prediction (K, 6), whose rows behind the last one are NaN."""
    found: list[list[float]] = prediction[np.isfinite(prediction).all(axis=1)].tolist()
    return found


def _told(
    policy: Policy, rounds: list[Round], store: RoundStore, snapshot: Snapshot, serving: int | None, kept: Kept
) -> Kept:
    """The statements for people, by all that is known now."""
    task = snapshot.format.task()
    usable = [item for item in snapshot.labelled if item.target is not None]
    unseen = _unseen(store, {item.ref.task_id: item.target for item in usable}, task)
    why = _why_nothing(task, serving)
    curve = kept.curve
    left, labels = len(snapshot.pool), _trained_on(rounds, serving)
    told = {
        "round": store.number,
        "model": serving,
        "kind": task.kind,
        "metric": task.metric_name,
        "curve": statements.curve(curve, kept.models),
        "stopping": statements.stopping(curve, policy, left, labels),
        "suggestions": statements.suggestions(kept.counts),
        "time": statements.time(kept.timed),
        "labels_saved": statements.saved(curve, at_random_alone.curve(kept), told=snapshot.backbones is not None),
        "label_errors": statements.errors(unseen, task.classes, _taught(store, serving, unseen), why),
        "classes": statements.classes([_shown(task, item.target) for item in usable], task.classes),
        "confusion": statements.confusion(unseen, task.classes, why),
    }
    return replace(kept, told=told, left=left, labels=labels)


Unseen = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.floating]]


def _unseen(store: RoundStore, targets: dict[int, Any], task: Task) -> Unseen | None:
    """Tasks, labels and probabilities (N, C) of labels that the model that serves has not seen."""
    if task.kind != "classification":
        return None
    try:
        arrays = store.read_arrays(gate.UNSEEN)
    except MissingAssetError:
        return None
    rows = np.array([row for row, number in enumerate(arrays["tasks"].tolist()) if number in targets], dtype=np.int64)
    if not len(rows) or arrays["predictions"].shape[1] != len(task.classes):
        return None
    tasks = arrays["tasks"][rows]
    labels = np.array([targets[number] for number in tasks.tolist()], dtype=np.int64)
    return tasks, labels, arrays["predictions"][rows].clip(0, 1)


def _taught(store: RoundStore, serving: int | None, unseen: Unseen | None) -> Sequence[NDArray[np.floating]]:
    """What the teacher, which was taught the labels, says of these tasks; nothing where there is no such teacher.

    It was not shown the labels that are held out: of these, what is said by the model that serves stands for its word.
    """
    if unseen is None or serving != store.number:
        return ()
    try:
        heads = store.read_arrays(HEADS)
    except MissingAssetError:
        return ()
    tasks, _, said = unseen
    places = np.searchsorted(heads["tasks"], tasks).clip(max=len(heads["tasks"]) - 1)
    shown = heads["tasks"][places] == tasks
    return (np.where(shown[:, None], heads["teacher"][places].clip(0, 1), said),)


def _shown(task: Task, target: Any) -> list[str]:
    """The classes of the objects that a label shows, one of each object."""
    if isinstance(target, tuple | list):
        return [task.classes[one.label] for one in target]
    return [task.classes[target]] if isinstance(target, int | np.integer) else []


def _why_nothing(task: Task, serving: int | None) -> str:
    if task.kind != "classification":
        return f"This is told of classes of images alone, so far, and these labels are {task.kind}."
    if serving is None:
        return "No model serves yet."
    return "No model has looked at labels that it had not learnt: this project's networks are trained whole."


def _model_of(rounds: list[Round], row: Round) -> int | None:
    """The round whose model served in a round."""
    known = row.facts.get(FACT)
    if isinstance(known, dict):
        model = known.get("model")
        return int(model) if model is not None else None
    served = (r.number for r in reversed(rounds) if r.number <= row.number and r.opened_at and r.facts.get("promoted"))
    return next(served, None)


def _trained_on(rounds: list[Round], model: int | None) -> int | None:
    """How many labels a round's model was trained on."""
    facts = next((row.facts for row in rounds if row.number == model), {})
    found = facts.get("trained_on", facts.get("labels"))
    return int(found) if found is not None else None
