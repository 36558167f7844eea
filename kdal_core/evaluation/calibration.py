"""How sure a model may be: confidences that are right as often as they say, learnt from few labels."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy  # whose submodules load when they are used
from numpy.typing import ArrayLike, NDArray

from kdal_core.tasks import Task
from kdal_core.tasks.task import Graded
from kdal_core.validation import InvalidInput, as_floats, as_matrix, as_vector

USUAL = 1.0
"""Temperature that is expected before any label is seen: the model's own confidence."""
SPREAD = 0.3
"""How far from it temperatures are expected to lie: two of three within a factor of e^0.3. At 0.5, one sure mistake
among five labels made the digits' confidences three times as wrong as they were (docs/results/gate.md)."""
SHIFTED = 1.0
"""Standard deviation of the offset of scores, in nats, before any label is seen."""
LEAST, MOST = 0.1, 10.0
"""Temperatures between which the right one is looked for."""
TINY = 1e-7
"""Probability that a model gives at least to anything: float32 cannot tell less from nothing."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Calibration:
    """What is made of a model's confidences.

    Attributes:
        temperature: by which its logits are divided; above 1 the model is surer of itself than it should be.
        offset: added to the logits of the scores of single objects afterwards; probabilities of classes have none.
        labels: graded predictions that it was learnt from: images, or objects predicted on them.
    """

    temperature: float = USUAL
    offset: float = 0.0
    labels: int = 0

    def probabilities(self, values: ArrayLike) -> Floats:
        """`calibrated`: probabilities of classes (..., C), whose order stays."""
        return calibrated(values, self.temperature)

    def scores(self, values: ArrayLike) -> Floats:
        """Scores in [0, 1] of any shape, whose order stays; NaN stays NaN."""
        scores = np.asarray(values, dtype=np.float64)
        changed: Floats = scipy.special.expit(_logits(scores) / self.temperature + self.offset)
        return changed

    def as_json(self) -> dict[str, float]:
        """As JSON, every digit kept."""
        return {"temperature": self.temperature, "offset": self.offset, "labels": self.labels}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Calibration:
        """What `as_json` wrote."""
        return cls(float(value["temperature"]), float(value["offset"]), int(value["labels"]))


def calibrated(probabilities: ArrayLike, temperature: float) -> Floats:
    """Probabilities after their logits were divided by a temperature.

    Args:
        probabilities: (..., C), each row sums to 1; what is 0 counts as 1e-7.
        temperature: > 0.

    Returns:
        (..., C), each row sums to 1. The likeliest class stays the likeliest.

    Source: Guo et al. 2017 (arXiv:1706.04599), section 4.2.

    >>> calibrated([0.9, 0.1], 2.0).round(9).tolist()
    [0.75, 0.25]
    """
    if not (math.isfinite(temperature) and temperature > 0):
        raise InvalidInput(f"temperature must be a positive number, not {temperature!r}.")
    logits = np.log(as_floats("probabilities", probabilities).clip(min=TINY)) / temperature
    found: Floats = scipy.special.softmax(logits, axis=-1)
    return found


def fit_temperature(probabilities: ArrayLike, targets: ArrayLike) -> float:
    """The temperature under which labels that the model was not trained on are likeliest.

    It minimises their negative log-likelihood, and the square of log(T / `USUAL`) / `SPREAD` beside it (the mode of
    the posterior under a log-normal prior). So no label gives `USUAL`, few move it a little, and neither "all right"
    nor "all wrong" sends it to 0 or infinity.

    Args:
        probabilities: (N, C) of a model for N images that it was not trained on: held-out, or out-of-fold.
        targets: (N,) class numbers in [0, C); N may be 0.

    Returns:
        A temperature in [0.1, 10].

    Raises:
        InvalidInput: wrong shapes, NaN, or a class number out of range.

    Source: Guo et al. 2017 (arXiv:1706.04599) for the likelihood; the prior is our choice.

    >>> fit_temperature(np.empty((0, 2)), [])
    1.0
    >>> surely_wrong_half_the_time = fit_temperature([[0.99, 0.01]] * 40, [0, 1] * 20)
    >>> surely_wrong_half_the_time > 3
    True
    """
    rows = as_matrix("probabilities", probabilities)
    labels = np.asarray(targets, dtype=np.int64) if len(np.asarray(targets)) else np.empty(0, np.int64)
    if labels.shape != rows.shape[:1]:
        raise InvalidInput(f"probabilities must be (N, C) and targets (N,), not {rows.shape} and {labels.shape}.")
    if len(labels) == 0:
        return USUAL
    if labels.min() < 0 or labels.max() >= rows.shape[1]:
        raise InvalidInput(f"targets must be class numbers from 0 to {rows.shape[1] - 1}.")
    logs = np.log(rows.clip(min=TINY))

    def unlikeliness(log_temperature: float) -> float:
        scaled = logs / math.exp(log_temperature)
        likelihood = scaled[np.arange(len(labels)), labels] - scipy.special.logsumexp(scaled, axis=1)
        return _far(log_temperature) - float(likelihood.sum())

    bounds = (math.log(LEAST), math.log(MOST))
    found = scipy.optimize.minimize_scalar(unlikeliness, bounds=bounds, method="bounded").x
    return math.exp(float(found))


def fit_scores(scores: ArrayLike, right: ArrayLike, even: float = 0.5) -> Calibration:
    """Temperature and offset under which scores of single objects say how often they are right.

    Platt's two numbers, with priors as in `fit_temperature`: without objects, a score of `even` becomes 0.5 and nothing
    else is known.

    Args:
        scores: (M,) in [0, 1] of objects that a model predicts on images that it was not trained on.
        right: (M,) whether each is one that people have labelled.
        even: the score at which an object is expected to be as often right as wrong.

    Raises:
        InvalidInput: wrong shapes, or NaN.

    Source: Platt 1999, "Probabilistic outputs for support vector machines"; the priors are our choice.

    >>> round(float(fit_scores([], [], even=0.4).scores(0.4)), 6)
    0.5
    """
    values = as_vector("scores", scores)
    truth = as_vector("right", right, length=len(values))
    usual = -float(_logits(np.float64(even))) / USUAL
    if len(values) == 0:
        return Calibration(USUAL, usual)
    logits, signs = _logits(values), np.where(truth > 0, 1.0, -1.0)

    def unlikeliness(free: Floats) -> float:
        log_temperature, offset = free
        likelihood = scipy.special.log_expit(signs * (logits / math.exp(log_temperature) + offset)).sum()
        return float(_far(log_temperature) + ((offset - usual) / SHIFTED) ** 2 / 2 - likelihood)

    bounds = [(math.log(LEAST), math.log(MOST)), (-20.0, 20.0)]
    start = np.array([math.log(USUAL), usual])
    found = scipy.optimize.minimize(unlikeliness, start, bounds=bounds, method="L-BFGS-B").x
    return Calibration(math.exp(found[0]), float(found[1]), len(values))


def uncalibrated(task: Graded) -> Calibration:
    """What is made of confidences while no label has said anything of them."""
    return Calibration(USUAL, -float(_logits(np.float64(task.even))) / USUAL)


def calibrate(task: Task, predictions: NDArray[np.float32], targets: Sequence[Any]) -> Calibration | None:
    """How a model's confidences are to be read, by its predictions for images that it was not trained on.

    Args:
        task: what is labelled.
        predictions: (N, ...) as the task decodes them; N may be 0.
        targets: labels of the same N images.

    Returns:
        None for a kind of task whose predictions say nothing of how sure they are (`Graded`).
    """
    if not isinstance(task, Graded):
        return None
    values, truth = task.graded(predictions, targets)
    if values.ndim == 2:
        return Calibration(fit_temperature(values, truth), labels=len(truth))
    return fit_scores(values, truth, task.even)


def _far(log_temperature: float) -> float:
    """Nats by which a temperature is unlikelier than the usual one before any label is seen."""
    return float(((log_temperature - math.log(USUAL)) / SPREAD) ** 2 / 2)


def _logits(scores: Any) -> Any:
    return scipy.special.logit(np.clip(scores, TINY, 1 - TINY))
