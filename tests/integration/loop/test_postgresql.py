"""kdal's tables in PostgreSQL, which is restarted under it: nothing ends, nothing is lost or done twice."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.integration.harness import Api, Project
from tests.integration.loop.running import RunningKdal, drain
from tests.integration.postgresql import PostgreSQL

Make = Callable[[int], tuple[Project, dict[int, int]]]
MakeKdal = Callable[..., RunningKdal]


@pytest.fixture
def postgresql() -> Iterator[PostgreSQL]:
    with tempfile.TemporaryDirectory(prefix="kdal-postgresql-") as folder:
        Path(folder).chmod(0o755)  # its user is another
        with PostgreSQL(Path(folder)) as server:
            yield server


def test_a_round_goes_on_where_it_was_when_its_postgresql_is_restarted(
    postgresql: PostgreSQL, make_kdal: MakeKdal, ls_api: Api, digits_project: Make
) -> None:
    kdal = make_kdal(KDAL_DATABASE_URL=postgresql.url).start()
    assert kdal.worker is not None
    assert kdal.server is not None
    project, truth = digits_project(40)
    kdal.connect(project, budget=12, epochs=40)
    kdal.wait_open(project, 0)
    postgresql.restart()  # while nothing is computed
    assert drain(project, [ls_api], 12, truth.__getitem__) == kdal.order(project, 0)[:12]
    kdal.wait(
        lambda: next((r for r in kdal.rounds(project) if r.number == 1 and r.step == "train S and T"), None),
        "training to begin",
    )
    postgresql.restart()
    second = kdal.wait_open(project, 1, timeout=240)
    assert (second.facts["labels"], second.restarts) == (12, 0)
    assert drain(project, [ls_api], 5, truth.__getitem__) == kdal.order(project, 1)[:5]
    kdal.wait_counted(project, 5)
    assert [row.number for row in kdal.settled(project)] == [0, 1]
    assert (kdal.server.poll(), kdal.worker.poll()) == (None, None)
