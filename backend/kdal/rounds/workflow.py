"""The durable round. `Rounds.run` reads top to bottom as the story of a round.

Each step's result is kept by DBOS in the tables of the workflow engine: a worker that is killed takes up the
round at the step it was in. The workflow's id is made of the project and the round's number, so that a second
start of the same round is a no-op. Arguments and results are small JSON; arrays go through the assets.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import structlog
import torch
from dbos import DBOS, DBOSConfig, DBOSConfiguredInstance, DBOSPortableJSONSerializer, SetWorkflowID, StepOptions
from dbos import error as dbos_error

from kdal.aliases import Json
from kdal.labelstudio import task_order
from kdal.labelstudio.client import LabelStudioError
from kdal.labelstudio.task_order import StaleOrderError
from kdal.resources import Resources
from kdal.rounds import publishing, scoring, training
from kdal.rounds.black_box import querying, training_set
from kdal.rounds.progress import StepReport, step
from kdal.rounds.snapshot import Snapshot, take_snapshot
from kdal.rounds.store import RoundStore
from kdal.settings import Settings
from kdal.storage.tables import Project, now
from kdal_core.errors import AssetError, KdalError, TeacherError

ROUNDS, SHARDS = "kdal-rounds", "kdal-shards"
COSTLY = timedelta(days=1)
"""After so long a round is taken up by itself whose teacher failed in a way that may have cost money."""
log = structlog.get_logger()


@DBOS.dbos_class()
class Rounds(DBOSConfiguredInstance):
    """Computes rounds. One instance per worker process.

    Args:
        resources: what the steps work with.
    """

    def __init__(self, resources: Resources) -> None:
        super().__init__("rounds")
        self._resources = resources
        self._snapshot_of: tuple[RoundStore, Snapshot] | None = None

    @DBOS.workflow(name="round", max_recovery_attempts=None)
    def run(self, project: int, number: int) -> None:
        """Compute one round of a project and open it for annotators."""
        try:
            facts = self._step("snapshot", self._snapshot, project, number)
            if facts.get("black_box"):
                facts |= self._step("ask", self._ask, project, number)
                if facts["trains"]:
                    self._step("train student", self._train_from_answers, project, number)
            else:
                if facts["trains"]:
                    facts |= self._step("train S and T", self._train_student_and_teacher, project, number)
                if facts["trains"]:
                    self._step("train S-KD", self._train_distilled, project, number)
            if facts["trains"]:
                self._step("promote", self._promote, project, number)
            with_shards = [
                DBOS.enqueue_workflow(SHARDS, self.score, project, number, shard) for shard in range(facts["shards"])
            ]
            for handle in with_shards:
                handle.get_result(polling_interval_sec=0.1)
            self._step("select", self._select, project, number)
            self._step("publish", self._publish, project, number)
            self._step("activate", self._activate, project, number)
            self._step("clean up", self._clean_up, project, number)
        except Exception as error:
            # Its own step, so that a rewound round finds its failure noted anew, or not at all.
            DBOS.run_step({"name": "fail"}, self._fail, project, number, str(error))
            raise

    @DBOS.workflow(name="shard", max_recovery_attempts=None)
    def score(self, project: int, number: int, shard: int) -> None:
        """Score one shard of a round's pool."""
        self._step("score", self._score_shard, project, number, shard)

    # ------------------------------------------------------------------ the steps

    def _snapshot(self, project: Project, store: RoundStore, report: StepReport) -> Json:
        snapshot = take_snapshot(self._resources, project, store, report)
        facts = {
            "labels": len(snapshot.labelled),
            "pool": len(snapshot.pool),
            "trains": snapshot.why_untrained is None,
            "why_untrained": snapshot.why_untrained,
            "shards": scoring.shard_count(snapshot),
        }
        if snapshot.policy.black_box is not None:
            facts["black_box"] = snapshot.policy.black_box
        self._resources.storage.update_round(project.id, store.number, counted=0)
        return facts

    def _ask(self, project: Project, store: RoundStore, report: StepReport) -> Json:
        try:
            return querying.ask(self._resources, store, self._load(store), report)
        except TeacherError as error:
            if error.charged:  # repeated every few minutes, a broken teacher would cost the whole budget
                self._resources.storage.update_round(project.id, store.number, retry_at=now() + COSTLY)
            raise

    def _train_from_answers(self, project: Project, store: RoundStore, report: StepReport) -> Json:
        return training_set.train_student(self._resources, store, self._load(store), report)

    def _train_student_and_teacher(self, project: Project, store: RoundStore, report: StepReport) -> Json:
        return training.train_student_and_teacher(self._resources, store, self._load(store), report)

    def _train_distilled(self, project: Project, store: RoundStore, report: StepReport) -> Json:
        return training.train_distilled(self._resources, store, self._load(store), report)

    def _promote(self, project: Project, store: RoundStore, report: StepReport) -> Json:
        return training.promote(self._resources, store, self._load(store), project.serving_round)

    def _score_shard(self, project: Project, store: RoundStore, shard: int, report: StepReport) -> Json:
        serving, trained = self._serving(project, store.number), self._trained(project, store.number)
        scoring.score_shard(self._resources, store, self._load(store), shard, trained, serving, report)
        return {}

    def _select(self, project: Project, store: RoundStore, report: StepReport) -> Json:
        return scoring.select(store, self._load(store), self._trained(project, store.number))

    def _publish(self, project: Project, store: RoundStore, report: StepReport) -> Json:
        return publishing.publish(self._resources, project, store, self._load(store), report)

    def _activate(self, project: Project, store: RoundStore, report: StepReport) -> Json:
        storage, number = self._resources.storage, store.number
        order = store.order()
        storage.update_project(project.id, serving_round=self._serving(project, number))
        storage.update_round(project.id, number, state="open", budget=order.budget, opened_at=now(), failures=0)
        # Labels made while the round was computed count for the next one: somebody has to look.
        storage.add_event(project.id, "ROUND_OPENED")
        return {}

    def _clean_up(self, project: Project, store: RoundStore, report: StepReport) -> Json:
        version = self._resources.storage.round(project.id, store.number).version
        try:
            if version is not None:
                task_order.remove_old_versions(self._resources.label_studio, project.id, store.number, version)
        except LabelStudioError as error:
            # The round is open, and that is what counts; what is left over, the next one removes.
            log.warning("an old order could not be removed", project=project.id, round=store.number, error=str(error))
        return {}

    def _fail(self, project: int, number: int, message: str) -> None:
        # What the step said itself, rather than that it was tried often enough.
        row = self._resources.storage.round(project, number)
        message = row.error or message
        # A round that annotators work in has not failed, whatever went wrong after it was opened.
        state = "failed" if row.opened_at is None else row.state
        self._resources.storage.update_round(project, number, state=state, error=message)
        log.error("round failed", project=project, round=number, state=state, error=message)

    # ------------------------------------------------------------------ what steps have in common

    def _step(self, name: str, work: Callable[..., Json], project: int, number: int, *rest: int) -> Json:
        def body() -> Json:
            storage = self._resources.storage
            row = storage.project(project)
            if row is None:
                raise LabelStudioError(f"project {project} is not connected to kdal any more", 404)
            try:
                torch.set_num_threads(self._resources.settings.torch_threads)
                store = RoundStore(self._resources.assets, row.uid, number)
                with step(storage, project, number, name) as report:
                    facts = work(row, store, *rest, report)
            except Exception as error:
                # An error of ours says what to do; of any other, the log needs to know where it came from.
                ours = isinstance(error, KdalError)
                log.warning(
                    "step failed", project=project, round=number, step=name, error=str(error), exc_info=not ours
                )
                storage.update_round(project, number, error=str(error) or type(error).__name__)
                raise
            storage.merge_round(project, number, facts=facts)
            return facts

        return DBOS.run_step(RETRY | {"name": name}, body)

    def _load(self, store: RoundStore) -> Snapshot:
        """The round's snapshot. The last one is kept: a large project's is parsed once, not for each step and shard."""
        if self._snapshot_of is None or self._snapshot_of[0] != store:
            self._snapshot_of = (store, Snapshot.load(store))
        return self._snapshot_of[1]

    def _trained(self, project: Project, number: int) -> bool:
        """Whether the round has models of its own; a cold start has none."""
        return bool(self._resources.storage.round(project.id, number).facts["trains"])

    def _serving(self, project: Project, number: int) -> int | None:
        """The round whose model serves once this one is open."""
        facts = self._resources.storage.round(project.id, number).facts
        return number if facts.get("promoted") else project.serving_round


def _worth_repeating(error: BaseException) -> bool:
    if isinstance(error, StaleOrderError | AssetError):
        return True
    return isinstance(error, LabelStudioError) and error.transient


RETRY = StepOptions(
    retries_allowed=True,
    max_attempts=7,
    interval_seconds=1.0,
    backoff_rate=2.0,
    should_retry=_worth_repeating,
)
"""About two minutes of patience with Label Studio and S3; after that the round fails and is taken up later."""


def workflow_id(uid: str, number: int) -> str:
    """Id of a round's workflow. The uid tells a project from a later one of the same number."""
    return f"round-{uid}-{number}"


def launch(resources: Resources) -> Rounds:
    """Start the workflow engine in this process; interrupted rounds of this worker go on by themselves."""
    DBOS(config=engine_config(resources.settings))
    rounds = Rounds(resources)
    DBOS.launch()
    DBOS.register_queue(ROUNDS, worker_concurrency=1, polling_interval_sec=0.1)
    DBOS.register_queue(SHARDS, worker_concurrency=1, polling_interval_sec=0.1)
    return rounds


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


def start(rounds: Rounds, project: Project, number: int) -> None:
    """Hand a round to the workers; a no-op when it was handed over before."""
    with SetWorkflowID(workflow_id(project.uid, number)):
        DBOS.enqueue_workflow(ROUNDS, rounds.run, project.id, number)


def resume(project: Project, number: int) -> bool:
    """Take up a failed round at the step that failed; False while it has not come to its end yet."""
    identity = workflow_id(project.uid, number)
    steps = DBOS.list_workflow_steps(identity)
    failed = [taken["function_id"] for taken in steps if taken["error"] is not None]
    try:
        for child in {taken["child_workflow_id"] for taken in steps}:
            if child is not None and DBOS.retrieve_workflow(child).get_status().status == "ERROR":
                DBOS.rewind_workflow(child, queue_name=SHARDS)
        DBOS.rewind_workflow(identity, start_step=min(failed, default=1), queue_name=ROUNDS)
    except dbos_error.DBOSException as error:
        log.info("round cannot be resumed yet", project=project.id, round=number, reason=str(error))
        return False
    return True


__all__ = [
    "ROUNDS",
    "SHARDS",
    "Rounds",
    "engine_config",
    "launch",
    "resume",
    "start",
    "workflow_id",
]
