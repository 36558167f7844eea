"""Plain distillation: the teacher is asked about every image there is, and that is all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from kdal_core.distillation.rivals.protocol import Problem
from kdal_core.distillation.stages import Distilled, Proposal, Stage, distil_in_stages
from kdal_core.models import Network


def vanilla_kd(problem: Problem) -> Distilled:
    """One student, trained on the teacher's answers for all images: "KD (all data)" on a whole training set, "real
    images only" on the few that Active Mixup is given. Source: Hinton et al. 2015, with T = 1 and no labels.
    """
    config = replace(problem.config.training, stages=0)
    return distil_in_stages(
        problem.teacher,
        problem.images,
        problem.student,
        problem.ledger,
        _nothing,
        config,
        on_stage=problem.on_stage,
    )


def _nothing(student: Network | None, k: int, history: Sequence[Stage]) -> Proposal:
    raise AssertionError("without stages nothing is proposed")
