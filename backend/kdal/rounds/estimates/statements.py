"""Each estimate as JSON: a sentence for people, and the numbers behind it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdal.aliases import Json
from kdal.policy import Policy
from kdal_core.evaluation import (
    Acceptance,
    LearningCurve,
    label_errors,
    labels_saved,
    stopping_advice,
    suggestion_acceptance,
    time_saved,
)
from kdal_core.evaluation.intervals import LEVEL
from kdal_core.evaluation.suggestions import OUTCOMES, Outcome

SUSPECTS = 100
"""Labels that look wrong, of which the likeliest mistakes are named."""
OF_CELL = 24
"""Tasks that a cell of the confusion matrix names."""
CELLS = 1_000
"""Cells that are named, the fullest first: of a thousand classes there may be a million."""
NOT_SAVED = (
    "Labels saved cannot be told here: no network is trained on the images drawn at random alone. `kdal simulate` "
    "tells it on labelled images of your own."
)
NOT_ASKED = (
    'Whether to stop is not asked: the policy may say "target", the score that is good enough, or "price" and "worth" '
    "of a label and of a point."
)


def nothing() -> Json:
    """What is told before a round has looked."""
    return {
        "round": None,
        "model": None,
        "kind": None,
        "metric": None,
        "curve": curve(LearningCurve((), 0, 0, LEVEL), []),
        "suggestions": suggestions([]),
        "time": time([]),
        "labels_saved": saved(LearningCurve((), 0, 0, LEVEL), LearningCurve((), 0, 0, LEVEL)),
        "label_errors": errors(None),
        "classes": classes(()),
        "confusion": confusion(None),
    }


def curve(found: LearningCurve, models: Sequence[int]) -> Json:
    """The learning curve, each point with the round of its model."""
    points = [
        {"round": model, **{name: value for name, value in vars(point).items() if name != "trials"}}
        for model, point in zip(models, found.points, strict=True)
    ]
    told = {"images": found.images, "left_out": found.left_out, "level": found.level, "points": points}
    return {"sentence": found.sentence, **told}


def stopping(found: LearningCurve, policy: Policy, left: int, labels: int | None) -> Json:
    """Whether to stop, by what the owner asks for.

    Args:
        found: the learning curve.
        policy: says the target, or the price of a label and the worth of a point.
        left: images without a label.
        labels: that the model that serves was trained on; none: no model serves.
    """
    asked: Json = {"target": policy.target, "price": policy.price, "worth": policy.worth}
    if policy.target is None and policy.price is None:
        # What the next batch adds can be told all the same: a target at the top changes nothing of it.
        advice = stopping_advice(found, batch=policy.budget, left=left, labels=labels, target=0.9999)
        told = _numbers(asdict(advice)) | {"reached": None, "labels_needed": None, "labels_interval": None}
        told |= {"verdict": "not asked", "sentence": _gain(told) or NOT_ASKED}
    else:
        advice = stopping_advice(found, batch=policy.budget, left=left, labels=labels, **asked)
        told = _numbers(asdict(advice)) | {"sentence": advice.sentence}
    return told | asked | {"batch": policy.budget}


def _gain(told: Json) -> str | None:
    if told["value"] is None:
        return None
    return (
        f"By {told['images']:,} images drawn at random the model scores {told['value']:.1%} "
        f"({told['interval'][0]:.1%} to {told['interval'][1]:.1%}), and the next batch will add about "
        f"{100 * told['gain']:.1f} points. {NOT_ASKED}"
    )


def suggestions(counts: Sequence[Sequence[Any]]) -> Json:
    """What became of suggestions.

    Args:
        counts: [class, round, unchanged, changed, rejected] each.
    """
    outcomes: list[Outcome] = []
    names: list[str] = []
    rounds: list[int] = []
    for name, number, *of_each in counts:
        for outcome, count in zip(OUTCOMES, of_each, strict=True):
            outcomes += [outcome] * count
            names += [name] * count
            rounds += [number] * count
    found = suggestion_acceptance(outcomes, names, rounds)
    return {
        "sentence": found.all.sentence,
        "all": _acceptance(found.all),
        "by_class": [{"class": name, **_acceptance(each)} for name, each in found.by_class.items()],
        "by_round": [{"round": number, **_acceptance(each)} for number, each in found.by_round.items()],
    }


def _acceptance(found: Acceptance) -> Json:
    counts: Json = {outcome: getattr(found, outcome) for outcome in OUTCOMES}
    return {**counts, "share": found.share, "interval": list(found.interval)}


def time(timed: Sequence[Sequence[Any]]) -> Json:
    """The time that suggestions save.

    Args:
        timed: [seconds, whether there was a suggestion, annotator, round] of each task.
    """
    seconds, helped, groups = [row[0] for row in timed], [row[1] for row in timed], [tuple(row[2:]) for row in timed]
    found = time_saved(seconds, helped, groups)
    return {"sentence": found.sentence, "told": found.told, **_numbers(asdict(found))}


def saved(served: LearningCurve, at_random: LearningCurve, *, told: bool = True) -> Json:
    """The labels that the order saves; without `told`, that no model is trained by which it could be told."""
    found = labels_saved(served, at_random)
    numbers = {"share": found.share, **_numbers(asdict(found))}
    return {"sentence": found.sentence, **numbers} if told else numbers | {"sentence": NOT_SAVED, "more": None}


def errors(
    unseen: tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.floating]] | None,
    names: Sequence[str] = (),
    taught: Sequence[NDArray[np.floating]] = (),
    why: str = "No model has looked at labels that it had not learnt yet.",
) -> Json:
    """Labels that look wrong.

    Args:
        unseen: (N,) tasks, (N,) class numbers that people gave, (N, C) probabilities by models that had not seen the
            label; none: nothing can be told.
        names: of the classes.
        taught: (N, C) by models that had seen it.
        why: nothing can be told.
    """
    if unseen is None or not len(unseen[0]) or len(names) < 2:
        return {"sentence": why, "labels": 0, "expected": None, "suspects": []}
    tasks, labels, probabilities = unseen
    found = label_errors(labels, probabilities, taught)
    suspects = [
        {
            "task": int(tasks[row]),
            "label": names[labels[row]],
            "suggested": names[other],
            "score": round(float(score), 4),
        }
        for row, other, score in zip(found.order, found.suggested, found.scores, strict=True)
        if score > 0
    ][:SUSPECTS]
    return {"sentence": found.sentence, "labels": len(tasks), "expected": found.expected, "suspects": suspects}


def classes(shown: Sequence[Sequence[str]], names: Sequence[str] = ()) -> Json:
    """How often each class is labelled.

    Args:
        shown: of each labelled task, the classes of its objects.
        names: of all classes.
    """
    objects = Counter(name for task in shown for name in task)
    images = Counter(name for task in shown for name in set(task))
    total = objects.total()
    rows = [
        {
            "class": name,
            "labels": images[name],
            "objects": objects[name],
            "share": objects[name] / total if total else None,
        }
        for name in dict.fromkeys([*names, *objects])
    ]
    return {"sentence": _balance(len(shown), rows), "labels": len(shown), "rows": rows}


def _balance(labels: int, rows: Sequence[Json]) -> str:
    if not labels:
        return "There is no label yet."
    said = f"There are {labels:,} labelled tasks."
    if missing := [row["class"] for row in rows if not row["labels"]]:
        some = ", ".join(missing[:5]) + (f" and {len(missing) - 5:,} more" if len(missing) > 5 else "")
        return f"{said} Not one label yet of: {some}."
    if len(rows) < 2:
        return said
    least, most = (pick(rows, key=lambda row: row["objects"]) for pick in (min, max))
    return f"{said} Of {most['class']} there are {most['objects']:,}, of {least['class']} {least['objects']:,}."


def confusion(
    unseen: tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.floating]] | None,
    names: Sequence[str] = (),
    why: str = "No model has looked at labels that it had not learnt yet.",
) -> Json:
    """Which classes the model takes for which; arguments as of `errors`."""
    if unseen is None or not len(unseen[0]):
        return {"sentence": why, "images": 0, "classes": list(names), "cells": []}
    tasks, labels, probabilities = unseen
    predicted = probabilities.argmax(axis=1)
    held: dict[tuple[int, int], list[int]] = {}
    for task, cell in zip(tasks.tolist(), zip(labels.tolist(), predicted.tolist(), strict=True), strict=True):
        held.setdefault(cell, []).append(task)
    fullest = sorted(held, key=lambda cell: (-len(held[cell]), cell))
    cells = [
        {"label": names[label], "predicted": names[other], "count": len(found), "tasks": found[:OF_CELL]}
        for label, other in fullest[:CELLS]
        for found in [held[label, other]]
    ]
    wrong = [cell for cell in cells if cell["label"] != cell["predicted"]]
    said = f"{int((predicted != labels).sum()):,} of {len(tasks):,} labels that the model had not learnt are others"
    most = f"; most often it takes {wrong[0]['label']} for {wrong[0]['predicted']}" if wrong else ""
    return {"sentence": f"{said} than it says{most}.", "images": len(tasks), "classes": list(names), "cells": cells}


def _numbers(found: Mapping[str, Any]) -> Json:
    """Fields of a result as JSON, which has neither infinity nor NaN."""
    return {name: _finite(value) for name, value in found.items()}


def _finite(value: Any) -> Any:
    if isinstance(value, tuple | list):
        return [_finite(each) for each in value]
    if isinstance(value, float | np.floating):
        return float(value) if math.isfinite(value) else None
    return value
