"""A classifier that is one layer on the features of a frozen backbone."""

from __future__ import annotations

from kdal_core.models.backbones import is_backbone
from kdal_core.models.on_backbone import ClassifierOnBackbone

FROZEN = "frozen/"
"""How the names of these networks begin; the backbone's follows."""


def is_frozen(name: str) -> bool:
    """Whether a name is that of a head on a frozen backbone.

    >>> is_frozen("frozen/mobilenet_v2"), is_frozen("mobilenet_v2"), is_frozen("frozen/mobilenet_v7")
    (True, False, False)
    """
    return name.startswith(FROZEN) and is_backbone(name.removeprefix(FROZEN))


class FrozenClassifier(ClassifierOnBackbone):
    """A backbone that is never trained, and a linear head: what a round of heads serves."""
