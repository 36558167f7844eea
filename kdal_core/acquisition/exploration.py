"""A random share of each batch: labels that did not choose themselves, on which honest estimates stand."""

from __future__ import annotations

import itertools
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from kdal_core.validation import InvalidInput, as_count


class Explored(NamedTuple):
    """An order with its random share."""

    indices: NDArray[np.int64]
    """(N,) as the order was, but for the images drawn at random, which come earlier."""
    drawn: NDArray[np.int64]
    """Those images, in the order in which they were drawn."""


def explore(indices: NDArray[np.int64], share: float, *, budget: int, batches: int, seed: int) -> Explored:
    """Put images that are drawn from the whole pool at random evenly between those of each batch.

    Whatever an order prefers, each image of the pool that is not in an earlier batch has the same chance to be drawn,
    also one that the order would have put into the batch itself. So what is seen of a model on these images is, on
    average, what would be seen on all of the pool.

    Args:
        indices: (N,) the pool in the order of a strategy.
        share: of each batch, 0 to 1; the number of images is rounded.
        budget: images of a batch.
        batches: so many batches get their share; the order behind them stays.
        seed: of the draw.

    Raises:
        InvalidInput: a share outside [0, 1], or a batch of no image.

    >>> explore(np.arange(10), 0.5, budget=4, batches=1, seed=1).drawn.tolist()
    [8, 4]
    >>> explore(np.arange(10), 0.5, budget=4, batches=1, seed=1).indices.tolist()
    [0, 8, 1, 4, 2, 3, 5, 6, 7, 9]
    """
    if not 0 <= share <= 1:
        raise InvalidInput(f"share must lie from 0 to 1, not {share!r}.")
    budget = as_count("budget", budget, low=1, high=2**31)
    each = int(share * budget + 0.5)
    order = indices.tolist()
    if not each or not order:
        return Explored(indices, np.zeros(0, dtype=np.int64))
    lots = np.random.default_rng(seed).permutation(np.asarray(indices)).tolist()
    slots = {(place + 1) * budget // each - 1 for place in range(each)}
    placed: dict[int, None] = {}
    drawn: list[int] = []
    for _ in range(batches):
        lots = [lot for lot in lots if lot not in placed]
        mine = lots[:each]
        drawn += mine
        others = (image for image in order if image not in placed and image not in mine)
        random = iter(mine)
        batch: list[int] = []
        for slot in range(budget):
            sources = (random, others) if slot in slots else (others, random)
            image = next(itertools.chain(*sources), None)
            if image is not None:
                batch.append(image)
        placed |= dict.fromkeys(batch)
    rest = [image for image in order if image not in placed]
    return Explored(np.array([*placed, *rest], dtype=np.int64), np.array(drawn, dtype=np.int64))
