"""`kdal simulate` as people see it: the list of campaigns, a progress bar with the time left, where the report is."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from kdal_core.simulation import Progress as At
from kdal_core.simulation import collect, load_campaign, shipped_campaigns, simulate, write_report
from kdal_core.simulation.curves import HEADLINE_LEVEL, Summary, summarise
from kdal_core.simulation.headline import headline
from kdal_core.simulation.words import cell, reach_cell

ESTIMATE_OVER = 3600.0  # seconds of rounds that the time left is estimated from


def table_of_campaigns() -> Table:
    """The shipped campaigns, one a row."""
    table = Table(title="Shipped campaigns: kdal simulate <name>")
    for column, justify in (("name", "left"), ("labels", "right"), ("arms", "right"), ("seeds", "right")):
        table.add_column(column, justify="right" if justify == "right" else "left", no_wrap=True)
    table.add_column("what it is")
    for name, campaign in shipped_campaigns().items():
        labels = f"{campaign.first_size} to {campaign.labels_after(campaign.rounds - 1)}"
        table.add_row(name, labels, str(len(campaign.strategies)), str(len(campaign.seeds)), campaign.description)
    return table


def run_campaign(
    name_or_path: str, folder: Path | None, *, data: Path | None, workers: int | None, fresh: bool, out: Console
) -> None:
    """Run a campaign with a progress bar and write its report."""
    campaign = load_campaign(name_or_path)
    folder = folder or Path("artifacts/simulate") / campaign.name
    columns = (
        TextColumn("{task.description}", justify="left"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("rounds,"),
        TimeElapsedColumn(),
        TextColumn("so far,"),
        TimeRemainingColumn(),
        TextColumn("left"),
    )
    try:
        with Progress(*columns, console=out, speed_estimate_period=ESTIMATE_OVER) as bar:
            task = bar.add_task(campaign.name, total=None)

            def show(at: At) -> None:
                bar.update(task, completed=at.done, total=at.total, description=at.last)

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
    table = Table(title="In per cent, mean ± half-width of the 95% interval over seeds")
    table.add_column("order", no_wrap=True)
    last = summary.budgets[-1]
    for column in ("area under the curve", f"less {summary.baseline}", f"with {last:,} labels", "labels to 95%"):
        table.add_column(column, justify="right")
    for arm in summary.arms:
        end, needed = arm.scores.get(last), reach_cell(arm.reaches[HEADLINE_LEVEL], last)
        table.add_row(arm.arm, cell(arm.area), cell(arm.area_difference, sign=True), cell(end), needed)
    return table
