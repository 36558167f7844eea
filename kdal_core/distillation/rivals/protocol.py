"""The one form of all methods that make a student from a teacher, and their names."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from torch import Tensor, nn

from kdal_core.distillation.ledger import QueryLedger
from kdal_core.distillation.mixup import MixupConfig
from kdal_core.distillation.stages import Distilled, Stage
from kdal_core.distillation.teacher import Teacher
from kdal_core.errors import ConfigError
from kdal_core.models import Network

_METHODS = {
    "active_mixup": "kdal_core.distillation.rivals.mixup_rules:active",
    "random_search": "kdal_core.distillation.rivals.mixup_rules:random",
    "vanilla_active": "kdal_core.distillation.rivals.vanilla_active:vanilla_active",
    "vanilla_kd": "kdal_core.distillation.rivals.vanilla_kd:vanilla_kd",
    "fskd": "kdal_core.distillation.rivals.fskd:fskd",
    "zskd": "kdal_core.distillation.rivals.zskd:zskd",
}


@dataclass(frozen=True)
class Problem:
    """What a method is given.

    Attributes:
        teacher: the black box.
        images: uint8 (N, 3, H, W), unlabelled.
        student: architecture, a name that `build_model` knows.
        ledger: budget; every method but `zskd` pays for all it asks.
        config: stages, training, seed, and what mixes may be.
        white_box: the teacher's own network, for methods that look inside it (`zskd`).
        on_stage: called after each training with the stage and its student.
    """

    teacher: Teacher
    images: Tensor
    student: str
    ledger: QueryLedger
    config: MixupConfig = field(default_factory=MixupConfig)
    white_box: nn.Module | None = None
    on_stage: Callable[[Stage, Network], None] | None = None


class Method(Protocol):
    """Active Mixup or a rival."""

    def __call__(self, problem: Problem) -> Distilled:
        """The student, what it cost, and how it went."""


def method_names() -> list[str]:
    """Names that `method` knows.

    >>> method_names()
    ['active_mixup', 'random_search', 'vanilla_active', 'vanilla_kd', 'fskd', 'zskd']
    """
    return list(_METHODS)


def method(name: str) -> Method:
    """A method by its name.

    Raises:
        ConfigError: there is none of this name.
    """
    if name not in _METHODS:
        raise ConfigError(f"There is no distillation method {name!r}; known: {', '.join(_METHODS)}.")
    module, _, function = _METHODS[name].partition(":")
    found: Method = getattr(importlib.import_module(module), function)
    return found
