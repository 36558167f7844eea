"""The worker: takes events from the inbox, compares with Label Studio, begins rounds and computes them.

Events are hints and may be lost, late or double; Label Studio's API is the truth. So each hint, and a timer,
lead to the same thing: look at the project, and do what its state asks for. Whatever is killed in the middle
is found again by the next look.
"""

from __future__ import annotations

import fcntl
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import structlog
from dbos import DBOS
from sqlalchemy.exc import IntegrityError

from kdal.labelstudio.client import LabelStudioError
from kdal.labelstudio.connection import ensure_connected, project_uid
from kdal.policy import Policy
from kdal.resources import Resources
from kdal.rounds import workflow
from kdal.rounds.batch import batch_window, count_labels
from kdal.rounds.snapshot import Snapshot
from kdal.rounds.store import Order, RoundStore
from kdal.storage.tables import Project, Round, now
from kdal_core.errors import ConfigError, KdalError

POLL = 0.1
"""Seconds between two looks into the inbox."""
LAZY = 2.0
"""Seconds between two counts of a project as long as its events are too few to fill the batch."""
ONE_EACH = frozenset({"ANNOTATION_CREATED", "ANNOTATION_UPDATED", "ANNOTATIONS_DELETED"})
"""Events that stand for one more label at most."""
KEEP = timedelta(days=7)
"""How long events that were dealt with stay in the inbox, for whoever looks into what happened."""
SETUP, START_TRAINING = "SETUP", "START_TRAINING"
log = structlog.get_logger()


@dataclass
class _Pace:
    """When a project may be looked at again: counting takes Label Studio's time, which is the annotators'."""

    not_before: float = 0.0
    lazy_until: float = 0.0
    missing: int = 0
    """Labels that the batch lacked at the last count."""
    timer: float = 0.0
    snapshots: dict[int, tuple[frozenset[int], Order]] = field(default_factory=dict)
    """Round number -> tasks labelled at its snapshot, and its order: read once per round."""


@contextmanager
def _only_one(path: Path) -> Iterator[None]:
    """Hold a lock that ends with the process, however it ends.

    A worker takes up what was under way under its name: of two, each would take up what the other is doing.
    """
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ConfigError(
                f"a worker named {path.stem} runs already ({path} is locked): "
                "stop it, or give this one another name with KDAL_WORKER_ID"
            ) from error
        yield


class Worker:
    """Serves all projects of the tables.

    Args:
        resources: what it works with.
    """

    def __init__(self, resources: Resources) -> None:
        self._resources = resources
        self._pace: dict[str, _Pace] = defaultdict(_Pace)
        self._prune_at = 0.0

    def run(self, stop: threading.Event) -> None:
        """Work until told to stop. Rounds under way are taken up by the next start of this worker.

        Raises:
            ConfigError: a worker of this name runs already.
        """
        settings = self._resources.settings
        with _only_one(settings.home_folder / f"{settings.worker_id}.lock"):
            rounds = workflow.launch(self._resources)
            log.info("worker started", worker=settings.worker_id)
            try:
                while not stop.wait(POLL):
                    self.look(rounds)
            finally:
                DBOS.destroy(workflow_completion_timeout_sec=0)

    def look(self, rounds: workflow.Rounds) -> None:
        """Deal with waiting events and with projects whose timer has run out."""
        storage = self._resources.storage
        waiting: dict[int, list[tuple[int, str]]] = defaultdict(list)
        for event in storage.waiting_events():
            waiting[event.project_id].append((event.id, event.action))
        for project in storage.projects():
            events = waiting.pop(project.id, [])
            pace = self._pace[project.uid]
            began = time.monotonic()
            if began < pace.not_before or (not events and began < pace.timer):
                continue
            few = len(events) < pace.missing and ONE_EACH.issuperset(action for _, action in events)
            if events and few and began < min(pace.lazy_until, pace.timer):
                continue
            try:
                self.reconcile(rounds, project, {action for _, action in events})
                storage.finish_events([event for event, _ in events])
                if project.problem is not None:
                    storage.update_project(project.id, problem=None)
                rest = 3 * (time.monotonic() - began)
            except KdalError as error:
                # The events stay in the inbox: what they hint at has not been seen to.
                if project.problem != str(error):
                    log.warning("project cannot be served", project=project.id, reason=str(error))
                    storage.update_project(project.id, problem=str(error))
                gone = isinstance(error, LabelStudioError) and error.status == 404
                if gone:
                    storage.finish_events([event for event, _ in events])
                rest = self._resources.settings.reconcile_seconds if gone else 5.0
            except Exception:
                # One project's trouble is not the others'; what it is, only the log can say.
                log.exception("project cannot be looked at", project=project.id)
                storage.update_project(project.id, problem="an unexpected error: the worker's log has it")
                rest = 5.0
            pace.not_before = time.monotonic() + rest
            pace.lazy_until = time.monotonic() + LAZY
            pace.timer = time.monotonic() + self._resources.settings.reconcile_seconds
        if waiting:  # of projects that kdal does not serve
            storage.finish_events([event for events in waiting.values() for event, _ in events])
        if time.monotonic() >= self._prune_at:
            storage.forget_events(KEEP)
            self._prune_at = time.monotonic() + 3600

    def reconcile(self, rounds: workflow.Rounds, project: Project, actions: set[str]) -> None:
        """Look at a project, and begin, resume or leave alone its rounds.

        Args:
            actions: of the events that led here; empty when the timer did.
        """
        storage = self._resources.storage
        if project.claim is not None:
            storage.accept_project(project.id, project_uid(self._resources.label_studio.project(project.id)))
            project = storage.project(project.id) or project
        if SETUP in actions or not actions or project.connected_at is None:
            ensure_connected(self._resources, project, insist=SETUP in actions or project.connected_at is None)
        last = storage.last_round(project.id)
        if last is None:
            self._begin(rounds, project, 0, "connect")
        elif last.state == "computing":
            workflow.start(rounds, project, last.number)  # begun by a worker that was killed before it could say so
        elif last.state == "failed":
            self._resume(project, last, pressed=START_TRAINING in actions)
        else:
            trigger = "button" if START_TRAINING in actions else self._due(project, last)
            if trigger is not None:
                self._begin(rounds, project, last.number + 1, trigger)

    def _due(self, project: Project, last: Round) -> str | None:
        """Why the next round is due, if it is."""
        client = self._resources.label_studio
        labelled = client.labelled_ids(project.id)
        before, order = self._published(project, last.number)
        policy = Policy.model_validate(project.policy)
        budget = min(policy.budget, len(order.tasks))  # as the owner has it now, not as it was at the opening
        window = None if policy.count_outside else batch_window(order.tasks, client.skipped_ids(project.id), budget)
        counted = count_labels(labelled, before, window=window)
        if (counted, budget) != (last.counted, last.budget):
            self._resources.storage.update_round(project.id, last.number, counted=counted, budget=budget)
        self._pace[project.uid].missing = budget - counted
        if budget and counted >= budget:
            return "budget"
        if counted and client.open_count(project.id) == 0:
            return "budget"  # everything is labelled or skipped: the last batch cannot become full
        if not order.tasks and client.open_count(project.id) > 0:
            return "tasks"  # nothing had been left to order, and new tasks have come
        return None

    def _published(self, project: Project, number: int) -> tuple[frozenset[int], Order]:
        known = self._pace[project.uid].snapshots
        if number not in known:
            known.clear()
            store = RoundStore(self._resources.assets, project.uid, number)
            before = frozenset(item.ref.task_id for item in Snapshot.load(store).labelled)
            known[number] = (before, store.order())
        return known[number]

    def _begin(self, rounds: workflow.Rounds, project: Project, number: int, trigger: str) -> None:
        try:
            begun = self._resources.storage.begin_round(project.id, number, trigger)
        except IntegrityError:  # another worker was faster by a moment
            begun = False
        if begun:
            log.info("round begins", project=project.id, round=number, trigger=trigger)
        workflow.start(rounds, project, number)

    def _resume(self, project: Project, last: Round, *, pressed: bool) -> None:
        storage = self._resources.storage
        if last.retry_at is None:
            delay = timedelta(seconds=min(60 * 2**last.failures, 3600))
            storage.update_round(project.id, last.number, retry_at=now() + delay, failures=last.failures + 1)
            if not pressed:
                return
        due = pressed or (last.retry_at is not None and now() >= last.retry_at)
        # Resumed first and noted then: if we are killed in between, the round runs and will say so itself.
        if due and workflow.resume(project, last.number):
            storage.update_round(project.id, last.number, state="computing", retry_at=None)
            log.info("round resumed", project=project.id, round=last.number)
