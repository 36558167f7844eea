from .checkpoints import ModelSpec, load_checkpoint, save_checkpoint
from .config import TrainConfig, resolve_device
from .data import ImageSource
from .inference import Inference, infer
from .loop import TrainResult, train
from .trio import Pair, Trio, TrioSpec, distil, train_pair, train_student, train_teacher, train_trio

__all__ = [
    "ImageSource",
    "Inference",
    "ModelSpec",
    "Pair",
    "TrainConfig",
    "TrainResult",
    "Trio",
    "TrioSpec",
    "distil",
    "infer",
    "load_checkpoint",
    "resolve_device",
    "save_checkpoint",
    "train",
    "train_pair",
    "train_student",
    "train_teacher",
    "train_trio",
]
