"""The power law that learning curves follow, with all of it that a few images leave open."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy  # whose submodules load when they are used
from numpy.typing import ArrayLike, NDArray

from kdal_core.evaluation.intervals import LEVEL, Interval
from kdal_core.evaluation.learning_curve import CurvePoint
from kdal_core.validation import InvalidInput

Floats = NDArray[np.float64]
Ranges = list[tuple[float, float]]

SIZES = (60, 16, 16)
"""Values tried of each parameter: first error, floor as a share of it, exponent."""
EXPONENT, SPREAD = 0.5, 0.7
"""Exponents that are expected before anything is seen: half below 0.5, two of three within a factor of e^0.7."""
WIDE: Ranges = [(-6.5, 4.0), (0.0, 1.0), (0.0, 1.0)]
"""Where to look: the logit of the first error, the floor as a share of it, the exponent's rank in its prior."""
NEGLIGIBLE = 1e-5
"""Laws this much less likely than the likeliest are left out."""


@dataclass(frozen=True)
class PowerLaws:
    """Laws 1 - metric = c + (e - c) · (n / n0)^-b after n labels, and how likely each is.

    Attributes:
        start: n0, the labels of the first model seen.
        errors: (G,) e, what is missing to 1 after n0 labels.
        floors: (G,) c, what will always be missing.
        exponents: (G,) b.
        weights: (G,) chances of the laws, which sum to 1.
    """

    start: float
    errors: Floats
    floors: Floats
    exponents: Floats
    weights: Floats

    def values(self, labels: float) -> Floats:
        """(G,) the metric after so many labels, by each law."""
        found: Floats = 1 - self.floors - (self.errors - self.floors) * (labels / self.start) ** -self.exponents
        return found

    def labels_for(self, value: float | Floats) -> Floats:
        """(G,) labels after which each law reaches a metric: 0 where it starts there, infinity where it never does."""
        missing = 1 - value
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            ratio = (missing - self.floors) / (self.errors - self.floors)
            labels = self.start * ratio ** (-1 / self.exponents)
        found: Floats = np.where(missing >= self.errors, 0.0, np.where(missing <= self.floors, np.inf, labels))
        return found

    def drawn(self, count: int, rng: np.random.Generator) -> PowerLaws:
        """So many laws, each as often as it is likely."""
        picks = rng.choice(len(self.weights), count, p=self.weights)
        shares = np.full(count, 1 / count)
        return PowerLaws(self.start, self.errors[picks], self.floors[picks], self.exponents[picks], shares)

    def chance(self, held: NDArray[np.bool_]) -> float:
        """The chance that one of the laws is true for which something (G,) holds."""
        return float(self.weights[held].sum())

    def quantile(self, values: Floats, share: float) -> float:
        """Of something (G,) that each law says, infinities included: the least value with at least `share` below."""
        order = np.argsort(values)
        place = int(np.searchsorted(np.cumsum(self.weights[order]), share - 1e-12))
        return float(values[order][min(place, len(order) - 1)])

    def interval(self, values: Floats, level: float = LEVEL) -> Interval:
        """Of something (G,) that each law says."""
        return Interval(self.quantile(values, (1 - level) / 2), self.quantile(values, (1 + level) / 2))


def fit_power_laws(points: Sequence[CurvePoint]) -> PowerLaws:
    """All power laws of a grid, weighed by how well they explain what was seen of a learning curve.

    The chance of a law is that of what was seen if it were true (binomial; a metric that is no share of rights counts
    as one of `CurvePoint.trials` images), times a prior: every first error is as likely as any, every floor between 0
    and the first error as well, and exponents are around 0.5. So nothing is asked of a search, and what few images
    leave open stays open.

    Args:
        points: at least one, of models with at least one label.

    Raises:
        InvalidInput: no point, or only one without labels.

    Source: Hestness et al. 2017, "Deep learning scaling is predictable, empirically" (arXiv:1712.00409), and Viering
    and Loog 2021, "The shape of learning curves" (arXiv:2103.10948), for the law; grid and prior are our choice.

    >>> from kdal_core.evaluation import CurvePoint
    >>> seen = [CurvePoint(n, 1000, v, v, v, 1000.0) for n, v in ((100, 0.8), (200, 0.86), (400, 0.9))]
    >>> laws = fit_power_laws(seen)
    >>> [round(end, 2) for end in laws.interval(laws.values(400))]
    [0.88, 0.91]
    """
    points = [point for point in points if point.labels > 0]
    if not points:
        raise InvalidInput("At least one model that was trained on labels is needed to project a learning curve.")
    start = float(min(point.labels for point in points))
    ranges = WIDE
    for _ in range(2):  # once everywhere, and once more closely where anything is likely
        logits, shares, ranks = _grid(ranges)
        errors, exponents = scipy.special.expit(logits), EXPONENT * np.exp(SPREAD * scipy.special.ndtri(ranks))
        weights = _weights(points, start, errors, errors * shares, exponents)
        kept = weights > NEGLIGIBLE
        ranges = _around((logits[kept], shares[kept], ranks[kept]), ranges)
    weights = weights[kept] / weights[kept].sum()
    return PowerLaws(start, errors[kept], (errors * shares)[kept], exponents[kept], weights)


def _grid(ranges: Ranges) -> list[Floats]:
    """Each parameter (G,) of all laws: `SIZES` values of it, in the middle of as many equal parts of its range."""
    axes = [
        low + (high - low) * (np.arange(size) + 0.5) / size for (low, high), size in zip(ranges, SIZES, strict=True)
    ]
    return [axis.ravel() for axis in np.meshgrid(*axes, indexing="ij")]


def _around(likely: Sequence[Floats], ranges: Ranges) -> Ranges:
    """The ranges of the parts in which the parameters of likely laws lie."""
    halves = [(high - low) / size / 2 for (low, high), size in zip(ranges, SIZES, strict=True)]
    return [(float(v.min()) - half, float(v.max()) + half) for v, half in zip(likely, halves, strict=True)]


def _weights(points: Sequence[CurvePoint], start: float, errors: Floats, floors: Floats, exponents: Floats) -> Floats:
    """(G,) chances of laws, as multiples of the likeliest one's."""
    logs = np.log(errors * (1 - errors))  # every first error is as likely as any; the grid is even in its logit
    for point in points:
        missing = floors + (errors - floors) * (point.labels / start) ** -exponents
        logs += point.trials * (point.value * np.log1p(-missing) + (1 - point.value) * np.log(missing))
    weights: Floats = np.exp(logs - logs.max())
    return weights


def as_points(labels: ArrayLike, values: ArrayLike, trials: ArrayLike) -> list[CurvePoint]:
    """Points (M,) of a curve that was measured elsewhere: labels, metric in [0, 1], and images that tell as much."""
    rows = np.broadcast_arrays(labels, values, trials)
    return [CurvePoint(int(n), int(t), float(v), float(v), float(v), float(t)) for n, v, t in zip(*rows, strict=True)]
