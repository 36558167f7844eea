"""The campaign in one or two sentences, for kdal or against it."""

from __future__ import annotations

from kdal_core.simulation.curves import HEADLINE_LEVEL, KDAL, ArmSummary, Comparison, Interval, Reach, Summary
from kdal_core.simulation.report.formatting import capital, percent, seed_count, signed
from kdal_core.simulation.results import Results


def headline(results: Results, summary: Summary) -> str:
    """The campaign in one or two sentences, for kdal or against it."""
    own, other = summary.arm(summary.kdal), summary.arm(summary.baseline)
    if not summary.arms:
        return "Nothing has been measured yet."
    if own is None or other is None:
        return _without_comparison(results, summary)
    comparison = own.comparisons[HEADLINE_LEVEL]
    if not comparison.own.seeds:
        return f"Not enough has been measured to tell the labels needed. {_score_sentence(results, summary, own)}"
    if comparison.own.median is None and comparison.other.median is None:
        return _neither(results, summary, own, comparison)
    if comparison.own.median is None or comparison.other.median is None:
        return _one_alone(results, summary, own, comparison)
    return _both(results, summary, comparison)


def _both(results: Results, summary: Summary, comparison: Comparison) -> str:
    """kdal and the baseline reached the level in the median."""
    saving = comparison.saving
    kdal_wins = saving is None or saving.mean >= 0
    winner, loser = (comparison.own, comparison.other) if kdal_wins else (comparison.other, comparison.own)
    names = names_of(summary) if kdal_wins else names_of(summary)[::-1]
    start = f"With {names[0]}, {_needed(winner)} labels reached {_goal(results)}; {names[1]} needed {_needed(loser)}"
    if saving is None:
        return f"{start}, but never with the same seed, so no saving can be given."
    if not kdal_wins:
        word = "better" if saving.excludes_zero else "ahead"
        start = f"{capital(names[0])} was {word}. {start}"
    text = f"{start}: {_fewer(saving.mean)} ({certainty(saving, comparison)})."
    if comparison.at_first:
        text += (
            f" In {seed_count(comparison.at_first)} the first {summary.budgets[0]:,} labels were enough for one of "
            "them, so that what it really needed may be less."
        )
    return text


def _one_alone(results: Results, summary: Summary, own: ArmSummary, comparison: Comparison) -> str:
    """Only one of the two reached the level in the median."""
    kdal_wins = comparison.own.median is not None
    winner, loser = (comparison.own, comparison.other) if kdal_wins else (comparison.other, comparison.own)
    names = names_of(summary) if kdal_wins else names_of(summary)[::-1]
    sure = own.area_difference is not None and own.area_difference.excludes_zero
    start = "" if kdal_wins else f"{capital(names[0])} was {'better' if sure else 'ahead'}. "
    seeds = "one seed: no interval can be given" if winner.seeds == 1 else _reached(names, winner, loser)
    bound = f", so kdal's took {at_least_fewer(comparison, summary)} fewer" if kdal_wins else ""
    doubt = "" if sure or winner.seeds == 1 else " Over the whole curve, the seeds do not tell the two apart."
    return (
        f"{start}With {names[0]}, {_needed(winner)} labels reached {_goal(results)}; {names[1]} did not get there "
        f"with the campaign's {summary.budgets[-1]:,} labels{bound} ({seeds}).{doubt}"
    )


def _reached(names: tuple[str, ...], first: Reach, second: Reach) -> str:
    """In how many seeds either got there."""
    counts = [
        f"{name} in {'none' if not r.reached else r.reached}" for name, r in zip(names, (first, second), strict=True)
    ]
    return f"it was reached by {counts[0]}, by {counts[1]} of {seed_count(first.seeds)}"


def at_least_fewer(comparison: Comparison, summary: Summary) -> str:
    """What kdal saves at the least, when the baseline needs more labels than the campaign had."""
    assert comparison.own.median is not None
    return f"at least {1 - comparison.own.median / summary.budgets[-1]:.0%}"


def _neither(results: Results, summary: Summary, own: ArmSummary, comparison: Comparison) -> str:
    """Neither kdal nor the baseline reached the level in the median."""
    seeds = ""
    if comparison.own.reached or comparison.other.reached:
        seeds = f" in most seeds ({_reached(names_of(summary), comparison.own, comparison.other)})"
    return (
        f"The campaign's {summary.budgets[-1]:,} labels were too few to reach {_goal(results)}{seeds}. "
        f"{_score_sentence(results, summary, own)}"
    )


def _score_sentence(results: Results, summary: Summary, own: ArmSummary) -> str:
    """The paired difference at the last budget that both have come to."""
    if not own.differences:
        return f"{own.arm} and {results.baseline} have no seed in common yet."
    labels, found = list(own.differences.items())[-1]
    kdal, other = names_of(summary)
    points = f"{abs(100 * found.mean):.1f} points of {results.metric}"
    if found.mean >= 0:
        return f"With {labels:,} labels, {kdal} is {points} ahead of {other} ({_points_certainty(found)})."
    word = "better" if found.excludes_zero else "ahead"
    start = f"{capital(other)} was {word}: with {labels:,} labels"
    return f"{start}, {kdal} is {points} behind it ({_points_certainty(found)})."


def _points_certainty(found: Interval) -> str:
    """The interval of a difference of scores, in words."""
    if found.low is None or found.high is None:
        return "one seed: no interval can be given"
    between = f"95% interval {signed(found.low)} to {signed(found.high)}, {seed_count(found.seeds)}"
    return between if found.excludes_zero else f"{between}: the seeds do not tell the two apart"


def _without_comparison(results: Results, summary: Summary) -> str:
    missing = f"the arm {results.baseline!r} to compare with" if summary.baseline is None else "an arm of kdal's"
    text = f"This campaign has no results of {missing}"
    best = summary.arms[0]
    if best.area is None:
        return f"{text}."
    if len(summary.arms) == 1:
        return f"{text}; {best.arm} alone has a mean {results.metric} of {percent(best.area.mean)}."
    return f"{text}; of the others, {best.arm} did best (mean {results.metric} {percent(best.area.mean)})."


def _goal(results: Results) -> str:
    return f"{HEADLINE_LEVEL:.0%} of what {all_labels(results)} give"


def all_labels(results: Results) -> str:
    """The pool's labels in words; how many there are is not known until the run with all of them is finished."""
    return f"all {results.full_labels:,} labels" if results.full_labels else "all labels"


def names_of(summary: Summary) -> tuple[str, str]:
    """kdal's arm and the baseline, in words."""
    own = "kdal's order" if summary.kdal == KDAL else f"kdal's order ({summary.kdal})"
    return own, "a random order" if summary.baseline == "random" else f"the order of {summary.baseline}"


def _needed(needed: Reach) -> str:
    assert needed.median is not None
    return f"{'at most ' if needed.at_first else ''}{needed.median:,.0f}"


def _fewer(share: float) -> str:
    return f"{abs(share):.0%} {'fewer' if share >= 0 else 'more'}"


def certainty(saving: Interval, comparison: Comparison) -> str:
    """The interval of a saving and its seeds, in words; which seeds, when not all of them count."""
    pairs = comparison.own.seeds
    seeds = (
        seed_count(saving.seeds) if saving.seeds == pairs else f"{saving.seeds} of {pairs} seeds, where both got there"
    )
    if saving.low is None or saving.high is None:
        return f"{'one seed' if pairs == 1 else seeds}: no interval can be given"
    if not saving.excludes_zero:
        between = f"between {_fewer(saving.low)} and {_fewer(saving.high)}"
        return f"{between}, {seeds}: the seeds do not tell the two apart"
    low, high = sorted((abs(saving.low), abs(saving.high)))
    return f"between {low:.0%} and {high:.0%}, {seeds}"
