"""kdal's database is locked, broken or away for a while: the worker waits and goes on by itself."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager

from tests.integration.harness import Api, Project
from tests.integration.loop.running import RunningKdal, drain

Make = Callable[[int], tuple[Project, dict[int, int]]]
BUSY_TIMEOUT = 30
"""Seconds that kdal's own connections wait for a lock."""


def database(kdal: RunningKdal) -> sqlite3.Connection:
    """Another program's connection, which commits by itself."""
    return sqlite3.connect(kdal.home / "kdal.sqlite", timeout=60, isolation_level=None)


@contextmanager
def table_away(kdal: RunningKdal, table: str) -> Iterator[None]:
    """A table is missing while the block runs: somebody restores the database, say."""
    with closing(database(kdal)) as connection:
        connection.execute(f"ALTER TABLE {table} RENAME TO {table}_away")
        try:
            yield
        finally:
            connection.execute(f"ALTER TABLE {table}_away RENAME TO {table}")


def said(kdal: RunningKdal, words: str) -> bool | None:
    return True if words in (kdal.home / "worker.log").read_text() else None


def test_a_worker_outlives_a_database_that_breaks_while_it_looks_and_while_it_trains(
    kdal_behind_proxy: RunningKdal, ls_api: Api, digits_project: Make
) -> None:
    kdal = kdal_behind_proxy
    assert kdal.worker is not None
    project, truth = digits_project(40)
    kdal.connect(project, budget=20, epochs=60)
    kdal.wait_open(project, 0)
    with table_away(kdal, "inbox"):
        kdal.wait(lambda: said(kdal, "no such table: inbox"), "the worker to meet the trouble")
        time.sleep(1)
    with table_away(kdal, "projects"):
        time.sleep(2)
    drain(project, [ls_api], 20, truth.__getitem__)
    kdal.wait(
        lambda: next((r for r in kdal.rounds(project) if r.number == 1 and r.step == "train S and T"), None),
        "training to begin",
    )
    with table_away(kdal, "rounds"):
        kdal.wait(lambda: said(kdal, "no such table: rounds"), "the training to meet the trouble")
        time.sleep(1)
    opened = kdal.wait_open(project, 1)
    assert (opened.facts["labels"], opened.restarts) == (20, 0)
    assert [row.number for row in kdal.settled(project)] == [0, 1]
    assert kdal.worker.poll() is None
    assert drain(project, [ls_api], 3, truth.__getitem__) == kdal.order(project, 1)[:3]


def test_labels_made_while_the_database_is_locked_count_once_it_is_free(
    kdal_behind_proxy: RunningKdal, ls_api: Api, digits_project: Make
) -> None:
    kdal = kdal_behind_proxy
    assert kdal.worker is not None
    project, truth = digits_project(24)
    kdal.connect(project, epochs=1)
    kdal.wait_open(project, 0)
    with closing(database(kdal)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        drain(project, [ls_api], 8, truth.__getitem__)
        time.sleep(BUSY_TIMEOUT + 5)
        connection.execute("ROLLBACK")
    assert kdal.wait_open(project, 1).facts["labels"] == 8
    assert [row.number for row in kdal.settled(project)] == [0, 1]
    assert kdal.worker.poll() is None
