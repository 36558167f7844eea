"""Fitted heads: linear maps from the features of frozen backbones to classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdal_core.training.logistic import linear, softmax
from kdal_core.training.projection import BLOCK, Projection, joined, normalised
from kdal_core.validation import InvalidInput


@dataclass(frozen=True)
class Head:
    """A linear head on a backbone's raw features: everything done to them before is folded in.

    Attributes:
        weight: (C, D) float32.
        bias: (C,) float32.
        normalised: whether the head expects features scaled to length 1, which does not fold; `logits` does it.
    """

    weight: NDArray[np.float32]
    bias: NDArray[np.float32]
    normalised: bool = True

    def logits(self, features: NDArray[Any]) -> NDArray[np.float32]:
        """(N, C) float32 of raw features (N, D) of any float type."""
        if features.ndim != 2 or features.shape[1] != self.weight.shape[1]:
            raise InvalidInput(f"features must have the shape (N, {self.weight.shape[1]}), not {features.shape}.")
        result = np.empty((len(features), len(self.bias)), dtype=np.float32)
        for start in range(0, len(features), BLOCK):
            part = features[start : start + BLOCK]
            rows = normalised(part) if self.normalised else part.astype(np.float32)
            result[start : start + BLOCK] = rows @ self.weight.T + self.bias
        return result

    def probabilities(self, features: NDArray[Any]) -> NDArray[np.float32]:
        """(N, C) float32, rows of sum 1."""
        return softmax(self.logits(features))


@dataclass(frozen=True)
class JoinedHead:
    """T's head, for images outside the pool. It has learnt T's word, and does not hear the neighbours of new images.

    Attributes:
        parts: the projection of each of the teacher's features.
        values: (D + 1, C) float64: weights on the joined components of length 1, and below them the biases.
    """

    parts: tuple[Projection, ...]
    values: NDArray[np.float64]

    def probabilities(self, features: Sequence[NDArray[Any]]) -> NDArray[np.float32]:
        """(N, C) float32 of raw features (N, E_i), in the order that the head was fitted with."""
        if len(features) != len(self.parts):
            raise InvalidInput(f"The teacher was fitted on {len(self.parts)} kinds of features, not {len(features)}.")
        return softmax(linear(self.values, joined(self.parts, features)))
