"""Any student in three parts: an affine stem, a trunk that costs, and a tail that is cheap."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn

from kdal_core.distillation.confidence import Student, logits_of
from kdal_core.models import Network, StagedNetwork

Map = Callable[[Tensor], Tensor]
WIDEST = 512  # hidden values of an image; with more, keeping them for many pairs costs more than it saves


@dataclass(frozen=True)
class Submodules:
    """A student whose logits are `tail(trunk(stem(x)))`.

    Attributes:
        stem: images (B, C, H, W) -> maps (B, ...). Affine, so the stem of a mix is the mix of the stems. None: there
            is no such part, and the trunk takes images.
        trunk: maps, or images, -> hidden values (B, D).
        tail: hidden values (B, D) -> logits (B, classes).
    """

    stem: Map | None
    trunk: Map
    tail: Map


def submodules_of(student: Student) -> Submodules:
    """How far a student can be taken apart: staged networks in three, other networks before their head, a mere
    callable not at all (its hidden values are its logits)."""
    if isinstance(student, StagedNetwork):
        return Submodules(student.stem, student.trunk, lambda hidden: logits_of(lambda h: student.tail(h)[0], hidden))
    head = getattr(student, "head", None) if isinstance(student, Network) else None
    if isinstance(student, Network) and isinstance(head, nn.Linear) and head.in_features <= WIDEST:
        return Submodules(None, student.features, head)
    return Submodules(None, lambda x: logits_of(student, x), lambda hidden: hidden)
