"""A grid for people: tables of its cells, and a heat map."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from kdal_core.simulation.curves import Interval, interval
from kdal_core.simulation.mixup.cells import Cell
from kdal_core.simulation.mixup.grid import MixupGrid
from kdal_core.simulation.report.formatting import NOTHING, cell

LARGEST = 2.0
"""Points of difference, at least, at which the colours end: chance is not to look like an effect."""


Quantity = Literal["accuracy", "agreement"]


class Cells:
    """The cells of a grid, to be looked up by row, column and choice."""

    def __init__(self, grid: MixupGrid, cells: Sequence[Cell]) -> None:
        self.grid = grid
        self._found = {each.key: each for each in cells}

    def mean(self, quantity: Quantity, choice: str, real: int, mixes: int) -> Interval | None:
        """Over the seeds that are finished."""
        keys = [(real, choice, seed, mixes) for seed in self.grid.seeds]
        return interval([getattr(self._found[key], quantity) for key in keys if key in self._found])

    def difference(self, choice: str, real: int, mixes: int) -> Interval | None:
        """Of the accuracy to the baseline's, paired by seed."""
        pairs = [
            (self._found.get((real, choice, seed, mixes)), self._found.get((real, self.grid.baseline, seed, mixes)))
            for seed in self.grid.seeds
        ]
        return interval(
            [own.accuracy - other.accuracy for own, other in pairs if own is not None and other is not None]
        )

    @property
    def choices(self) -> list[str]:
        """Those of the grid of which a cell is finished."""
        return [choice for choice in self.grid.choices if any(key[1] == choice for key in self._found)]

    @property
    def compared(self) -> list[str]:
        """Those of them that are compared with the baseline."""
        return [
            choice for choice in self.choices if choice != self.grid.baseline and self.grid.baseline in self.choices
        ]

    @property
    def hours(self) -> float:
        """Of computing, in all cells."""
        return sum(each.seconds for each in self._found.values()) / 3600

    def __len__(self) -> int:
        return len(self._found)


def write_grid(grid: MixupGrid, teacher: float, cells: Sequence[Cell], folder: Path) -> None:
    """`table.md` and `grid.png` of what is finished."""
    found = Cells(grid, cells)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "table.md").write_text(tables(found, teacher))
    figure = heat_map(found, teacher)
    figure.savefig(folder / "grid.png", dpi=110)


def tables(cells: Cells, teacher: float) -> str:
    """Markdown: for each choice the accuracies, then its differences to the baseline; then the agreements."""
    grid = cells.grid
    parts = [
        f"{grid.name}: {len(cells)} of {grid.cells} cells, {cells.hours:.1f} core-hours. The teacher is right in "
        f"{100 * teacher:.2f}%. A figure without ± is of one seed.",
    ]
    for choice in cells.choices:
        rows = [[cell(cells.mean("accuracy", choice, real, mixes)) for mixes in grid.mixes] for real in grid.real]
        parts.append(_table(grid, f"{choice}: accuracy, %", rows))
    for choice in cells.compared:
        rows = [[cell(cells.difference(choice, real, mixes), sign=True) for mixes in grid.mixes] for real in grid.real]
        parts.append(_table(grid, f"{choice} − {grid.baseline}, points, paired by seed", rows))
    for choice in cells.choices:
        rows = [[cell(cells.mean("agreement", choice, real, mixes)) for mixes in grid.mixes] for real in grid.real]
        parts.append(_table(grid, f"{choice}: the teacher's class, %", rows))
    return "\n\n".join(parts) + "\n"


def _table(grid: MixupGrid, title: str, rows: Sequence[Sequence[str]]) -> str:
    lines = [
        f"| {title} | " + " | ".join(f"{mixes:,} mixes" for mixes in grid.mixes) + " |",
        "|---|" + "---|" * len(grid.mixes),
        *(f"| {real:,} real | " + " | ".join(row) + " |" for real, row in zip(grid.real, rows, strict=True)),
    ]
    return "\n".join(lines)


def heat_map(cells: Cells, teacher: float) -> Figure:
    """A panel for each choice, all in the same colours, and one for each choice's differences to the baseline.

    Cells must hold at least one.
    """
    grid = cells.grid
    count = len(cells.choices) + len(cells.compared)
    figure = Figure(figsize=(0.6 + 4.1 * count, 0.9 + 0.6 * len(grid.real)), layout="constrained")
    panels = iter(figure.subplots(1, count, squeeze=False)[0])
    means = {
        choice: _means([[cells.mean("accuracy", choice, real, mixes) for mixes in grid.mixes] for real in grid.real])
        for choice in cells.choices
    }
    span = min(map(np.nanmin, means.values())), max(map(np.nanmax, means.values()))
    for choice, values in means.items():
        _panel(next(panels), grid, values, f"{choice}: accuracy, %", "viridis", span, "{:.1f}")
    gaps = {
        choice: _means([[cells.difference(choice, real, mixes) for mixes in grid.mixes] for real in grid.real])
        for choice in cells.compared
    }
    most = max([LARGEST, *(float(np.abs(values[np.isfinite(values)]).max(initial=0)) for values in gaps.values())])
    for choice, values in gaps.items():
        _panel(next(panels), grid, values, f"{choice} − {grid.baseline}, points", "PuOr", (-most, most), "{:+.1f}")
    whole = len(cells) == grid.cells
    seeds = "one seed" if len(grid.seeds) == 1 else f"means over {'' if whole else 'up to '}{len(grid.seeds)} seeds"
    finished = "" if whole else f", {len(cells)} of {grid.cells} cells so far"
    figure.suptitle(f"{grid.name}: teacher {100 * teacher:.1f}%, {seeds}{finished}", fontsize=11)
    return figure


def _means(found: Sequence[Sequence[Interval | None]]) -> NDArray[np.float64]:
    """(rows, columns) in per cent; NaN where there is nothing."""
    return np.array([[np.nan if each is None else 100 * each.mean for each in row] for row in found])


def _panel(
    axes: Axes,
    grid: MixupGrid,
    values: NDArray[np.float64],
    title: str,
    colours: str,
    span: tuple[float, float],
    form: str,
) -> None:
    axes.axis("on")
    axes.imshow(values, cmap=colours, vmin=span[0], vmax=span[1], aspect="auto")
    axes.set_title(title, fontsize=10)
    axes.set_xticks(range(len(grid.mixes)), [f"{mixes:,}" for mixes in grid.mixes])
    axes.set_yticks(range(len(grid.real)), [f"{real:,}" for real in grid.real])
    axes.set_xlabel("mixes", fontsize=9)
    axes.set_ylabel("real images", fontsize=9)
    axes.spines[:].set_visible(False)
    width = span[1] - span[0]
    for (row, column), value in np.ndenumerate(values):
        if not np.isfinite(value):
            axes.text(column, row, NOTHING, ha="center", va="center", fontsize=9)
            continue
        share = (value - span[0]) / width if width else 0.5
        dark = share < 0.5 if colours == "viridis" else abs(share - 0.5) > 0.35
        axes.text(
            column,
            row,
            form.format(value).replace("-", "−"),
            ha="center",
            va="center",
            fontsize=9,
            color="white" if dark else "black",
        )
