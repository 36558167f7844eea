from .confidence import Student, confidence_curves, pair_confidence
from .ledger import Account, LedgerStore, MemoryStore, QueryLedger, image_key
from .losses import kd_loss, soft_targets
from .mixup import MixupConfig, active_mixup, random_search
from .pairs import DEFAULT_LAMBDAS, PairPool, mix_images, mixup_pairs, pool_of_images
from .querying import Manner, RequestPolicy, ask, unasked
from .recorded import RecordedTeacher, record_answers
from .rivals import Method, Problem, method, method_names
from .selection import MixupSelection, random_pairs, select_pairs
from .soft_labels import SoftLabel, SoftLabelTask
from .stages import Distilled, Stage, StageConfig
from .teacher import Teacher, TorchTeacher, check_answer

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
