"""Where the trio disagrees: prediction gaps, and the uncertainty made of two of them."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kdal_core.tasks import Task
from kdal_core.validation import InvalidInput, as_nonnegative, as_vector


def prediction_gap(task: Task, a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float64]:
    """How far two models' predictions for the same images are apart; S-KD's predictions come first.

    Args:
        task: what is labelled; it defines the distance (classes: total variation, in [0, 1]).
        a: predictions of the first model, one row for each image.
        b: predictions of the second.

    Returns:
        (N,) gaps >= 0.

    Source: lane paper, prediction gap; methods.md, section 2.

    >>> from kdal_core.tasks import ClassificationTask
    >>> task = ClassificationTask(("cat", "dog"))
    >>> prediction_gap(task, np.float32([[0.75, 0.25]]), np.float32([[0.25, 0.75]])).tolist()
    [0.5]
    """
    return task.gap(a, b)


def uncertainty(d_ss: ArrayLike, d_st: ArrayLike, eps: float = 1.0) -> NDArray[np.float64]:
    """Uncr = (D_SS + D_ST) · max(D_ST / D_SS, D_SS / D_ST), each ratio taken as (a + eps) / (b + eps).

    Large where the distilled student disagrees with exactly one of student and teacher: worth a label. Small
    where it agrees with both (known already). Where it disagrees with both (label noise) the ratio is near 1.

    Args:
        d_ss: (N,) gap between S-KD and S, finite, >= 0.
        d_st: (N,) gap between S-KD and T, finite, >= 0, same unit.
        eps: >= 0, same unit. 0 is strict: two zero gaps give 0, one zero gap gives inf (ranked first).

    Returns:
        (N,) float64, >= 0, in the gaps' unit; never NaN.

    Raises:
        InvalidInput: NaN, infinite or negative gaps, shapes that differ, or a negative eps.

    Source: lane paper, uncertainty from the two gaps; eps is our choice (methods.md, section 2).

    >>> uncertainty([3, 1, 2, 1], [1, 3, 2, 4], eps=0).tolist()
    [12.0, 12.0, 4.0, 20.0]
    >>> uncertainty([0, 0, 2], [0, 2, 0], eps=0).tolist()
    [0.0, inf, inf]
    """
    first, eps = as_vector("d_ss", d_ss), as_nonnegative("eps", eps)
    second = as_vector("d_st", d_st, length=len(first))
    for name, gaps in (("d_ss", first), ("d_st", second)):
        if not np.isfinite(gaps).all() or (gaps < 0).any():
            raise InvalidInput(f"{name} must hold finite gaps of at least 0.")
    large, small = np.maximum(first, second), np.minimum(first, second)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        ratio = (large + eps) / (small + eps)
        result: NDArray[np.float64] = np.where(large == 0, 0.0, (large + small) * ratio)
    return result
