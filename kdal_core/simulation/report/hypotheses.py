"""The lane paper's claims about what orders pick, tested on a campaign whose images have traits: pure statistics.

Hypotheses: entropy prefers images with few lanes and the gap does not; large gaps to student and teacher at once mark
labels that are likely wrong. Everything is a mean over the rounds of a run first, then over seeds.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from kdal_core.simulation.attributes import ERROR
from kdal_core.simulation.curves import Interval, Runs, Summary, arms, interval
from kdal_core.simulation.lane_folders import COUNT
from kdal_core.simulation.report.formatting import NOTHING, percent, seed_count
from kdal_core.simulation.report.headline import names_of
from kdal_core.simulation.results import Point, Results

ENTROPY = "entropy"
"""The arms that the claims speak of are those whose names begin so."""
MINUS = "−"


@dataclass(frozen=True)
class Pick:
    """A trait of the images that an order picked, over seeds.

    Attributes:
        picked: mean over the images picked.
        offered: mean over those that they were chosen from.
        difference: picked - offered, paired by round and seed.
    """

    picked: Interval
    offered: Interval
    difference: Interval


@dataclass(frozen=True)
class Hypotheses:
    """What is known of orders and traits; empty where images have none.

    Attributes:
        traits: their names, in the data set's order.
        picks: {arm: {trait: what it picked}}, of the batches that a model chose (not the first one).
        marks: what scores were compared with: traits, error, wrong label.
        correlations: {score: {mark: Spearman's correlation}} on the pools of kdal's arm.
        sentences: the paper's claims, one by one, and what was found.
    """

    traits: tuple[str, ...]
    picks: dict[str, dict[str, Pick]]
    marks: tuple[str, ...]
    correlations: dict[str, dict[str, Interval]]
    sentences: tuple[str, ...]


def hypotheses(results: Results, summary: Summary) -> Hypotheses:
    """What a campaign says of the paper's claims."""
    by_arm = arms(results)
    picks = {name: found for name, runs in by_arm.items() if (found := _picks(runs))}
    ordered = {arm.arm: picks[arm.arm] for arm in summary.arms if arm.arm in picks}
    correlations = _correlations(by_arm.get(summary.kdal or "", {}))
    return Hypotheses(
        traits=_names(picks.values()),
        picks=ordered,
        marks=_names(correlations.values()),
        correlations=correlations,
        sentences=tuple(_sentences(ordered, correlations, summary)),
    )


def _names(tables: Iterable[Mapping[str, object]]) -> tuple[str, ...]:
    """Names of columns, in the order of their first mention."""
    return tuple(dict.fromkeys(name for row in tables for name in row))


def _picks(runs: Runs) -> dict[str, Pick]:
    """Each trait over the rounds in which a model chose the batch."""
    chosen = [[point for point in run.points if point.round > 0 and point.picked] for run in runs.values()]
    chosen = [points for points in chosen if points]
    found = {}
    for name in _names([point.picked for points in chosen for point in points]):
        having = [points for points in chosen if any(name in point.picked for point in points)]
        values = [(_mean(points, "picked", name), _mean(points, "offered", name)) for points in having]
        picked, offered = interval([a for a, _ in values]), interval([b for _, b in values])
        difference = interval([a - b for a, b in values])
        if picked is not None and offered is not None and difference is not None:
            found[name] = Pick(picked, offered, difference)
    return found


def _mean(points: Sequence[Point], table: str, name: str) -> float:
    return statistics.fmean(getattr(point, table)[name] for point in points if name in point.picked)


def _correlations(runs: Runs) -> dict[str, dict[str, Interval]]:
    """{score: {mark: correlation}} over the rounds in which it was measured."""
    measured = [[point.correlations for point in run.points if point.correlations] for run in runs.values()]
    tables = [table for of_run in measured for table in of_run]
    found: dict[str, dict[str, Interval]] = {}
    for score in dict.fromkeys(score for table in tables for score in table):
        found[score] = {}
        for mark in _names([table.get(score, {}) for table in tables]):
            of_seeds = [[table[score][mark] for table in run if mark in table.get(score, {})] for run in measured]
            if (over_seeds := interval([statistics.fmean(values) for values in of_seeds if values])) is not None:
                found[score][mark] = over_seeds
    return found


def _sentences(
    picks: dict[str, dict[str, Pick]], correlations: dict[str, dict[str, Interval]], summary: Summary
) -> Iterable[str]:
    """One claim after the other, as far as it was measured."""
    kdal = names_of(summary)[0]
    for name in sorted(name for name in picks if name.startswith(ENTROPY) and COUNT in picks[name]):
        found = picks[name][COUNT]
        verdict = {-1: "so it does here", 0: "that is not seen here", 1: "the opposite is true here"}[_side(found)]
        yield f"The paper says that entropy prefers images with few lanes: {verdict}. {_counted(name, found)}"
    if summary.kdal is not None and COUNT in picks.get(summary.kdal, {}):
        found = picks[summary.kdal][COUNT]
        verdict = "but here it does" if _side(found) < 0 else "nor does it here"
        yield f"It says that the gap does not prefer them: {verdict}. {_counted(kdal, found)}"
    own = summary.arm(summary.kdal)
    if own is not None and own.noise_auroc is not None:
        yield (
            f"It says that large gaps to student and teacher at once mark wrong labels. Of a wrong and a right label "
            f"that {kdal} had bought, the smaller of the two gaps picks out the wrong one in "
            f"{_between(own.noise_auroc, percent)} of all pairs; by chance it would be {percent(0.5, 0)}."
        )
    told = [(score, marks[ERROR]) for score, marks in correlations.items() if ERROR in marks]
    if told:
        listed = ", ".join(
            f"{score} {with_sign(rho.mean)}" for score, rho in sorted(told, key=lambda pair: -pair[1].mean)
        )
        yield (
            f"A score is of use when it goes with the model's errors. Rank correlations with them on the pools of "
            f"{kdal}, 1 at best: {listed}."
        )


def _side(found: Pick) -> int:
    """-1 where the images picked have less of it than those offered, 1 where more, 0 where the seeds do not tell."""
    return 0 if not found.difference.excludes_zero else 1 if found.difference.mean > 0 else -1


def _counted(who: str, found: Pick) -> str:
    difference = found.difference
    word = "fewer" if difference.mean < 0 else "more"
    sure = "one seed: no interval can be given"
    if difference.low is not None and difference.high is not None:
        sure = (
            f"95% interval {with_sign(difference.low)} to {with_sign(difference.high)}, {seed_count(difference.seeds)}"
        )
    return (
        f"Images that {who} picked show {found.picked.mean:.2f} lanes on average, those that it chose from "
        f"{found.offered.mean:.2f}: {abs(difference.mean):.2f} {word} ({sure})."
    )


def _between(found: Interval, say: Callable[[float], str]) -> str:
    if found.low is None or found.high is None:
        return f"{say(found.mean)} (one seed)"
    return (
        f"{say(found.mean)} (between {say(max(found.low, 0))} and {say(min(found.high, 1))}, {seed_count(found.seeds)})"
    )


def with_sign(value: float) -> str:
    """A correlation, or a difference, with its sign.

    >>> with_sign(0.314), with_sign(-0.2)
    ('+0.31', '−0.20')
    """
    return f"{value:+.2f}".replace("-", MINUS)


def pick_rows(found: Hypotheses) -> list[list[str]]:
    """One row for each arm: name, then for each trait the mean of what it picked, and the difference to the offer."""
    rows = []
    for arm, picks in found.picks.items():
        cells = [arm]
        for trait in found.traits:
            pick = picks.get(trait)
            cells += [NOTHING, NOTHING] if pick is None else [f"{pick.picked.mean:.2f}", _signed(pick.difference)]
        rows.append(cells)
    return rows


def correlation_rows(found: Hypotheses) -> list[list[str]]:
    """One row for each score: name, then its correlation with each mark."""
    return [
        [score, *(NOTHING if mark not in marks else _signed(marks[mark]) for mark in found.marks)]
        for score, marks in found.correlations.items()
    ]


def _signed(value: Interval) -> str:
    mean = with_sign(value.mean)
    return mean if value.half_width is None else f"{mean} ± {value.half_width:.2f}"
