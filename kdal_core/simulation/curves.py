"""The statistics of learning curves: pure functions from runs to means, intervals and comparisons over seeds.

Scores and shares lie in [0, 1]; intervals are 95% t-intervals over seeds; whatever compares two arms is paired by
seed. A run that is still under way counts at the budgets that it has reached. It does not count where a run's end
matters (area, labels to reach a level), since what it has not reached it may still reach.
"""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import special

from kdal_core.simulation.results import Results, Run

LEVELS = (0.90, 0.95, 0.99)
"""Shares of the score with all labels that an arm is asked to reach."""
HEADLINE_LEVEL = 0.95
KDAL = "kd_gap"
"""kdal's own arms are those whose name begins so."""
Runs = dict[int, Run]
"""An arm's runs by seed."""


@dataclass(frozen=True)
class Interval:
    """A mean over seeds and the half-width of its 95% t-interval; no half-width with a single seed."""

    mean: float
    half_width: float | None
    seeds: int

    @property
    def low(self) -> float | None:
        """Lower end."""
        return None if self.half_width is None else self.mean - self.half_width

    @property
    def high(self) -> float | None:
        """Upper end."""
        return None if self.half_width is None else self.mean + self.half_width

    @property
    def excludes_zero(self) -> bool:
        """Whether zero lies outside; never with a single seed."""
        return self.half_width is not None and abs(self.mean) > self.half_width


def interval(values: Sequence[float]) -> Interval | None:
    """Mean of (N,) values and t(0.975, N - 1) · s / √N; None of no value at all."""
    count = len(values)
    if not count:
        return None
    mean = statistics.fmean(values)
    if count == 1:
        return Interval(mean, None, 1)
    half_width = float(special.stdtrit(count - 1, 0.975)) * statistics.stdev(values) / math.sqrt(count)
    return Interval(mean, half_width, count)


def _curve(scores: Iterable[tuple[int, float]]) -> dict[int, Interval]:
    """{labels: interval} of (labels, value) pairs, in the order of the labels."""
    values: dict[int, list[float]] = defaultdict(list)
    for labels, score in scores:
        values[labels].append(score)
    return {labels: found for labels in sorted(values) if (found := interval(values[labels])) is not None}


def mean_curve(runs: Runs) -> dict[int, Interval]:
    """{labels: score over the seeds that have been there}."""
    return _curve((point.labels, point.score) for run in runs.values() for point in run.points)


def difference_curve(runs: Runs, baseline: Runs) -> dict[int, Interval]:
    """{labels: score minus the baseline's, paired by seed}, wherever both have been with the same seed."""
    differences = []
    for seed in runs.keys() & baseline.keys():
        other = {point.labels: point.score for point in baseline[seed].points}
        own = [point for point in runs[seed].points if point.labels in other]
        differences += [(point.labels, point.score - other[point.labels]) for point in own]
    return _curve(differences)


def area(run: Run) -> float:
    """Area under the learning curve (trapezoids over labels) by the range of labels: a mean score, in [0, 1].

    A run of a single point has its score as area. At least one point is needed.
    """
    labels = [point.labels for point in run.points]
    scores = [point.score for point in run.points]
    if len(labels) == 1:
        return scores[0]
    return float(np.trapezoid(scores, labels)) / (labels[-1] - labels[0])


@dataclass(frozen=True)
class Crossing:
    """Where a run first reached a score.

    Attributes:
        labels: labels needed, interpolated between budgets.
        seconds: the annotator's time for them, interpolated alike.
        at_first: it was there at the first budget already, so the truth may be less.
    """

    labels: float
    seconds: float
    at_first: bool = False


def crossing(run: Run, score: float) -> Crossing | None:
    """The first time that the run's curve, straight between its points, reaches `score`; None if it never does."""
    for place, point in enumerate(run.points):
        if point.score < score:
            continue
        if place == 0:
            return Crossing(point.labels, point.annotator_seconds, at_first=True)
        before = run.points[place - 1]
        part = (score - before.score) / (point.score - before.score)
        return Crossing(
            before.labels + part * (point.labels - before.labels),
            before.annotator_seconds + part * (point.annotator_seconds - before.annotator_seconds),
        )
    return None


@dataclass(frozen=True)
class Reach:
    """What a level took, over seeds.

    Attributes:
        median: over all seeds, those that did not get there counted as beyond the last budget; None: the median
            itself lies beyond it (or there is no seed).
        at_first: the median is an upper bound, since the level was reached at the first budget already.
        reached: seeds that got there.
        seeds: seeds that ran to the end.
    """

    median: float | None
    at_first: bool
    reached: int
    seeds: int


def reach(crossings: Sequence[Crossing | None], unit: str = "labels") -> Reach:
    """Median of labels (or of `unit` "seconds") over crossings, one for each seed."""
    if not crossings:
        return Reach(None, False, 0, 0)
    reached = sum(found is not None for found in crossings)
    upper = statistics.median([math.inf if found is None else getattr(found, unit) for found in crossings])
    if math.isinf(upper):
        return Reach(None, False, reached, len(crossings))
    lower = statistics.median(
        [math.inf if c is None else -math.inf if c.at_first else getattr(c, unit) for c in crossings]
    )
    return Reach(upper, math.isinf(lower), reached, len(crossings))


def _hours(crossings: Sequence[Crossing | None]) -> Reach:
    """Median of the annotator's hours."""
    found = reach(crossings, "seconds")
    return replace(found, median=None if found.median is None else found.median / 3600)


@dataclass(frozen=True)
class Comparison:
    """An arm against the baseline on the way to a level, over the seeds of which both are known.

    Attributes:
        own: labels of the arm.
        other: labels of the baseline.
        saving: 1 - labels(arm) / labels(baseline) over the seeds in which both got there; negative if it needs more.
        own_hours: the annotator's hours with the arm.
        other_hours: the annotator's hours with the baseline.
        hours_saved: hours(baseline) - hours(arm), over the seeds in which both got there.
        both: number of those seeds.
        at_first: those among them in which either was there at the first budget, so that the saving is a bound.
    """

    own: Reach
    other: Reach
    saving: Interval | None
    own_hours: Reach
    other_hours: Reach
    hours_saved: Interval | None
    both: int
    at_first: int


def compare(own: Sequence[Crossing | None], other: Sequence[Crossing | None]) -> Comparison:
    """The comparison of crossings (N,) with the baseline's (N,), entry by entry of the same seed."""
    pairs = [(a, b) for a, b in zip(own, other, strict=True) if a is not None and b is not None and b.labels > 0]
    return Comparison(
        own=reach(own),
        other=reach(other),
        saving=interval([1 - a.labels / b.labels for a, b in pairs]),
        own_hours=_hours(own),
        other_hours=_hours(other),
        hours_saved=interval([(b.seconds - a.seconds) / 3600 for a, b in pairs]),
        both=len(pairs),
        at_first=sum(a.at_first or b.at_first for a, b in pairs),
    )


def wrong_share(run: Run) -> float | None:
    """Wrong labels among those bought by the run's last round, in [0, 1]; None without a label."""
    if not run.points or not run.points[-1].labels:
        return None
    return run.points[-1].wrong / run.points[-1].labels


def last_auroc(run: Run) -> float | None:
    """How well the label-noise score told wrong labels when it was last measured; a campaign's last round does not."""
    return next((point.noise_auroc for point in reversed(run.points) if point.noise_auroc is not None), None)


@dataclass(frozen=True)
class ArmSummary:
    """All that is said of one arm; everything with a "difference" is paired with the baseline by seed.

    Attributes:
        seeds: those with at least one round.
        finished: those that have run to the campaign's last round.
        paired: those that the baseline has finished too.
        scores: {labels: score}.
        differences: {labels: difference}; empty for the baseline.
        area: normalised area under the curve (AULC).
        reaches: {level: labels needed}.
        comparisons: {level: against the baseline}; empty for the baseline.
        hours: annotator's hours to reach `HEADLINE_LEVEL`.
        wrong: share of wrong labels picked.
        noise_auroc: of the last round in which it was measured; S is not trained in a campaign's last one.
        compute_seconds: the machine's time for a round, on average.
    """

    arm: str
    seeds: tuple[int, ...]
    finished: tuple[int, ...]
    paired: tuple[int, ...]
    scores: dict[int, Interval]
    differences: dict[int, Interval]
    area: Interval | None
    area_difference: Interval | None
    reaches: dict[float, Reach]
    comparisons: dict[float, Comparison]
    hours: Reach
    wrong: Interval | None
    wrong_difference: Interval | None
    noise_auroc: Interval | None
    compute_seconds: Interval | None


@dataclass(frozen=True)
class Summary:
    """A campaign in numbers.

    Attributes:
        arms: the one with the largest area first, those without an area last.
        kdal: name of the arm that stands for kdal: `kd_gap` itself, else the first of its variants, never the best.
        baseline: name of the arm compared with; None if it has no runs.
        budgets: all numbers of labels at which any arm was scored.
        full: score with all labels.
        notes: sentences on what is missing, empty for a complete campaign.
    """

    arms: tuple[ArmSummary, ...]
    kdal: str | None
    baseline: str | None
    budgets: tuple[int, ...]
    full: Interval | None
    notes: tuple[str, ...]

    def arm(self, name: str | None) -> ArmSummary | None:
        """The arm of this name, if it has runs."""
        return next((arm for arm in self.arms if arm.arm == name), None)

    @property
    def noisy(self) -> bool:
        """Whether any arm bought a wrong label; else nothing needs to be said of them."""
        return any(arm.wrong is not None and arm.wrong.mean > 0 for arm in self.arms)


def arms(results: Results) -> dict[str, Runs]:
    """{arm: {seed: run}} of all runs that have at least one point, arms in the order of the results."""
    found: dict[str, Runs] = {}
    for run in results.runs:
        if run.points:
            found.setdefault(run.arm, {})[run.seed] = run
    return found


def finished(runs: Runs, last_round: int) -> Runs:
    """The runs that have come to the campaign's last round."""
    return {seed: run for seed, run in sorted(runs.items()) if run.points[-1].round >= last_round}


def summarise(results: Results) -> Summary:
    """Everything that the report says in numbers."""
    by_arm = arms(results)
    points = [point for runs in by_arm.values() for run in runs.values() for point in run.points]
    last_round = max((point.round for point in points), default=0)
    baseline = by_arm.get(results.baseline, {})
    summaries = [
        _summarise_arm(name, runs, {} if name == results.baseline else baseline, results.full, last_round)
        for name, runs in by_arm.items()
    ]
    return Summary(
        arms=tuple(sorted(summaries, key=lambda arm: -arm.area.mean if arm.area else math.inf)),
        kdal=_kdal_arm([name for name in by_arm if name != results.baseline]),
        baseline=results.baseline if baseline else None,
        budgets=tuple(sorted({point.labels for point in points})),
        full=interval(list(results.full.values())),
        notes=tuple(_notes(results, by_arm, last_round)),
    )


def _summarise_arm(arm: str, runs: Runs, baseline: Runs, full: dict[int, float], last_round: int) -> ArmSummary:
    """One arm; `baseline` is empty for the baseline itself."""
    done, other = finished(runs, last_round), finished(baseline, last_round)
    paired = sorted(done.keys() & other.keys())
    known = {level: crossings(runs, full, level, last_round) for level in LEVELS}
    reference = {level: crossings(baseline, full, level, last_round) for level in LEVELS if baseline}
    return ArmSummary(
        arm=arm,
        seeds=tuple(sorted(runs)),
        finished=tuple(done),
        paired=tuple(paired),
        scores=mean_curve(runs),
        differences=difference_curve(runs, baseline),
        area=interval([area(run) for run in done.values()]),
        area_difference=interval([area(done[seed]) - area(other[seed]) for seed in paired]),
        reaches={level: reach(list(known[level].values())) for level in LEVELS},
        comparisons={level: compare(*_paired(known[level], reference[level])) for level in reference},
        hours=_hours(list(known[HEADLINE_LEVEL].values())),
        wrong=interval([share for run in done.values() if (share := wrong_share(run)) is not None]),
        wrong_difference=interval(
            [
                a - b
                for seed in paired
                if (a := wrong_share(done[seed])) is not None and (b := wrong_share(other[seed])) is not None
            ]
        ),
        noise_auroc=interval([auroc for run in done.values() if (auroc := last_auroc(run)) is not None]),
        compute_seconds=interval(
            [statistics.fmean(point.compute_seconds for point in run.points) for run in done.values()]
        ),
    )


def crossings(runs: Runs, full: dict[int, float], level: float, last_round: int) -> dict[int, Crossing | None]:
    """{seed: where its run reached `level` of the seed's own full score, None for nowhere}, as far as that is known.

    Of a full score of 0 every share is 0, which tells nothing. A run that stopped short tells nothing where it has not
    got there yet, and then those of its arm that were quicker are not counted either: they would be the lucky ones.
    """
    found = {seed: crossing(run, level * full[seed]) for seed, run in sorted(runs.items()) if full.get(seed)}
    done = finished(runs, last_round)
    if all(found[seed] is not None or seed in done for seed in found):
        return found
    return {seed: place for seed, place in found.items() if seed in done}


def _paired(
    own: dict[int, Crossing | None], other: dict[int, Crossing | None]
) -> tuple[list[Crossing | None], list[Crossing | None]]:
    """Both of the seeds that are known of both."""
    seeds = sorted(own.keys() & other.keys())
    return [own[seed] for seed in seeds], [other[seed] for seed in seeds]


def _kdal_arm(names: Sequence[str]) -> str | None:
    own = [name for name in names if name.startswith(KDAL)]
    return KDAL if KDAL in own else next(iter(own), None)


def _notes(results: Results, by_arm: dict[str, Runs], last_round: int) -> Iterable[str]:
    """What is missing, in sentences."""
    if results.baseline not in by_arm:
        yield f"The arm {results.baseline!r}, with which all others are to be compared, has no results yet."
    runs = [run for of_arm in by_arm.values() for run in of_arm.values()]
    seeds = sorted({run.seed for run in runs} | set(results.full))
    if late := [run for run in runs if run.points[-1].round < last_round]:
        yield (
            f"{len(late)} of {len(runs)} runs have not come to round {last_round} yet: they count in the curves, "
            "but not in the areas, and in the labels needed for a level only where all runs of their arm got there."
        )
    short: dict[tuple[int, ...], list[str]] = defaultdict(list)
    for name, of_arm in by_arm.items():
        if len(of_arm) < len(seeds):
            short[tuple(sorted(of_arm))].append(name)
    for own, names in short.items():
        yield (
            f"{', '.join(names)}: {len(own)} of {len(seeds)} seeds so far; "
            f"differences to {results.baseline} are over the seeds that both have."
        )
    if waiting := sorted({run.arm for run in results.runs} - by_arm.keys()):
        yield f"No round of {', '.join(waiting)} is finished yet."
    if unknown := sorted({run.seed for run in runs} - results.full.keys()):
        numbers = ", ".join(map(str, unknown))
        yield f"The score with all labels is not known for seed {numbers}; what depends on it leaves it out."
