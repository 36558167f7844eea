"""What people see of a campaign: a page for managers, tables for scientists, files for programs."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import yaml
from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from kdal_core.simulation.curves import HEADLINE_LEVEL, KDAL, LEVELS, ArmSummary, Comparison, Summary, summarise
from kdal_core.simulation.report import plots
from kdal_core.simulation.report.formatting import (
    NOTHING,
    capital,
    cell,
    duration,
    hours_cell,
    percent,
    reach_cell,
    saving_cell,
    seed_count,
    signed,
    verdict,
)
from kdal_core.simulation.report.headline import all_labels, at_least_fewer, certainty, headline, names_of
from kdal_core.simulation.report.hypotheses import Hypotheses, correlation_rows, hypotheses, pick_rows
from kdal_core.simulation.results import Results


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
    found = hypotheses(results, summary)
    content = {"campaign": results.campaign, "headline": headline(results, summary), **asdict(summary)}
    content |= {"claims": asdict(found)} if found.picks else {}
    return json.dumps(content, indent=1, allow_nan=False) + "\n"


def markdown(results: Results, summary: Summary) -> str:
    """Both tables, for a README or a notebook."""
    start = [f"# {results.campaign}", headline(results, summary), *summary.notes]
    if not summary.arms:
        return "\n\n".join(start) + "\n"
    head = [
        *("order", "AULC", f"AULC − {results.baseline}", "excludes 0"),
        *(f"labels to {level:.0%}" for level in LEVELS),
        *(f"saving at {HEADLINE_LEVEL:.0%}, %", f"annotator to {HEADLINE_LEVEL:.0%}"),
        *(("wrong labels, %", "noise AUROC") if summary.noisy else ()),
        *("computing, s a round", "seeds"),
    ]
    parts = [
        *start,
        f"{capital(results.metric)} in per cent at each number of labels, "
        "mean ± half-width of the 95% t-interval over seeds:",
        _markdown_table(["order", *(f"{labels:,}" for labels in summary.budgets)], score_rows(summary)),
        f"AULC is the area under the curve by the range of labels, in per cent; {HEADLINE_LEVEL:.0%} stands for "
        f"{HEADLINE_LEVEL:.0%} of the score with {all_labels(results)}. Labels to reach a level are "
        f"medians over seeds; differences to {results.baseline} and savings are paired by seed:",
        _markdown_table(head, [_markdown_row(arm, summary) for arm in summary.arms]),
        *_markdown_claims(hypotheses(results, summary)),
    ]
    return "\n\n".join(parts) + "\n"


def score_rows(summary: Summary) -> list[list[str]]:
    """One row for each arm: name, then the score at each budget in per cent."""
    return [[arm.arm, *(cell(arm.scores.get(labels)) for labels in summary.budgets)] for arm in summary.arms]


def _markdown_row(arm: ArmSummary, summary: Summary) -> list[str]:
    difference = arm.area_difference
    excludes = (
        NOTHING if difference is None or difference.half_width is None else ("no", "yes")[difference.excludes_zero]
    )
    return [
        arm.arm,
        cell(arm.area),
        cell(difference, sign=True),
        excludes,
        *(reach_cell(arm.reaches[level], summary.budgets[-1]) for level in LEVELS),
        saving_cell(arm.comparisons.get(HEADLINE_LEVEL)),
        hours_cell(arm.hours),
        *((cell(arm.wrong), _auroc(arm)) if summary.noisy else ()),
        NOTHING if arm.compute_seconds is None else f"{arm.compute_seconds.mean:.1f}",
        str(len(arm.seeds)),
    ]


def _auroc(arm: ArmSummary) -> str:
    return NOTHING if arm.noise_auroc is None else f"{arm.noise_auroc.mean:.2f}"


def _markdown_claims(found: Hypotheses) -> list[str]:
    """The paper's claims in sentences and tables; nothing for data without traits."""
    parts = [*found.sentences]
    if found.picks:
        parts += [
            "Traits of the images that orders picked, mean over the batches behind the first, and the difference to "
            "those that they were chosen from:",
            _markdown_table(["order", *claim_heads(found)], pick_rows(found)),
        ]
    if found.correlations:
        parts += [
            "What scores of unlabelled images go with, Spearman's rank correlation on the same pools:",
            _markdown_table(["score", *found.marks], correlation_rows(found)),
        ]
    return parts


def claim_heads(found: Hypotheses) -> list[str]:
    """Heads of the columns of `pick_rows` behind the first."""
    return [head for trait in found.traits for head in (trait, f"{trait}, difference")]


def _markdown_table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


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


def templates(package: str) -> Environment:
    """The templates of a package, which may extend `page.html`, the frame that all reports have in common."""
    frame = PackageLoader("kdal_core.simulation.report")
    return Environment(
        loader=ChoiceLoader([PackageLoader(package), frame]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def page(results: Results, summary: Summary, picture: str) -> str:
    """One self-contained HTML page; `picture` is an <svg> element, everything else is escaped."""
    found = hypotheses(results, summary)
    return (
        templates("kdal_core.simulation.report")
        .get_template("report.html")
        .render(
            results=results,
            summary=summary,
            headline=headline(results, summary),
            cards=cards(results, summary),
            picture=Markup(picture),
            intervals=any(len(arm.seeds) > 1 for arm in summary.arms),
            rows=[_row(arm, summary) for arm in summary.arms],
            score_rows=score_rows(summary),
            protocol=_protocol(results, summary),
            settings=_settings(results),
            level=f"{HEADLINE_LEVEL:.0%}",
            all_labels=all_labels(results),
            metric=capital(results.metric),
            claims=found,
            claim_heads=claim_heads(found),
            pick_rows=pick_rows(found),
            correlation_rows=correlation_rows(found),
        )
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
        *([_wrong_card(own, other, summary)] if summary.noisy else []),
        _score_card(results, own, summary),
    ]


def _labels_card(comparison: Comparison, summary: Summary) -> Card:
    saving, last = comparison.saving, summary.budgets[-1]
    own, other = (reach_cell(needed, last) for needed in (comparison.own, comparison.other))
    note = f"{own} labels, {names_of(summary)[1]} {other}"
    if comparison.own.median is not None and comparison.other.median is None:
        bound = at_least_fewer(comparison, summary).replace("at least", "≥")
        return Card(bound, f"fewer labels to reach {HEADLINE_LEVEL:.0%}", note)
    if saving is None or comparison.own.median is None:
        return Card(NOTHING, f"labels saved: {_unknown(comparison)}", note)
    word = "fewer" if saving.mean >= 0 else "more"
    return Card(
        f"{abs(saving.mean):.0%}",
        f"{word} labels to reach {HEADLINE_LEVEL:.0%}",
        f"{note}; {certainty(saving, comparison)}",
    )


def _unknown(comparison: Comparison) -> str:
    """Why there is no saving to give."""
    if not comparison.own.seeds:
        return "not known yet"
    return f"not both reached {HEADLINE_LEVEL:.0%}"


def _hours_card(comparison: Comparison, summary: Summary) -> Card:
    saved = comparison.hours_saved
    own, other = hours_cell(comparison.own_hours), hours_cell(comparison.other_hours)
    note = f"{own}, {names_of(summary)[1]} {other}, at the simulated annotator's pace"
    if saved is None:
        return Card(NOTHING, f"annotator time saved: {_unknown(comparison)}", note)
    word = "less" if saved.mean >= 0 else "more"
    return Card(duration(abs(saved.mean)), f"{word} annotator time to reach {HEADLINE_LEVEL:.0%}", note)


def _wrong_card(own: ArmSummary, other: ArmSummary, summary: Summary) -> Card:
    value = NOTHING if own.wrong is None else percent(own.wrong.mean)
    beside = NOTHING if other.wrong is None else percent(other.wrong.mean)
    return Card(value, "of the labels bought were wrong", f"with {names_of(summary)[1]} {beside}")


def _score_card(results: Results, own: ArmSummary, summary: Summary) -> Card:
    if not own.differences:
        return Card(NOTHING, f"points of {results.metric}", "no seed in common yet")
    labels, found = list(own.differences.items())[-1]
    note = f"against {names_of(summary)[1]}, both with {labels:,} labels"
    if found.low is not None and found.high is not None:
        note += f"; between {signed(found.low)} and {signed(found.high)}"
    when = "at the end" if labels == summary.budgets[-1] else "so far"
    return Card(signed(found.mean), f"points of {results.metric} {when}", note)


def _row(arm: ArmSummary, summary: Summary) -> Row:
    last = list(arm.scores)[-1]
    score = cell(arm.scores[last], digits=1)
    return Row(
        arm=arm.arm,
        ours=arm.arm.startswith(KDAL),
        baseline=arm.arm == summary.baseline,
        area=cell(arm.area, digits=1),
        difference=cell(arm.area_difference, sign=True, digits=1),
        verdict=verdict(arm.area_difference),
        labels=reach_cell(arm.reaches[HEADLINE_LEVEL], summary.budgets[-1]),
        saving=saving_cell(arm.comparisons.get(HEADLINE_LEVEL)),
        hours=hours_cell(arm.hours),
        score=score if last == summary.budgets[-1] else f"{score} (at {last:,})",
        wrong=cell(arm.wrong, digits=1),
        computing=NOTHING if arm.compute_seconds is None else f"{arm.compute_seconds.mean:,.0f} s",
        seeds=len(arm.seeds),
    )


def _protocol(results: Results, summary: Summary) -> dict[str, str]:
    """How it was measured, as far as the results themselves tell; then when, where and with what."""
    rounds = {point.round for run in results.runs for point in run.points}
    seeds = sorted({run.seed for run in results.runs})
    baseline = summary.arm(summary.baseline)
    facts = {}
    if results.full_labels:
        facts["Pool"] = f"{results.full_labels:,} images with known labels, from which an order chooses what to buy"
    if summary.budgets:
        times = "once" if len(rounds) == 1 else f"{len(rounds)} times"
        facts["Labels bought"] = f"{summary.budgets[0]:,} to {summary.budgets[-1]:,}, scored {times}"
    facts["Orders"] = f"{len(summary.arms)}, with networks trained alike"
    facts["Seeds"] = ", ".join(map(str, seeds)) or NOTHING
    if summary.full is not None:
        facts["Score with all labels"] = f"{cell(summary.full)}% {results.metric}, {seed_count(summary.full.seeds)}"
    if baseline is not None and baseline.wrong is not None and summary.noisy:
        facts["Annotator"] = (
            f"simulated; {percent(baseline.wrong.mean)} of the labels bought by {results.baseline} were wrong"
        )
    return {**facts, **{capital(name): value for name, value in results.environment.items()}}


def _settings(results: Results) -> str:
    """The campaign file as YAML."""
    plain = json.loads(json.dumps(results.settings, default=str))
    return (
        yaml.safe_dump(plain, sort_keys=False, allow_unicode=True, width=100, default_flow_style=None) if plain else ""
    )
