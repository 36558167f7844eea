"""Where an image's prediction differs from those of the images, or of the places in it, that lie beside it."""

from __future__ import annotations

import itertools

import numpy as np
from numpy.typing import NDArray

from kdal_core.acquisition.greedy import Selection
from kdal_core.acquisition.neighbors import nearest_neighbors
from kdal_core.acquisition.strategies.bald import mutual_information
from kdal_core.acquisition.strategies.entropy import shannon_entropy
from kdal_core.acquisition.strategies.protocol import BLOCK, PoolScores, Strategy
from kdal_core.acquisition.strategies.ranking import ranked, settled
from kdal_core.validation import as_count

ANY = np.iinfo(np.int64).max
CELL = 2
"""Places of a distribution that tells of one cell: there and absent. A row of lanes has more."""


def acd(pool: PoolScores, *, k: int = 10, window: int = 4) -> Selection:
    """Highest divergence of the predictions in a neighbourhood first; scores in nats.

    Dense predictions are read as in the paper: maps of how probable an object is at each cell, the divergence in each
    cell's 3 x 3 neighbourhood, of which the largest of each square of `window` x `window` cells counts, and the mean of
    these. Lanes make one map: a cell's probability joins the slots as if they were independent. Boxes make one for each
    class, which count alike.

    Args:
        pool: with probabilities (N, C) and features (N, D); or with any features and dense probabilities whose last
            place is "absent": (N, ..., R, G + 1), R rows of G places; or (N, ..., R, G, 2), each cell for itself.
        k: neighbours, where an image has one distribution; a pool of N <= k images uses N - 1.
        window: cells, where it has a map.

    Raises:
        InvalidInput: NaN, arrays of different pools, rows that are no probabilities, k or window < 1.

    Source: Aghdam et al., Active Learning for Deep Detection Neural Networks, ICCV 2019 (arXiv:1911.09168), the
    divergence of a pixel's prediction from those around it. P: a class label has no map, so the neighbourhood of an
    image is itself and its k nearest images in feature space; and the sizes of the two windows.
    """
    k, window = as_count("k", k, low=1, high=ANY), as_count("window", window, low=1, high=ANY)
    if len(pool.layout("probabilities")) > 1:
        parts = [_of_maps(block, window) for _, block in pool.blocks("probabilities")]
    else:
        parts = _among_images(pool, k)
    return ranked(settled(np.concatenate([np.zeros(0), *parts])))


STRATEGY = Strategy("acd", acd, frozenset({"probabilities", "features"}))


def _of_maps(probabilities: NDArray[np.float64], window: int) -> NDArray[np.float64]:
    """The divergence (n,) of a block of dense predictions."""
    if probabilities.shape[-1] > CELL:
        return map_divergence(lane_map(probabilities), window)
    maps = probabilities[..., 0]  # (n, ..., R, G)
    each = map_divergence(maps.reshape(-1, *maps.shape[-2:]), window)
    result: NDArray[np.float64] = each.reshape(len(maps), -1).mean(axis=1)
    return result


def _among_images(pool: PoolScores, k: int) -> list[NDArray[np.float64]]:
    """The divergence (n,) of each block of images."""
    size, (classes,) = pool.size, pool.layout("probabilities")
    probabilities = np.concatenate([np.zeros((0, classes)), *(block for _, block in pool.blocks("probabilities"))])
    nearest = nearest_neighbors(pool.matrix("features"), min(k, max(size - 1, 0)))
    members = np.concatenate([np.arange(size)[:, None], nearest], axis=1)  # (N, 1 + k)
    rows = max(1, BLOCK // max(members.shape[1] * classes, 1))
    return [neighborhood_divergence(probabilities[members[i : i + rows]]) for i in range(0, size, rows)]


def neighborhood_divergence(probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
    """H(mean of p) - mean of H(p) over the R members of each neighbourhood: (N, R, C) -> (N,), in nats.

    The members may be the cells around a cell of a dense map, as in the paper, or images around an image.

    >>> neighborhood_divergence(np.array([[[1.0, 0.0], [0.0, 1.0]], [[0.9, 0.1], [0.9, 0.1]]])).round(4).tolist()
    [0.6931, 0.0]
    """
    return mutual_information(probabilities.swapaxes(0, 1))


def lane_map(probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
    """How probable any lane is at each cell: (N, ..., R, G + 1) -> (N, R, G), in [0, 1]."""
    *_, rows, places = probabilities.shape
    slots = probabilities[..., :-1].reshape(len(probabilities), -1, rows, places - 1)
    result: NDArray[np.float64] = 1 - np.prod(1 - slots, axis=1)
    return result


def map_divergence(there: NDArray[np.float64], window: int) -> NDArray[np.float64]:
    """Mean over squares of the largest `neighborhood_divergence` of a cell and those around it: (N, R, G) -> (N,).

    Beyond the border the map goes on as it ends.
    """

    def around(values: NDArray[np.float64]) -> NDArray[np.float64]:
        padded = np.pad(values, ((0, 0), (1, 1), (1, 1)), mode="edge")
        total = np.zeros(values.shape)
        for i, j in itertools.product(range(3), range(3)):
            total += padded[:, i : i + values.shape[1], j : j + values.shape[2]]
        return total / 9

    divergence = _binary_entropy(around(there)) - around(_binary_entropy(there))
    for axis in (1, 2):
        divergence = np.maximum.reduceat(divergence, range(0, there.shape[axis], window), axis=axis)
    result: NDArray[np.float64] = divergence.mean(axis=(1, 2))
    return np.maximum(result, 0.0)  # rounding alone can take it below


def _binary_entropy(there: NDArray[np.float64]) -> NDArray[np.float64]:
    """(...) probabilities -> (...) entropy of there or not there, in nats."""
    return shannon_entropy(np.stack([there, 1 - there], axis=-1))
