"""A classifier on a backbone whose later layers are trained along with its head."""

from __future__ import annotations

import copy
import itertools
from typing import Self

from torch import nn

from kdal_core.models.backbones import Backbone, is_backbone
from kdal_core.models.frozen import FrozenClassifier
from kdal_core.models.on_backbone import ClassifierOnBackbone

TUNED = "tuned/"
"""How the names of these networks begin; the backbone's follows."""
FROZEN_SHARE = 0.5
"""Share of a backbone's parameters, counted as tensors in the order in which they are defined, that stay as they are:
the early layers, which see edges and textures in any photo, and are the costly ones to go back through."""


def is_tuned(name: str) -> bool:
    """Whether a name is that of a fine-tuned network.

    >>> is_tuned("tuned/mobilenet_v2"), is_tuned("frozen/mobilenet_v2"), is_tuned("tuned/mobilenet_v7")
    (True, False, False)
    """
    return name.startswith(TUNED) and is_backbone(name.removeprefix(TUNED))


class TunedClassifier(ClassifierOnBackbone):
    """A backbone and a linear head, all trained but the backbone's first layers.

    Its batch norms divide by the averages of the images that the backbone was pretrained on, as those of a frozen one:
    a few small batches would give worse ones, and the head that training begins with was fitted to these.

    Args:
        backbone: training changes it: one that nobody else uses, or a name, where a checkpoint brings the weights.
        num_classes: C >= 1.
        frozen: share of the backbone's parameters that stay as they are, in [0, 1].
    """

    def __init__(self, backbone: Backbone | str, num_classes: int, *, frozen: float = FROZEN_SHARE) -> None:
        super().__init__(backbone, num_classes)
        parameters = list(self.backbone.parameters())
        self._frozen = round(frozen * len(parameters))
        for parameter in self.pretrained_parameters():
            parameter.requires_grad_(True)

    @classmethod
    def beginning_as(cls, network: FrozenClassifier, *, frozen: float = FROZEN_SHARE) -> Self:
        """One that says what a frozen one says, and can be trained further; the frozen one stays as it is."""
        found = cls(copy.deepcopy(network.backbone), network.head.out_features, frozen=frozen)
        normalised = bool(network.get_buffer("normalised"))
        found.set_head(network.head.weight, network.head.bias, normalised=normalised)
        return found

    def pretrained_parameters(self) -> list[nn.Parameter]:
        """Those of the backbone that are trained."""
        return list(itertools.islice(self.backbone.parameters(), self._frozen, None))
