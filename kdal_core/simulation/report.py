"""What people see of a campaign: a page for managers, tables for scientists, files for programs."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from kdal_core.simulation import plots
from kdal_core.simulation.curves import (
    HEADLINE_LEVEL,
    KDAL,
    LEVELS,
    ArmSummary,
    Comparison,
    Interval,
    Reach,
    Summary,
    summarise,
)
from kdal_core.simulation.results import Results

NOTHING = "–"
"""Stands where there is no number."""


def write_report(results: Results, folder: Path) -> Path:
    """Write results.json, summary.json, table.md, curves.png, curves.svg and index.html; give the page's path.

    Results of a campaign that is still under way are welcome: the page says what is missing.
    """
    folder.mkdir(parents=True, exist_ok=True)
    summary = summarise(results)
    figure = plots.draw(results, summary)
    plots.save(figure, folder)
    (folder / "results.json").write_text(results.to_json(), encoding="utf-8")
    (folder / "summary.json").write_text(summary_json(results, summary), encoding="utf-8")
    (folder / "table.md").write_text(markdown(results, summary), encoding="utf-8")
    (folder / "index.html").write_text(page(results, summary, plots.svg(figure)), encoding="utf-8")
    return folder / "index.html"


def summary_json(results: Results, summary: Summary) -> str:
    """All statistics and the headline as JSON; scores and shares in [0, 1], None where there is no number."""
    content = {"campaign": results.campaign, "headline": headline(results, summary), **asdict(summary)}
    return json.dumps(content, indent=1, allow_nan=False) + "\n"


# The headline


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
    names = _names(summary) if kdal_wins else _names(summary)[::-1]
    start = f"With {names[0]}, {_needed(winner)} labels reached {_goal(results)}; {names[1]} needed {_needed(loser)}"
    if saving is None:
        return f"{start}, but never with the same seed, so no saving can be given."
    if not kdal_wins:
        word = "better" if saving.excludes_zero else "ahead"
        start = f"{_capital(names[0])} was {word}. {start}"
    text = f"{start}: {_fewer(saving.mean)} ({_certainty(saving, comparison)})."
    if comparison.at_first:
        text += (
            f" In {_seeds(comparison.at_first)} the first {summary.budgets[0]:,} labels were enough for one of them, "
            "so that what it really needed may be less."
        )
    return text


def _one_alone(results: Results, summary: Summary, own: ArmSummary, comparison: Comparison) -> str:
    """Only one of the two reached the level in the median."""
    kdal_wins = comparison.own.median is not None
    winner, loser = (comparison.own, comparison.other) if kdal_wins else (comparison.other, comparison.own)
    names = _names(summary) if kdal_wins else _names(summary)[::-1]
    sure = own.area_difference is not None and own.area_difference.excludes_zero
    start = "" if kdal_wins else f"{_capital(names[0])} was {'better' if sure else 'ahead'}. "
    seeds = "one seed: no interval can be given" if winner.seeds == 1 else _reached(names, winner, loser)
    bound = f", so kdal's took {_at_least(comparison, summary)} fewer" if kdal_wins else ""
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
    return f"it was reached by {counts[0]}, by {counts[1]} of {_seeds(first.seeds)}"


def _at_least(comparison: Comparison, summary: Summary) -> str:
    """What kdal saves at the least, when the baseline needs more labels than the campaign had."""
    assert comparison.own.median is not None
    return f"at least {1 - comparison.own.median / summary.budgets[-1]:.0%}"


def _neither(results: Results, summary: Summary, own: ArmSummary, comparison: Comparison) -> str:
    """Neither kdal nor the baseline reached the level in the median."""
    seeds = ""
    if comparison.own.reached or comparison.other.reached:
        seeds = f" in most seeds ({_reached(_names(summary), comparison.own, comparison.other)})"
    return (
        f"The campaign's {summary.budgets[-1]:,} labels were too few to reach {_goal(results)}{seeds}. "
        f"{_score_sentence(results, summary, own)}"
    )


def _score_sentence(results: Results, summary: Summary, own: ArmSummary) -> str:
    """The paired difference at the last budget that both have come to."""
    if not own.differences:
        return f"{own.arm} and {results.baseline} have no seed in common yet."
    labels, found = list(own.differences.items())[-1]
    kdal, other = _names(summary)
    points = f"{abs(100 * found.mean):.1f} points of {results.metric}"
    if found.mean >= 0:
        return f"With {labels:,} labels, {kdal} is {points} ahead of {other} ({_points_certainty(found)})."
    word = "better" if found.excludes_zero else "ahead"
    start = f"{_capital(other)} was {word}: with {labels:,} labels"
    return f"{start}, {kdal} is {points} behind it ({_points_certainty(found)})."


def _points_certainty(found: Interval) -> str:
    """The interval of a difference of scores, in words."""
    if found.low is None or found.high is None:
        return "one seed: no interval can be given"
    between = f"95% interval {_signed(found.low)} to {_signed(found.high)}, {_seeds(found.seeds)}"
    return between if found.excludes_zero else f"{between}: the seeds do not tell the two apart"


def _without_comparison(results: Results, summary: Summary) -> str:
    missing = f"the arm {results.baseline!r} to compare with" if summary.baseline is None else "an arm of kdal's"
    text = f"This campaign has no results of {missing}"
    best = summary.arms[0]
    if best.area is None:
        return f"{text}."
    return f"{text}; of the others, {best.arm} did best (mean {results.metric} {_percent(best.area.mean)})."


def _goal(results: Results) -> str:
    return f"{HEADLINE_LEVEL:.0%} of what all {results.full_labels:,} labels give"


def _names(summary: Summary) -> tuple[str, str]:
    """kdal's arm and the baseline, in words."""
    own = "kdal's order" if summary.kdal == KDAL else f"kdal's order ({summary.kdal})"
    return own, "a random order" if summary.baseline == "random" else f"the order of {summary.baseline}"


def _needed(needed: Reach) -> str:
    assert needed.median is not None
    return f"{'at most ' if needed.at_first else ''}{needed.median:,.0f}"


def _fewer(share: float) -> str:
    return f"{abs(share):.0%} {'fewer' if share >= 0 else 'more'}"


def _certainty(saving: Interval, comparison: Comparison) -> str:
    """The interval of a saving and its seeds, in words; which seeds, when not all of them count."""
    pairs = comparison.own.seeds
    seeds = _seeds(saving.seeds) if saving.seeds == pairs else f"{saving.seeds} of {pairs} seeds, where both got there"
    if saving.low is None or saving.high is None:
        return f"{'one seed' if pairs == 1 else seeds}: no interval can be given"
    if not saving.excludes_zero:
        between = f"between {_fewer(saving.low)} and {_fewer(saving.high)}"
        return f"{between}, {seeds}: the seeds do not tell the two apart"
    low, high = sorted((abs(saving.low), abs(saving.high)))
    return f"between {low:.0%} and {high:.0%}, {seeds}"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _seeds(count: int) -> str:
    return "one seed" if count == 1 else f"{count} seeds"


# Numbers in tables


def _percent(share: float, digits: int = 1) -> str:
    return f"{100 * share:.{digits}f}%"


def _signed(share: float, digits: int = 1) -> str:
    """A difference of shares in points, with its sign; no unit."""
    return f"{100 * share:+.{digits}f}".replace("-", "−")


def _cell(found: Interval | None, *, sign: bool = False, digits: int = 2) -> str:
    """A share in per cent, or a difference of shares in points, with its half-width; without unit."""
    if found is None:
        return NOTHING
    mean = _signed(found.mean, digits) if sign else f"{100 * found.mean:.{digits}f}"
    return mean if found.half_width is None else f"{mean} ± {100 * found.half_width:.{digits}f}"


def _reach_cell(needed: Reach, last: int) -> str:
    """Labels needed in the median: "210", "≤ 50", "> 400 (2 of 5 seeds)"; without a count, all seeds or none."""
    if not needed.seeds:
        return NOTHING
    text = f"> {last:,}" if needed.median is None else f"{'≤ ' if needed.at_first else ''}{needed.median:,.0f}"
    return text if needed.reached in (0, needed.seeds) else f"{text} ({needed.reached} of {needed.seeds} seeds)"


def _saving_cell(comparison: Comparison | None) -> str:
    """Labels saved in per cent with half-width, and the seeds that it is over when not all are."""
    if comparison is None or comparison.saving is None:
        return NOTHING
    text = _cell(comparison.saving, sign=True, digits=0)
    seeds = comparison.own.seeds
    return text if comparison.both == seeds else f"{text} ({comparison.both} of {seeds} seeds)"


def _hours_cell(needed: Reach) -> str:
    if not needed.seeds:
        return NOTHING
    return "not reached" if needed.median is None else f"{'≤ ' if needed.at_first else ''}{_duration(needed.median)}"


def _duration(hours: float) -> str:
    """Minutes below two hours, hours with one decimal above."""
    return f"{60 * hours:.0f} min" if hours < 2 else f"{hours:,.1f} h"


def _verdict(difference: Interval | None) -> str:
    """Whether the interval of a difference excludes zero, and on which side."""
    if difference is None:
        return NOTHING
    if difference.half_width is None:
        return "one seed"
    if not difference.excludes_zero:
        return "not told apart"
    return "better" if difference.mean > 0 else "worse"


# Tables as Markdown


def markdown(results: Results, summary: Summary) -> str:
    """Both tables, for a README or a notebook."""
    start = [f"# {results.campaign}", headline(results, summary), *summary.notes]
    if not summary.arms:
        return "\n\n".join(start) + "\n"
    parts = [
        *start,
        f"{_capital(results.metric)} in per cent at each number of labels, "
        "mean ± half-width of the 95% t-interval over seeds:",
        _markdown_table(["order", *(f"{labels:,}" for labels in summary.budgets)], score_rows(summary)),
        f"AULC is the area under the curve by the range of labels, in per cent; {HEADLINE_LEVEL:.0%} stands for "
        f"{HEADLINE_LEVEL:.0%} of the score with all {results.full_labels:,} labels. Labels to reach a level are "
        f"medians over seeds; differences to {results.baseline} and savings are paired by seed:",
        _markdown_table(
            [
                *("order", "AULC", f"AULC − {results.baseline}", "excludes 0"),
                *(f"labels to {level:.0%}" for level in LEVELS),
                *(f"saving at {HEADLINE_LEVEL:.0%}, %", f"annotator to {HEADLINE_LEVEL:.0%}"),
                *("wrong labels, %", "noise AUROC", "computing, s a round", "seeds"),
            ],
            [_markdown_row(arm, summary) for arm in summary.arms],
        ),
    ]
    return "\n\n".join(parts) + "\n"


def score_rows(summary: Summary) -> list[list[str]]:
    """One row for each arm: name, then the score at each budget in per cent."""
    return [[arm.arm, *(_cell(arm.scores.get(labels)) for labels in summary.budgets)] for arm in summary.arms]


def _markdown_row(arm: ArmSummary, summary: Summary) -> list[str]:
    difference = arm.area_difference
    excludes = (
        NOTHING if difference is None or difference.half_width is None else ("no", "yes")[difference.excludes_zero]
    )
    return [
        arm.arm,
        _cell(arm.area),
        _cell(difference, sign=True),
        excludes,
        *(_reach_cell(arm.reaches[level], summary.budgets[-1]) for level in LEVELS),
        _saving_cell(arm.comparisons.get(HEADLINE_LEVEL)),
        _hours_cell(arm.hours),
        _cell(arm.wrong),
        NOTHING if arm.noise_auroc is None else f"{arm.noise_auroc.mean:.2f}",
        NOTHING if arm.compute_seconds is None else f"{arm.compute_seconds.mean:.1f}",
        str(len(arm.seeds)),
    ]


def _markdown_table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


# The page


@dataclass(frozen=True)
class Card:
    """A big number, what it is, and how sure."""

    value: str
    what: str
    note: str


@dataclass(frozen=True)
class Row:
    """An arm in the page's table, all in words."""

    arm: str
    ours: bool
    baseline: bool
    area: str
    difference: str
    verdict: str
    labels: str
    saving: str
    hours: str
    score: str
    wrong: str
    computing: str
    seeds: int


def page(results: Results, summary: Summary, picture: str) -> str:
    """One self-contained HTML page; `picture` is an <svg> element, everything else is escaped."""
    environment = Environment(
        loader=PackageLoader("kdal_core.simulation"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html").render(
        results=results,
        summary=summary,
        headline=headline(results, summary),
        cards=cards(results, summary),
        picture=Markup(picture),
        rows=[_row(arm, summary) for arm in summary.arms],
        score_rows=score_rows(summary),
        protocol=_protocol(results, summary),
        settings=_settings(results),
        level=f"{HEADLINE_LEVEL:.0%}",
    )


def cards(results: Results, summary: Summary) -> list[Card]:
    """The big numbers of kdal against the baseline; none when one of the two is missing."""
    own, other = summary.arm(summary.kdal), summary.arm(summary.baseline)
    if own is None or other is None:
        return []
    comparison = own.comparisons[HEADLINE_LEVEL]
    return [
        _labels_card(comparison, summary),
        _hours_card(comparison, summary),
        _wrong_card(own, other, summary),
        _score_card(results, own, summary),
    ]


def _labels_card(comparison: Comparison, summary: Summary) -> Card:
    saving, last = comparison.saving, summary.budgets[-1]
    own, other = (_reach_cell(needed, last) for needed in (comparison.own, comparison.other))
    note = f"{own} labels, {_names(summary)[1]} {other}"
    if comparison.own.median is not None and comparison.other.median is None:
        bound = _at_least(comparison, summary).replace("at least", "≥")
        return Card(bound, f"fewer labels to reach {HEADLINE_LEVEL:.0%}", note)
    if saving is None or comparison.own.median is None:
        return Card(NOTHING, f"labels saved: {_unknown(comparison)}", note)
    word = "fewer" if saving.mean >= 0 else "more"
    return Card(
        f"{abs(saving.mean):.0%}",
        f"{word} labels to reach {HEADLINE_LEVEL:.0%}",
        f"{note}; {_certainty(saving, comparison)}",
    )


def _unknown(comparison: Comparison) -> str:
    """Why there is no saving to give."""
    if not comparison.own.seeds:
        return "not known yet"
    return f"not both reached {HEADLINE_LEVEL:.0%}"


def _hours_card(comparison: Comparison, summary: Summary) -> Card:
    saved = comparison.hours_saved
    own, other = _hours_cell(comparison.own_hours), _hours_cell(comparison.other_hours)
    note = f"{own}, {_names(summary)[1]} {other}, at the simulated annotator's pace"
    if saved is None:
        return Card(NOTHING, f"annotator time saved: {_unknown(comparison)}", note)
    word = "less" if saved.mean >= 0 else "more"
    return Card(_duration(abs(saved.mean)), f"{word} annotator time to reach {HEADLINE_LEVEL:.0%}", note)


def _wrong_card(own: ArmSummary, other: ArmSummary, summary: Summary) -> Card:
    value = NOTHING if own.wrong is None else _percent(own.wrong.mean)
    beside = NOTHING if other.wrong is None else _percent(other.wrong.mean)
    return Card(value, "of the labels bought were wrong", f"with {_names(summary)[1]} {beside}")


def _score_card(results: Results, own: ArmSummary, summary: Summary) -> Card:
    if not own.differences:
        return Card(NOTHING, f"points of {results.metric}", "no seed in common yet")
    labels, found = list(own.differences.items())[-1]
    note = f"against {_names(summary)[1]}, both with {labels:,} labels"
    if found.low is not None and found.high is not None:
        note += f"; between {_signed(found.low)} and {_signed(found.high)}"
    return Card(_signed(found.mean), f"points of {results.metric} at the end", note)


def _row(arm: ArmSummary, summary: Summary) -> Row:
    last = list(arm.scores)[-1]
    score = _cell(arm.scores[last], digits=1)
    return Row(
        arm=arm.arm,
        ours=arm.arm.startswith(KDAL),
        baseline=arm.arm == summary.baseline,
        area=_cell(arm.area, digits=1),
        difference=_cell(arm.area_difference, sign=True, digits=1),
        verdict=_verdict(arm.area_difference),
        labels=_reach_cell(arm.reaches[HEADLINE_LEVEL], summary.budgets[-1]),
        saving=_saving_cell(arm.comparisons.get(HEADLINE_LEVEL)),
        hours=_hours_cell(arm.hours),
        score=score if last == summary.budgets[-1] else f"{score} (at {last:,})",
        wrong=_cell(arm.wrong, digits=1),
        computing=NOTHING if arm.compute_seconds is None else f"{arm.compute_seconds.mean:,.0f} s",
        seeds=len(arm.seeds),
    )


def _protocol(results: Results, summary: Summary) -> dict[str, str]:
    """How it was measured, as far as the results themselves tell; then when, where and with what."""
    rounds = {point.round for run in results.runs for point in run.points}
    seeds = sorted({run.seed for run in results.runs})
    baseline = summary.arm(summary.baseline)
    facts = {"Pool": f"{results.full_labels:,} images with known labels, from which an order chooses what to buy"}
    if summary.budgets:
        facts["Labels bought"] = f"{summary.budgets[0]:,} to {summary.budgets[-1]:,}, scored {len(rounds)} times"
    facts["Orders"] = f"{len(summary.arms)}, with networks trained alike"
    facts["Seeds"] = ", ".join(map(str, seeds)) or NOTHING
    if summary.full is not None:
        facts["Score with all labels"] = f"{_cell(summary.full)}% {results.metric}, {_seeds(summary.full.seeds)}"
    if baseline is not None and baseline.wrong is not None:
        facts["Annotator"] = (
            f"simulated; {_percent(baseline.wrong.mean)} of the labels bought by {results.baseline} were wrong"
        )
    return {**facts, **{_capital(name): value for name, value in results.environment.items()}}


def _settings(results: Results) -> str:
    """The campaign file as YAML."""
    plain = json.loads(json.dumps(results.settings, default=str))
    return (
        yaml.safe_dump(plain, sort_keys=False, allow_unicode=True, width=100, default_flow_style=None) if plain else ""
    )
