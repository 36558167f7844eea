"""Distillation in stages: ask, train, let the student say what to ask next, train a new one from scratch.

Active Mixup and its rivals differ only in what they propose to ask.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kdal_core.distillation.learning import FromScratch, Learn
from kdal_core.distillation.ledger import QueryLedger
from kdal_core.distillation.querying import ask, unasked
from kdal_core.distillation.selection import MixupSelection
from kdal_core.distillation.soft_labels import SoftLabel, SoftLabelTask
from kdal_core.distillation.teacher import Teacher
from kdal_core.models import Network
from kdal_core.training import ModelSpec, TrainConfig, TrainResult, resolve_device
from kdal_core.validation import InvalidInput, as_count

STAGE_TRAINING = TrainConfig(**SoftLabelTask.defaults.training)


@dataclass(frozen=True)
class StageConfig:
    """How the queries are spread and the students trained.

    Attributes:
        stages: how often the student says what to ask next; the queries that are left after the real images are
            spread evenly.
        sizes: queries of each stage, where they are not to be spread evenly; `stages` then has no say. Empty: evenly.
        train: of every student. Random views are the student's alone: the teacher is asked about plain images.
        real_share: the least share of what a student sees in training that is real images, the few of them again and
            again; 0: everything as often, as published, where what is asked about later drowns them. See
            docs/results/mixup.md.
        views: which images the students see random views of: "real", of which there are few, or "all", as published;
            what else the teacher was asked about is then seen as it was. `train.augment` False: none.
        seed: of the students' initial parameters, of their training and of all draws.
    """

    stages: int = 10
    train: TrainConfig = field(default=STAGE_TRAINING)
    seed: int = 0
    real_share: float = 0.5
    views: Literal["real", "all"] = "real"
    sizes: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not 0 <= self.real_share < 1:
            raise InvalidInput(f"real_share must lie from 0 to below 1, not {self.real_share!r}.")
        if self.views not in ("real", "all"):
            raise InvalidInput(f"views must be 'real' or 'all', not {self.views!r}.")
        as_count("stages", self.stages, low=0, high=10_000)
        as_count("seed", self.seed, low=0, high=2**31)
        for size in self.sizes:
            as_count("sizes", size, low=1, high=10**12)

    def plan(self, queries: int, most: int | None = None) -> list[int]:
        """Queries of each stage.

        Args:
            queries: left after the real images.
            most: images that can be proposed in all, where that is bounded.

        >>> StageConfig(stages=2).plan(10), StageConfig(sizes=(2, 6)).plan(10), StageConfig(sizes=(2, 6)).plan(5)
        ([5, 5], [2, 6], [2, 3])
        """
        if not self.sizes:
            return stage_sizes(queries, self.stages, most)
        left = max(0, queries if most is None else min(queries, most))
        ends = [min(end, left) for end in itertools.accumulate(self.sizes, initial=0)]
        return [stop - start for start, stop in itertools.pairwise(ends) if stop > start]


@dataclass(frozen=True)
class Proposal:
    """What to ask next.

    Attributes:
        images: uint8 (k, 3, H, W), as the teacher is to see them; the most wanted first.
        selection: which mixes they are, where they are mixes.
    """

    images: Tensor
    selection: MixupSelection | None = None


@dataclass(frozen=True)
class Stage:
    """What happened in a stage.

    Attributes:
        number: 0 is that of the real images.
        spent: queries that the ledger counts after it.
        images: images with answers, real and others, that its student was trained on.
        selection: the mixes that were new in it.
        training: of its student; None where the stage was only replayed, or nothing was trained step by step.
    """

    number: int
    spent: int
    images: int
    selection: MixupSelection | None
    training: TrainResult | None


@dataclass(frozen=True)
class Distilled:
    """What comes out.

    Attributes:
        student: the last stage's, on the CPU, in eval mode. No held-out image had a say in which one it is.
        spec: with which `save_checkpoint` stores it like any other model.
        ledger: what it cost.
        history: the stages.
    """

    student: Network
    spec: ModelSpec
    ledger: QueryLedger
    history: tuple[Stage, ...]


class Propose(Protocol):
    """The heart of a method."""

    def __call__(self, student: Network | None, k: int, history: Sequence[Stage]) -> Proposal:
        """At most k images to ask about next.

        Args:
            student: the last stage's, in eval mode; None while stages are replayed.
            k: how many the plan allows.
            history: the stages so far.
        """


def distil_in_stages(
    teacher: Teacher,
    images: Tensor,
    student: str,
    ledger: QueryLedger,
    propose: Propose,
    config: StageConfig,
    *,
    earlier: Tensor | None = None,
    most: int | None = None,
    replayed: int = 0,
    learn: Learn | None = None,
    on_stage: Callable[[Stage, Network], None] | None = None,
    progress: Callable[[str, float], None] | None = None,
) -> Distilled:
    """Ask about real images, train; then per stage: propose, ask, merge, train a new student from scratch.

    All that can be refused is refused before the first query. What was asked stays in the ledger: the same call after
    a crash asks nothing twice, and as everything is seeded it comes to the same end.

    Args:
        teacher: a black box.
        images: uint8 (N, 3, H, W), unlabelled, checked.
        student: architecture, a name that `build_model` knows.
        ledger: its budget is spent whole; the real images count.
        propose: what to ask next.
        config: stages, training, seed.
        earlier: uint8 (E, 3, H, W), further images that were asked about before: learnt from the first stage on.
        most: images that can be proposed in all, where that is bounded.
        replayed: stages, after that of the real images, whose proposals need no student: none is trained before them.
        learn: how a student comes to be; None: `FromScratch`.
        on_stage: called after each training with the stage and its student.
        progress: called with what is being done ("ask", "train", "select") and the share of it that is done.

    Raises:
        BudgetExceeded: the first images alone exceed the budget.
        ConfigError: no such student, or one that cannot take these images.
        TeacherError: the teacher gave no usable answer; what it answered before is kept.
    """
    task = SoftLabelTask(tuple(teacher.classes))
    size = (int(images.shape[2]), int(images.shape[3]))
    task.build(student, size)
    device = resolve_device(config.train.device)
    known = images if earlier is None else torch.cat([images, earlier])
    ledger.check(unasked(known, ledger))
    plan = config.plan(ledger.spent + ledger.left - len(known), most)

    def tell(what: str, share: float) -> None:
        if progress is not None:
            progress(what, share)

    learn = learn or FromScratch(task, student, size, config.train, config.seed, lambda share: tell("train", share))
    history: list[Stage] = []
    answers = ask(teacher, known, ledger, progress=lambda done, of: tell("ask", done / of))
    model: Network | None = None
    selection: MixupSelection | None = None
    for number, k in enumerate([0, *plan]):
        if number > 0:
            if model is not None:
                model.to(device)
            tell("select", 0.0)
            proposal = affordable(propose(model, k, tuple(history)), ledger)
            selection = proposal.selection
            fresh = ask(teacher, proposal.images, ledger, progress=lambda done, of: tell("ask", done / max(of, 1)))
            known, answers = torch.cat([known, proposal.images]), torch.cat([answers, fresh])
        training = None
        if number >= min(replayed, len(plan)):
            targets, rows = taught(answers, [row < len(images) for row in range(len(known))], config)
            model, training = learn(known, targets, rows, number)
        history.append(Stage(number, ledger.spent, len(known), selection, training))
        if on_stage is not None and model is not None:
            on_stage(history[-1], model)
    assert model is not None  # the last stage is never replayed alone
    return Distilled(model, ModelSpec("classification", student, task.classes, size), ledger, tuple(history))


def stage_sizes(queries: int, stages: int, most: int | None = None) -> list[int]:
    """Queries of each stage, as even as can be; stages that would have none are left out.

    >>> stage_sizes(10, 3), stage_sizes(10, 3, most=2), stage_sizes(0, 3)
    ([3, 3, 4], [1, 1], [])
    """
    total = max(0, queries if most is None else min(queries, most))
    edges = [total * part // max(stages, 1) for part in range(stages + 1)]
    return [stop - start for start, stop in itertools.pairwise(edges) if stop > start]


def taught(answers: Tensor, real: Sequence[bool], config: StageConfig) -> tuple[list[SoftLabel], list[int]]:
    """How a student is taught answers (n, C) about images of which some are real: targets, and rows for `train`.

    A pass goes through each image once, and through real ones again until they are `real_share` of it.

    >>> mixed = [False, True, True, False]
    >>> [taught(torch.eye(4), mixed, StageConfig(real_share=share))[1] for share in (0.0, 0.5, 0.75)]
    [[1, 2, 0, 3], [1, 2, 0, 3], [1, 2, 1, 2, 1, 2, 0, 3]]
    """
    targets = [SoftLabel(answer, config.views == "all" or own) for answer, own in zip(answers, real, strict=True)]
    own_rows = [row for row, own in enumerate(real) if own]
    others = [row for row, own in enumerate(real) if not own]
    wanted = round(len(others) * config.real_share / (1 - config.real_share)) if own_rows else 0
    again = itertools.islice(itertools.cycle(own_rows), max(len(own_rows), wanted))
    return targets, [*again, *others]


def affordable(proposal: Proposal, ledger: QueryLedger) -> Proposal:
    """A proposal without its last images if the budget does not reach: answers were paid for and lost in a crash."""
    count = len(proposal.images)
    while count and unasked(proposal.images[:count], ledger) > ledger.left:
        count -= max(1, unasked(proposal.images[:count], ledger) - ledger.left)
    if count == len(proposal.images):
        return proposal
    chosen = proposal.selection
    if chosen is not None:
        chosen = MixupSelection(chosen.pairs[:count], chosen.lambdas[:count], chosen.confidence[:count])
    return Proposal(proposal.images[:count], chosen)


def asked_pairs(history: Sequence[Stage]) -> NDArray[np.int64]:
    """The pairs (m, 2) that were mixed in any stage."""
    chosen = [stage.selection.pairs for stage in history if stage.selection is not None]
    return np.concatenate([np.empty((0, 2), np.int64), *chosen])


def as_ledger(ledger: QueryLedger | int) -> QueryLedger:
    """A ledger, or a new one in memory with this budget."""
    if isinstance(ledger, QueryLedger):
        return ledger
    if isinstance(ledger, bool) or not isinstance(ledger, int):
        raise InvalidInput(f"ledger must be a QueryLedger or a budget in images, not {ledger!r}.")
    return QueryLedger(ledger)
