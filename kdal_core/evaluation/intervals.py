"""Intervals of what was seen on a few images."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import scipy  # whose submodules load when they are used
from numpy.typing import ArrayLike, NDArray

from kdal_core.validation import InvalidInput, as_count, as_vector

LEVEL = 0.95
"""Chance with which intervals hold what they are about."""
RESAMPLES = 2_000
FEW = 20
"""Images from which on the bootstrap's interval of a mean is trusted: that of ten misses the truth once in seven."""


class Interval(NamedTuple):
    """From low to high."""

    low: float
    high: float


def wilson(successes: float, trials: int, level: float = LEVEL) -> Interval:
    """Wilson's score interval of a share.

    Args:
        successes: of `trials`; also the sum of values in [0, 1], whose variance is no larger than that of zeros and
            ones with the same mean.
        trials: 0 gives (0, 1).
        level: of confidence, in (0, 1).

    Raises:
        InvalidInput: more successes than trials, or a level out of range.

    Source: Wilson 1927; Brown, Cai and DasGupta 2001, "Interval estimation for a binomial proportion".

    >>> [round(end, 4) for end in wilson(8, 10)]
    [0.4902, 0.9433]
    >>> wilson(0, 0)
    Interval(low=0.0, high=1.0)
    """
    trials = as_count("trials", trials, low=0, high=2**53)
    if not 0 <= successes <= trials:
        raise InvalidInput(f"successes must lie from 0 to the {trials} trials, not {successes!r}.")
    z = _quantile(level)
    if trials == 0:
        return Interval(0.0, 1.0)
    share, weight = successes / trials, z * z / trials
    middle = (share + weight / 2) / (1 + weight)
    half = z * math.sqrt(share * (1 - share) / trials + weight / (4 * trials)) / (1 + weight)
    return Interval(max(0.0, middle - half), min(1.0, middle + half))


def bootstrap(
    metric: Callable[[NDArray[np.int64]], float], images: int, level: float = LEVEL, *, seed: int = 0
) -> Interval:
    """The expanded percentile interval of a metric in [0, 1] that is computed from a set of images.

    Images are drawn anew with replacement. The plain percentile interval of few images is too narrow; this one takes
    quantiles further out, as far as a t-interval is wider than a normal one and a variance divided by N - 1 larger than
    one divided by N. Where all draws say the same (all images are right), it is Wilson's.

    Args:
        metric: of the images at these positions (`images`,), some of them more than once, in [0, 1].
        images: N; fewer than 2 say nothing: (0, 1).
        level: of confidence, in (0, 1).
        seed: of the draws.

    Raises:
        InvalidInput: a metric outside [0, 1], or a level out of range.

    Source: Hesterberg 2015, "What teachers should know about the bootstrap" (arXiv:1411.5279), section 5.3.

    >>> values = np.array([0.2, 0.4, 0.6, 0.8])
    >>> found = bootstrap(lambda images: values[images].mean(), 4)
    >>> found.low < 0.3, found.high > 0.7
    (True, True)
    """
    images, z = as_count("images", images, low=0, high=2**31), _quantile(level)
    if images < 2:
        return Interval(0.0, 1.0)
    rng = np.random.default_rng(seed)
    said = np.array([metric(rng.integers(0, images, images)) for _ in range(RESAMPLES)], dtype=np.float64)
    if not ((said >= 0) & (said <= 1)).all():
        raise InvalidInput("The metric must lie in [0, 1] for every set of images.")
    if np.ptp(said) == 0:
        return wilson(float(said[0]) * images, images, level)
    further = scipy.stats.t.ppf((1 - level) / 2, images - 1) * math.sqrt(images / (images - 1))
    tail = float(scipy.stats.norm.cdf(min(further, -z)))
    low, high = np.quantile(said, [tail, 1 - tail])
    return Interval(float(low), float(high))


def mean_interval(values: ArrayLike, level: float = LEVEL, *, seed: int = 0) -> Interval:
    """Of the mean of values in [0, 1]: Wilson's where all are 0 or 1 or there are fewer than twenty, else by bootstrap.

    >>> mean_interval([1, 1, 0, 1]) == wilson(3, 4)
    True
    """
    array = as_vector("values", values)
    if ((array < 0) | (array > 1)).any():
        raise InvalidInput("values must lie in [0, 1].")
    if len(array) < FEW or np.isin(array, (0, 1)).all():
        return wilson(float(array.sum()), len(array), level)
    return bootstrap(lambda images: float(array[images].mean()), len(array), level, seed=seed)


def _quantile(level: float) -> float:
    """z of the level's two-sided normal interval."""
    if not 0 < level < 1:
        raise InvalidInput(f"level must lie between 0 and 1, not {level!r}.")
    return float(scipy.special.ndtri((1 + level) / 2))
