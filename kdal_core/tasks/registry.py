"""Kinds of task by name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from kdal_core.errors import ConfigError
from kdal_core.plugins import Plugins
from kdal_core.tasks.task import Task

TASKS: Plugins[type] = Plugins(
    sort="task kind",
    package="kdal_core.tasks",
    attribute="TASK",
    group="kdal.tasks",
    part=type,
    first=("classification", "lanes", "boxes"),
)
"""Kinds of task by name: each file of this folder that assigns a dataclass of the shape of `Task` to TASK, and those
that other packages add."""


def task_kinds() -> list[str]:
    """Names of the kinds of task that `get_task` knows. Nothing is imported for it.

    >>> task_kinds()
    ['classification', 'lanes', 'boxes']
    """
    return list(TASKS)


def get_task(kind: str, classes: Sequence[str], **options: Any) -> Task:
    """The task of this kind over these classes.

    Args:
        kind: one of `task_kinds()`.
        classes: names.
        options: what else a task of this kind can be given, by name: `Task.options`.

    Raises:
        ConfigError: an unknown kind or option, an option out of range, or classes that are empty or not distinct.

    >>> get_task("classification", ["cat", "dog"]).metric_name
    'accuracy'
    >>> dict(get_task("lanes", ["lane"], slots=4).options)
    {'slots': 4, 'rows': 36, 'columns': 64}
    """
    if kind not in TASKS.names():
        raise ConfigError(f"There is no task kind {kind!r}; known kinds: {', '.join(TASKS)}.")
    made = TASKS[kind]
    known = [field.name for field in fields(made) if field.name != "classes"]
    if unknown := [name for name in options if name not in known]:
        takes = f"known: {', '.join(known)}" if known else "it takes none"
        raise ConfigError(f"A task of kind {kind!r} has no option {unknown[0]!r}; {takes}.")
    task: Task = made(tuple(classes), **options)
    return task
