"""`kdal distill`: queries and money while it runs, and where the report is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn

from kdal.console import interruptible, out, progress

if TYPE_CHECKING:
    from rich.console import Console

    from kdal.distill.run import At
    from kdal.settings import Settings

WORDS = {"ask": "asking the teacher", "train": "training", "select": "choosing mixes"}
COLUMNS = (
    TextColumn("{task.description}:"),
    TextColumn("{task.fields[note]}"),
    BarColumn(),
    TaskProgressColumn(),
    TimeElapsedColumn(),
)


def add_to(app: typer.Typer) -> None:
    """Add this command to the `kdal` command."""
    app.command()(distill)


def distill(
    file: Annotated[Path, typer.Argument(help="A YAML file: images, teacher, budget, student.")],
    folder: Annotated[
        Path | None, typer.Option("--out", help="Folder of run and report; default artifacts/distill/<name>.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option(envvar="KDAL_DATA", help="Folder of the data sets; default data.")
    ] = None,
    fresh: Annotated[
        bool,
        typer.Option("--fresh", help="Choose and train from the start; answers that were paid for stay in the ledger."),
    ] = False,
) -> None:
    """Train a compact student from a black-box teacher, asking it about few images and within a budget."""
    from kdal.settings import Settings

    with interruptible("Interrupted; the same command goes on from here, and asks nothing twice."):
        show_distillation(file, folder, Settings.load(), data=data, fresh=fresh, out=out)


def show_distillation(
    path: Path, folder: Path | None, settings: Settings, *, data: Path | None, fresh: bool, out: Console
) -> None:
    """Run a distillation, showing how far it is, and write its report."""
    from kdal.distill.config import load_distillation
    from kdal.distill.report import headline
    from kdal.distill.run import run_distillation

    plan = load_distillation(path)
    folder = folder or Path("artifacts/distill") / plan.name
    with progress(out, plan.name, COLUMNS) as report:

        def show(at: At) -> None:
            money = f", {at.cost:,.2f} {plan.currency}".rstrip() if plan.price > 0 else ""
            stage = f"stage {at.stage} of {at.stages}: {WORDS.get(at.what, at.what)}"
            report(at.share, 1.0, f"{stage}, {at.spent:,} of {at.budget:,} queries{money}")

        outcome = run_distillation(plan, folder, settings, data=data, fresh=fresh, progress=show)
    out.print(headline(outcome))
    for note in outcome.notes:
        out.print(note)
    files = ", ".join(["student.safetensors", *(file.path.name for file in outcome.exports)])
    out.print(f"The report for people: {folder / 'index.html'}; the student: {files} in the same folder.")
