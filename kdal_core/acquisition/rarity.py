"""Which images show objects of classes that are rare in the pool: what there is least to learn from."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kdal_core.validation import InvalidInput, as_matrix


def rarity(objects: ArrayLike) -> NDArray[np.float64]:
    """How much each image shows, a class counting by how seldom the pool shows it.

    The sum over the classes of the image's objects divided by the pool's mean of them, divided by the number of classes
    that the pool shows: 1 on average. With equal classes it counts objects.

    Args:
        objects: (N, C) how many objects of each class an image seems to show, >= 0; need not be whole numbers.

    Returns:
        (N,) >= 0, without unit; all zero where no image shows anything.

    Raises:
        InvalidInput: NaN, infinite or negative numbers, or another shape.

    Source: Brust et al. 2019 (arXiv:1809.09875), section 3.3, weigh detections by their class's inverse frequency
    among the labels; here among what the model sees in the pool, and objects themselves are counted, not margins.

    >>> rarity([[9, 0], [10, 0], [11, 2]]).round(2).tolist()
    [0.45, 0.5, 2.05]
    """
    counts = as_matrix("objects", objects)
    if counts.size and counts.min() < 0:
        raise InvalidInput("objects must hold numbers of objects, not negative ones.")
    shown = counts.sum(axis=0) > 0
    if not shown.any():
        return np.zeros(len(counts))
    told = counts[:, shown]
    found: NDArray[np.float64] = (told / told.mean(axis=0)).mean(axis=1)
    return found
