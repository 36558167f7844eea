"""What came out of a distillation."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from kdal.distill.config import Distillation
from kdal.distill.export import Exported
from kdal.distill.journal import StageRecord
from kdal_core.distillation import MixupSelection
from kdal_core.models import Network, parameter_count
from kdal_core.training import ModelSpec


@dataclass(frozen=True)
class Outcome:
    """What came out, as the report shows it.

    Attributes:
        plan: the settings.
        student: on the CPU, in eval mode.
        spec: of its checkpoint.
        stages: what was spent and reached, stage by stage.
        mixes: those asked about, by stage; number 0 has none.
        spent, cost: of the ledger: images and money.
        left: images that may still be asked about.
        test_queries: images asked about to know the teacher's accuracy.
        tests: labelled images that were scored.
        accuracy: of the student on them, in [0, 1]; None without any.
        teacher_accuracy: likewise; None where it is not known.
        notes: what a reader has to know, in sentences.
        exports: files beside the checkpoint.
        folder: of the run.
    """

    plan: Distillation
    student: Network
    spec: ModelSpec
    stages: tuple[StageRecord, ...]
    mixes: dict[int, MixupSelection]
    spent: int
    cost: float
    left: int
    test_queries: int
    tests: int
    accuracy: float | None
    teacher_accuracy: float | None
    notes: tuple[str, ...]
    exports: tuple[Exported, ...]
    folder: Path

    @property
    def success_rate(self) -> float | None:
        """Student's accuracy / teacher's accuracy."""
        if self.accuracy is None or not self.teacher_accuracy:
            return None
        return self.accuracy / self.teacher_accuracy

    @property
    def parameters(self) -> int:
        """Of the student."""
        return parameter_count(self.student)
