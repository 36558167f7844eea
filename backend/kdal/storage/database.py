"""Reading and writing the tables. SQLite by default, PostgreSQL when machines share the work."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import Select, create_engine, delete, event, func, select, update
from sqlalchemy.engine import Engine, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError
from sqlalchemy.orm import Session, sessionmaker

from kdal.aliases import Json
from kdal.logs import redacted
from kdal.settings import Settings
from kdal.storage.schema import bring_up_to_date, check_up_to_date
from kdal.storage.tables import Event, Project, Round, TeacherAccount, UnusableTask, WorkerBeat, now
from kdal_core.errors import ConfigError

BEGUN_WITH = "begun_with"
"""A round's fact: the facts that it was begun with."""
FORGOTTEN = timedelta(days=7)
"""After which a worker that gave no sign of life is forgotten: in a cluster each has a name of its own."""


class Storage:
    """The tables behind a session factory.

    Args:
        url: SQLAlchemy URL.
        existing: only open what is there; by default the tables are made, or brought up to date.

    Raises:
        ConfigError: the database cannot be opened, or is not there as it should be; the message holds no password.
    """

    def __init__(self, url: str, *, existing: bool = False) -> None:
        try:
            address = make_url(url)
            sqlite = address.get_backend_name() == "sqlite"
            if sqlite and (file := address.database) and file != ":memory:":
                if existing and not Path(file).exists():
                    raise ConfigError(f"KDAL_DATABASE_URL: there is no database {file}")
                if not existing:
                    Path(file).parent.mkdir(parents=True, exist_ok=True)
            self.engine: Engine = create_engine(address, pool_pre_ping=not sqlite)
            if sqlite:
                event.listen(self.engine, "connect", _look_at_sqlite if existing else _configure_sqlite)
            self._sessions = sessionmaker(self.engine, expire_on_commit=False)
            if existing:
                with self.engine.connect() as connection:
                    check_up_to_date(connection, f"the database {_without_password(url)}")
            else:
                bring_up_to_date(self.engine)
        except (DBAPIError, ArgumentError, ImportError, OSError) as error:
            reason = error.orig if isinstance(error, DBAPIError) else error
            raise ConfigError(
                f"cannot open {_without_password(url)} (set by KDAL_DATABASE_URL, else in KDAL_HOME): {reason}"
            ) from error

    @classmethod
    def of_running_kdal(cls, settings: Settings) -> Storage:
        """The tables of a kdal that was started before. Nothing is made or changed: this only looks.

        Raises:
            ConfigError: there are none; says where they were looked for, and what to do.
        """
        home = settings.home_path
        if not settings.database_url and not (home / "kdal.sqlite").exists():
            raise ConfigError(
                f"no kdal has been started here: KDAL_HOME is {home}, and there is no database kdal.sqlite in it. "
                "Run this in the folder where kdal was started, or set KDAL_HOME; `kdal up` starts a new kdal here"
            )
        return cls(settings.sqlalchemy_url, existing=True)

    @contextmanager
    def session(self) -> Iterator[Session]:
        """One transaction: committed at the end of the block, rolled back on an error."""
        with self._sessions.begin() as session:
            yield session

    def close(self) -> None:
        """Give the connections back."""
        self.engine.dispose()

    # ------------------------------------------------------------------ projects

    def project(self, project: int) -> Project | None:
        """One project, or None when kdal does not serve it."""
        with self.session() as session:
            return session.get(Project, project)

    def projects(self, *, disconnected: bool = False) -> list[Project]:
        """The projects that kdal serves; with ``disconnected`` also those that it was taken out of."""
        query = select(Project).order_by(Project.id)
        with self.session() as session:
            return list(session.scalars(query if disconnected else query.where(Project.disconnected_at.is_(None))))

    def put_project(self, project: int, uid: str, label_config: str, policy: Json, *, event: str | None = None) -> bool:
        """Note a project's set-up; returns whether anything about it is new.

        Another uid than the known one is only noted: the project is a new one with the number of one that was deleted.
        `accept_project` settles it.

        Args:
            event: a hint for the inbox if anything is new, in the same transaction: the next set-up is not new any
                more, so a process that is killed between the two would leave this one unheeded.
        """
        try:
            return self._put_project(project, uid, label_config, policy, event)
        except IntegrityError:  # another request noted it at the same moment: now it is known
            return self._put_project(project, uid, label_config, policy, event)

    def _put_project(self, project: int, uid: str, label_config: str, policy: Json, event: str | None) -> bool:
        with self.session() as session:
            new = self._note(session, project, uid, label_config, policy)
            if new and event is not None:
                session.add(Event(project_id=project, action=event))
            return new

    @staticmethod
    def _note(session: Session, project: int, uid: str, label_config: str, policy: Json) -> bool:
        row = session.get(Project, project)
        if row is not None and row.uid != uid:
            row.claim = {"uid": uid, "label_config": label_config, "policy": policy}
            return True
        if row is None:
            session.add(Project(id=project, uid=uid, label_config=label_config, policy=policy))
            return True
        same = row.label_config == label_config and row.policy == policy and row.connected_at is not None
        row.label_config, row.policy, row.refusal = label_config, policy, None
        if row.disconnected_at is not None:  # Label Studio asks us about a project only while we are its backend
            row.disconnected_at, row.before = None, None
            cancelled = (Round.project_id == project, Round.state == "cancelled")
            session.execute(update(Round).where(*cancelled).values(state="closed"))
        return not same

    def disconnect_project(self, project: int, before: Json | None = None) -> None:
        """Note that kdal was taken out of a project, and cancel the round that is being computed.

        Args:
            project: its number; one that kdal does not know is none of its business.
            before: the project's sampling and model version before kdal, where that was not known yet.
        """
        with self.session() as session:
            values: Json = dict.fromkeys(("connected_at", "backend_id", "problem", "refusal"))
            values["disconnected_at"] = now()
            if before is not None:
                values["before"] = before
            session.execute(update(Project).where(Project.id == project).values(**values))
            _cancel(session, project)

    def accept_project(self, project: int, uid: str) -> None:
        """Settle a claim: ``uid`` is the project's, as Label Studio's API has it.

        If it is the claim's, everything known of the earlier project of that number goes; else the claim goes.
        """
        with self.session() as session:
            row = session.get(Project, project)
            if row is None or row.claim is None:
                return
            claim, row.claim = row.claim, None
            if claim["uid"] == uid:
                for table in (UnusableTask, Round):
                    session.execute(delete(table).where(table.project_id == project))
                session.delete(row)
                session.flush()
                session.add(Project(id=project, **claim))

    def update_project(self, project: int, **fields: Any) -> None:
        """Set columns of a project."""
        with self.session() as session:
            session.execute(update(Project).where(Project.id == project).values(**_without_secrets(fields)))

    def forget_version(self, project: int, version: str) -> None:
        """Note that a version is no longer in force, unless another one is by now."""
        with self.session() as session:
            where = (Project.id == project, Project.version == version)
            session.execute(update(Project).where(*where).values(version=None))

    # ------------------------------------------------------------------ workers

    def beat(self, name: str) -> dict[str, int]:
        """Note a sign of life of a worker; returns how many each has given. Who gave none for a week is forgotten."""
        with self.session() as session:
            session.execute(delete(WorkerBeat).where(WorkerBeat.beat_at < now() - FORGOTTEN))
            row = session.get(WorkerBeat, name) or WorkerBeat(name=name, beats=0)
            row.beats, row.beat_at = row.beats + 1, now()
            session.add(row)
            session.flush()
            return {each.name: each.beats for each in session.scalars(select(WorkerBeat))}

    def workers(self) -> list[WorkerBeat]:
        """The workers that have given a sign of life within a week, the last one first."""
        with self.session() as session:
            return list(session.scalars(select(WorkerBeat).order_by(WorkerBeat.beat_at.desc())))

    # ------------------------------------------------------------------ inbox

    def add_event(self, project: int, action: str) -> None:
        """Put a hint into the inbox; it is on disk when this returns."""
        with self.session() as session:
            session.add(Event(project_id=project, action=action))

    def waiting_events(self) -> list[Event]:
        """Events not yet dealt with, oldest first."""
        with self.session() as session:
            return list(session.scalars(select(Event).where(Event.done_at.is_(None)).order_by(Event.id)))

    def count_events(self) -> int:
        """How many events came in so far, those that were forgotten since included."""
        with self.session() as session:
            return session.scalar(select(func.max(Event.id))) or 0

    def events(self, project: int) -> list[Event]:
        """All events of a project, oldest first."""
        with self.session() as session:
            return list(session.scalars(select(Event).where(Event.project_id == project).order_by(Event.id)))

    def events_since(self, project: int, action: str, since: datetime) -> list[Event]:
        """Events of a project and kind that were received after a moment, oldest first."""
        query = select(Event).where(Event.project_id == project, Event.action == action, Event.received_at > since)
        with self.session() as session:
            return list(session.scalars(query.order_by(Event.id)))

    def finish_events(self, ids: list[int]) -> None:
        """Mark events as dealt with."""
        with self.session() as session:
            session.execute(update(Event).where(Event.id.in_(ids)).values(done_at=now()))

    def forget_events(self, older_than: timedelta) -> None:
        """Delete events that were dealt with longer ago than this."""
        with self.session() as session:
            session.execute(delete(Event).where(Event.done_at < now() - older_than))

    # ------------------------------------------------------------------ rounds

    def rounds(self, project: int) -> list[Round]:
        """The rounds of a project, first to last."""
        with self.session() as session:
            query = select(Round).where(Round.project_id == project).order_by(Round.number)
            return list(session.scalars(query))

    def round(self, project: int, number: int) -> Round:
        """One round."""
        with self.session() as session:
            return session.get_one(Round, (project, number))

    def last_round(self, project: int) -> Round | None:
        """The newest round of a project."""
        with self.session() as session:
            query = select(Round).where(Round.project_id == project).order_by(Round.number.desc()).limit(1)
            return session.scalars(query).first()

    def published_round(self, project: int) -> Round | None:
        """The newest round whose order is in Label Studio."""
        with self.session() as session:
            return session.scalars(_published(project)).first()

    def serving(self, project: int) -> tuple[Project | None, Round | None]:
        """A project and the round whose order is in force, as they were at one moment."""
        with self.session() as session:
            row = session.get(Project, project)
            if row is None or row.version is None:
                return row, None
            query = select(Round).where(Round.project_id == project, Round.version == row.version)
            return row, session.scalars(query.order_by(Round.number.desc()).limit(1)).first()

    def begin_round(self, project: int, number: int, trigger: str, *, facts: Json | None = None) -> bool:
        """Close round ``number - 1`` and begin ``number``, both or neither; False when it exists already.

        Args:
            facts: what it is begun with; it stays when the round is begun again.
        """
        try:
            with self.session() as session:
                if session.get(Round, (project, number)) is not None:
                    return False
                earlier = (Round.project_id == project, Round.number == number - 1, Round.state != "cancelled")
                session.execute(update(Round).where(*earlier).values(state="closed"))
                begun_with = {} if facts is None else {BEGUN_WITH: facts, **facts}
                session.add(Round(project_id=project, number=number, trigger=trigger, facts=begun_with))
            return True
        except IntegrityError:
            with self.session() as session:
                if session.get(Round, (project, number)) is None:
                    raise  # not another worker that was faster, but a project that is gone
            return False

    def cancel_round(self, project: int) -> int | None:
        """Cancel the round that is being computed, or waits to be computed again; returns its number, if any."""
        with self.session() as session:
            return _cancel(session, project)

    def open_round(self, project: int, number: int, *, budget: int, serving: int | None) -> None:
        """Open a round for annotators, and let its model serve; no round that was cancelled or closed meanwhile."""
        with self.session() as session:
            where = (Round.project_id == project, Round.number == number, Round.state.in_(("computing", "open")))
            opened = update(Round).where(*where).values(state="open", budget=budget, opened_at=now(), failures=0)
            if session.execute(opened.returning(Round.number)).first() is not None:
                session.execute(update(Project).where(Project.id == project).values(serving_round=serving))

    def restart_round(self, project: int, number: int) -> Round:
        """Begin a round again: what its earlier start still computes counts for nothing from now on."""
        fresh = {"state": "computing", "step": "waiting", "progress": 0.0, "seconds": {}, "retry_at": None}
        with self.session() as session:
            where = (Round.project_id == project, Round.number == number)
            session.execute(update(Round).where(*where).values(**fresh, error=None, restarts=Round.restarts + 1))
            row = session.get_one(Round, (project, number))
            begun_with = row.facts.get(BEGUN_WITH)
            row.facts = {} if begun_with is None else {BEGUN_WITH: begun_with, **begun_with}
            return row

    def is_current(self, project: int, number: int, restarts: int) -> bool:
        """Whether this start of a round still counts: it was neither cancelled nor begun again."""
        with self.session() as session:
            row = session.get(Round, (project, number))
            # Of a project that was taken out and set up again, a cancelled round is closed: without ever being open.
            given_up = row is None or row.state == "cancelled" or (row.state == "closed" and row.opened_at is None)
            return row is not None and row.restarts == restarts and not given_up

    def update_round(self, project: int, number: int, **fields: Any) -> None:
        """Set columns of a round."""
        with self.session() as session:
            where = (Round.project_id == project, Round.number == number)
            session.execute(update(Round).where(*where).values(**_without_secrets(fields)))

    def merge_round(self, project: int, number: int, *, facts: Json | None = None, seconds: Json | None = None) -> None:
        """Add to what is known of a round."""
        with self.session() as session:
            # Written before it is read: that locks the row, so workers that add at once lose nothing of each other.
            where = (Round.project_id == project, Round.number == number)
            session.execute(update(Round).where(*where).values(number=number))
            row = session.get_one(Round, (project, number))
            row.facts = {**row.facts, **(facts or {})}
            row.seconds = {**row.seconds, **(seconds or {})}

    # ------------------------------------------------------------------ unusable tasks

    def note_unusable(
        self, project: int, number: int, reasons: Mapping[int, str], *, usable: Collection[int] = ()
    ) -> None:
        """Note the tasks that a round cannot use, with their reasons; those that have become usable are forgotten."""
        with self.session() as session:
            for row in session.scalars(select(UnusableTask).where(UnusableTask.project_id == project)):
                if row.task_id in usable:
                    session.delete(row)
            for task, reason in reasons.items():
                session.merge(UnusableTask(project_id=project, task_id=task, round=number, reason=redacted(reason)))

    def unusable_tasks(self, project: int) -> list[UnusableTask]:
        """The tasks that the newest round could not use."""
        last = self.last_round(project)
        with self.session() as session:
            query = select(UnusableTask).where(
                UnusableTask.project_id == project, UnusableTask.round == (last.number if last else 0)
            )
            return list(session.scalars(query.order_by(UnusableTask.task_id)))

    # ------------------------------------------------------------------ black-box teachers

    def teacher_account(self, name: str) -> TeacherAccount | None:
        """How a teacher's account stands; None before the first question."""
        with self.session() as session:
            return session.get(TeacherAccount, name)


def _without_password(url: str) -> str:
    try:
        return make_url(url).render_as_string(hide_password=True)
    except ArgumentError:
        return "the database"


def _without_secrets(fields: Json) -> Json:
    """Columns of which some hold what went wrong, in words that may quote an address or a header."""
    told = ("error", "problem", "refusal")
    return {name: redacted(value) if name in told and value else value for name, value in fields.items()}


def _cancel(session: Session, project: int) -> int | None:
    query = select(Round).where(Round.project_id == project).order_by(Round.number.desc()).limit(1)
    row = session.scalars(query).first()
    if row is None or row.state not in ("computing", "failed"):
        return None
    row.state, row.error, row.retry_at = "cancelled", None, None
    return row.number


def _published(project: int) -> Select[Round]:
    query = select(Round).where(Round.project_id == project, Round.opened_at.is_not(None))
    return query.order_by(Round.number.desc()).limit(1)


def _look_at_sqlite(connection: Any, _record: Any) -> None:
    cursor = connection.cursor()
    # A writer waits for another rather than fail.
    cursor.execute("PRAGMA busy_timeout=30000")
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.close()


def _configure_sqlite(connection: Any, record: Any) -> None:
    _look_at_sqlite(connection, record)
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")  # readers never wait for the writer
    cursor.close()
