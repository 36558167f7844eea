"""The page of a distillation: what it cost, how good the student is, and what the teacher was asked."""

from __future__ import annotations

import base64
import io
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import yaml
from markupsafe import Markup
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from kdal.distill.data import Material
from kdal.distill.journal import curve
from kdal.distill.outcome import Outcome
from kdal_core.distillation import QueryLedger, Teacher, ask, mix_images, unasked
from kdal_core.simulation.report import plots
from kdal_core.simulation.report.pages import templates

SHOWN = 8
"""Mixes of a stage on the picture sheet: those that the student was least sure of."""
SIDE = 64
"""Pixels at least of a picture on the page."""


@dataclass(frozen=True)
class Card:
    """A big number, what it is, and how it came about."""

    value: str
    what: str
    note: str


@dataclass(frozen=True)
class Shown:
    """One mix on the sheet; pictures are addresses that hold the image."""

    first: str
    mix: str
    second: str
    weight: str
    sure: str
    """How sure the student was of its likeliest class."""
    said: str
    """What the teacher said."""


@dataclass(frozen=True)
class Row:
    """A stage in the table, all in words."""

    number: str
    queries: str
    cost: str
    images: str
    accuracy: str
    rate: str
    seconds: str


def write_report(outcome: Outcome, material: Material, ledger: QueryLedger, teacher: Teacher) -> Path:
    """Write summary.json, curve.png and index.html into the run's folder; give the page's path."""
    figure = draw(outcome)
    figure.savefig(outcome.folder / "curve.png", dpi=150)
    (outcome.folder / "summary.json").write_text(summary(outcome), encoding="utf-8")
    page = (
        templates("kdal.distill")
        .get_template("report.html")
        .render(
            outcome=outcome,
            headline=headline(outcome),
            cards=cards(outcome),
            picture=Markup(plots.svg(figure)),  # drawn by us, its words escaped by matplotlib
            scored=bool(curve(outcome.stages)),
            rows=rows(outcome),
            sheet=sheet(outcome, material, ledger, teacher),
            settings=yaml.safe_dump(outcome.plan.model_dump(mode="json", exclude_defaults=True), sort_keys=False),
        )
    )
    path = outcome.folder / "index.html"
    path.write_text(page, encoding="utf-8")
    return path


def headline(outcome: Outcome) -> str:
    """What came out, in a sentence."""
    asked = f"{outcome.spent:,} queries"
    if outcome.success_rate is not None:
        return f"The student reaches {percent(outcome.success_rate)} of the teacher's accuracy after {asked}."
    if outcome.accuracy is not None:
        return f"The student is right about {percent(outcome.accuracy)} of the test images after {asked}."
    return f"A student with {outcome.parameters:,} parameters was trained after {asked}."


def summary(outcome: Outcome) -> str:
    """All figures as JSON; accuracies in [0, 1], None where there is no number."""
    content = {
        "name": outcome.plan.name,
        "headline": headline(outcome),
        "queries": outcome.spent,
        "budget": outcome.plan.budget,
        "cost": outcome.cost,
        "test_queries": outcome.test_queries,
        "accuracy": outcome.accuracy,
        "teacher_accuracy": outcome.teacher_accuracy,
        "success_rate": outcome.success_rate,
        "parameters": outcome.parameters,
        "stages": [asdict(stage) for stage in outcome.stages],
        "exports": [asdict(file) | {"path": file.path.name} for file in outcome.exports],
        "notes": list(outcome.notes),
    }
    return json.dumps(content, indent=1, allow_nan=False) + "\n"


def cards(outcome: Outcome) -> list[Card]:
    """The figures that a manager asks for."""
    found = [Card(f"{outcome.spent:,}", "queries", f"of {outcome.plan.budget:,}; {outcome.left:,} left")]
    if outcome.plan.price > 0:
        of = "" if outcome.plan.money is None else f" of {money(outcome.plan.money, outcome)}"
        found.append(Card(money(outcome.cost, outcome), "spent", f"{outcome.plan.price:g} an image{of}"))
    if outcome.success_rate is not None:
        found.append(Card(percent(outcome.success_rate), "success rate", "student's accuracy / teacher's accuracy"))
    if outcome.accuracy is not None:
        known = "" if outcome.teacher_accuracy is None else f"; the teacher: {percent(outcome.teacher_accuracy)}"
        found.append(Card(percent(outcome.accuracy), "accuracy", f"on {outcome.tests:,} test images{known}"))
    found.append(Card(f"{outcome.parameters:,}", "parameters", f"the student, {outcome.spec.architecture}"))
    return found


def rows(outcome: Outcome) -> list[Row]:
    """The stages."""
    teacher = outcome.teacher_accuracy
    return [
        Row(
            number="real images" if stage.number == 0 else str(stage.number),
            queries=f"{stage.spent:,}",
            cost=money(stage.cost, outcome),
            images=f"{stage.images:,}",
            accuracy="–" if stage.accuracy is None else percent(stage.accuracy),
            rate="–" if stage.accuracy is None or not teacher else percent(stage.accuracy / teacher),
            seconds=f"{stage.seconds:,.0f} s",
        )
        for stage in outcome.stages
    ]


def draw(outcome: Outcome) -> Figure:
    """Accuracy against queries; the teacher's accuracy as a line where it is known."""
    figure = Figure(figsize=(8.5, 4.2), layout="constrained")
    axes = figure.subplots()
    points = curve(outcome.stages)
    if points:
        queries, scores = zip(*points, strict=True)
        axes.plot(queries, [100 * score for score in scores], color=plots.STRONG[0], marker="o", linewidth=2.4)
        if outcome.teacher_accuracy is not None:
            axes.axhline(100 * outcome.teacher_accuracy, color=plots.INK, linestyle=(0, (4, 2)), linewidth=1.2)
            at = (max(queries), 100 * outcome.teacher_accuracy)
            axes.annotate("teacher", at, (0, 4), textcoords="offset points", ha="right", color=plots.INK)
    axes.set_xlabel("images that the teacher was asked about", color=plots.INK)
    axes.set_ylabel("accuracy on the test images, %", color=plots.INK)
    axes.tick_params(colors=plots.INK)
    axes.grid(visible=True, color="#888888", alpha=0.3, linewidth=0.6)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(plots.INK)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    return figure


def sheet(outcome: Outcome, material: Material, ledger: QueryLedger, teacher: Teacher) -> list[tuple[str, list[Shown]]]:
    """The mixes that the student was least sure of, stage by stage; nothing new is asked for it."""
    found = []
    for number, mix in sorted(outcome.mixes.items()):
        lowest = np.argsort(mix.confidence, kind="stable")[:SHOWN]
        pairs, weights = mix.pairs[lowest], mix.lambdas[lowest]
        mixes = mix_images(material.pool, pairs, weights)
        if unasked(mixes, ledger):
            continue  # their answers were lost and the budget spent: there is nothing to show
        answers = ask(teacher, mixes, ledger).numpy()
        shown = [
            Shown(
                picture(material.pool[first]),
                picture(mixes[place]),
                picture(material.pool[second]),
                f"{weights[place]:.0%}",
                f"{mix.confidence[lowest[place]]:.0%}",
                said(answers[place], teacher.classes),
            )
            for place, (first, second) in enumerate(pairs.tolist())
        ]
        found.append((f"Stage {number}", shown))
    return found


def said(answer: np.ndarray[tuple[int], np.dtype[np.float32]], classes: tuple[str, ...]) -> str:
    """The two likeliest classes of an answer."""
    best = np.argsort(-answer, kind="stable")[:2]
    return ", ".join(f"{classes[place]} {answer[place]:.0%}" for place in best)


def picture(image: Tensor) -> str:
    """uint8 (3, H, W) as an address that holds it, small ones enlarged so that their pixels can be seen."""
    file = io.BytesIO()
    found = Image.fromarray(image.permute(1, 2, 0).contiguous().numpy())
    times = -(-SIDE // max(found.size))
    if times > 1:
        found = found.resize((found.width * times, found.height * times), Image.Resampling.NEAREST)
    found.save(file, "PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


def percent(share: float) -> str:
    """0.98765 -> "98.77%"."""
    return f"{share:.2%}"


def money(amount: float, outcome: Outcome) -> str:
    """An amount with the name of its currency."""
    return f"{amount:,.2f} {outcome.plan.currency}".strip()
