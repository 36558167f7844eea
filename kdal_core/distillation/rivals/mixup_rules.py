"""Active Mixup and random search in the form of all methods."""

from __future__ import annotations

from kdal_core.distillation.mixup import active_mixup, random_search
from kdal_core.distillation.rivals.protocol import Problem
from kdal_core.distillation.stages import Distilled


def active(problem: Problem) -> Distilled:
    """`active_mixup`."""
    return active_mixup(
        problem.teacher, problem.images, problem.student, problem.ledger, problem.config, on_stage=problem.on_stage
    )


def random(problem: Problem) -> Distilled:
    """`random_search`."""
    return random_search(
        problem.teacher, problem.images, problem.student, problem.ledger, problem.config, on_stage=problem.on_stage
    )
