"""Whether a project may stop labelling: what the learning curve promises, and what the owner asks of it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from kdal_core.evaluation.intervals import LEVEL, Interval
from kdal_core.evaluation.learning_curve import LearningCurve
from kdal_core.evaluation.power_law import fit_power_laws
from kdal_core.validation import InvalidInput, as_count, as_nonnegative

Verdict = Literal["stop", "go on", "out of reach", "cannot be told yet"]
FEWEST_IMAGES = 20
"""Images drawn at random below which nothing is advised."""


@dataclass(frozen=True)
class StoppingAdvice:
    """What is advised, and why.

    Attributes:
        verdict: "stop": the target is reached, or the next batch not worth its price; "out of reach": not even all
            labels of the pool will reach the target; "cannot be told yet": too little has been seen.
        labels: of the model that serves.
        value: its metric, by the curve through all models.
        interval: of it.
        gain: of the metric by the next batch, on average.
        gain_interval: of it.
        target: that the owner set.
        reached: chance that the target is reached already; None without one.
        labels_needed: labels in all at which the target is as likely reached as not; infinite: never; None: no target.
        labels_interval: of them.
        images: drawn at random, on which all of this stands.
    """

    verdict: Verdict
    labels: int
    images: int
    value: float | None = None
    interval: Interval | None = None
    gain: float | None = None
    gain_interval: Interval | None = None
    target: float | None = None
    reached: float | None = None
    labels_needed: float | None = None
    labels_interval: Interval | None = None

    @property
    def sentence(self) -> str:
        """The advice in words."""
        if self.value is None or self.interval is None or self.gain is None:
            return (
                f"When to stop cannot be told yet: it takes {FEWEST_IMAGES} images drawn at random and labelled after "
                f"a model saw them, and there are {self.images}."
            )
        seen = (
            f"By {self.images:,} images drawn at random the model scores {self.value:.1%} "
            f"({self.interval.low:.1%} to {self.interval.high:.1%}), and the next batch will add about "
            f"{100 * self.gain:.1f} points."
        )
        if self.verdict == "stop" and self.target is not None and self.reached is not None:
            return f"You may stop: {self.target:.1%} is reached, with a chance of {self.reached:.0%}. {seen}"
        if self.verdict == "stop":
            return f"You may stop: the next batch costs more than it will be worth. {seen}"
        if self.verdict == "out of reach":
            return f"{self.target:.1%} will not be reached with the images that are left. {seen}"
        if self.labels_needed is None or self.labels_interval is None:
            return f"Go on: the next batch is expected to be worth its price. {seen}"
        if math.isinf(self.labels_needed):
            return f"Go on for what the next batches add: {self.target:.1%} may well never be reached. {seen}"
        low, high = (_count(end) for end in self.labels_interval)
        return f"Go on: {self.target:.1%} takes about {_count(self.labels_needed)} labels ({low} to {high}). {seen}"


def stopping_advice(
    curve: LearningCurve,
    *,
    batch: int,
    left: int,
    labels: int | None = None,
    target: float | None = None,
    price: float | None = None,
    worth: float | None = None,
    level: float = LEVEL,
) -> StoppingAdvice:
    """Advise to stop or to go on, by the power laws that the curve leaves open.

    With a target: stop once it is reached with the chance `level`. With a price: stop once the gain that is expected of
    the next batch is worth less than the batch costs. With both, either is enough.

    Args:
        curve: of models on images drawn at random.
        batch: labels of a batch.
        left: images of the pool without a label.
        labels: that the model that serves was trained on; None: those of the curve's last point.
        target: metric in (0, 1) that is good enough.
        price: of a label, in any currency.
        worth: of one more point (a hundredth) of the metric, in the same one.
        level: of confidence, in [0.5, 1).

    Raises:
        InvalidInput: neither a target nor a price, a price without what a point is worth, or values out of range.

    Source: the decision is our choice; `fit_power_laws` for the curve. Chances are those of power laws: where a curve
    is none, they err. How often that happens on measured curves: docs/results/estimates.md.

    >>> from kdal_core.evaluation import learning_curve
    >>> right = [1] * 30 + [0] * 10 + [1] * 36 + [0] * 4 + [1] * 39 + [0]
    >>> curve = learning_curve([50] * 40 + [100] * 40 + [200] * 40, right, [True] * 120)
    >>> stopping_advice(curve, batch=50, left=1000, target=0.8).verdict
    'stop'
    >>> stopping_advice(curve, batch=50, left=1000, target=0.95).verdict
    'go on'
    """
    batch = as_count("batch", batch, low=1, high=2**31)
    left = as_count("left", left, low=0, high=2**53)
    _check(target, price, worth, level)
    points = [point for point in curve.points if point.labels > 0]
    now = max((point.labels for point in points), default=0) if labels is None else labels
    images = sum(point.images for point in points)
    if images < FEWEST_IMAGES or now <= 0:
        return StoppingAdvice("cannot be told yet", now, images, target=target)
    laws = fit_power_laws(points)
    values, reaching = laws.values(now), min(batch, left)
    gains = laws.values(now + reaching) - values
    gain = float(laws.weights @ gains)
    verdict: Verdict = "go on"
    reached = needed = span = None
    if target is not None:
        reached = laws.chance(values >= target)
        labels_for = laws.labels_for(target)
        needed, span = laws.quantile(labels_for, 0.5), laws.interval(labels_for)
        if laws.chance(laws.values(now + left) >= target) <= 1 - level:
            verdict = "out of reach"
        if reached >= level:
            verdict = "stop"
    if price is not None and worth is not None and 100 * gain * worth < price * reaching:
        verdict = "stop"
    return StoppingAdvice(
        verdict=verdict,
        labels=now,
        images=images,
        value=float(laws.weights @ values),
        interval=laws.interval(values),
        gain=gain,
        gain_interval=laws.interval(gains),
        target=target,
        reached=reached,
        labels_needed=needed,
        labels_interval=span,
    )


def _check(target: float | None, price: float | None, worth: float | None, level: float) -> None:
    if target is None and price is None:
        raise InvalidInput("Give a target, or the price of a label and the worth of a point.")
    if target is not None and not 0 < target < 1:
        raise InvalidInput(f"target must lie between 0 and 1, not {target!r}.")
    if (price is None) != (worth is None):
        raise InvalidInput("The price of a label and the worth of a point are of use together only; give both.")
    for name, value in (("price", price), ("worth", worth)):
        if value is not None:
            as_nonnegative(name, value)
    if not 0.5 <= level < 1:
        raise InvalidInput(f"level must lie from 0.5 to below 1, not {level!r}.")


def _count(labels: float) -> str:
    return "never" if math.isinf(labels) else f"{labels:,.0f}"
