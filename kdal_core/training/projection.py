"""Principal components of features that are scaled to length 1."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

BLOCK = 4_096  # rows converted at a time
LEARNT_FROM = 10_000  # rows that the components are taken of, at most
ROUNDS = 4  # of subspace iteration
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

    def components(self, features: NDArray[Any]) -> NDArray[np.float32]:
        """(N, K) float32 of features (N, D) of any float type."""
        result = np.empty((len(features), self.axes.shape[1]), dtype=np.float32)
        for start in range(0, len(features), BLOCK):
            part = normalised(features[start : start + BLOCK])
            result[start : start + BLOCK] = (part - self.mean) @ self.axes
        return result


def principal_components(features: NDArray[Any], count: int, generator: np.random.Generator) -> Projection:
    """The projection to the `count` directions in which the features, scaled to length 1, vary most.

    Args:
        features: (N, D); at most 10,000 of them are looked at, evenly spaced.
        count: K; at most D and N - 1 are taken, at least one.
        generator: gives the directions from which the search starts.

    Source: Halko et al., Finding structure with randomness, 2011, algorithm 4.4.
    """
    rows = np.linspace(0, len(features) - 1, min(len(features), LEARNT_FROM)).astype(np.int64)
    sample = normalised(features[rows])
    mean = sample.mean(axis=0, dtype=np.float64).astype(np.float32)
    sample -= mean
    dimensions = sample.shape[1]
    count = max(1, min(count, dimensions, len(sample) - 1))
    scatter = (sample.T @ sample).astype(np.float64) / len(sample)
    carried = min(dimensions, count + SPARE)
    basis = generator.standard_normal((dimensions, carried))
    for _ in range(ROUNDS):
        basis, _ = np.linalg.qr(scatter @ basis)
    turn = np.linalg.eigh(basis.T @ scatter @ basis)[1]
    axes = basis @ turn[:, ::-1][:, :count]
    spread = float(np.trace(scatter))
    return Projection(mean, (axes / np.sqrt(spread if spread > 0 else 1.0)).astype(np.float32))


def normalised(features: NDArray[Any]) -> NDArray[np.float32]:
    """Rows (N, D) scaled to length 1, as float32; a row of zeros stays as it is."""
    rows = np.array(features, dtype=np.float32)
    rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), np.float32(1e-12))
    return rows
