"""Where the trio disagrees: prediction gaps, and what is made of two of them: uncertainty, label noise."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kdal_core.metrics import box_gap, class_gap, lane_distance, lane_gap
from kdal_core.validation import InvalidInput, as_nonnegative, as_vector

if TYPE_CHECKING:
    from kdal_core.tasks import Task

__all__ = [
    "box_gap",
    "class_gap",
    "four_case_uncertainty",
    "label_noise",
    "lane_distance",
    "lane_gap",
    "prediction_gap",
    "uncertainty",
]


def prediction_gap(task: Task, a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float64]:
    """How far two models' predictions for the same images are apart; S-KD's predictions come first.

    Args:
        task: what is labelled; it defines the distance (classes: `class_gap`, in [0, 1]).
        a: predictions of the first model, one row for each image.
        b: predictions of the second.

    Returns:
        (N,) gaps >= 0.

    Source: lane paper, prediction gap; methods.md, section 2.

    >>> from kdal_core.tasks import ClassificationTask
    >>> task = ClassificationTask(("cat", "dog"))
    >>> prediction_gap(task, np.float32([[0.75, 0.25]]), np.float32([[0.25, 0.75]])).tolist()
    [0.625]
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
    first, second = _gaps(d_ss, d_st)
    eps = as_nonnegative("eps", eps)
    large, small = np.maximum(first, second), np.minimum(first, second)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        ratio = (large + eps) / (small + eps)
        result: NDArray[np.float64] = np.where(large == 0, 0.0, (large + small) * ratio)
    return result


def four_case_uncertainty(d_ss: ArrayLike, d_st: ArrayLike, scale: float | None = None) -> NDArray[np.float64]:
    """g(max) · (1 - g(min)) of the two gaps, with g(d) = d / (d + scale): "exactly one is large", made gradual.

    The lane paper's table asks for this: both gaps small (known already) -> 0, exactly one large (worth a
    label) -> 1, both large (label noise) -> 0. Its published formula, `uncertainty`, does not enforce it:
    there the gaps (10, 10) give 20 and beat (1, 2), which give 6. Here they do not.

    Args:
        d_ss: (N,) gap between S-KD and S, finite, >= 0.
        d_st: (N,) gap between S-KD and T, finite, >= 0, same unit.
        scale: the gap from which on "large" begins (g = 1/2), > 0, same unit. None: the median of those of
            the 2N gaps that are positive; the scores then depend on which images are in the pool.

    Returns:
        (N,) float64 in [0, 1], without unit; all zero when all gaps are.

    Raises:
        InvalidInput: NaN, infinite or negative gaps, shapes that differ, or a scale <= 0.

    Source: lane paper, table of the four cases; the formula is our choice.

    >>> four_case_uncertainty([0, 3, 10, 1], [0, 0, 10, 2], scale=1).round(3).tolist()
    [0.0, 0.75, 0.083, 0.333]
    >>> uncertainty([10, 1], [10, 2], eps=0).tolist()
    [20.0, 6.0]
    """
    first, second = _gaps(d_ss, d_st)
    if scale is None:
        gaps = np.concatenate([first, second])
        if not gaps.any():
            return np.zeros(len(first))
        scale = float(np.median(gaps[gaps > 0]))
    if as_nonnegative("scale", scale) == 0:
        raise InvalidInput("scale must be more than 0.")
    large, small = np.maximum(first, second), np.minimum(first, second)
    with np.errstate(divide="ignore", over="ignore"):  # d = 0 gives 1 / (1 + inf), the right 0
        result: NDArray[np.float64] = 1 / ((1 + scale / large) * (1 + small / scale))
    return result


def label_noise(d_ss: ArrayLike, d_st: ArrayLike) -> NDArray[np.float64]:
    """Score of labelled images, large only where both gaps are: the label may be wrong. min(D_SS, D_ST).

    Args:
        d_ss: (N,) gap between S-KD and S, finite, >= 0.
        d_st: (N,) gap between S-KD and T, finite, >= 0, same unit.

    Returns:
        (N,) float64, >= 0, in the gaps' unit.

    Raises:
        InvalidInput: NaN, infinite or negative gaps, or shapes that differ.

    Source: lane paper's slides, fourth case (both gaps large: label noise); the minimum is our choice.

    >>> label_noise([0, 5, 5], [0, 1, 4]).tolist()
    [0.0, 1.0, 4.0]
    """
    first, second = _gaps(d_ss, d_st)
    smaller: NDArray[np.float64] = np.minimum(first, second)
    return smaller


def _gaps(d_ss: ArrayLike, d_st: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Both gaps as (N,) float64, finite and >= 0."""
    first = as_vector("d_ss", d_ss)
    second = as_vector("d_st", d_st, length=len(first))
    for name, gaps in (("d_ss", first), ("d_st", second)):
        if not np.isfinite(gaps).all() or (gaps < 0).any():
            raise InvalidInput(f"{name} must hold finite gaps of at least 0.")
    return first, second
