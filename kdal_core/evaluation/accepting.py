"""From which confidence on suggestions may be accepted unseen: enough of them are right, and that can be shown."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import scipy  # whose submodules load when they are used
from numpy.typing import ArrayLike, NDArray

from kdal_core.validation import InvalidInput, as_vector

STEPS = 20
"""Thresholds that are tried at most: the surest twentieth of all images, the surest two twentieths, and so on."""
SPARE = 2.0
"""Standard deviations by which more of the labels than expected may lie above a threshold."""
ROUNDING = 1e-9


@dataclass(frozen=True)
class AcceptThreshold:
    """From where on suggestions meet a target, and what was seen of it.

    Attributes:
        threshold: suggestions at least this sure meet the target; None: none can be shown to.
        target: share of them that is right, at least.
        alpha: chance at most that it is not met all the same.
        labels: held-out labels that were given.
        checked: of these, those at the threshold or above; without one, those above the first threshold that was tried.
        wrong: of these, those whose suggestion was wrong.
        images: images of the pool that would be accepted; without a pool 0.
        share: of the pool, or without one of the held-out images.
        needed: the fewest held-out labels, all of them right, by which the target could be shown at all.
    """

    threshold: float | None
    target: float
    alpha: float
    labels: int
    checked: int
    wrong: int
    images: int
    share: float
    needed: int

    @property
    def sentence(self) -> str:
        """The result in words."""
        if self.threshold is not None:
            of_pool = f"{self.images:,} images, {self.share:.0%} of the pool" if self.images else f"{self.share:.0%}"
            return (
                f"Of the suggestions at least {_percent(self.threshold)} sure, {_percent(self.target)} or more are "
                f"right: of {self.checked:,} held-out labels among them {self.wrong:,} disagreed, and the chance that "
                f"the target is missed all the same is {_percent(self.alpha)} at most. That is {of_pool}."
            )
        if self.labels < self.needed:
            return (
                f"{_percent(self.target)} cannot be shown yet: it takes {self.needed:,} held-out labels of images "
                f"chosen at random even if every suggestion for them is right, and there are {self.labels:,}."
            )
        if not self.wrong:
            return (
                f"{_percent(self.target)} cannot be shown yet: the {self.checked:,} surest held-out suggestions were "
                "all right, which are too few to show it. A few more labels of images chosen at random would tell."
            )
        return (
            f"{_percent(self.target)} cannot be shown at any confidence: of the {self.checked:,} surest held-out "
            f"suggestions {self.wrong:,} were wrong. More labels, a better model or a lower target would help."
        )


def accept_threshold(
    confidence: ArrayLike, correct: ArrayLike, target: float, alpha: float = 0.05, *, pool: ArrayLike | None = None
) -> AcceptThreshold:
    """The lowest confidence from which on suggestions meet a target accuracy, with a one-sided bound.

    Thresholds are tried from a strict one on downwards, each by an exact test of "too many of them are wrong", until
    one is not refuted: fixed-sequence testing. Each test may use all of `alpha`, although the same labels are used for
    all. Which thresholds are tried, and at which the sequence starts, depends on confidences alone, never on what was
    right: it starts at the first above which enough labels are expected that one of them may be wrong.

    With a pool, what is promised is the accuracy on those very images: the chance that, of the images accepted, less
    than `target` are right is at most `alpha`. Held-out and pool images together are the population, out of which the
    held-out ones were drawn at random; the test is hypergeometric, and nothing is assumed of the confidences: where
    they mean nothing, no threshold is found. Without a pool the test is binomial, and the promise is on the accuracy
    to expect at the confidences of the held-out images above the threshold.

    Args:
        confidence: (N,) in [0, 1] of the suggestions for N images that were **drawn at random** and on which the
            model was not trained.
        correct: (N,) whether each suggestion was right, as people labelled it.
        target: share of accepted suggestions that has to be right, in (0, 1).
        alpha: chance at most of missing it, in (0, 0.5].
        pool: (M,) confidences of the images whose suggestions would be accepted.

    Raises:
        InvalidInput: shapes that do not fit, confidences outside [0, 1], target or alpha out of range.

    Source: Angelopoulos et al. 2021, "Learn then test" (arXiv:2110.01052), section 3 for fixed-sequence testing;
    Hoeffding 1956 for the binomial test without a pool. What is tested with a pool, so that the promise holds for its
    finite number of images, is our choice.

    >>> found = accept_threshold([0.9] * 60 + [0.5] * 40, [True] * 80 + [False] * 20, target=0.9)
    >>> found.threshold, found.checked, found.wrong
    (0.9, 60, 0)
    >>> accept_threshold([0.9] * 20, [True] * 20, target=0.99).needed
    299
    """
    surely, right = _checked(confidence, correct)
    if not 0 < target < 1:
        raise InvalidInput(f"target must lie between 0 and 1, not {target!r}.")
    if not 0 < alpha <= 0.5:
        raise InvalidInput(f"alpha must lie above 0 and be at most 0.5, not {alpha!r}.")
    others = np.empty(0) if pool is None else _confidences("pool", pool)
    population = np.concatenate([surely, others])
    thresholds = _thresholds(population)
    expected = np.array([(population >= each).sum() for each in thresholds]) * len(surely) / max(len(population), 1)
    first = _first(expected, target, alpha)
    found = None
    for threshold in thresholds[first:]:
        above = surely >= threshold
        checked, wrong = int(above.sum()), int((above & ~right).sum())
        if pool is None:
            refuted, usable = _few_wrong(checked, wrong, target) <= alpha, True
        else:
            refuted, usable = _shown(population >= threshold, len(surely), checked, wrong, target, alpha)
        if not refuted:
            break
        if usable:
            found = float(threshold)
    shown = found if found is not None else float(thresholds[first]) if len(thresholds) else 1.0
    above, accepted = surely >= shown, others >= shown
    share = 0.0 if found is None else float((above if pool is None else accepted).mean())
    return AcceptThreshold(
        threshold=found,
        target=target,
        alpha=alpha,
        labels=len(surely),
        checked=int(above.sum()),
        wrong=int((above & ~right).sum()),
        images=0 if found is None else int(accepted.sum()),
        share=share,
        needed=_needed(target, alpha),
    )


def _shown(
    above: NDArray[np.bool_], labels: int, checked: int, wrong: int, target: float, alpha: float
) -> tuple[bool, bool]:
    """Whether "too many of these are wrong" is refuted, and whether that is enough for those without a label.

    Tested is that more than `most` images of the population above the threshold are wrong, a number fixed before any
    label is seen. It is as many as may be wrong among those without a label, should a few more labels than expected lie
    above the threshold. If still more do, as many wrong ones must be among the labels as then make up for it.
    """
    size, images = len(above), int(above.sum())
    mean = images * labels / size
    deviation = math.sqrt(mean * (1 - images / size) * (size - labels) / max(size - 1, 1))
    at_most = min(math.ceil(mean + SPARE * deviation), labels, images)
    most = math.floor((1 - target) * (images - at_most) + ROUNDING)
    p_value = float(scipy.stats.hypergeom.cdf(wrong, images, min(most + 1, images), checked))
    usable = images > checked and most - wrong <= (1 - target) * (images - checked) + ROUNDING
    return images > most and p_value <= alpha, usable


def _few_wrong(checked: int, wrong: int, target: float) -> float:
    """Chance of so few wrong among independent suggestions that are right `target` of the time on average, at most."""
    if wrong > checked * (1 - target) - 1:  # Hoeffding's condition: elsewhere unequal chances could be worse
        return 1.0
    return float(scipy.stats.binom.cdf(wrong, checked, 1 - target))


def _thresholds(population: NDArray[np.float64]) -> NDArray[np.float64]:
    """(T,) confidences, falling, above which lie the surest twentieth of the population, two twentieths, ... all."""
    if not len(population):
        return np.empty(0)
    falling = np.sort(population)[::-1]
    places = np.ceil(np.arange(1, STEPS + 1) * len(falling) / STEPS).astype(int) - 1
    thresholds: NDArray[np.float64] = np.unique(falling[places])[::-1]
    return thresholds


def _first(expected: NDArray[np.float64], target: float, alpha: float) -> int:
    """At which threshold to start, by the labels that are expected above each: where one may be wrong, if anywhere."""
    for allowed in (1, 0):
        enough = np.flatnonzero(scipy.stats.binom.cdf(allowed, np.floor(expected), 1 - target) <= alpha)
        if len(enough):
            return int(enough[0])
    return max(len(expected) - 1, 0)


def _needed(target: float, alpha: float) -> int:
    """The fewest labels n, all of them right, with target^n <= alpha."""
    return max(1, math.ceil(math.log(alpha) / math.log(target) - ROUNDING))


def _checked(confidence: ArrayLike, correct: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    surely = _confidences("confidence", confidence)
    return surely, as_vector("correct", correct, length=len(surely)) > 0


def _confidences(name: str, values: ArrayLike) -> NDArray[np.float64]:
    array: NDArray[np.float64] = as_vector(name, values)
    if ((array < 0) | (array > 1)).any():
        raise InvalidInput(f"{name} must lie in [0, 1].")
    return array


def _percent(share: float) -> str:
    return f"{100 * share:.3g}%"
