"""How many labels an order saves against a random one, as far as the images drawn at random can tell."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from kdal_core.evaluation.intervals import Interval
from kdal_core.evaluation.learning_curve import LearningCurve
from kdal_core.evaluation.power_law import fit_power_laws
from kdal_core.evaluation.stopping import FEWEST_IMAGES
from kdal_core.validation import InvalidInput

SURE = 0.99
"""Level at which it is told. On simulated curves that fall to 0, intervals of 0.95 told what was not so in up to one
project of eleven, these in one of fifty."""
DRAWS = 20_000
MOST = 100
"""Times as many images as there are, beyond which it is not said how many would tell."""


@dataclass(frozen=True)
class LabelsSaved:
    """What an order saves.

    Attributes:
        images: drawn at random, on which the worse known of the two curves stands.
        random_labels: labels of the random order that are compared: as many as were drawn at random.
        needed: labels that the project's order needed for as good a model, the median of what is possible. None:
            nothing can be said.
        interval: of them; its low end is no lower than the labels of the first model.
        told: whether it is clear that the order saves labels, or that it wastes some.
        more: images more, drawn at random, with which what is seen now would be told, or, where nothing can be said,
            that it takes at least; None: it is told, or far more would be needed than there ever will be.
    """

    images: int
    random_labels: int
    needed: float | None = None
    interval: Interval | None = None
    told: bool = False
    more: int | None = None

    @property
    def share(self) -> float | None:
        """Of the labels saved; negative where a random order would have done with fewer."""
        return None if self.needed is None else 1 - self.needed / self.random_labels

    @property
    def sentence(self) -> str:
        """The result in words."""
        if self.needed is None or self.interval is None:
            return f"Labels saved cannot be told yet: it takes at least {self.more:,} more images drawn at random."
        more = f"about {self.more:,} more" if self.more is not None else "far more"
        low, high = (_count(end) for end in self.interval)
        if not self.told:
            return (
                f"Labels saved cannot be told yet: what {self.random_labels:,} labels in a random order reach, this "
                f"order reached with something from {low} to {high}. It would take {more} images drawn at random."
            )
        return (
            f"What {self.random_labels:,} labels in a random order reach, this order reached with about "
            f"{_count(self.needed)} ({low} to {high})."
        )


def labels_saved(served: LearningCurve, at_random: LearningCurve, *, level: float = SURE, seed: int = 0) -> LabelsSaved:
    """Compare the models that served with models that were trained on the images drawn at random alone.

    These are labels of a random order: a model trained on all r of them is what a random order would have led to after
    r labels. Both kinds are scored, each on images drawn at random that it has not seen, and smoothed by the power laws
    that what was seen leaves open: with how many labels was a served model as good as that one? It is asked where both
    were measured. So the answer is about the first r labels of the project, and there is none before more images were
    drawn at random than the first model had labels. To project the random order's curve further was tried and left
    out: where its first models follow no power law, it told one time in ten what was not so.

    Old models may predict images that are drawn later, too: each such prediction makes both curves surer.

    Args:
        served: learning curve of the models that served.
        at_random: of models trained on the images drawn at random alone; `labels` are the numbers of these.
        level: of confidence, in (0, 1).
        seed: of the draws among the laws.

    Raises:
        InvalidInput: a level out of range.

    Source: our choice; `fit_power_laws` names those of the law.

    >>> from kdal_core.evaluation import learning_curve
    >>> served = learning_curve([50] * 40, [1] * 30 + [0] * 10, [True] * 40)
    >>> labels_saved(served, learning_curve([20] * 20, [1] * 12 + [0] * 8, [True] * 20)).sentence
    'Labels saved cannot be told yet: it takes at least 31 more images drawn at random.'
    """
    if not 0 < level < 1:
        raise InvalidInput(f"level must lie between 0 and 1, not {level!r}.")
    own = [point for point in served.points if point.labels > 0]
    other = [point for point in at_random.points if point.labels > 0]
    images = min(sum(point.images for point in own), sum(point.images for point in other))
    reached = max((point.labels for point in other), default=0)
    first = min((point.labels for point in own), default=1)
    if images < FEWEST_IMAGES or reached <= first:
        return LabelsSaved(images, reached, more=max(FEWEST_IMAGES - images, first + 1 - reached))
    rng = np.random.default_rng(seed)
    ours, theirs = (fit_power_laws(points).drawn(DRAWS, rng) for points in (own, other))
    as_good = np.maximum(ours.labels_for(theirs.values(reached)), first)
    needed, interval = ours.quantile(as_good, 0.5), ours.interval(as_good, level)
    told = not interval.low <= reached <= interval.high
    return LabelsSaved(
        images, reached, needed, interval, told, None if told else _more(interval, needed, reached, images)
    )


def _more(interval: Interval, needed: float, reached: int, images: int) -> int | None:
    """Images more until the interval, narrower by the square root of their number, would leave out "as many".

    Reckoned with in logarithms, since what is asked is how many times as many labels it takes.
    """
    if not math.isfinite(needed) or needed == reached:
        return None
    away = abs(math.log(needed / reached))
    end = interval.low if needed > reached else interval.high
    times = (abs(math.log(needed / end)) / away) ** 2 if math.isfinite(end) else math.inf
    return max(1, math.ceil((times - 1) * images)) if times <= MOST else None


def _count(labels: float) -> str:
    return "more than it has" if math.isinf(labels) else f"{labels:,.0f}"
