"""A project's estimates, for the page and the command line: what its rounds have written, and advice by its policy."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kdal.aliases import Json
from kdal.policy import Policy
from kdal.rounds.estimates.kept import Kept
from kdal.storage.assets import Assets
from kdal.storage.database import Storage
from kdal.storage.tables import Project
from kdal_core.errors import ConfigError

if TYPE_CHECKING:  # it loads torch, and who shows what was told needs none
    from kdal.resources import Resources


def project_estimates(resources: Resources, project: int) -> Json:
    """What can be told of a project by now; see `estimates_of`.

    Raises:
        ConfigError: kdal does not serve it.
        AssetError: the assets are out of reach.
    """
    row = resources.storage.project(project)
    if row is None:
        raise ConfigError(f"project {project} is not connected to kdal")
    return estimates_of(resources.storage, resources.assets, row)


def estimates_of(storage: Storage, assets: Assets, project: Project) -> Json:
    """What can be told of a project by now. It reads one small file, and takes some ten milliseconds.

    Each part has a "sentence" for people, in English, plain text, and the numbers behind it. Where nothing can be told
    yet, the sentence says so and why, lists are empty, and other numbers are None. Shares, metrics and ends of
    intervals lie in [0, 1], intervals are [low, high]; an end that is infinite is None.

    Returns:
        {
          "round": the round that this was written in, or None before the first;
          "model": the round whose model served then, or None; "kind": of task, "classification"; "metric": "accuracy";
          "curve": {"sentence", "images": drawn at random, "left_out": labels that the order chose, "level": 0.95,
            "points": [{"round": of the model, "labels": it was trained on, "images", "value", "low", "high"}, ...]},
          "stopping": {"sentence", "verdict": "stop", "go on", "out of reach", "cannot be told yet" or "not asked"
            (the policy has neither a target nor a price), "target", "price", "worth", "batch": as the policy has them,
            "labels": of the model, "images": drawn at random, "value": of the metric now, "interval", "gain": by the
            next batch, "gain_interval", "reached": chance that the target is, "labels_needed", "labels_interval"},
          "suggestions": {"sentence", "all": {"unchanged", "changed", "rejected", "share": unchanged, "interval"},
            "by_class": [the same and "class", most suggestions first], "by_round": [the same and "round"]},
          "time": {"sentence", "told", "suggested", "plain": tasks; "suggested_seconds", "plain_seconds",
            "saved": seconds a task, "interval": of it, "minutes": in all, "minutes_interval", "more": tasks to tell},
          "labels_saved": {"sentence", "told", "images", "random_labels", "needed", "interval": of it, "share", "more"},
          "label_errors": {"sentence", "labels": looked at, "expected": about so many are wrong,
            "suspects": [{"task", "label", "suggested": names of classes, "score"}, ...], likeliest mistake first, the
            first `statements.SUSPECTS`},
          "classes": {"sentence", "labels": tasks with a usable label, "rows": [{"class", "labels": tasks that show it,
            "objects": boxes or lanes of it, of classes the same number, "share": of all objects}, ...]},
          "confusion": {"sentence", "images", "classes": [names], "cells": [{"label", "predicted": names, "count",
            "tasks": [ids, at most `statements.OF_CELL`]}, ...]}: cells with a count above 0, of labels that the
            model had not learnt; they may have chosen themselves, so this shows what it confuses, not how often.
        }

    Raises:
        AssetError: the assets are out of reach.
    """
    kept = Kept.newest(storage, assets, project)
    policy = Policy.stored(project.policy)
    asked = {"target": policy.target, "price": policy.price, "worth": policy.worth, "batch": policy.budget}
    if kept.told is not None and asked.items() <= kept.told["stopping"].items():
        return kept.told
    from kdal.rounds.estimates import statements  # it takes a moment, and is needed once a policy has changed

    told = statements.nothing() if kept.told is None else kept.told
    return told | {"stopping": statements.stopping(kept.curve, policy, kept.left, kept.labels)}
