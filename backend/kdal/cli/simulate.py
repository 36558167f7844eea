"""`kdal simulate`: the list of campaigns, how far one is with the time left, and where the report is."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    ProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from kdal.console import interruptible, out, progress

if TYPE_CHECKING:
    from rich.console import Console

    from kdal_core.simulation import Progress
    from kdal_core.simulation.curves import Summary

ESTIMATE_OVER = 3600.0  # seconds of rounds that the time left is estimated from


def columns(unit: str) -> tuple[ProgressColumn, ...]:
    """Of the bar: what was done last, how much of all is done, the time left."""
    return (
        TextColumn("{task.fields[note]}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(f"{unit},"),
        TimeElapsedColumn(),
        TextColumn("so far,"),
        TimeRemainingColumn(),
        TextColumn("left"),
    )


def add_to(app: typer.Typer) -> None:
    """Add this command to the `kdal` command."""
    app.command()(simulate)


def simulate(
    campaign: Annotated[str | None, typer.Argument(help="A campaign file, or the name of a shipped campaign.")] = None,
    show_list: Annotated[bool, typer.Option("--list", help="The campaigns that come with kdal.")] = False,
    folder: Annotated[
        Path | None, typer.Option("--out", help="Folder of runs and report; default artifacts/simulate/<name>.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option(envvar="KDAL_DATA", help="Folder of the data sets; default data.")
    ] = None,
    workers: Annotated[int | None, typer.Option(help="Processes; default one for each CPU.", min=1)] = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Start from the beginning instead of going on with what is there.")
    ] = False,
) -> None:
    """Ask what active learning saves: a whole labelling campaign, or a grid of distillations, on labelled data."""
    if show_list:
        out.print(table_of_campaigns())
        return
    if campaign is None:
        raise typer.BadParameter("Name a campaign file or a shipped campaign; --list shows these.")
    with interruptible("Interrupted; the same command goes on from here."):
        run = run_mixup_grid if is_grid(campaign) else run_campaign
        run(campaign, folder, data=data, workers=workers, fresh=fresh, out=out)


def table_of_campaigns() -> Table:
    """The shipped campaigns, one a row."""
    from kdal_core.simulation import shipped_campaigns
    from kdal_core.simulation.mixup import shipped_grids

    table = Table(title="Shipped campaigns: kdal simulate <name>")
    for column, justify in (("name", "left"), ("labels", "right"), ("arms", "right"), ("seeds", "right")):
        table.add_column(column, justify="right" if justify == "right" else "left", no_wrap=True)
    table.add_column("what it is")
    for name, campaign in shipped_campaigns().items():
        labels = f"{campaign.first_size} to {campaign.labels_after(campaign.rounds - 1)}"
        table.add_row(name, labels, str(len(campaign.strategies)), str(len(campaign.seeds)), campaign.description)
    for name, grid in shipped_grids().items():
        row = ("–", str(len(grid.choices)), str(len(grid.seeds)), grid.description)
        table.add_row(name, *row)
    return table


def is_grid(name_or_path: str) -> bool:
    """Whether a name or a file is that of a grid of distillations, and not of a labelling campaign."""
    from kdal_core.simulation.mixup import find_grid

    return find_grid(name_or_path) is not None


def run_mixup_grid(
    name_or_path: str, folder: Path | None, *, data: Path | None, workers: int | None, fresh: bool, out: Console
) -> None:
    """Run a grid, showing how far it is, and write its tables and its picture."""
    from kdal_core.simulation.mixup import find_grid, read_cells, run_grid, write_grid

    grid = find_grid(name_or_path)
    assert grid is not None
    folder = folder or Path("artifacts/simulate") / grid.name
    try:
        with progress(out, f"Cells of {grid.name}", columns("cells"), estimate_over=ESTIMATE_OVER) as report:
            run_grid(grid, folder, data=data, workers=workers or os.cpu_count() or 1, fresh=fresh, progress=report)
    finally:
        teacher, cells = read_cells(grid, folder)
        if teacher is not None and cells:  # interrupted, too: what there is can be looked at
            write_grid(grid, teacher, cells, folder)
            out.print((folder / "table.md").read_text().partition("\n")[0])
            out.print(f"The tables: {folder / 'table.md'}; the picture: {folder / 'grid.png'}")


def run_campaign(
    name_or_path: str, folder: Path | None, *, data: Path | None, workers: int | None, fresh: bool, out: Console
) -> None:
    """Run a campaign, showing how far it is, and write its report."""
    from kdal_core.simulation import collect, load_campaign, simulate, write_report
    from kdal_core.simulation.curves import summarise
    from kdal_core.simulation.report.headline import headline

    campaign = load_campaign(name_or_path)
    folder = folder or Path("artifacts/simulate") / campaign.name
    try:
        with progress(out, f"Rounds of {campaign.name}", columns("rounds"), estimate_over=ESTIMATE_OVER) as report:

            def show(at: Progress) -> None:
                report(at.done, at.total, at.last)

            simulate(campaign, folder, data=data, workers=workers, fresh=fresh, progress=show)
    finally:
        results = collect(campaign, folder)
        if results.runs:  # interrupted, too: what there is can be looked at
            write_report(results, folder)
            summary = summarise(results)
            out.print(headline(results, summary))
            out.print(table_of_arms(summary))
            out.print(f"The report for people: {folder / 'index.html'}; all figures: {folder / 'table.md'}")


def table_of_arms(summary: Summary) -> Table:
    """The arms, best first, as far as a terminal has room for them."""
    from kdal_core.simulation.curves import HEADLINE_LEVEL
    from kdal_core.simulation.report.formatting import cell, reach_cell

    table = Table(title="In per cent, mean ± half-width of the 95% interval over seeds")
    table.add_column("order", no_wrap=True)
    last = summary.budgets[-1]
    for column in ("area under the curve", f"less {summary.baseline}", f"with {last:,} labels", "labels to 95%"):
        table.add_column(column, justify="right")
    for arm in summary.arms:
        end, needed = arm.scores.get(last), reach_cell(arm.reaches[HEADLINE_LEVEL], last)
        table.add_row(arm.arm, cell(arm.area), cell(arm.area_difference, sign=True), cell(end), needed)
    return table
