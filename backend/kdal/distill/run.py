"""A whole distillation, resumed where it was interrupted: images, teacher, stages, exports, report.

Two things make it resumable. Answers are in the ledger, in the project's store: nothing is asked twice, whatever
happens to the run's folder. Stages are in the journal, in the run's folder: what was chosen is not chosen again.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from kdal.distill import export
from kdal.distill.config import Distillation
from kdal.distill.data import Material, Tests, load_material
from kdal.distill.journal import StageRecord, Stages
from kdal.distill.outcome import Outcome
from kdal.distill.report import write_report
from kdal.settings import Settings
from kdal.storage.assets import Assets
from kdal.storage.database import Storage
from kdal.storage.tables import now
from kdal.teachers import open_ledger, open_teacher
from kdal.teachers.mixes import Mixes
from kdal_core.distillation import (
    QueryLedger,
    Stage,
    Teacher,
    active_mixup,
    ask,
    mix_images,
    random_search,
    unasked,
)
from kdal_core.errors import BudgetExceeded, TeacherError
from kdal_core.models import Network
from kdal_core.tasks import ClassificationTask
from kdal_core.training import ModelSpec, infer, load_checkpoint, save_checkpoint

METHODS = {"active_mixup": active_mixup, "random_search": random_search}
LOCAL = ("checkpoint", "recorded")
"""Kinds of teachers that cost nothing to ask about test images."""


@dataclass(frozen=True)
class At:
    """How far a distillation is.

    Attributes:
        what: "ask", "train" or "select".
        share: of that, in [0, 1].
        stage: the one under way, from 0; `stages` of them are behind the first.
        spent, budget: images.
        cost: money.
    """

    what: str
    share: float
    stage: int
    stages: int
    spent: int
    budget: int
    cost: float


def run_distillation(
    plan: Distillation,
    folder: Path,
    settings: Settings,
    *,
    data: Path | None = None,
    fresh: bool = False,
    progress: Callable[[At], None] | None = None,
) -> Outcome:
    """Distil, or what is left of it; write student, exports, mixes and the report.

    Args:
        plan: what to do.
        folder: of the run; what is found there is used.
        settings: where store and assets are, and on which device to train.
        data: folder of the data sets.
        fresh: forget the stages that are found; answers stay in the ledger.
        progress: called often.

    Raises:
        ConfigError: settings, images or a folder that do not fit: before any query.
        BudgetExceeded: a budget below the number of real images: before any query.
        TeacherError: no usable answer; the same call later goes on from there.
    """
    settings.use_threads()
    kinds = export.available() if plan.exports is None else plan.exports
    export.check_available(kinds)
    teacher = open_teacher(plan.teacher, device=settings.device)
    material = load_material(plan, teacher.classes, data)
    if fresh:
        shutil.rmtree(folder / "stages", ignore_errors=True)
        (folder / "journal.json").unlink(missing_ok=True)
    folder.mkdir(parents=True, exist_ok=True)
    journal = Stages.load(folder, plan.fingerprint)
    storage = Storage(settings.sqlalchemy_url)
    try:
        store = open_ledger(storage, plan.account, teacher, plan.identity)
        ledger = QueryLedger(plan.budget, plan.price, money=plan.money, store=store)
        if not journal.trained:
            journal = _distil(plan, material, teacher, ledger, journal, settings.device, progress)
        student, spec = load_checkpoint(journal.student())
        (folder / "student.safetensors").write_bytes(journal.student())
        known, asked, remarks = _teacher_accuracy(plan, material.tests, teacher, storage)
        files = export.export(student, spec.classes, material.pool, folder, kinds)
        outcome = Outcome(
            plan=plan,
            student=student,
            spec=spec,
            stages=journal.stages,
            mixes=dict(enumerate(journal.selections(), start=1)),
            spent=ledger.spent,
            cost=ledger.cost,
            left=ledger.left,
            test_queries=asked,
            tests=0 if material.tests is None else len(material.tests.labels),
            accuracy=journal.stages[-1].accuracy,
            teacher_accuracy=known,
            notes=(*remarks, *_notes(plan, kinds, ledger.spent - store.answered())),
            exports=tuple(files),
            folder=folder,
        )
        _register(outcome, material, teacher, ledger, Assets(settings.assets_root), journal.student())
        write_report(outcome, material, ledger, teacher)
        return outcome
    finally:
        storage.close()


def _notes(plan: Distillation, kinds: Sequence[str], lost: int) -> list[str]:
    """What to know of a run: exports that nobody refused and that are not there, queries that have no answer."""
    notes = []
    if missing := [kind for kind in export.FILES if kind not in kinds and plan.exports is None]:
        notes.append(f'Not exported as {", ".join(missing)}: pip install "kdal[export]" and run again.')
    if lost:
        notes.append(
            f"{lost:,} of the queries counted have no answer: they were under way when a run was interrupted, or "
            "were answered with something that is no answer. The teacher may have charged for them."
        )
    return notes


def _distil(
    plan: Distillation,
    material: Material,
    teacher: Teacher,
    ledger: QueryLedger,
    journal: Stages,
    device: str,
    progress: Callable[[At], None] | None,
) -> Stages:
    """The stages that are left; each is in the journal when it is done."""
    config = plan.mixup_config(device)
    student = plan.student or ClassificationTask(teacher.classes).default_pair(_size(material))[0]
    began, money = time.perf_counter(), ledger.cost
    spent = ledger.spent

    def tell(what: str, share: float) -> None:
        nonlocal money, spent
        if progress is None:
            return
        if what == "ask":  # nothing else changes what is spent
            spent, money = ledger.spent, ledger.cost
        stage = journal.stages[-1].number + 1 if journal.stages else 0
        progress(At(what, share, stage, config.training.stages, spent, plan.budget, money))

    def keep(stage: Stage, model: Network) -> None:
        nonlocal journal, began
        spec = ModelSpec("classification", student, teacher.classes, _size(material))
        losses = () if stage.training is None else stage.training.losses
        # Trained again after an interruption, it has asked nothing: what the ledger has more belongs to the next stage.
        before = next((record for record in journal.stages if record.number == stage.number), None)
        record = StageRecord(
            number=stage.number,
            spent=stage.spent if before is None else before.spent,
            cost=ledger.cost if before is None else before.cost,
            images=stage.images,
            accuracy=None if material.tests is None else _accuracy(model, material.tests, teacher, device),
            seconds=time.perf_counter() - began,
            loss=losses[-1] if losses else None,
        )
        journal = journal.with_stage(record, stage.selection, save_checkpoint(model, spec))
        began = time.perf_counter()

    METHODS[plan.method](
        teacher,
        material.pool,
        student,
        ledger,
        config,
        replay=journal.selections(),
        on_stage=keep,
        progress=tell,
    )
    return journal.finished()


def _accuracy(model: Network, tests: Tests, teacher: Teacher, device: str) -> float:
    """Share of the test images that a student gets right. For the report: nothing is chosen by it."""
    task = ClassificationTask(teacher.classes)
    predictions = infer(task, model, tests.images, device=device).predictions
    return float(task.score(predictions, tests.labels.tolist()))


def _teacher_accuracy(
    plan: Distillation, tests: Tests | None, teacher: Teacher, storage: Storage
) -> tuple[float | None, int, list[str]]:
    """The teacher's accuracy, images asked about to know it, and what there is to say about it."""
    if tests is None:
        return None, 0, ["Without labelled test images nobody can say how good student and teacher are."]
    if plan.teacher_accuracy is not None:
        return plan.teacher_accuracy, 0, []
    if plan.teacher.kind not in LOCAL and not plan.ask_about_tests:
        why = "The teacher was not asked about the test images, so there is no success rate: give teacher_accuracy, or "
        return None, 0, [why + "pay for these queries with ask_about_tests: true."]
    count = len(tests.labels)
    local = plan.teacher.kind in LOCAL
    store = None if local else open_ledger(storage, f"{plan.account}/tests", teacher, plan.identity)
    ledger = QueryLedger(count, 0.0 if local else plan.price, store=store)
    try:
        answers = ask(teacher, tests.images, ledger)
    except (TeacherError, BudgetExceeded) as error:  # the student is there, and worth a report
        return None, 0 if local else ledger.spent, [f"The teacher's accuracy is not known: {error}"]
    right = float((answers.numpy().argmax(axis=1) == tests.labels).mean())
    return right, 0 if local else ledger.spent, []


def _register(
    outcome: Outcome, material: Material, teacher: Teacher, ledger: QueryLedger, assets: Assets, checkpoint: bytes
) -> None:
    """Put the student among kdal's models, with the mixes and soft labels that it learnt from."""
    key = f"models/{outcome.plan.name}"
    assets.write(f"{key}/student.safetensors", checkpoint)
    chosen = sorted(outcome.mixes.items())
    if chosen and all(unasked(mix_images(material.pool, mix.pairs, mix.lambdas), ledger) == 0 for _, mix in chosen):
        parts = [Mixes.answered(mix, number, material.pool, teacher, ledger) for number, mix in chosen]
        assets.write_arrays(f"{key}/mixes.npz", **Mixes.joined(parts).arrays())
    card = {
        "spec": asdict(outcome.spec) | {"options": dict(outcome.spec.options)},
        "parameters": outcome.parameters,
        "teacher": outcome.plan.identity,
        "teacher_accuracy": outcome.teacher_accuracy,
        "accuracy": outcome.accuracy,
        "success_rate": outcome.success_rate,
        "queries": outcome.spent,
        "cost": outcome.cost,
        "settings": outcome.plan.model_dump(mode="json"),
        "made_at": now().isoformat(timespec="seconds"),
    }
    assets.write_json(f"{key}/card.json", card)


def _size(material: Material) -> tuple[int, int]:
    return int(material.pool.shape[2]), int(material.pool.shape[3])
