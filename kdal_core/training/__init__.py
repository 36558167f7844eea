"""Training: one loop, one way to infer, checkpoints in safetensors, and the trio S, T, S-KD."""

from kdal_core.training.checkpoints import ModelSpec, load_checkpoint, save_checkpoint
from kdal_core.training.config import TrainConfig, resolve_device
from kdal_core.training.data import ImageSource
from kdal_core.training.inference import Inference, infer
from kdal_core.training.loop import TrainResult, train
from kdal_core.training.trio import Pair, Trio, TrioSpec, distil, train_pair, train_student, train_teacher, train_trio

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
