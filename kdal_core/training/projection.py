"""Principal components of features that are scaled to length 1."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

BLOCK = 4_096  # rows converted at a time
LEARNT_FROM = 10_000  # rows that the components are taken of, at most
ROUNDS = 3  # of subspace iteration
SPARE = 16  # directions carried along beyond those wanted


@dataclass(frozen=True)
class Projection:
    """From features to their principal components: (x / |x| - mean) · axes.

    Attributes:
        mean: (D,) float32.
        axes: (D, K) float32: orthonormal directions, divided by one common number, by which the components of the
            features that it was made of have a mean square length of 1.
    """

    mean: NDArray[np.float32]
    axes: NDArray[np.float32]

    def components(self, features: NDArray[Any], rows: NDArray[np.int64] | None = None) -> NDArray[np.float32]:
        """(N, K) float32 of features (N, D) of any float type; of `rows` (R,) alone and in their order, where given."""
        rows = np.arange(len(features)) if rows is None else rows
        result = np.empty((len(rows), self.axes.shape[1]), dtype=np.float32)
        for start in range(0, len(rows), BLOCK):
            part = normalised(features[rows[start : start + BLOCK]])
            part -= self.mean
            result[start : start + BLOCK] = part @ self.axes
        return result


def principal_components(
    features: NDArray[Any], rows: NDArray[np.int64], count: int, generator: np.random.Generator
) -> Projection:
    """The projection to the `count` directions in which the features, scaled to length 1, vary most.

    Args:
        features: (N, D).
        rows: (R,) those that are looked at: at most 10,000 of them, evenly spaced.
        count: K; at most D and R - 1 are taken, at least one.
        generator: gives the directions from which the search starts.

    Source: Halko et al., Finding structure with randomness, 2011, algorithm 4.4.
    """
    looked_at = np.linspace(0, len(rows) - 1, min(len(rows), LEARNT_FROM)).astype(np.int64)
    sample = normalised(features[rows[looked_at]])
    mean = sample.mean(axis=0, dtype=np.float64).astype(np.float32)
    sample -= mean
    size, dimensions = sample.shape
    count = max(1, min(count, dimensions, size - 1))
    scatter = sample.T @ sample
    scatter /= np.float32(size)
    carried = min(dimensions, count + SPARE)
    basis = generator.standard_normal((dimensions, carried), dtype=np.float32)
    for _ in range(ROUNDS):
        basis = np.linalg.qr(scatter @ basis)[0]
    turn = np.linalg.eigh((basis.T @ scatter @ basis).astype(np.float64))[1][:, ::-1][:, :count]
    total = float(np.trace(scatter, dtype=np.float64))
    axes = basis @ (turn / np.sqrt(total if total > 0 else 1.0))
    return Projection(mean, axes.astype(np.float32))


def normalised(features: NDArray[Any]) -> NDArray[np.float32]:
    """Rows (N, D) scaled to length 1, as float32; a row of zeros stays as it is."""
    import torch  # it takes seconds to import, and converts half precision four times as fast as numpy

    rows: NDArray[np.float32] = torch.tensor(np.ascontiguousarray(features)).to(torch.float32).numpy()
    rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), np.float32(1e-12))
    return rows


def joined(
    parts: Sequence[Projection], features: Sequence[NDArray[Any]], rows: NDArray[np.int64] | None = None
) -> NDArray[np.float32]:
    """Features of several backbones side by side: the components of each, scaled to length 1, of length 1 together.

    Args:
        parts: the projection of each backbone's features.
        features: (N, D_i) of each.
        rows: (R,) those that are wanted, in their order; None: all.

    Returns:
        (R, ΣK_i) float32.
    """
    scaled = [normalised(part.components(kind, rows)) for part, kind in zip(parts, features, strict=True)]
    result: NDArray[np.float32] = np.concatenate(scaled, axis=1)
    result /= np.float32(np.sqrt(len(scaled)))
    return result
