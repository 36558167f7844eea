"""How to train, with defaults that work from a few dozen labels up; and where."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import torch

from kdal_core.errors import ConfigError
from kdal_core.tasks import Task


@dataclass(frozen=True)
class TrainConfig:
    """One training run. The same config, data and initial model give the same trained model.

    The length is counted in optimiser steps: `epochs` passes over the labels, but at least `min_steps` (so
    that 50 labels are learnt well) and at most `max_steps` (so that a round stays bounded in time).
    Where the defaults come from: methods.md, section 2 (kd_weight), and docs/results.md (the others). They suit
    classes of images; `TrainConfig.suited` has what suits a task.

    Attributes:
        epochs: passes over the labelled images.
        min_steps, max_steps: bounds on the optimiser steps, whatever `epochs` says.
        batch_size: images a step.
        lr: peak learning rate of AdamW; it warms up over the first tenth and falls to zero along a cosine.
        backbone_lr: the same of a network's pretrained part, where it has one (`Network.pretrained_parameters`); None:
            as `lr`.
        weight_decay: AdamW's.
        beta2: AdamW's, the memory of its squared gradients, in [0, 1): 0.95 looks back over 20 steps, 0.999 over 1,000.
        temperature: T of the distillation loss.
        kd_weight: w in task loss + w · distillation loss.
        unlabelled: whether S-KD hears from its teacher about images without a label, too.
        seed: of the order of the images, their random views, and any dropout.
        device: "auto" (CUDA when there is one), "cpu", "cuda" or "cuda:1".
        amp: "auto" (bfloat16 on CUDA, float32 on a CPU), "on" or "off".
        augment: whether to train on random views.
    """

    epochs: int = 30
    batch_size: int = 32
    lr: float = 2e-3
    weight_decay: float = 5e-2
    beta2: float = 0.999
    temperature: float = 4.0
    kd_weight: float = 1.0
    unlabelled: bool = False
    seed: int = 0
    device: str = "auto"
    amp: Literal["auto", "on", "off"] = "auto"
    augment: bool = True
    min_steps: int = 300
    max_steps: int = 3000
    backbone_lr: float | None = None

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "min_steps", "max_steps"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, not {getattr(self, name)!r}.")
        for name in ("lr", "temperature", "backbone_lr"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value > 0):
                raise ConfigError(f"{name} must be a positive finite number, not {value!r}.")
        for name in ("weight_decay", "kd_weight"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) >= 0):
                raise ConfigError(f"{name} must be a finite number of at least 0, not {getattr(self, name)!r}.")
        if not 0 <= self.beta2 < 1:
            raise ConfigError(f"beta2 must be in [0, 1), not {self.beta2!r}.")
        if self.batch_size < 2:
            raise ConfigError("batch_size must be at least 2: batch normalisation needs more than one image.")
        if self.amp not in ("auto", "on", "off"):
            raise ConfigError(f"amp must be 'auto', 'on' or 'off', not {self.amp!r}.")

    @classmethod
    def suited(cls, task: Task, **settings: Any) -> TrainConfig:
        """The defaults, but those that the task would have otherwise, and over both the settings that are given.

        >>> from kdal_core.tasks import LaneTask
        >>> config = TrainConfig.suited(LaneTask(("lane",)), epochs=50)
        >>> config.epochs, config.temperature
        (50, 1.0)
        """
        return cls(**{**task.defaults.training, **settings})

    def steps(self, images: int) -> int:
        """Optimiser steps for this many labelled images.

        >>> config = TrainConfig(epochs=30, batch_size=32, min_steps=300, max_steps=3000)
        >>> [config.steps(images) for images in (50, 1000, 9000)]
        [300, 960, 3000]
        """
        wanted = self.epochs * math.ceil(images / self.batch_size)
        return min(max(wanted, self.min_steps), self.max_steps)


def resolve_device(name: str) -> torch.device:
    """The device of this name; "auto" is CUDA when there is one.

    Raises:
        ConfigError: an unknown name, or CUDA where there is none.

    >>> resolve_device("cpu")
    device(type='cpu')
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"There is no device {name!r}; use 'auto', 'cpu' or 'cuda'.") from error
    if device.type not in ("cpu", "cuda"):
        raise ConfigError(f"Device {name!r} is not supported; use 'auto', 'cpu' or 'cuda'.")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ConfigError(f"Device {name!r} does not exist: torch sees {torch.cuda.device_count()} CUDA devices.")
    return device


def use_amp(choice: str, device: torch.device) -> bool:
    """Whether to compute in bfloat16: on CUDA unless refused, on a CPU only when asked."""
    return choice == "on" or (choice == "auto" and device.type == "cuda")
