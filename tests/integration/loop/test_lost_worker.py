"""A worker that never comes back: another one takes its round over, once, on either database."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from kdal.processes.child import KDAL, Child
from tests.integration.harness import Api, Project
from tests.integration.loop.running import RunningKdal, drain
from tests.integration.postgresql import PostgreSQL

Make = Callable[[int], tuple[Project, dict[int, int]]]
MakeKdal = Callable[..., RunningKdal]
SOON = {"KDAL_LOST_AFTER_SECONDS": "3", "KDAL_RECONCILE_SECONDS": "1"}


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_the_round_of_a_lost_worker_is_taken_over_once(
    database: str, make_kdal: MakeKdal, ls_api: Api, digits_project: Make
) -> None:
    with ExitStack() as stack:
        settings = dict(SOON)
        if database == "postgresql":
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="kdal-postgresql-"))
            Path(folder).chmod(0o755)  # its user is another
            settings["KDAL_DATABASE_URL"] = stack.enter_context(PostgreSQL(Path(folder))).url
        kdal = make_kdal(**settings).start()
        project, truth = digits_project(24)
        kdal.connect(project, epochs=400)
        kdal.wait_open(project, 0)
        drain(project, [ls_api], 8, truth.__getitem__)
        kdal.wait(lambda: kdal.rounds(project)[-1].step == "train S and T" or None, "training to begin")
        kdal.kill(kdal.worker)
        environment = kdal.environment | {"KDAL_WORKER_ID": "worker-2"}
        log = kdal.home / "other-worker.log"
        other = Child("kdal worker 2", [*KDAL, "worker"], env=environment, log=log)
        stack.callback(kdal.stop)  # before its database
        stack.callback(other.stop)
        opened = kdal.wait_open(project, 1, timeout=240)
        assert (opened.restarts, opened.facts["labels"]) == (1, 8)
        assert log.read_text().count("round taken over") == 1
        # It comes back, and finds that the round is no longer its own.
        kdal.start_worker()
        kdal.wait(lambda: "worker started" in (kdal.home / "worker.log").read_text() or None, "the worker to be back")
        rounds = [(row.number, row.state, row.restarts) for row in kdal.settled(project, 4)]
        assert rounds == [(0, "closed", 0), (1, "open", 1)]
        assert ls_api.get(f"/api/projects/{project.id}/model-versions/") == {opened.version: 16}
        assert drain(project, [ls_api], 3, truth.__getitem__) == kdal.order(project, 1)[:3]
