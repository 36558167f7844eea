"""A round's step "ask": the teacher's answers about the images that wait for a label, and about mixes of them.

Nothing here is lost with the process. Answers are in the ledger, in the tables, and stages in the assets of the
round: a worker that is killed leaves its successor all that was answered, and what has been chosen.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import structlog
from torch import Tensor

from kdal.aliases import Json, Progress
from kdal.images.refs import ImageRef
from kdal.policy import Policy
from kdal.resources import Resources
from kdal.rounds.progress import StepReport
from kdal.rounds.query_log import QueryLog, StageLog, with_task_ids
from kdal.rounds.snapshot import Snapshot, held_out
from kdal.rounds.store import RoundStore
from kdal.storage.tables import account_of
from kdal.teachers import open_ledger, open_teacher
from kdal.teachers.mixes import Mixes
from kdal.teachers.terms import TeacherBudget
from kdal_core.distillation import (
    MixupConfig,
    MixupSelection,
    PairPool,
    QueryLedger,
    SoftLabelTask,
    Stage,
    Teacher,
    active_mixup,
    image_key,
    mix_images,
    pool_of_images,
    unasked,
)
from kdal_core.distillation.stages import Proposal, affordable
from kdal_core.models import Network

PARTS = {"select": (0.0, 0.0), "ask": (0.0, 0.3), "train": (0.3, 1.0)}
"""What share of a stage its parts are, as a progress bar shows it: from, to."""
log = structlog.get_logger()


def ask(resources: Resources, store: RoundStore, snapshot: Snapshot, report: StepReport) -> Json:
    """Ask a project's teacher as far as the budget goes and there is anything to ask; write down what was asked.

    Returns:
        What was asked and spent; whether there is anything to train on.

    Raises:
        ConfigError: the teacher is not known any more, or does not fit the project.
        TeacherError: no usable answer; the same call later goes on from there.
    """
    name = str(snapshot.policy.black_box)
    resources.teachers.check(snapshot.policy, snapshot.format.task())
    terms = resources.teachers.terms(name)
    teacher = open_teacher(terms.teacher, device=resources.settings.device)
    account = open_ledger(resources.storage, account_of(snapshot.uid, name), teacher, terms.identity)
    ledger = QueryLedger(_most(terms, snapshot.policy), terms.price, money=terms.money, store=account)
    limits = {"query_budget": ledger.budget, "money": terms.money, "currency": terms.currency}
    report.facts(limits)  # at once: `kdal status` shows them beside the account

    before = QueryLog.before(store, name)
    if before is None:
        before = QueryLog(name, teacher.classes, snapshot.image_size, (), Mixes.none(len(teacher.classes)))
    context = _query_context(resources, snapshot, terms, teacher, ledger)
    stages = StageLog(store)
    pool = _pool(resources, snapshot, store.number, before, context)
    if pool is not None and (stages.begun or _worth_asking(pool, before.mixes, context)):
        stages.begin()
        _ask_in_stages(
            pool, before.mixes, stages, context, report.progress, log.bind(project=snapshot.uid, round=store.number)
        )
    known = set(before.images)
    new = () if pool is None else tuple(ref for ref in pool.refs if ref not in known)
    mixes = Mixes.joined([before.mixes, *(file.mixes for file in stages.files)])
    asked = replace(before, images=before.images + new, mixes=mixes)
    asked.save(store)
    trains = bool(asked.images or snapshot.training)
    return {
        "queries": ledger.spent,
        "unanswered": ledger.spent - account.answered(),
        "cost": ledger.cost,
        "asked_images": len(asked.images),
        "mixes": len(asked.mixes),
        "trains": trains,
        "why_untrained": None if trains else "no image to ask the teacher about, and no labels yet",
    }


@dataclass(frozen=True)
class _QueryContext:
    """What the teacher is asked with."""

    teacher: Teacher
    ledger: QueryLedger
    config: MixupConfig
    student: str
    """Network of the students that choose the mixes."""

    @property
    def budget(self) -> int:
        """Images that can be asked about in the life of the ledger, as far as money goes, too."""
        return self.ledger.spent + self.ledger.left


def _query_context(
    resources: Resources, snapshot: Snapshot, terms: TeacherBudget, teacher: Teacher, ledger: QueryLedger
) -> _QueryContext:
    policy, task = snapshot.policy, SoftLabelTask(teacher.classes)
    train = policy.training(task, resources.settings.device)
    # Whoever uploads decides what a project's images are: one grey image among colours is no reason to stop a round.
    config = terms.mixes(train, policy.seed, mixed_colours=True)
    return _QueryContext(teacher, ledger, config, policy.trio(task, snapshot.image_size).student)


@dataclass(frozen=True)
class _Pool:
    """Images to ask about and to mix."""

    refs: tuple[ImageRef, ...]
    images: Tensor
    """uint8 (N, 3, H, W), N >= 2."""

    @property
    def rows(self) -> dict[int, int]:
        """Task id -> row."""
        return {ref.task_id: row for row, ref in enumerate(self.refs)}


def _pool(
    resources: Resources, snapshot: Snapshot, number: int, before: QueryLog, context: _QueryContext
) -> _Pool | None:
    """The images that were asked about before, and new ones; None when there are not two.

    Everything here is a function of the snapshot and of what earlier rounds asked, so that a round that is resumed
    asks about the same. At most half of the budget goes to real images, as the rest is for their mixes.
    """
    policy = snapshot.policy
    known = {ref.task_id for ref in before.images}
    new = [ref for ref in snapshot.pool if ref.task_id not in known and not held_out(policy, ref.task_id)]
    room = max(2, context.budget // 2) - len(known)
    if len(new) > room:
        drawn = np.random.default_rng([policy.seed, number]).permutation(len(new))[: max(0, room)]
        new = [new[place] for place in np.sort(drawn)]
    refs = [*before.images, *new]
    loaded = resources.images.load(refs, snapshot.image_size).required("images to ask about")
    if len(loaded.kept) < 2:
        return None
    images = pool_of_images(loaded.images, mixed_colours=context.config.mixed_colours)
    images = affordable(Proposal(images), context.ledger).images  # of answers that were paid for and lost in a crash
    return None if len(images) < 2 else _Pool(tuple(refs[place] for place in loaded.kept[: len(images)]), images)


def _worth_asking(pool: _Pool, mixes: Mixes, context: _QueryContext) -> bool:
    """Whether there is budget, and anything to spend it on."""
    pairs = len(PairPool(len(pool.refs), context.config.mode)) - len(mixes.within(pool.rows))
    return context.ledger.left > 0 and (pairs > 0 or unasked(pool.images, context.ledger) > 0)


def _ask_in_stages(
    pool: _Pool,
    before: Mixes,
    stages: StageLog,
    context: _QueryContext,
    progress: Progress,
    log: structlog.stdlib.BoundLogger,
) -> None:
    """Active Mixup, or what is left of it; each stage is among `stages` when it is done."""
    teacher, ledger, count = context.teacher, context.ledger, context.config.training.stages
    plan = (context.budget, count, len(pool.refs), len(before.within(pool.rows)))
    # Stages that another budget or other images were planned for are known mixes like those of earlier rounds.
    replay = [file.mixes.within(pool.rows) for file in stages.files if file.plan == plan]
    earlier = Mixes.joined([before, *(file.mixes for file in stages.files if file.plan != plan)])
    known = _still_answered(earlier.within(pool.rows), pool.images, ledger)
    first = int(earlier.stages.max(initial=0))
    done = -1

    def keep(stage: Stage, model: Network) -> None:
        nonlocal done
        done = stage.number
        if stage.selection is not None and stage.number > len(replay):
            mixes = Mixes.answered(stage.selection, first + stage.number, pool.images, teacher, ledger)
            stages.add(with_task_ids(mixes, pool.refs), plan)
        log.info("teacher asked", stage=stage.number, queries=ledger.spent, of=ledger.budget, cost=ledger.cost)

    def tell(what: str, share: float) -> None:
        start, stop = PARTS[what]
        progress((done + 1 + start + share * (stop - start)) / (count + 1))

    active_mixup(
        teacher,
        pool.images,
        context.student,
        ledger,
        context.config,
        earlier=known,
        replay=replay,
        on_stage=keep,
        progress=tell,
    )


def _still_answered(mixes: MixupSelection, images: Tensor, ledger: QueryLedger) -> MixupSelection:
    """Those that the ledger has an answer for: not, say, of an image that is another one now at the same address."""
    keys = [image_key(mix) for mix in mix_images(images, mixes.pairs, mixes.lambdas)]
    found = ledger.store.read(list(dict.fromkeys(keys)))
    kept = np.array([key in found for key in keys], dtype=bool)
    return MixupSelection(mixes.pairs[kept], mixes.lambdas[kept], mixes.confidence[kept])


def _most(terms: TeacherBudget, policy: Policy) -> int:
    """Images that the owner and the server both allow."""
    return terms.budget if policy.queries is None else min(terms.budget, policy.queries)
