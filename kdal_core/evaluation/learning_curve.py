"""How good each round's model was, by labels that neither it nor the order had a say in: test, then train."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy  # whose submodules load when they are used
from numpy.typing import ArrayLike, NDArray

from kdal_core.evaluation.intervals import LEVEL, Interval, bootstrap, mean_interval, wilson
from kdal_core.validation import InvalidInput, as_vector

Metric = Callable[[NDArray[np.int64]], float]
"""A metric in [0, 1] of a set of rows, some of them more than once."""
MOST_TRIALS = 1e6


@dataclass(frozen=True)
class CurvePoint:
    """One model.

    Attributes:
        labels: that it was trained on.
        images: drawn at random, labelled after it had predicted them.
        value: its metric on these, in [0, 1].
        low, high: ends of the interval.
        trials: images that would tell as much, were each simply right or wrong: their number, where it is so.
    """

    labels: int
    images: int
    value: float
    low: float
    high: float
    trials: float


@dataclass(frozen=True)
class LearningCurve:
    """The models of a project.

    Attributes:
        points: in the order of their labels; models without an image drawn at random are left out.
        images: that were counted.
        left_out: images that the order had chosen, which say nothing of a model.
        level: of confidence of the intervals.
    """

    points: tuple[CurvePoint, ...]
    images: int
    left_out: int
    level: float

    @property
    def sentence(self) -> str:
        """What the last point says, in words."""
        if not self.points:
            return "Nothing can be said of the models yet: no image drawn at random was labelled after a model saw it."
        last = self.points[-1]
        return (
            f"The model of {last.labels:,} labels scores {last.value:.1%} on {last.images:,} images drawn at random, "
            f"which it had not seen; with {self.level:.0%} confidence between {last.low:.1%} and {last.high:.1%}."
        )


def learning_curve(
    labels: ArrayLike, score: ArrayLike | Metric, at_random: ArrayLike, *, level: float = LEVEL, seed: int = 0
) -> LearningCurve:
    """The learning curve of the models that served, from what each said of images before it learnt their labels.

    A row is one prediction: a model met an image whose label it did not know. Only rows count whose image was drawn
    from the pool at random (`explore`): an order that looks for hard images makes a model look bad on these, one that
    looks for typical ones makes it look good. What the points estimate is the metric on the images that had no label
    when the model began to serve.

    Args:
        labels: (M,) number of labels of the model that predicted.
        score: (M,) of each prediction in [0, 1]: 1 for right and 0 for wrong, or an image's own IoU or F1. Or, for a
            metric of a set (mAP), a function from row numbers to it.
        at_random: (M,) whether the image was drawn at random. There is no default, on purpose.
        level: of confidence, in (0, 1).
        seed: of the bootstrap.

    Returns:
        Points with Wilson's interval where predictions are right or wrong, and a bootstrap's elsewhere.

    Raises:
        InvalidInput: shapes that do not fit, scores outside [0, 1], or labels that are no whole numbers >= 0.

    Source: Dawid 1984, "The prequential approach", and Gama et al. 2013, "On evaluating stream learning algorithms",
    for test-then-train; `intervals` names those of the intervals.

    >>> curve = learning_curve([50] * 4 + [100] * 4, [1, 0, 1, 0, 1, 1, 1, 0], [True] * 7 + [False])
    >>> [(point.labels, point.images, point.value) for point in curve.points], curve.left_out
    ([(50, 4, 0.5), (100, 3, 1.0)], 1)
    """
    counts = as_vector("labels", labels)
    if (counts < 0).any() or (counts != np.floor(counts)).any():
        raise InvalidInput("labels must be whole numbers of at least 0.")
    drawn = as_vector("at_random", at_random, length=len(counts)) > 0
    scores = None if callable(score) else _scores(score, len(counts))
    points = []
    for count in np.unique(counts[drawn]):
        rows = np.flatnonzero(drawn & (counts == count))
        if scores is not None:
            value, ends = float(scores[rows].mean()), mean_interval(scores[rows], level, seed=seed)
            graded = not np.isin(scores[rows], (0, 1)).all()
        else:
            assert callable(score)
            value, ends, graded = float(score(rows)), _of_set(score, rows, level, seed), True
        trials = _trials(value, ends, level) if graded else float(len(rows))
        points.append(CurvePoint(int(count), len(rows), value, min(ends.low, value), max(ends.high, value), trials))
    return LearningCurve(tuple(points), int(drawn.sum()), int((~drawn).sum()), level)


def _of_set(metric: Metric, rows: NDArray[np.int64], level: float, seed: int) -> Interval:
    return bootstrap(lambda images: metric(rows[images]), len(rows), level, seed=seed)


def _trials(value: float, ends: Interval, level: float) -> float:
    """How many rights and wrongs of this mean have a Wilson interval this wide."""
    width = ends.high - ends.low

    def wider(log_trials: float) -> float:
        trials = math.ceil(math.exp(log_trials))
        found = wilson(value * trials, trials, level)
        return found.high - found.low - width

    most = math.log(MOST_TRIALS)
    if wider(0.0) <= 0:
        return 0.0
    return MOST_TRIALS if wider(most) >= 0 else math.exp(scipy.optimize.bisect(wider, 0.0, most, xtol=1e-3))


def _scores(score: ArrayLike | Metric, length: int) -> NDArray[np.float64]:
    scores: NDArray[np.float64] = as_vector("score", score, length=length)  # type: ignore[arg-type]
    if ((scores < 0) | (scores > 1)).any():
        raise InvalidInput("score must lie in [0, 1].")
    return scores
