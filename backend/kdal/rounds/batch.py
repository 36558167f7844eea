"""Counting a round's labels: each task once, whoever labels it, as Label Studio's API tells it now."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def batch_window(order: Sequence[int], skipped: Iterable[int], budget: int) -> list[int]:
    """The tasks of the batch: the first ``budget`` of the order, each skipped one replaced by the next in rank.

    A skipped task stays in the window: if somebody labels it after all, that label counts too.

    >>> batch_window([7, 3, 9, 4], skipped=[3], budget=2)
    [7, 3, 9]
    """
    left, window, skips = budget, [], set(skipped)
    for task in order:
        if left == 0:
            break
        window.append(task)
        left -= task not in skips
    return window


def count_labels(
    labelled: Iterable[int],
    before: Iterable[int],
    *,
    window: Iterable[int] | None = None,
) -> int:
    """Labels that count for a round.

    Args:
        labelled: tasks with a finished, non-cancelled annotation now.
        before: tasks that were labelled at the round's snapshot.
        window: only these tasks count; none: labels outside the batch count too.

    >>> count_labels([1, 2, 3], before=[1]), count_labels([1, 2, 3], before=[1], window=[2, 8])
    (2, 1)
    """
    new = set(labelled) - set(before)
    return len(new if window is None else new & set(window))
