"""From what is painted or outlined to the line in its middle, one x for each row."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kdal_core.errors import LabelFormatError

Floats = NDArray[np.float64]

ROWS = 257
"""Rows at which an outline is measured, beside those of its vertices."""
MOST_VERTICES = 512
"""Vertices of an outline up to which each has a row of its own."""
OUTLINE_TOLERANCE = 5e-5
"""Share of the image by which leaving out vertices may move an outline."""
APART = 0.05
"""Share of the width between two painted pieces of a row from which they are two lines, no hole in one."""
MANY_ROWS = 0.25
"""Share of the painted rows that must show two lines, so that a stray dab of the brush does not count."""


def centre_of_outline(outline: Floats) -> Floats:
    """The middle between left and right border at each row, (m, 2) from top to bottom.

    Args:
        outline: (n, 2) vertices of a closed shape in shares of the image, its first one repeated at its end or not.
            With fewer than three it has no inside, and comes back as it is.
    """
    from kdal_core.tasks.lane import reduce_vertices  # here, as it imports scipy

    outline = outline[np.isfinite(outline).all(axis=1)]
    if len(np.unique(outline, axis=0)) < 3:
        return outline
    ring = reduce_vertices(np.concatenate([outline, outline[:1]]), OUTLINE_TOLERANCE)
    y = ring[:, 1]
    rows = np.linspace(y.min(), y.max(), ROWS)
    if len(ring) <= MOST_VERTICES:
        rows = np.union1d(rows, y)
    left, right = np.transpose([_borders(ring, row) for row in rows])
    return np.stack([(left + right) / 2, rows], axis=1)


def centre_of_mask(mask: NDArray[np.bool_]) -> Floats:
    """The middle between left and right border of each painted row, (m, 2) shares of the image, from top to bottom.

    Rows that are not painted are left out, so that a dashed marking is one line.

    Args:
        mask: (H, W), True where it is painted.

    Raises:
        LabelFormatError: it shows two lines side by side, which should be two regions.
    """
    height, width = mask.shape
    rows = np.flatnonzero(mask.any(axis=1))
    if len(rows) == 0:
        return np.zeros((0, 2))
    painted = mask[rows]
    left = painted.argmax(axis=1)
    right = width - painted[:, ::-1].argmax(axis=1)  # one behind the last painted pixel
    if _two_lines(painted):
        raise LabelFormatError("two lines are painted side by side: paint each as a region of its own")
    return np.stack([(left + right) / 2 / width, (rows + 0.5) / height], axis=1)


def _borders(ring: Floats, row: float) -> tuple[float, float]:
    """Leftmost and rightmost x of a closed line (n, 2) at a row that it meets."""
    (x0, y0), (x1, y1) = ring[:-1].T, ring[1:].T
    meets = (np.minimum(y0, y1) <= row) & (row <= np.maximum(y0, y1))
    x0, y0, x1, y1 = x0[meets], y0[meets], x1[meets], y1[meets]
    level = y0 == y1
    share = ((row - y0) / np.where(level, 1.0, y1 - y0)).clip(0.0, 1.0)
    x = np.concatenate([x0 * (1 - share) + x1 * share, x1[level]])
    return float(x.min()), float(x.max())


def _two_lines(painted: NDArray[np.bool_]) -> bool:
    """Whether many rows (R, W) have two painted pieces far apart."""
    gap = np.zeros(len(painted), dtype=np.int64)
    for i, row in enumerate(painted):
        columns = np.flatnonzero(row)
        gap[i] = np.diff(columns).max(initial=1) - 1
    return bool((gap > APART * painted.shape[1]).mean() > MANY_ROWS)
