"""Where an image's prediction differs from those of the images that look like it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kdal_core.acquisition.greedy import Selection
from kdal_core.acquisition.neighbors import nearest_neighbors
from kdal_core.acquisition.strategies.bald import mutual_information
from kdal_core.acquisition.strategies.protocol import PoolScores
from kdal_core.acquisition.strategies.ranking import ranked, settled
from kdal_core.validation import as_count

BLOCK = 2_000_000  # probabilities held at a time, 16 MB


def acd(pool: PoolScores, *, k: int = 10) -> Selection:
    """Highest divergence of the predictions in an image's neighbourhood first; scores in nats, 0 to log C.

    Args:
        pool: with probabilities (N, C) and features (N, D).
        k: neighbours; a pool of N <= k images uses N - 1.

    Raises:
        InvalidInput: NaN, arrays of different pools, rows that are no probabilities, or k < 1.

    Source: Aghdam et al., Active Learning for Deep Detection Neural Networks, ICCV 2019 (arXiv:1911.09168), the
    divergence of a pixel's prediction from those around it. P: a class label has no map, so the neighbourhood of an
    image is itself and its k nearest images in feature space.
    """
    k = as_count("k", k, low=1, high=np.iinfo(np.int64).max)
    probabilities = pool.distributions("probabilities")
    size = pool.size
    nearest = nearest_neighbors(pool.matrix("features"), min(k, max(size - 1, 0)))
    members = np.concatenate([np.arange(size)[:, None], nearest], axis=1)  # (N, 1 + k)
    rows = max(1, BLOCK // max(members.shape[1] * probabilities.shape[1], 1))
    parts = [neighborhood_divergence(probabilities[members[i : i + rows]]) for i in range(0, size, rows)]
    return ranked(settled(np.concatenate([np.zeros(0), *parts])))


def neighborhood_divergence(probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
    """H(mean of p) - mean of H(p) over the R members of each neighbourhood: (N, R, C) -> (N,), in nats.

    The members may be the cells around a cell of a dense map, as in the paper, or images around an image.

    >>> neighborhood_divergence(np.array([[[1.0, 0.0], [0.0, 1.0]], [[0.9, 0.1], [0.9, 0.1]]])).round(4).tolist()
    [0.6931, 0.0]
    """
    return mutual_information(probabilities.swapaxes(0, 1))
