"""`kdal distill` as people see it: a progress bar with queries and money, and where the report is."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from kdal.distill.config import load_distillation
from kdal.distill.report import headline
from kdal.distill.run import At, run_distillation
from kdal.settings import Settings

WORDS = {"ask": "asking the teacher", "train": "training", "select": "choosing mixes"}


def show_distillation(
    path: Path, folder: Path | None, settings: Settings, *, data: Path | None, fresh: bool, out: Console
) -> None:
    """Run a distillation with a progress bar and write its report."""
    plan = load_distillation(path)
    folder = folder or Path("artifacts/distill") / plan.name
    columns = (
        TextColumn("{task.description}", justify="left"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[spent]}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=out) as bar:
        task = bar.add_task(plan.name, total=1.0, spent="")

        def show(at: At) -> None:
            money = f", {at.cost:,.2f} {plan.currency}".rstrip() if plan.price > 0 else ""
            bar.update(
                task,
                completed=at.share,
                description=f"stage {at.stage} of {at.stages}: {WORDS.get(at.what, at.what)}",
                spent=f"{at.spent:,} of {at.budget:,} queries{money},",
            )

        outcome = run_distillation(plan, folder, settings, data=data, fresh=fresh, progress=show)
    out.print(headline(outcome))
    for note in outcome.notes:
        out.print(note)
    files = ", ".join(["student.safetensors", *(file.path.name for file in outcome.exports)])
    out.print(f"The report for people: {folder / 'index.html'}; the student: {files} in the same folder.")
