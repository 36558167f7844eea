"""Kinds of task by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from kdal_core.errors import ConfigError
from kdal_core.tasks.classification import ClassificationTask
from kdal_core.tasks.lanes import LaneTask
from kdal_core.tasks.task import Task

TASKS: dict[str, Callable[[tuple[str, ...]], Task]] = {
    "classification": ClassificationTask,
    "lanes": LaneTask,
}


def task_kinds() -> list[str]:
    """Names of the kinds of task that `get_task` knows.

    >>> task_kinds()
    ['classification', 'lanes']
    """
    return list(TASKS)


def get_task(kind: str, classes: Sequence[str]) -> Task:
    """The task of this kind over these classes.

    Raises:
        ConfigError: an unknown kind, or classes that are empty or not distinct.

    >>> get_task("classification", ["cat", "dog"]).metric_name
    'accuracy'
    """
    if kind not in TASKS:
        raise ConfigError(f"There is no task kind {kind!r}; known kinds: {', '.join(TASKS)}.")
    return TASKS[kind](tuple(classes))
