"""What the runs of `benchmarks.mixup_curves` say together: figures with intervals over seeds, a table, a picture."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from matplotlib.figure import Figure

from kdal_core.simulation.curves import Interval, interval
from kdal_core.simulation.report.plots import MARKERS, STRONG, THIN

PUBLISHED = {
    "mnist": {"teacher": 99.29, "zskd": 98.77, "fskd": 80.43, "vanilla_kd": 99.05, "active_mixup": 98.74},
    "fashion_mnist": {"teacher": 90.80, "zskd": 79.62, "fskd": 68.64, "vanilla_kd": 87.79, "active_mixup": 80.90},
}
"""Accuracy in per cent, table 1 of the paper."""
BASELINE = "random_pairs"
NO_CURVES = ("vanilla_kd", "real_only", "zskd")
"""Methods of another budget, or of none: a line across the picture in place of a curve."""


def summary(dataset: str, folder: Path, methods: Sequence[str], seeds: int, teacher: float) -> dict[str, Any]:
    """Each method's last student over the seeds, its difference to random pairs with the same real images, how often
    it says the teacher's class on images kept aside, its curve, and the queries to the published accuracy.

    Made of the runs that are finished; a method without one is left out.
    """
    target = PUBLISHED[dataset]["active_mixup"]
    runs = {name: found for name in methods if (found := _finished(folder, f"{dataset}-{name}", seeds))}
    last = {name: {seed: run["curve"][-1][1] for seed, run in found.items()} for name, found in runs.items()}
    rows: dict[str, Any] = {}
    for name, found in runs.items():
        scores = list(last[name].values())
        reached = [
            next((queries for queries, score in run["curve"] if score >= target), None) for run in found.values()
        ]
        pairs = [(score, last[BASELINE][seed]) for seed, score in last[name].items() if seed in last.get(BASELINE, {})]
        paired = None
        if pairs and name != BASELINE:
            paired = interval([ours - theirs for ours, theirs in pairs])
        rows[name] = {
            "seeds": len(found),
            "queries": next(iter(found.values()))["curve"][-1][0],
            "accuracy": _plain(interval(scores)),
            "difference": _plain(paired),
            "success_rate": _plain(interval([100 * score / teacher for score in scores])),
            "agreement": _plain(interval([run["stages"][-1]["agreement"] for run in found.values()])),
            "queries_to_published": median(q for q in reached if q is not None) if all(reached) else None,
            "curve": [
                [points[0][0], *_plain(interval([score for _, score in points]))]
                for points in zip(*(run["curve"] for run in found.values()), strict=True)
            ],
            "published": PUBLISHED[dataset].get(name),
        }
    return {"dataset": dataset, "teacher": round(teacher, 2), "seeds": seeds, "methods": rows}


def _finished(folder: Path, name: str, seeds: int) -> dict[int, dict[str, Any]]:
    """The runs of a method by seed."""
    files = {seed: folder / f"{name}-{seed}.json" for seed in range(seeds)}
    runs = {seed: json.loads(path.read_text()) for seed, path in files.items() if path.exists()}
    return {seed: run for seed, run in runs.items() if run["done"]}


def table(report: dict[str, Any]) -> str:
    """Markdown: one row for each method."""
    published = PUBLISHED[report["dataset"]]
    lines = [
        f"| {report['dataset']} | seeds | queries | accuracy | − random pairs | success rate | agreement | published "
        "| queries to the published accuracy |",
        "|---|---|---|---|---|---|---|---|---|",
        f"| teacher | | | {report['teacher']:.2f} | | | | {published['teacher']:.2f} | |",
    ]
    for name, row in report["methods"].items():
        to_published = f"{row['queries_to_published']:,.0f}" if row["queries_to_published"] else "–"
        lines.append(
            f"| {name} | {row['seeds']} | {row['queries']:,} | {_said(row['accuracy'])} "
            f"| {_said(row['difference'], sign='+')} | {_said(row['success_rate'])} | {_said(row['agreement'])} "
            f"| {'' if row['published'] is None else format(row['published'], '.2f')} | {to_published} |"
        )
    return "\n".join(lines)


def draw(report: dict[str, Any]) -> Figure:
    """Accuracy against queries: means and 95% t-intervals over the seeds; the teacher and the published student.

    Rivals that end far below stand in the legend with their last accuracy and outside the picture, where they would
    press all others into one line.
    """
    figure = Figure(figsize=(8.5, 5), layout="constrained")
    axes = figure.subplots()
    for place, (name, row) in enumerate(report["methods"].items()):
        colour = (*STRONG, *THIN)[place % (len(STRONG) + len(THIN))]
        queries, means, widths = zip(*row["curve"], strict=True)
        words = f"{name}: {means[-1]:.2f}"
        if row["seeds"] < report["seeds"]:
            words += f", seeds: {row['seeds']}"
        if name in NO_CURVES:
            words += f" ({queries[-1]:,} images)"
            axes.axhline(means[-1], color=colour, linestyle=(0, (5, 2)), linewidth=1.2, label=words)
            continue
        bars = [width or 0 for width in widths]
        axes.errorbar(
            queries, means, yerr=bars, color=colour, marker=MARKERS[place % len(MARKERS)], capsize=3, label=words
        )
    teacher, published = report["teacher"], PUBLISHED[report["dataset"]]["active_mixup"]
    axes.axhline(teacher, color="black", linewidth=1, label=f"teacher: {teacher:.2f}")
    words = f"active_mixup, published: {published:.2f}"
    axes.axhline(published, color="black", linewidth=1, linestyle=(0, (1, 2)), label=words)
    compared = [row["curve"][0][1] for name, row in report["methods"].items() if name in ("active_mixup", BASELINE)]
    low = min([published, *compared])
    axes.set_ylim(low - 0.15 * (teacher - low), max(teacher, published) + 0.08 * (teacher - low))
    axes.set_xlabel("queries to the teacher")
    axes.set_ylabel("accuracy on test images, %")
    spread = ", 95% t-interval" if report["seeds"] > 1 else ""
    axes.set_title(f"{report['dataset']}, seeds: {report['seeds']}{spread}")
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right", fontsize="small")
    return figure


def _plain(found: Interval | None) -> list[float | None]:
    """[mean, half-width], for JSON."""
    if found is None:
        return [None, None]
    return [round(found.mean, 3), None if found.half_width is None else round(found.half_width, 3)]


def _said(value: list[float | None], *, sign: str = "") -> str:
    mean, half_width = value
    if mean is None:
        return "–"
    return f"{mean:{sign}.2f}" + ("" if half_width is None else f" ± {half_width:.2f}")
