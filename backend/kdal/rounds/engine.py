"""The workflow engine: DBOS, on kdal's own database. Starts rounds, resumes and cancels them."""

from __future__ import annotations

from typing import Literal

import structlog
from dbos import DBOS, DBOSConfig, DBOSPortableJSONSerializer, SetWorkflowID
from dbos import error as dbos_error

from kdal.resources import Resources
from kdal.rounds.workflow import NAME, ROUNDS, SHARDS, Rounds
from kdal.settings import Settings
from kdal.storage.tables import Project, Round

POLL = 0.25
"""Seconds between two looks into a queue: at 0.1 an idle worker would take twice as much of a processor."""
UNDER_WAY = frozenset({"PENDING", "ENQUEUED", "DELAYED"})
"""What DBOS says of workflows that have not come to their end."""
log = structlog.get_logger()


class Engine:
    """Hands rounds to the workers of all machines that share the database; this process is one of them.

    A round's workflow is known by the project's uid, the round's number and how often it was begun again, so that a
    second start is a no-op. Interrupted rounds of this worker go on by themselves once it is launched.

    Args:
        resources: what the rounds work with.
        computes: whether this process computes rounds itself, and not only hands them to others.
        name: under which DBOS finds the code of interrupted rounds again; a process can use each name once.
    """

    def __init__(self, resources: Resources, *, computes: bool = True, name: str = NAME) -> None:
        DBOS(config=engine_config(resources.settings))
        self._rounds = Rounds(resources, name)
        if not computes:
            DBOS.listen_queues([])
        DBOS.launch()
        for queue in (ROUNDS, SHARDS):
            DBOS.register_queue(queue, worker_concurrency=1, polling_interval_sec=POLL)

    def start(self, project: Project, last: Round) -> None:
        """Hand a round to the workers; a no-op when it was handed over before."""
        with SetWorkflowID(workflow_id(project.uid, last.number, last.restarts)):
            DBOS.enqueue_workflow(ROUNDS, self._rounds.run, project.id, last.number, last.restarts)

    def state(self, project: Project, last: Round) -> Literal["unknown", "under way", "ended"]:
        """How a round's workflow stands. It is unknown before it was handed over, or when DBOS's tables were lost."""
        status = DBOS.get_workflow_status(workflow_id(project.uid, last.number, last.restarts))
        if status is None:
            return "unknown"
        return "under way" if status.status in UNDER_WAY else "ended"

    def computed_by(self, project: Project, last: Round) -> set[str]:
        """The names of the workers that have begun a round, or parts of it, and have not ended them."""
        identity = workflow_id(project.uid, last.number, last.restarts)
        begun = DBOS.list_workflows(workflow_ids=[identity], status="PENDING", load_input=False, load_output=False)
        begun += DBOS.list_workflows(parent_workflow_id=identity, status="PENDING", load_input=False, load_output=False)
        return {str(each.executor_id) for each in begun if each.executor_id is not None}

    def resume(self, project: Project, last: Round) -> None:
        """Let a failed round go on at the step that failed, once its workflow has ended."""
        identity = workflow_id(project.uid, last.number, last.restarts)
        steps = DBOS.list_workflow_steps(identity)
        failed = [step["function_id"] for step in steps if step["error"] is not None]
        for child in {step["child_workflow_id"] for step in steps} - {None}:
            if DBOS.retrieve_workflow(str(child)).get_status().status not in {"SUCCESS", *UNDER_WAY}:
                DBOS.rewind_workflow(str(child), queue_name=SHARDS)
        DBOS.rewind_workflow(identity, start_step=min(failed, default=1), queue_name=ROUNDS)

    def cancel(self, project: Project, last: Round) -> None:
        """Take a round's workflow from the queues. A step that is being computed stops at its next report."""
        identity = workflow_id(project.uid, last.number, last.restarts)
        try:
            DBOS.cancel_workflow(identity, cancel_children=True)
        except dbos_error.DBOSNonExistentWorkflowError:
            log.debug("no workflow to cancel", workflow=identity)

    def close(self) -> None:
        """Leave the engine; rounds under way go on with the next start."""
        DBOS.destroy(workflow_completion_timeout_sec=0)


def workflow_id(uid: str, number: int, restarts: int = 0) -> str:
    """Id of a round's workflow. The uid tells a project from a later one of the same number."""
    return f"round-{uid}-{number}" + (f"-again-{restarts}" if restarts else "")


def engine_config(settings: Settings) -> DBOSConfig:
    """How DBOS is set up: our tables' database, JSON instead of pickles, a name that outlives the process."""
    return DBOSConfig(
        name="kdal",
        system_database_url=settings.dbos_url,
        serializer=DBOSPortableJSONSerializer(),
        executor_id=settings.worker_id,
        # One version for good: an interrupted round goes on after an upgrade, too.
        application_version="kdal-1",
        log_level="CRITICAL",  # what goes wrong in a step we log ourselves, in a line rather than a traceback
        enable_otlp=False,
    )
