"""Active Mixup's grids: how good students are, by their real images and the mixes that were asked about."""

from kdal_core.simulation.mixup.grid import MixupGrid, find_grid, shipped_grids
from kdal_core.simulation.mixup.report import write_grid
from kdal_core.simulation.mixup.run import read_cells, run_grid

__all__ = ["MixupGrid", "find_grid", "read_cells", "run_grid", "shipped_grids", "write_grid"]
