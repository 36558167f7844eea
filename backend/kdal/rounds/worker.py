"""The worker: takes events from the inbox, compares with Label Studio, begins rounds and computes them.

Events are hints and may be lost, late or double; Label Studio's API is the truth. So each hint, and a timer,
lead to the same thing: look at the project, and do what its state asks for. Whatever is killed in the middle
is found again by the next look.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

import structlog
from sqlalchemy.exc import IntegrityError

from kdal.aliases import Json
from kdal.labelstudio.client import LabelStudioError
from kdal.labelstudio.connection import DisconnectedError, disconnect, ensure_connected
from kdal.locks import only_one
from kdal.policy import Policy
from kdal.resources import Resources
from kdal.rounds.batch import NewLabels, batch_window, count_labels, told
from kdal.rounds.engine import Engine
from kdal.rounds.liveness import Liveness
from kdal.rounds.set_ups import SetUps
from kdal.rounds.snapshot import SnapshotHeader
from kdal.rounds.store import LOST, Order, RoundStore
from kdal.settings import Settings
from kdal.storage.assets import DamagedAssetError
from kdal.storage.tables import FILES_LOST, SETUP, START_TRAINING, Event, Project, Round, SetUp, now
from kdal_core.errors import KdalError

POLL = 0.1
"""Seconds between two looks into the inbox."""
LAZY, LAZIEST = 2.0, 15.0
"""Seconds at least, and at most, between two counts of a project while its events are too few to fill the batch."""
SHARE = 1 / 40
"""The share of its time that such a project is looked at: of annotators' requests, few meet a look and wait for it."""
REST = 2.0
"""Seconds at most that a project is left alone after a look, which takes Label Studio's time: the annotators'."""
RETRY = 5.0
"""Seconds after which a project is looked at again that could not be served."""
CONNECTION_EVERY = 2
"""Of this many looks that the timer leads to, one sees whether kdal is still connected: Label Studio asks our server
for its health each time, which costs it as much as the count of 5,000 labels."""
GONE = 2
"""Looks in a row that Label Studio answers with: there is no such project, until its round is computed no further."""
SELDOM = 3600.0
"""Seconds at most between two looks at a project that Label Studio does not know any more."""
PATIENCE = 30.0
"""Seconds at most between two tries to read a database that does not answer."""
LOOKS = 4
"""Projects looked at at once: a large one's look delays no other's."""
ONE_EACH = frozenset({"ANNOTATION_CREATED", "ANNOTATION_UPDATED", "ANNOTATIONS_DELETED"})
"""Events that stand for one more label at most."""
KEEP = timedelta(days=7)
"""How long events that were dealt with stay in the inbox, for whoever looks into what happened."""
NOT_TRAINING = frozenset({"budget", "count_outside", "queue", "suggest_above", "target", "price", "worth"})
"""Keys of a policy that change nothing of a round that is being computed."""
log = structlog.get_logger()


@dataclass(frozen=True)
class Clock:
    """Where the worker reads the time."""

    seconds: Callable[[], float] = time.monotonic
    """Seconds by a clock that only goes forward."""
    now: Callable[[], datetime] = now
    """The time of day, in UTC."""


@dataclass
class _Watch:
    """What the worker knows of a project between two looks, and when it may look again."""

    not_before: float = 0.0
    lazy_until: float = 0.0
    missing: int = 0
    """Labels that the batch lacked at the last count, or fewer."""
    left: int = 0
    """Tasks that nobody had labelled or skipped when that was last asked, less the events since: so many, or more."""
    timer: float = 0.0
    connection_due: float = 0.0
    """When the timer's next look sees whether kdal is still connected."""
    workers_due: float = 0.0
    """When to see whether those who compute its round are alive."""
    gone: int = 0
    """Looks in a row that Label Studio answered with: there is no such project."""
    look: Future[None] | None = None
    """The look that is under way."""
    round: tuple[int, Order, NewLabels] | None = None
    """The open round, its order and the labels made since its snapshot."""
    skipped: tuple[int, set[int]] = field(default_factory=lambda: (0, set()))
    """How many tasks were skipped at the last look, and which."""


@contextmanager
def only_worker(settings: Settings) -> Iterator[None]:
    """Hold the lock of the worker's name, which ends with the process, however it ends.

    A worker resumes what was being computed under its name: of two, each would resume what the other is doing.

    Raises:
        ConfigError: a worker of this name runs already.
    """
    path: Path = settings.home_folder / f"{settings.worker_id}.lock"
    refusal = (
        f"a worker named {path.stem} runs already ({path} is locked): "
        "stop it, or give this one another name with KDAL_WORKER_ID"
    )
    with only_one(path, refusal):
        yield


class Worker:
    """Serves all projects of the tables.

    Args:
        resources: what it works with.
        engine: computes the rounds.
        clock: where it reads the time.
    """

    def __init__(self, resources: Resources, engine: Engine, clock: Clock | None = None) -> None:
        self._resources, self._engine = resources, engine
        self._clock = clock or Clock()
        settings = resources.settings
        self._liveness = Liveness(
            resources.storage, settings.worker_id, settings.lost_after_seconds, self._clock.seconds
        )
        self._watches: dict[str, _Watch] = defaultdict(_Watch)
        self._pool = ThreadPoolExecutor(LOOKS, thread_name_prefix="look")
        self._prune_at = 0.0
        self._set_ups = SetUps(resources, self._clock.now)
        self._settling: Future[None] | None = None

    def run(self, stop: threading.Event) -> None:
        """Work until told to stop. Whatever happens to the database meanwhile: the worker waits, and goes on."""
        log.info("worker started", worker=self._resources.settings.worker_id)
        pause = POLL
        while not stop.wait(pause):
            try:
                self.look()
                pause = POLL
            except Exception as error:
                log.warning("kdal's database cannot be used: trying again", error=str(error))
                pause = min(PATIENCE, max(1.0, 2 * pause))
        self._pool.shutdown(wait=False, cancel_futures=True)

    def look(self) -> None:
        """Look at the projects that have waiting events, or whose timer has run out, each in a thread of its own."""
        storage = self._resources.storage
        self._liveness.beat()
        if (self._settling is None or self._settling.done()) and (set_ups := self._set_ups.due()):
            self._settling = self._pool.submit(self._settle_set_ups, set_ups)
        waiting: dict[int, list[Event]] = defaultdict(list)
        for event in storage.waiting_events():
            waiting[event.project_id].append(event)
        for project in storage.projects():
            events = waiting.pop(project.id, [])
            watch = self._watches[project.uid]
            if self._is_due(watch, events):
                watch.look = self._pool.submit(self._attend, project, watch, events)
        if waiting:  # of projects that kdal does not serve, or no longer
            storage.finish_events([event.id for events in waiting.values() for event in events])
        if self._clock.seconds() >= self._prune_at:
            storage.forget_events(KEEP)
            self._prune_at = self._clock.seconds() + 3600

    def settle(self) -> None:
        """Wait until the looks that are under way have ended."""
        looks = [self._settling, *(watch.look for watch in self._watches.values())]
        wait([look for look in looks if look is not None])

    def _settle_set_ups(self, rows: list[SetUp]) -> None:
        try:
            self._set_ups.settle(rows)
        except Exception as error:  # of the database: they wait there
            log.warning("set-ups cannot be confirmed", error=str(error))

    def _is_due(self, watch: _Watch, events: list[Event]) -> bool:
        if watch.look is not None and not watch.look.done():
            return False
        time_ = self._clock.seconds()
        if time_ < watch.not_before or (not events and time_ < watch.timer):
            return False
        few = len(events) < min(watch.missing, watch.left) and _one_each(events)
        return not (events and few and time_ < min(watch.lazy_until, watch.timer))

    def _attend(self, project: Project, watch: _Watch, events: list[Event]) -> None:
        """Look at a project, and write down what is wrong with it, if anything."""
        began = self._clock.seconds()
        watch.left = watch.left - len(events) if _one_each(events) else 0
        try:
            rest = self._attended(project, watch, {event.action for event in events}, [event.id for event in events])
            if rest is None:
                rest = min(REST, 3 * (self._clock.seconds() - began))
        except Exception as error:  # of the database, while the trouble itself was written down
            log.warning("project cannot be looked at", project=project.id, error=str(error))
            rest = RETRY
        ended = self._clock.seconds()
        watch.not_before = ended + rest
        watch.lazy_until = ended + min(LAZIEST, max(LAZY, (ended - began) / SHARE))
        usual = self._resources.settings.reconcile_seconds
        # Of a project that was deleted nothing more is to be expected, unless it is the token that cannot see it.
        watch.timer = ended + max(rest, usual, min(SELDOM, usual * 2 ** min(watch.gone, 20)))

    def _attended(self, project: Project, watch: _Watch, actions: set[str], events: list[int]) -> float | None:
        """Seconds after which to look again; none: as soon as the look was short."""
        storage = self._resources.storage
        try:
            self.reconcile(project, actions)
        except DisconnectedError:
            log.info("disconnecting a project whose ML backend was deleted", project=project.id)
            disconnect(self._resources.settings, self._resources.label_studio, storage, project.id)
        except KdalError as error:
            gone = isinstance(error, LabelStudioError) and error.status == 404
            watch.gone = watch.gone + 1 if gone else 0
            if project.problem != str(error):
                log.warning("project cannot be served", project=project.id, reason=str(error))
                storage.update_project(project.id, problem=str(error))
            if gone:
                storage.finish_events(events)
                if watch.gone >= GONE:
                    self._give_up(project, str(error))
            # Else the events stay in the inbox: what they hint at has not been seen to.
            return RETRY
        except Exception:
            # One project's trouble is not the others'; what it is, only the log can say.
            log.exception("project cannot be looked at", project=project.id)
            storage.update_project(project.id, problem="an unexpected error: the worker's log has it")
            return RETRY
        watch.gone = 0
        storage.finish_events(events)
        if project.problem is not None:
            storage.update_project(project.id, problem=None)
        return None

    # ------------------------------------------------------------------ one project

    def reconcile(self, project: Project, actions: set[str]) -> None:
        """Look at a project, and begin, resume, restart or leave alone its rounds.

        Args:
            actions: of the events that led here; empty when the timer did.

        Raises:
            DisconnectedError: somebody has taken kdal out of the project in Label Studio.
            KdalError: it cannot be served at present; says why.
        """
        storage, client = self._resources.storage, self._resources.label_studio
        set_up = SETUP in actions or project.connected_at is None
        watch = self._watches[project.uid]
        if set_up or (not actions and self._clock.seconds() >= watch.connection_due):
            ensure_connected(self._resources.settings, client, storage, project, insist=set_up)
            every = CONNECTION_EVERY * self._resources.settings.reconcile_seconds
            watch.connection_due = self._clock.seconds() + every
            project = storage.project(project.id) or project
        last = storage.last_round(project.id)
        pressed = START_TRAINING in actions
        if last is None:
            self._begin(project, 0, "connect")
        elif last.state == "computing":
            self._watch_over(project, last, restart=set_up and self._is_outdated(project, last))
        elif last.state == "failed":
            # A set-up that says nothing new mends nothing: Label Studio sends several on connecting.
            mended = set_up and (last.facts.get("failure") == "refused" or self._is_outdated(project, last))
            self._retry(project, last, at_once=pressed or mended)
        elif pressed:
            self._begin(project, last.number + 1, "button")
        elif FILES_LOST in actions and not self._can_serve(project):
            self._begin(project, last.number + 1, "damage")
        else:
            try:
                self._go_on(project, last, hinted=bool(actions))
            except DamagedAssetError as error:  # those that are missing may be in a folder that is not mounted
                log.warning("files are damaged: a new round makes them again", project=project.id, reason=str(error))
                self._begin(project, last.number + 1, "damage")

    def _go_on(self, project: Project, last: Round, *, hinted: bool) -> None:
        """Begin the next round, if it is due."""
        if last.state == "closed" or self._lost_its_order(project, last):
            self._begin(project, last.number + 1, "connect")
        elif (trigger := self._due(project, last, hinted=hinted)) is not None:
            self._begin(project, last.number + 1, trigger)

    def _can_serve(self, project: Project) -> bool:
        """Whether the files by which the project's predictions are made are there, and whole.

        Raises:
            MissingAssetError: nothing of their round is there.
        """
        self._watches[project.uid].round = None  # read again, too
        if project.serving_round is None:
            return True
        store = RoundStore(self._resources.assets, project.uid, project.serving_round)
        try:
            SnapshotHeader.load(store)  # there is the folder, then
        except DamagedAssetError:
            return False
        try:
            store.load_model()
        except LOST as error:
            log.warning("the serving model is lost: a new round makes one", project=project.id, reason=str(error))
            return False
        return True

    def _due(self, project: Project, last: Round, *, hinted: bool) -> str | None:
        """Why the next round is due, if it is."""
        client, storage = self._resources.label_studio, self._resources.storage
        watch = self._watches[project.uid]
        opened = last if last.state != "cancelled" else storage.published_round(project.id)
        if last.state == "cancelled":
            self._engine.cancel(project, last)
        if opened is None:
            return None  # cancelled before anything was published: the button begins the next one
        order, labels = self._open_round(project, watch, opened.number)
        policy = Policy.stored(project.policy)
        # As the owner has it now, not as it was at the opening.
        counts_objects = policy.budget_unit == "objects"
        budget = policy.budget if counts_objects and order.tasks else min(policy.budget, len(order.tasks))
        changed = labels.update(self._clock.seconds(), hinted=hinted)
        if changed:
            storage.note_unusable(project.id, last.number, labels.unusable, usable=labels.usable)
        objects = labels.objects if counts_objects else None
        possible = counted = count_labels(labels.usable, labels.before, objects=objects)
        # Who skipped what is asked only where it decides, and now and then: it costs as much as the count of labels.
        exact = policy.count_outside or not hinted or possible >= budget or last.state == "cancelled"
        if not policy.count_outside:
            skipped = self._skipped(project, watch) if exact else watch.skipped[1]
            passed = skipped | labels.accepted  # neither is asked for any more
            window = batch_window(order.tasks, passed, budget, order.estimates if counts_objects else ())
            counted = count_labels(labels.usable, labels.before, window=window, objects=objects)
        if last.state == "cancelled":  # a batch more, from then on
            storage.merge_round(project.id, last.number, facts={"counted_before": counted} | last.facts)
            counted = max(0, counted - int(last.facts.get("counted_before", counted)))
        if (counted, budget) != (last.counted, last.budget):
            storage.update_round(project.id, last.number, counted=counted, budget=budget)
            storage.merge_round(project.id, last.number, facts=told(labels, order.tasks))
        # One label may draw all the objects that are missing.
        watch.missing = 1 if counts_objects else budget - (counted if exact else possible)
        if budget and counted >= budget:
            return "budget"
        if not changed:
            return None  # what follows asks Label Studio again
        if watch.left <= 0 or not hinted:
            watch.left = client.open_count(project.id)
        if counted and watch.left == 0:
            return "budget"  # everything is labelled or skipped: the last batch cannot become full
        if not order.tasks and watch.left > 0:
            return "tasks"  # nothing had been left to order, and new tasks have come
        return None

    def _lost_its_order(self, project: Project, last: Round) -> bool:
        """Whether the open round's predictions are gone: removed when kdal was taken out, or by somebody since."""
        if last.state != "open" or project.version is not None:
            return False
        order, _ = self._open_round(project, self._watches[project.uid], last.number)
        return bool(order.tasks)  # else there was nothing to order: everything had been labelled

    def _open_round(self, project: Project, watch: _Watch, number: int) -> tuple[Order, NewLabels]:
        if watch.round is None or watch.round[0] != number:
            store = RoundStore(self._resources.assets, project.uid, number)
            header = SnapshotHeader.load(store)
            client = self._resources.label_studio
            labels = NewLabels(client, project.id, header.format, header.labelled, header.moment, {*header.accepted})
            watch.round = (number, store.order(), labels)
        return watch.round[1:]

    def _skipped(self, project: Project, watch: _Watch) -> set[int]:
        count = self._resources.label_studio.skipped_count(project.id)
        if count != watch.skipped[0]:
            watch.skipped = (count, self._resources.label_studio.skipped_ids(project.id))
        return watch.skipped[1]

    def _begin(self, project: Project, number: int, trigger: str) -> None:
        storage = self._resources.storage
        try:
            begun = storage.begin_round(project.id, number, trigger)
        except IntegrityError:  # another worker was faster by a moment
            begun = False
        if begun:
            log.info("round begins", project=project.id, round=number, trigger=trigger)
        self._engine.start(project, storage.round(project.id, number))

    def _watch_over(self, project: Project, last: Round, *, restart: bool) -> None:
        """See to it that a round which is said to be computed really is."""
        storage = self._resources.storage
        lost: set[str] = set()
        if self._clock.seconds() >= (watch := self._watches[project.uid]).workers_due:
            watch.workers_due = self._clock.seconds() + self._resources.settings.lost_after_seconds / 2
            lost = self._liveness.lost(self._engine.computed_by(project, last))
        if restart:
            log.info("round begins again: its project was set up otherwise", project=project.id, round=last.number)
            self._restart(project, last)
        elif lost:
            # Begun again rather than resumed: of what the lost worker may still do, nothing counts then.
            log.warning("round taken over", project=project.id, round=last.number, lost=", ".join(sorted(lost)))
            self._restart(project, last)
        elif self._engine.state(project, last) == "ended":
            # Its workflow ended without writing so (an upgrade renamed its steps, or the database was away).
            if storage.round(project.id, last.number).state == "computing":
                error = last.error or "its computation ended without a result"
                storage.update_round(project.id, last.number, state="failed", error=error)
        else:
            self._engine.start(project, last)  # begun by a worker that was killed before it could hand it over

    def _is_outdated(self, project: Project, last: Round) -> bool:
        """Whether a round is computed from another labelling config, or another training, than its project now asks."""
        if "snapshot" not in last.seconds:
            return False  # it has not read the project yet; the file that is there may be an earlier start's
        try:
            header = SnapshotHeader.load(RoundStore(self._resources.assets, project.uid, last.number))
        except LOST:
            return True
        wanted = Policy.stored(project.policy)
        return header.label_config != project.label_config or _training(header.policy) != _training(wanted)

    def _retry(self, project: Project, last: Round, *, at_once: bool) -> None:
        """Resume a failed round where it failed, or begin it again: at once, or later and later."""
        storage = self._resources.storage
        if last.retry_at is None:
            # What Label Studio refused is tried with the project as it is now: it may just have been changed.
            at_once = at_once or (last.facts.get("failure") in ("refused", "lost") and last.failures == 0)
            delay = timedelta(seconds=min(60 * 2**last.failures, 3600))
            retry_at = self._clock.now() + delay
            storage.update_round(project.id, last.number, retry_at=retry_at, failures=last.failures + 1)
        if not at_once and (last.retry_at is None or self._clock.now() < last.retry_at):
            return
        state = self._engine.state(project, last)
        if state == "under way":
            return  # it has not quite come to its end: the next look finds it
        if last.facts.get("failure") == "transient" and state == "ended":
            log.info("round resumes", project=project.id, round=last.number, step=last.step)
            storage.update_round(project.id, last.number, state="computing", retry_at=None)
            self._engine.resume(project, last)
        else:  # another cause may be gone with the project's state, or nothing is known of the round's computation
            log.info("round begins again", project=project.id, round=last.number)
            self._restart(project, last)

    def _give_up(self, project: Project, reason: str) -> None:
        """Compute no further for a project that was deleted; should it be seen again, its round begins again."""
        storage = self._resources.storage
        last = storage.last_round(project.id)
        if last is None or last.state != "computing":
            return
        self._engine.cancel(project, last)
        storage.restart_round(project.id, last.number)  # what its start still computes counts for nothing
        storage.merge_round(project.id, last.number, facts={"failure": "refused"})
        storage.update_round(project.id, last.number, state="failed", error=reason)
        log.info("round given up: its project is gone", project=project.id, round=last.number)

    def _restart(self, project: Project, last: Round) -> None:
        self._engine.cancel(project, last)
        self._engine.start(project, self._resources.storage.restart_round(project.id, last.number))


def _one_each(events: Sequence[Event]) -> bool:
    """Whether none of these events can stand for several labels."""
    return ONE_EACH.issuperset(event.action for event in events)


def _training(policy: Policy) -> Json:
    """What of a policy a round that is being computed depends on."""
    return {name: value for name, value in policy.model_dump().items() if name not in NOT_TRAINING}
