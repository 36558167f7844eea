"""How much time suggestions save, from the seconds that people spent on tasks with one and without."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import scipy  # whose submodules load when they are used
from numpy.typing import ArrayLike, NDArray

from kdal_core.evaluation.intervals import LEVEL, Interval
from kdal_core.validation import InvalidInput, as_vector

TRIM = 0.2
"""Share of the quickest tasks, and of the slowest ones, that do not count: somebody went for lunch."""
FEWEST = 5
"""Tasks with a suggestion and tasks without one below which a group says nothing."""


@dataclass(frozen=True)
class TimeSaved:
    """What a suggestion saves.

    Attributes:
        suggested: tasks with a suggestion in groups that could be compared.
        plain: tasks without one in these.
        suggested_seconds, plain_seconds: a task's seconds, 20%-trimmed means over the groups; None: nothing to compare.
        saved: seconds that a suggestion saves; negative where it costs time.
        interval: of it.
        minutes: saved on all tasks with a suggestion.
        minutes_interval: of them.
        more: tasks more, of both kinds together, with which the difference seen would be told from 0; None where it
            is already, or where nothing was compared.
    """

    suggested: int
    plain: int
    suggested_seconds: float | None = None
    plain_seconds: float | None = None
    saved: float | None = None
    interval: Interval | None = None
    minutes: float | None = None
    minutes_interval: Interval | None = None
    more: int | None = None

    @property
    def told(self) -> bool:
        """Whether it is clear that suggestions save time, or that they cost time."""
        return self.interval is not None and not self.interval.low <= 0 <= self.interval.high

    @property
    def sentence(self) -> str:
        """The result in words."""
        if self.saved is None or self.interval is None or self.minutes is None or self.minutes_interval is None:
            return (
                f"Not enough evidence yet: it takes {FEWEST} tasks with a suggestion and {FEWEST} without one, by the "
                "same annotator in the same round."
            )
        low, high = self.minutes_interval
        if not self.told:
            return (
                f"Not enough evidence yet: a suggestion saves {self.saved:.1f} seconds, but it may be anything from "
                f"{self.interval.low:.1f} to {self.interval.high:.1f}. About {self.more:,} more tasks would tell."
            )
        saved = "save" if self.saved > 0 else "cost"
        ends = sorted(abs(end) for end in (low, high))
        return (
            f"Suggestions {saved} {abs(self.saved):.1f} seconds a task: {abs(self.minutes):,.0f} minutes so far "
            f"({ends[0]:,.0f} to {ends[1]:,.0f})."
        )


def time_saved(
    seconds: ArrayLike, suggested: ArrayLike, groups: Sequence[Hashable] | None = None, *, level: float = LEVEL
) -> TimeSaved:
    """Compare the time for tasks with a suggestion and without one, so that a few endless tasks decide nothing.

    Trimmed means are compared within each group, the groups weighed by their tasks with a suggestion: people become
    quicker over the rounds, and differ among each other, so a group is one annotator in one round.

    Which tasks have a suggestion is no accident: kdal suggests what it is sure of, and easy images take less time
    anyway. So the saving is overestimated unless suggestions are withheld at random.

    Args:
        seconds: (M,) of each task, > 0, as Label Studio's `lead_time` has them.
        suggested: (M,) whether the task had a suggestion.
        groups: (M,) within which tasks are comparable; None: all of them are.
        level: of confidence, in (0, 1).

    Raises:
        InvalidInput: shapes that do not fit, or seconds that are not positive and finite.

    Source: Yuen 1974, "The two-sample trimmed t for unequal population variances"; degrees of freedom over groups by
    Welch and Satterthwaite.

    >>> found = time_saved([9, 10, 11, 12, 3600, 4, 5, 5, 6, 7], [0] * 5 + [1] * 5)
    >>> found.plain_seconds, round(found.suggested_seconds, 2), found.told
    (11.0, 5.33, True)
    """
    times = as_vector("seconds", seconds)
    if not (np.isfinite(times) & (times > 0)).all():
        raise InvalidInput("seconds must be positive and finite; leave out tasks whose time is not known.")
    helped = as_vector("suggested", suggested, length=len(times)) > 0
    keys = [None] * len(times) if groups is None else list(groups)
    if len(keys) != len(times):
        raise InvalidInput(f"groups has {len(keys)} entries where {len(times)} are needed.")
    if not 0 < level < 1:
        raise InvalidInput(f"level must lie between 0 and 1, not {level!r}.")
    pairs = [pair for pair in _pairs(times, helped, keys) if min(map(len, pair)) >= FEWEST]
    if not pairs:
        return TimeSaved(int(helped.sum()), int((~helped).sum()))
    return _compared(pairs, int(helped.sum()), level)


Floats = NDArray[np.float64]


def _compared(pairs: list[tuple[Floats, Floats]], all_suggested: int, level: float) -> TimeSaved:
    """Of groups, each with its times with a suggestion and without."""
    weights = np.array([len(helped) for helped, _ in pairs], dtype=np.float64)
    weights /= weights.sum()
    with_one, without = ([_trimmed(times) for times in column] for column in zip(*pairs, strict=True))
    helped_mean = float(weights @ [mean for mean, _, _ in with_one])
    plain_mean = float(weights @ [mean for mean, _, _ in without])
    parts = [
        (weight**2 * square, freedom)
        for side in (with_one, without)
        for weight, (_, square, freedom) in zip(weights, side, strict=True)
    ]
    square = sum(part for part, _ in parts)
    saved = plain_mean - helped_mean
    denominator = sum(part**2 / freedom for part, freedom in parts)
    freedom = square**2 / denominator if denominator else math.inf
    half = float(scipy.stats.t.ppf((1 + level) / 2, freedom)) * math.sqrt(square)
    tasks, scale = sum(len(helped) + len(plain) for helped, plain in pairs), all_suggested / 60
    more = None
    if half > 0 and abs(saved) <= half:
        more = math.ceil(tasks * (min(half / max(abs(saved), 1e-3 * half), 100.0) ** 2 - 1)) or 1
    return TimeSaved(
        suggested=sum(len(helped) for helped, _ in pairs),
        plain=sum(len(plain) for _, plain in pairs),
        suggested_seconds=helped_mean,
        plain_seconds=plain_mean,
        saved=saved,
        interval=Interval(saved - half, saved + half),
        minutes=saved * scale,
        minutes_interval=Interval((saved - half) * scale, (saved + half) * scale),
        more=more,
    )


def _pairs(times: Floats, helped: NDArray[np.bool_], keys: Sequence[Hashable]) -> list[tuple[Floats, Floats]]:
    """Each group's times with a suggestion and without."""
    found = []
    for key in dict.fromkeys(keys):
        mine = np.array([other == key for other in keys])
        found.append((times[mine & helped], times[mine & ~helped]))
    return found


def _trimmed(times: Floats) -> tuple[float, float, float]:
    """Trimmed mean, its squared standard error and degrees of freedom."""
    count, cut = len(times), int(TRIM * len(times))
    kept = np.sort(times)[cut : count - cut]
    drawn_in = np.clip(times, kept[0], kept[-1])
    square = (count - 1) * float(drawn_in.var(ddof=1)) / (len(kept) * (len(kept) - 1))
    return float(kept.mean()), square, len(kept) - 1
