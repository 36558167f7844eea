"""The picture of a campaign: the learning curves, and beside them the differences paired by seed."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from kdal_core.simulation.curves import HEADLINE_LEVEL, KDAL, Interval, Summary
from kdal_core.simulation.report.headline import all_labels
from kdal_core.simulation.results import Results

INK = "#010203"
"""Text, axes and baseline: black on paper; the page replaces it by its own text colour, dark mode's too."""
STRONG = ("#0072b2", "#d55e00", "#7a3fb8", "#b0005d")
"""kdal's arms: blue and vermilion of Okabe and Ito, then two that stand apart from both."""
THIN = ("#cc8400", "#009e73", "#b8659b", "#8a8a2b", "#4fa3d1", "#a0705a")
"""All other arms: hues that colour-blind eyes tell apart, of middle lightness for light and dark backgrounds."""
DASHES = ("-", (0, (5, 2)), (0, (1, 1.5)))
MARKERS = "osD^vPX<>*ph"
OUTLYING = 3.0
"""Interquartile ranges below the first quartile beyond which a mean is left out of the picture: Tukey's far out."""


@dataclass(frozen=True)
class Look:
    """How an arm is drawn; no two arms of one picture look the same, even in grey."""

    colour: str
    dash: str | tuple[int, tuple[float, ...]]
    marker: str
    strong: bool

    @property
    def line(self) -> dict[str, Any]:
        """matplotlib's words for it."""
        return {
            "color": self.colour,
            "linestyle": self.dash,
            "marker": self.marker,
            "linewidth": 2.6 if self.strong else 1.1,
            "markersize": 6 if self.strong else 4,
            "zorder": 5 if self.strong else 3,
        }


def looks(names: Sequence[str], baseline: str) -> dict[str, Look]:
    """The look of each arm, kdal's strong, the baseline in the text's colour; `names` in a stable order."""
    ours = [name for name in names if name.startswith(KDAL) and name != baseline]
    others = [name for name in names if name not in ours and name != baseline]
    found = {baseline: Look(INK, (0, (4, 2)), "x", strong=True)}
    for place, name in enumerate(ours):
        turn, hue = divmod(place, len(STRONG))
        found[name] = Look(STRONG[hue], DASHES[turn % len(DASHES)], MARKERS[place % len(MARKERS)], strong=True)
    for place, name in enumerate(others):
        turn, hue = divmod(place, len(THIN))
        found[name] = Look(THIN[hue], DASHES[turn % len(DASHES)], MARKERS[place % len(MARKERS)], strong=False)
    return found


def draw(results: Results, summary: Summary) -> Figure:
    """The figure; it belongs to no window and no global state."""
    figure = Figure(figsize=(12.5, 5.4), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1.15, 1))
    style = looks(sorted(arm.arm for arm in summary.arms), results.baseline)
    scores = {arm.arm: arm.scores for arm in summary.arms}
    differences = {arm.arm: arm.differences for arm in summary.arms}
    _draw_curves(left, scores, style)
    _draw_levels(left, results, summary)
    strong = [name for name, look in style.items() if look.strong]
    shown = _means(scores, strong)
    _frame(left, scores, shown if summary.full is None else [*shown, 100 * summary.full.mean])
    _draw_curves(right, differences, style)
    if any(differences.values()):
        right.axhline(0, **{**style[results.baseline].line, "marker": ""})
    else:
        _say_why_empty(right, results, summary)
    _frame(right, differences, [0, *_means(differences, strong)])
    _words(left, f"{results.metric} on test images, %", _seeds(summary))
    _words(right, "percentage points", f"Difference to {results.baseline}, paired by seed")
    for axes in (left, right):
        _finish(axes, summary.budgets)
    _draw_legend(figure, summary, style)
    return figure


def svg(figure: Figure) -> str:
    """The figure as an <svg> element for a page: no background, the page's own font, width and text colour."""
    text = _svg(figure, transparent=True)
    start, end = text.index("<svg"), text.index(">", text.index("<svg"))
    opening = re.sub(r' (width|height)="[^"]*"', "", text[start:end])  # the viewBox keeps the proportions
    # Matplotlib styles "*": inside a page that would be every element of the page.
    return opening + text[end:].replace(INK, "currentColor").replace("*{stroke", "svg *{stroke")


def save(figure: Figure, folder: Path) -> None:
    """`curves.png` and `curves.svg`, on white."""
    figure.savefig(folder / "curves.png", dpi=150)
    (folder / "curves.svg").write_text(_svg(figure, transparent=False), encoding="utf-8")


def _svg(figure: Figure, *, transparent: bool) -> str:
    """The figure as an SVG file: text stays text, and the same figure always gives the same file."""
    text = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "kdal"}):
        figure.savefig(
            text, format="svg", transparent=transparent, metadata=dict.fromkeys(("Date", "Creator", "Format", "Type"))
        )
    return text.getvalue()


def _draw_curves(axes: Axes, curves: Mapping[str, Mapping[int, Interval]], style: Mapping[str, Look]) -> None:
    """Strong arms with a band, the others with thin bars set beside each other, in per cent."""
    thin = [name for name in curves if not style[name].strong and curves[name]]
    for name, curve in curves.items():
        if not curve:
            continue
        look = style[name]
        labels = list(curve)
        means = [100 * point.mean for point in curve.values()]
        widths = [100 * (point.half_width or 0) for point in curve.values()]
        if look.strong:
            axes.plot(labels, means, **look.line)
            low, high = zip(*((m - w, m + w) for m, w in zip(means, widths, strict=True)), strict=True)
            axes.fill_between(labels, low, high, color=look.colour, alpha=0.16, linewidth=0, zorder=2)
            if len(labels) == 1:  # a band of one place has no width
                axes.errorbar(labels, means, yerr=widths, fmt="none", ecolor=look.colour, alpha=0.45, zorder=1)
            continue
        step = min((b - a for a, b in pairwise(labels)), default=0)
        beside = 0.3 * step * ((thin.index(name) + 0.5) / len(thin) - 0.5)
        places = [label + beside for label in labels]
        axes.plot(places, means, **look.line)
        axes.errorbar(places, means, yerr=widths, fmt="none", ecolor=look.colour, elinewidth=0.8, alpha=0.45, zorder=1)


def _means(curves: Mapping[str, Mapping[int, Interval]], names: Sequence[str]) -> list[float]:
    """The heights of all points of these arms, in per cent."""
    return [100 * point.mean for name in names for point in curves.get(name, {}).values()]


def _frame(axes: Axes, curves: Mapping[str, Mapping[int, Interval]], always: Sequence[float]) -> None:
    """Heights that show `always` and every mean but far outliers: these, and the huge interval of two seeds, must not
    flatten all other curves."""
    means = [100 * point.mean for curve in curves.values() for point in curve.values()]
    if not means:
        return
    first, third = np.percentile(means, [25, 75])
    means = [mean for mean in means if mean >= first - OUTLYING * (third - first)]
    low, high = min([*means, *always]), max([*means, *always])
    room = max(0.35 * (max(means) - min(means)), 0.5)
    bottom, top = axes.get_ylim()
    least = 0.08 * (high - low)  # for the words above a line at the top
    axes.set_ylim(max(bottom, low - room), max(min(top, high + room), high + least))


def _draw_levels(axes: Axes, results: Results, summary: Summary) -> None:
    """Horizontal lines at the score with all labels and at 95% of it."""
    if summary.full is None or not summary.full.mean or not summary.budgets:
        return
    full = 100 * summary.full.mean
    lines = ((full, all_labels(results)), (HEADLINE_LEVEL * full, f"{HEADLINE_LEVEL:.0%} of that"))
    for height, words in lines:
        axes.axhline(height, color=INK, linewidth=0.9, linestyle=(0, (1, 2)), alpha=0.7, zorder=0)
        axes.annotate(
            f"{words}: {height:.1f}%",
            (0, height),
            xycoords=("axes fraction", "data"),
            xytext=(4, 3),
            textcoords="offset points",
            color=INK,
            fontsize=9,
            clip_on=True,  # a line below the picture has no words outside of it
            in_layout=False,
        )


def _say_why_empty(axes: Axes, results: Results, summary: Summary) -> None:
    """Words in place of differences: an empty picture looks like a broken one."""
    if summary.baseline is None:
        words = f"{results.baseline} has no results yet"
    elif len(summary.arms) == 1:
        words = f"there is nothing to compare with {results.baseline} yet"
    else:
        words = f"no order has a seed in common with {results.baseline} yet"
    axes.text(0.5, 0.5, words, transform=axes.transAxes, ha="center", color=INK, parse_math=False)
    axes.set_yticks([])


def _seeds(summary: Summary) -> str:
    """What the left side shows: with a single seed there is no interval to draw."""
    most = max((len(arm.seeds) for arm in summary.arms), default=0)
    if most == 0:
        return "Nothing has been measured yet"
    return "One seed, no intervals" if most == 1 else f"Mean over {most} seeds, 95% intervals"


def _words(axes: Axes, unit: str, title: str) -> None:
    """Names from a campaign file are text, never formulas: a "$" in them must not start one."""
    axes.set_xlabel("labels bought", color=INK)
    axes.set_ylabel(unit, color=INK, parse_math=False)
    axes.set_title(title, color=INK, loc="left", fontsize=11, parse_math=False)


def _finish(axes: Axes, budgets: Sequence[int]) -> None:
    """Frame, ticks and grid."""
    if 0 < len(budgets) <= 10:
        axes.set_xticks(budgets)
    axes.tick_params(colors=INK)
    axes.grid(color=INK, alpha=0.12)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(INK)


def _draw_legend(figure: Figure, summary: Summary, style: Mapping[str, Look]) -> None:
    """Outside the axes, the best arm by area on top; that is said where all have an area."""
    if not summary.arms:
        return
    handles = [Line2D([], [], label=arm.arm, **style[arm.arm].line) for arm in summary.arms]
    legend = figure.legend(
        handles,
        [arm.arm for arm in summary.arms],
        loc="outside right upper",
        frameon=False,
        labelcolor=INK,
        handlelength=3.4,
        title="largest area first" if all(arm.area for arm in summary.arms) else None,
    )
    legend.get_title().set_color(INK)
    for text, arm in zip(legend.get_texts(), summary.arms, strict=True):
        text.set_parse_math(False)
        text.set_fontweight("bold" if arm.arm.startswith(KDAL) else "normal")
