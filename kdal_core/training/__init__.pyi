from .checkpoints import ModelSpec, load_checkpoint, save_checkpoint
from .config import TrainConfig, resolve_device
from .data import ImageSource
from .fine_tuning import fine_tune, fine_tuning_config
from .head import Head, JoinedHead
from .head_config import HeadConfig
from .heads import HeadPool, HeadTrio, fit_heads, out_of_fold
from .inference import Inference, infer
from .loop import TrainResult, train
from .teaching import Lessons, lessons
from .trio import Pair, Trio, TrioSpec, distil, train_pair, train_student, train_teacher, train_trio

__all__ = [
    "Head",
    "HeadConfig",
    "HeadPool",
    "HeadTrio",
    "ImageSource",
    "Inference",
    "JoinedHead",
    "Lessons",
    "ModelSpec",
    "Pair",
    "TrainConfig",
    "TrainResult",
    "Trio",
    "TrioSpec",
    "distil",
    "fine_tune",
    "fine_tuning_config",
    "fit_heads",
    "infer",
    "lessons",
    "load_checkpoint",
    "out_of_fold",
    "resolve_device",
    "save_checkpoint",
    "train",
    "train_pair",
    "train_student",
    "train_teacher",
    "train_trio",
]
