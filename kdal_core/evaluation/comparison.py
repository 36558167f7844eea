"""Whether a model is worse than another beyond chance, on labels that neither was trained on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy  # whose submodules load when they are used
from numpy.typing import ArrayLike, NDArray

from kdal_core.tasks import Task
from kdal_core.validation import InvalidInput, as_vector

ALPHA = 0.05
"""Chance at most with which a model that is just as good is called worse."""
DRAWS = 9_999
"""Random swaps, where there are too many different ones to try them all."""
SWAPS_AT_ONCE = 1_000
SAME = 1e-9
"""Scores of an image that differ by less are the same."""


@dataclass(frozen=True)
class Comparison:
    """What a paired test says of a new model beside the one that serves.

    Attributes:
        images: N, how many images were compared.
        worse_on: images on which the new model scores lower.
        better_on: images on which it scores higher.
        p_value: chance, were both just as good, of a result at least as bad for the new one; in (0, 1].
    """

    images: int
    worse_on: int
    better_on: int
    p_value: float

    def worse(self, alpha: float = ALPHA) -> bool:
        """Whether the new model is worse beyond chance; never on fewer than five images that tell the two apart."""
        return self.p_value < alpha


def compare(new: ArrayLike, serving: ArrayLike) -> Comparison:
    """Test whether a new model is worse than the one that serves, image by image, one-sided.

    Were both just as good, then on each image their scores might as well be swapped. The p-value is the share of all
    2^N swaps after which the new model's mean is as low as it is, or lower. Images on which both score the same say
    nothing. Where each image is right or wrong, this is McNemar's exact test: a sign test on the images that one model
    alone gets right. For other scores all swaps of up to 13 images are tried, else 9,999 at random, the same ones
    every time. The smallest p-value of n images that tell the two apart is 2^-n: with fewer than five, nothing is
    beyond chance at 0.05.

    Args:
        new: (N,) score of each image's prediction by the new model, higher is better.
        serving: (N,) of the same images by the model that serves.

    Raises:
        InvalidInput: no vectors of one length.

    Source: McNemar 1947; Fisher 1935 for the swaps. Dietterich 1998, "Approximate statistical tests for comparing
    supervised classification learning algorithms", recommends McNemar's test for two models that are given.

    >>> compare([0, 0, 0, 0, 0, 1], [1, 1, 1, 1, 1, 1])
    Comparison(images=6, worse_on=5, better_on=0, p_value=0.03125)
    >>> compare([0, 0], [1, 1]).worse()
    False
    """
    first = as_vector("new", new)
    gains = first - as_vector("serving", serving, length=len(first))
    if not np.isfinite(gains).all():
        raise InvalidInput("new and serving must be finite scores.")
    gains = gains[np.abs(gains) > SAME]
    worse_on, better_on = int((gains < 0).sum()), int((gains > 0).sum())
    return Comparison(len(first), worse_on, better_on, _p_value(gains, worse_on))


def image_scores(task: Task, predictions: NDArray[np.float32], targets: Sequence[Any]) -> NDArray[np.float64]:
    """(N,) in [0, 1]: `Task.score` of each image by itself; for classes 1 where the class is right, else 0.

    Args:
        task: what is labelled.
        predictions: (N, ...) as the task decodes them.
        targets: labels of the same N images.
    """
    if len(predictions) != len(targets):
        raise InvalidInput(f"There are {len(predictions)} predictions but {len(targets)} targets.")
    rows = range(len(targets))
    return np.array([task.score(predictions[i : i + 1], targets[i : i + 1]) for i in rows], dtype=np.float64)


def _p_value(gains: NDArray[np.float64], worse_on: int) -> float:
    """Of gains (n,), none of them 0."""
    if len(gains) == 0:
        return 1.0
    if np.ptp(np.abs(gains)) <= SAME:
        return float(scipy.stats.binomtest(worse_on, len(gains), alternative="greater").pvalue)
    tested = scipy.stats.permutation_test(
        (gains,),
        lambda sample, axis: sample.mean(axis=axis),
        permutation_type="samples",
        alternative="less",
        n_resamples=DRAWS,
        batch=SWAPS_AT_ONCE,
        vectorized=True,
        random_state=np.random.default_rng(0),
    )
    return float(tested.pvalue)
