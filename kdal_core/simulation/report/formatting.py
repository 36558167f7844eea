"""Numbers as people read them: percentages, intervals, durations."""

from __future__ import annotations

from kdal_core.simulation.curves import Comparison, Interval, Reach

NOTHING = "–"
"""Stands where there is no number."""


def percent(share: float, digits: int = 1) -> str:
    """A share in [0, 1] in per cent.

    >>> percent(0.953)
    '95.3%'
    """
    return f"{100 * share:.{digits}f}%"


def signed(share: float, digits: int = 1) -> str:
    """A difference of shares in points, with its sign; no unit."""
    return f"{100 * share:+.{digits}f}".replace("-", "−")


def cell(found: Interval | None, *, sign: bool = False, digits: int = 2) -> str:
    """A share in per cent, or a difference of shares in points, with its half-width; without unit."""
    if found is None:
        return NOTHING
    mean = signed(found.mean, digits) if sign else f"{100 * found.mean:.{digits}f}"
    return mean if found.half_width is None else f"{mean} ± {100 * found.half_width:.{digits}f}"


def reach_cell(needed: Reach, last: int) -> str:
    """Labels needed in the median: "210", "≤ 50", "> 400 (2 of 5 seeds)"; without a count, all seeds or none."""
    if not needed.seeds:
        return NOTHING
    text = f"> {last:,}" if needed.median is None else f"{'≤ ' if needed.at_first else ''}{needed.median:,.0f}"
    return text if needed.reached in (0, needed.seeds) else f"{text} ({needed.reached} of {needed.seeds} seeds)"


def saving_cell(comparison: Comparison | None) -> str:
    """Labels saved in per cent with half-width, and the seeds that it is over when not all are."""
    if comparison is None or comparison.saving is None:
        return NOTHING
    text = cell(comparison.saving, sign=True, digits=0)
    seeds = comparison.own.seeds
    return text if comparison.both == seeds else f"{text} ({comparison.both} of {seeds} seeds)"


def hours_cell(needed: Reach) -> str:
    """The annotator's time in the median: "9 min", "≤ 2.5 h", "not reached"."""
    if not needed.seeds:
        return NOTHING
    return "not reached" if needed.median is None else f"{'≤ ' if needed.at_first else ''}{duration(needed.median)}"


def duration(hours: float) -> str:
    """Minutes below two hours, hours with one decimal above."""
    return f"{60 * hours:.0f} min" if hours < 2 else f"{hours:,.1f} h"


def verdict(difference: Interval | None) -> str:
    """Whether the interval of a difference excludes zero, and on which side."""
    if difference is None:
        return NOTHING
    if difference.half_width is None:
        return "one seed"
    if not difference.excludes_zero:
        return "not told apart"
    return "better" if difference.mean > 0 else "worse"


def capital(text: str) -> str:
    """The text with a capital first letter; names like mAP keep theirs.

    >>> capital("lane F1"), capital("mAP@.5")
    ('Lane F1', 'mAP@.5')
    """
    return text if text[1:2].isupper() else text[:1].upper() + text[1:]


def seed_count(count: int) -> str:
    """A number of seeds in words."""
    return "one seed" if count == 1 else f"{count} seeds"
