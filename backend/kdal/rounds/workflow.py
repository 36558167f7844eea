"""The durable round. `Rounds.run` reads top to bottom as the story of a round.

Each step's result is kept by DBOS in the tables of the workflow engine: a worker that is killed resumes the round at
the step it was in. Arguments and results are small JSON; arrays go through the assets. A round that is cancelled or
begun again goes on for a moment; from then on it writes nothing.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Literal, NamedTuple

import structlog
from dbos import DBOS, DBOSConfiguredInstance, StepOptions
from sqlalchemy.exc import OperationalError

from kdal.aliases import Json
from kdal.images.errors import NoReadableImageError
from kdal.labelstudio.client import LabelStudioError
from kdal.labelstudio.task_order import OrderInForce
from kdal.resources import Resources
from kdal.rounds import features, fine_tuning, heads, models, publishing, scoring, training
from kdal.rounds.black_box import querying, training_set
from kdal.rounds.chosen import count_on, serve_chosen
from kdal.rounds.estimates.collecting import collect
from kdal.rounds.lineage import CHOSEN, made_by, serving_after, was_chosen
from kdal.rounds.progress import StepReport, SupersededError, check_current, step, superseded
from kdal.rounds.publishing import PUSHED, RefusedOrderError
from kdal.rounds.snapshot import HEADER, Snapshot, take_snapshot
from kdal.rounds.store import LOST, RoundStore
from kdal.storage.features import LostFeaturesError
from kdal.storage.tables import Project, now
from kdal_core.errors import AssetError, ConfigError, KdalError, TeacherError

NAME, ROUNDS, SHARDS = "rounds", "kdal-rounds", "kdal-shards"
"""Names that DBOS's tables hold: of the instance of `Rounds`, and of the two queues."""
COSTLY = timedelta(days=1)
"""How long a round waits by itself whose teacher failed in a way that may have cost money."""
Failure = Literal["transient", "refused", "lost", "error"]
"""Why a round failed: something is away and may come back; Label Studio, or the policy, does not allow it; what an
earlier step or round left is gone, and is made again; else."""
log = structlog.get_logger()


class Start(NamedTuple):
    """One start of a round: begun again, it is another one."""

    project: int
    number: int
    restarts: int


@DBOS.dbos_class()
class Rounds(DBOSConfiguredInstance):
    """Computes rounds. One instance per worker process.

    Args:
        resources: what the steps work with.
        name: under which DBOS finds it again.
    """

    def __init__(self, resources: Resources, name: str = NAME) -> None:
        super().__init__(name)
        self._resources = resources
        self._in_force = OrderInForce(resources.storage, resources.label_studio)
        self._snapshot_of: tuple[tuple[str, int, int], Snapshot] | None = None
        self._one_step: dict[int, threading.Lock] = defaultdict(threading.Lock)

    @DBOS.workflow(name="round", max_recovery_attempts=None)
    def run(self, project: int, number: int, restarts: int = 0) -> None:
        """Compute one round of a project and open it for annotators.

        Args:
            project: its number in Label Studio.
            number: of the round.
            restarts: how often the round was begun again before this.
        """
        at = Start(project, number, restarts)
        try:
            facts = self._step("snapshot", self._snapshot, at)
            self._in_shards(self.compute_features, at, facts.get("feature_shards", 0))
            if facts.get("feature_shards"):
                if facts["trains"]:
                    facts |= self._step("train heads", self._train_heads, at)
                if facts["trains"] and facts.get("fine_tunes"):
                    self._step("fine-tune", self._fine_tune, at)
            elif facts.get("black_box") and CHOSEN not in facts:
                facts |= self._step("ask", self._ask, at)
                if facts["trains"]:
                    self._step("train student", self._train_from_answers, at)
            else:
                if facts["trains"]:
                    facts |= self._step("train S and T", self._train_student_and_teacher, at)
                if facts["trains"]:
                    self._step("train S-KD", self._train_distilled, at)
            if CHOSEN in facts:
                self._step("serve the chosen model", self._serve_chosen, at)
            else:
                if facts["trains"]:
                    self._step("promote", self._promote, at)
                self._in_shards(self.score, at, facts["shards"])
                self._step("select", self._select, at)
            self._step("publish", self._publish, at)
            self._step("activate", self._activate, at)
            self._step("estimate", self._estimate, at)
            self._step("clean up", self._clean_up, at)
        except Exception as error:
            # Its own step, so that a rewound round finds its failure noted again, or not at all.
            DBOS.run_step({"name": "fail"}, self._fail, at, str(error))
            raise

    @DBOS.workflow(name="features", max_recovery_attempts=None)
    def compute_features(self, project: int, number: int, shard: int, restarts: int = 0) -> None:
        """Compute the features of one shard of a round's images."""
        self._step("features", self._features_of_shard, Start(project, number, restarts), shard)

    @DBOS.workflow(name="shard", max_recovery_attempts=None)
    def score(self, project: int, number: int, shard: int, restarts: int = 0) -> None:
        """Score one shard of a round's pool."""
        self._step("score", self._score_shard, Start(project, number, restarts), shard)

    # ------------------------------------------------------------------ the steps

    def _snapshot(self, project: Project, store: RoundStore, report: StepReport) -> Json:
        snapshot = take_snapshot(self._resources, project, store, report)
        facts: Json = {
            **made_by(),
            "seed": snapshot.policy.seed,
            "moment": store.read_json(HEADER)["moment"],
            "labels": len(snapshot.labelled),
            "pool": len(snapshot.pool),
            "trains": snapshot.why_untrained is None,
            "why_untrained": snapshot.why_untrained,
            "shards": scoring.shard_count(snapshot),
        }
        if snapshot.backbones is not None:
            facts |= {"feature_shards": features.shards_of(snapshot), "backbones": str(snapshot.backbones)}
            facts["fine_tunes"] = snapshot.policy.train == "full"
        elif snapshot.starts:
            told = dict.fromkeys(f"{told['name']}, from the {told['source']}" for told in snapshot.starts.values())
            facts["backbones"] = "; ".join(told)
        elif snapshot.why_no_backbones is not None:
            facts["why_no_backbones"] = snapshot.why_no_backbones
        if snapshot.policy.black_box is not None:
            facts["black_box"] = snapshot.policy.black_box
        storage = self._resources.storage
        if (chosen := storage.round(project.id, store.number).facts.get(CHOSEN)) is not None:
            why = f"the model of round {chosen} was chosen to serve"
            facts |= {CHOSEN: chosen, "trains": False, "why_untrained": why}
            if (published := storage.published_round(project.id)) is not None:
                count_on(store, store.of_round(published.number))
        storage.update_round(project.id, store.number, counted=0)
        return facts

    def _features_of_shard(self, project: Project, store: RoundStore, shard: int, report: StepReport) -> Json:
        return features.compute(*self._inputs(project, store), shard, report)

    def _train_heads(self, project: Project, store: RoundStore, report: StepReport) -> Json:
        return heads.train_heads(*self._inputs(project, store), report)

    def _fine_tune(self, project: Project, store: RoundStore, report: StepReport) -> Json:
        return fine_tuning.fine_tune_student(*self._inputs(project, store), report)

    def _ask(self, project: Project, store: RoundStore, report: StepReport) -> Json:
        try:
            return querying.ask(*self._inputs(project, store), report)
        except TeacherError as error:
            if error.charged:  # repeated every few minutes, a broken teacher would cost the whole budget
                self._resources.storage.update_round(project.id, store.number, retry_at=now() + COSTLY)
            raise

    def _train_from_answers(self, project: Project, store: RoundStore, report: StepReport) -> Json:
        return training_set.train_student(*self._inputs(project, store), report)

    def _train_student_and_teacher(self, project: Project, store: RoundStore, report: StepReport) -> Json:
        return training.train_student_and_teacher(*self._inputs(project, store), report)

    def _train_distilled(self, project: Project, store: RoundStore, report: StepReport) -> Json:
        return training.train_distilled(*self._inputs(project, store), report)

    def _promote(self, project: Project, store: RoundStore, report: StepReport) -> Json:
        serving = project.serving_round
        chosen = was_chosen(self._resources.storage.rounds(project.id), serving)
        return training.promote(*self._inputs(project, store), serving, chosen=chosen)

    def _serve_chosen(self, project: Project, store: RoundStore, report: StepReport) -> Json:
        storage = self._resources.storage
        chosen = storage.round(project.id, store.number).facts[CHOSEN]
        published = storage.published_round(project.id)
        before = None if published is None else published.number
        return serve_chosen(*self._inputs(project, store), chosen, before, report)

    def _score_shard(self, project: Project, store: RoundStore, shard: int, report: StepReport) -> Json:
        serving, trained = self._serving(project, store.number), self._trained(project, store.number)
        scoring.score_shard(*self._inputs(project, store), shard, trained, serving, report)
        return {}

    def _select(self, project: Project, store: RoundStore, report: StepReport) -> Json:
        resources, _, snapshot = self._inputs(project, store)
        return scoring.select(store, snapshot, self._trained(project, store.number), resources)

    def _publish(self, project: Project, store: RoundStore, report: StepReport) -> Json:
        return publishing.publish(self._resources, project, store, self._load(project, store), report)

    def _activate(self, project: Project, store: RoundStore, report: StepReport) -> Json:
        storage, number = self._resources.storage, store.number
        # Nothing is opened, and no old order removed, while Label Studio serves the queue by another version.
        publishing.check_config(self._in_force.confirm(project), self._load(project, store))
        store.fence()
        order, policy = store.order(), self._load(project, store).policy
        budget = policy.budget if policy.budget_unit == "objects" and order.tasks else order.budget
        storage.open_round(project.id, number, budget=budget, serving=self._serving(project, number))
        # Labels made while the round was computed count for the next one: somebody has to look.
        storage.add_event(project.id, "ROUND_OPENED")
        return {}

    def _estimate(self, project: Project, store: RoundStore, report: StepReport) -> Json:
        return collect(self._resources, project, store, self._load(project, store), project.serving_round)

    def _clean_up(self, project: Project, store: RoundStore, report: StepReport) -> Json:
        rounds = self._resources.storage.rounds(project.id)
        later = [row.facts[PUSHED] for row in rounds if row.number > store.number and PUSHED in row.facts]
        try:
            self._in_force.remove_others(project, later)
        except LabelStudioError as error:
            # The round is open, and that is what counts; what is left over, the next one removes.
            log.warning("an old order could not be removed", project=project.id, round=store.number, error=str(error))
        try:
            models.prune(self._resources, project.id, self._resources.settings.keep_models)
        except AssetError as error:
            log.warning("old models could not be deleted", project=project.id, round=store.number, error=str(error))
        return {}

    def _fail(self, at: Start, message: str) -> None:
        storage = self._resources.storage
        if not storage.is_current(at.project, at.number, at.restarts):
            return  # it was cancelled, or begun again: that has not failed
        # What the step said itself, rather than that it was tried often enough.
        row = storage.round(at.project, at.number)
        message = row.error or message
        # A round that annotators work in has not failed, whatever went wrong after it was opened.
        state = "failed" if row.opened_at is None else row.state
        storage.update_round(at.project, at.number, state=state, error=message)
        log.error("round failed", project=at.project, round=at.number, state=state, error=message)

    # ------------------------------------------------------------------ what steps have in common

    def _in_shards(self, work: Callable[..., None], at: Start, shards: int) -> None:
        """Do one piece of work for each shard, on whichever worker is free; return once all are done."""
        handles = [
            DBOS.enqueue_workflow(SHARDS, work, at.project, at.number, shard, at.restarts) for shard in range(shards)
        ]
        for handle in handles:
            handle.get_result(polling_interval_sec=0.1)

    def _step(self, name: str, work: Callable[..., Json], at: Start, *rest: int) -> Json:
        storage = self._resources.storage

        def current() -> None:
            check_current(storage, at.project, at.number, at.restarts)

        def body() -> Json:
            # A start that was cancelled may still be in the middle of a step: this one waits until it has given up.
            with self._one_step[at.project]:
                return do()

        def do() -> Json:
            row = storage.project(at.project)
            if row is None:
                raise LabelStudioError(f"project {at.project} is not connected to kdal any more", 404)
            try:
                self._resources.settings.use_threads()
                store = RoundStore(self._resources.assets, row.uid, at.number, fence=current)
                with step(storage, at.project, at.number, name, at.restarts) as report:
                    facts = work(row, store, *rest, report)
                    current()
            except Exception as error:
                if not storage.is_current(at.project, at.number, at.restarts):
                    log.info("step given up", project=at.project, round=at.number, step=name)
                    raise SupersededError(superseded(at.project, at.number)) from error
                # An error of ours says what to do; of any other, the log needs to know where it came from.
                ours = isinstance(error, KdalError)
                log.warning(
                    "step failed", project=at.project, round=at.number, step=name, error=str(error), exc_info=not ours
                )
                storage.update_round(at.project, at.number, error=str(error) or type(error).__name__)
                storage.merge_round(at.project, at.number, facts={"failure": kind_of(error)})
                raise
            storage.merge_round(at.project, at.number, facts=facts)
            return facts

        return DBOS.run_step(RETRY | {"name": name}, body)

    def _inputs(self, project: Project, store: RoundStore) -> tuple[Resources, RoundStore, Snapshot]:
        """What steps work with: images are read where the project has them, and nowhere else."""
        snapshot = self._load(project, store)
        return replace(self._resources, images=self._resources.images.within(snapshot.sources)), store, snapshot

    def _load(self, project: Project, store: RoundStore) -> Snapshot:
        """The round's snapshot. The last one is kept: a large project's is parsed once, not for each step and shard."""
        key = (store.uid, store.number, self._resources.storage.round(project.id, store.number).restarts)
        kept = self._snapshot_of
        if kept is None or kept[0] != key:
            kept = self._snapshot_of = (key, Snapshot.load(store))
        return kept[1]

    def _trained(self, project: Project, number: int) -> bool:
        """Whether the round has models of its own; a cold start has none."""
        return bool(self._resources.storage.round(project.id, number).facts["trains"])

    def _serving(self, project: Project, number: int) -> int | None:
        """The round whose model serves once this one is open."""
        facts = self._resources.storage.round(project.id, number).facts
        return serving_after(number, facts, project.serving_round)


def kind_of(error: BaseException) -> Failure:
    """What kind of failure an error is."""
    if _may_pass(error):
        return "transient"
    if isinstance(error, (LostFeaturesError, *LOST)):
        return "lost"
    refused = isinstance(error, RefusedOrderError | ConfigError) or (
        isinstance(error, LabelStudioError) and error.status is not None and not error.transient
    )
    return "refused" if refused else "error"


def _may_pass(error: BaseException) -> bool:
    """Whether the same step may succeed a little later: Label Studio, a store or the database is away."""
    if isinstance(error, AssetError):
        return not isinstance(error, (LostFeaturesError, NoReadableImageError, *LOST))
    return isinstance(error, OperationalError) or (isinstance(error, LabelStudioError) and error.transient)


RETRY = StepOptions(
    retries_allowed=True,
    max_attempts=7,
    interval_seconds=1.0,
    backoff_rate=2.0,
    should_retry=_may_pass,
)
"""About two minutes of patience with Label Studio, S3 and the database; then the round fails, and is tried again."""
