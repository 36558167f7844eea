"""Distillation: soft targets and their loss; black-box teachers, their query ledger."""

from kdal_core.distillation.asking import Manner, ask, unasked
from kdal_core.distillation.ledger import Account, LedgerStore, MemoryStore, QueryLedger, image_key
from kdal_core.distillation.recorded import RecordedTeacher, record_answers
from kdal_core.distillation.teacher import Teacher, TorchTeacher, check_answer
from kdal_core.losses import kd_loss, soft_targets

__all__ = [
    "Account",
    "LedgerStore",
    "Manner",
    "MemoryStore",
    "QueryLedger",
    "RecordedTeacher",
    "Teacher",
    "TorchTeacher",
    "ask",
    "check_answer",
    "image_key",
    "kd_loss",
    "record_answers",
    "soft_targets",
    "unasked",
]
