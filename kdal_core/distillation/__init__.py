"""Distillation: soft targets and their loss; black-box teachers, their query ledger; Active Mixup and its rivals."""

from kdal_core.distillation.asking import Manner, RequestPolicy, ask, unasked
from kdal_core.distillation.confidence import Student, confidence_curves, pair_confidence
from kdal_core.distillation.ledger import Account, LedgerStore, MemoryStore, QueryLedger, image_key
from kdal_core.distillation.mixup import MixupConfig, active_mixup, random_search
from kdal_core.distillation.pairs import DEFAULT_LAMBDAS, PairPool, mix_images, mixup_pairs, pool_of_images
from kdal_core.distillation.recorded import RecordedTeacher, record_answers
from kdal_core.distillation.rivals import Method, Problem, method, method_names
from kdal_core.distillation.selection import MixupSelection, random_pairs, select_pairs
from kdal_core.distillation.soft_labels import SoftLabel, SoftLabelTask
from kdal_core.distillation.stages import Distilled, Stage, StageConfig
from kdal_core.distillation.teacher import Teacher, TorchTeacher, check_answer
from kdal_core.losses import kd_loss, soft_targets

__all__ = [
    "DEFAULT_LAMBDAS",
    "Account",
    "Distilled",
    "LedgerStore",
    "Manner",
    "MemoryStore",
    "Method",
    "MixupConfig",
    "MixupSelection",
    "PairPool",
    "Problem",
    "QueryLedger",
    "RecordedTeacher",
    "RequestPolicy",
    "SoftLabel",
    "SoftLabelTask",
    "Stage",
    "StageConfig",
    "Student",
    "Teacher",
    "TorchTeacher",
    "active_mixup",
    "ask",
    "check_answer",
    "confidence_curves",
    "image_key",
    "kd_loss",
    "method",
    "method_names",
    "mix_images",
    "mixup_pairs",
    "pair_confidence",
    "pool_of_images",
    "random_pairs",
    "random_search",
    "record_answers",
    "select_pairs",
    "soft_targets",
    "unasked",
]
