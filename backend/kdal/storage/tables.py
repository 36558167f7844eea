"""The tables: what kdal remembers between processes.

Three facts rest on constraints here rather than on code: a round exists once (primary key of project and
number), an event that was acknowledged is on disk (the inbox row is committed first), and a task is unusable
once (primary key). Large things (orders, scores, checkpoints) are assets; rows hold their references.
"""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy import JSON, BigInteger, ForeignKey, Index, LargeBinary, Text, TypeDecorator
from sqlalchemy.engine import Dialect
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from kdal.aliases import Json

SETUP, START_TRAINING, FILES_LOST = "SETUP", "START_TRAINING", "FILES_LOST"
"""Events of the inbox that are not Label Studio's webhooks: a set-up that is new, its "Start training" button, and that
the server finds files of a round gone or damaged."""


def now() -> datetime:
    """The time, in UTC."""
    return datetime.now(UTC).replace(tzinfo=None)


class AnyText(TypeDecorator[str]):
    """Text that any database takes: what JSON can hold and they cannot (half characters, NUL) becomes a "?".

    Task addresses and choices come from outside and end up in messages; they must never stop a round.
    """

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        """On its way into the table."""
        return None if value is None else value.encode(errors="replace").decode().replace("\0", "?")


class Base(DeclarativeBase):
    """Root of the tables."""

    type_annotation_map = {Json: JSON, str: AnyText}  # noqa: RUF012 - SQLAlchemy reads it as a plain class attribute


class Project(Base):
    """A Label Studio project that kdal serves."""

    __tablename__ = "projects"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    uid: Mapped[str] = mapped_column(default="")
    """``<id>.<created>`` as Label Studio sends it: tells a project from a later one of the same number."""
    label_config: Mapped[str]
    policy: Mapped[Json]
    connected_at: Mapped[datetime | None]
    """When webhook, sampling and model version were last seen to be right."""
    disconnected_at: Mapped[datetime | None]
    """When kdal was taken out of the project; what is known of it stays, for a later reconnect."""
    backend_id: Mapped[int | None]
    """Label Studio's number of our ML backend in the project: when it is gone, somebody has taken kdal out."""
    before: Mapped[Json | None] = mapped_column(JSON)
    """The project's sampling and model version before kdal changed them; disconnecting puts them back."""
    version: Mapped[str | None]
    """The version in force: the name of the predictions that order the queue. `OrderInForce` alone changes it."""
    problem: Mapped[str | None]
    """Why kdal cannot serve the project at present, for people."""
    refusal: Mapped[str | None]
    """Why the last set-up was refused, for people; the one before it stays in force until the next that is accepted."""
    told: Mapped[str | None]
    """`Settings.fingerprint` of the user and password that Label Studio was told last."""
    claim: Mapped[Json | None] = mapped_column(JSON)
    """A set-up under another uid, until it is accepted."""
    serving_round: Mapped[int | None]
    """The round whose model answers predictions; none before the first is promoted."""
    created_at: Mapped[datetime] = mapped_column(default=now)


class Installation(Base):
    """What all processes that use these tables agree on."""

    __tablename__ = "installation"

    name: Mapped[str] = mapped_column(primary_key=True)
    value: Mapped[str]


class SetUp(Base):
    """Somebody says that Label Studio has made kdal a project's ML backend; the worker asks it whether that is so."""

    __tablename__ = "set_ups"

    project_id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    uid: Mapped[str] = mapped_column(primary_key=True)
    received_at: Mapped[datetime] = mapped_column(default=now)
    look_at: Mapped[datetime]
    """When the worker asks next, by its clock."""
    looks: Mapped[int] = mapped_column(default=0)
    """How often it has asked in vain."""


class WorkerBeat(Base):
    """A worker, and its signs of life."""

    __tablename__ = "workers"

    name: Mapped[str] = mapped_column(primary_key=True)
    beats: Mapped[int] = mapped_column(BigInteger, default=0)
    """How many signs of life it has given; one that gives no more is lost, and others take its rounds over."""
    beat_at: Mapped[datetime]
    """When it gave the last one, by its own clock."""


class Event(Base):
    """A hint from Label Studio that something changed. The inbox: acknowledged once it is here."""

    __tablename__ = "inbox"

    id: Mapped[int] = mapped_column(primary_key=True)
    project_id: Mapped[int]
    action: Mapped[str]
    received_at: Mapped[datetime] = mapped_column(default=now)
    done_at: Mapped[datetime | None]

    __table_args__ = (Index("inbox_waiting", "done_at", "id"),)


class Round(Base):
    """One round of a project: computed, then open for annotators until its budget is reached."""

    __tablename__ = "rounds"

    project_id: Mapped[int] = mapped_column(ForeignKey("projects.id"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    state: Mapped[str] = mapped_column(default="computing")
    """computing, open, closed (the next round began), failed or cancelled."""
    trigger: Mapped[str]
    """connect, budget, button, tasks or damage: why it began."""
    budget: Mapped[int] = mapped_column(default=0)
    """Labels that end it; 0 when nothing is left to label."""
    counted: Mapped[int] = mapped_column(default=0)
    """Labels counted so far."""
    step: Mapped[str] = mapped_column(default="waiting")
    progress: Mapped[float] = mapped_column(default=0.0)
    """Share of the step that is done, 0 to 1."""
    seconds: Mapped[Json] = mapped_column(default=dict)
    """Seconds each finished step took."""
    facts: Mapped[Json] = mapped_column(default=dict)
    """What the steps found: numbers of labels and tasks, held-out scores, whether the model was promoted."""
    attempts: Mapped[int] = mapped_column(default=0)
    """How often its order was pushed: each push has a version name of its own."""
    version: Mapped[str | None]
    """Name under which Label Studio holds its order; one that is still being pushed is among the facts."""
    restarts: Mapped[int] = mapped_column(default=0)
    """How often it was begun again from a fresh snapshot: what an earlier start still computes counts for nothing."""
    error: Mapped[str | None]
    failures: Mapped[int] = mapped_column(default=0)
    retry_at: Mapped[datetime | None]
    created_at: Mapped[datetime] = mapped_column(default=now)
    opened_at: Mapped[datetime | None]


class UnusableTask(Base):
    """A task that the last round could not use, with the reason in words."""

    __tablename__ = "set_aside"

    project_id: Mapped[int] = mapped_column(ForeignKey("projects.id"), primary_key=True)
    task_id: Mapped[int] = mapped_column(primary_key=True)
    round: Mapped[int]
    reason: Mapped[str]


class TeacherAccount(Base):
    """What a black-box teacher has cost so far, see `kdal.teachers.ledger`."""

    __tablename__ = "teacher_accounts"

    name: Mapped[str] = mapped_column(primary_key=True)
    teacher: Mapped[str]
    """Who answers: answers of another teacher are not mixed with its own."""
    classes: Mapped[list[str]] = mapped_column(JSON)
    images: Mapped[int] = mapped_column(BigInteger, default=0)
    """Images reserved: answered, under way, or lost in a crash."""
    nanos: Mapped[int] = mapped_column(BigInteger, default=0)
    """Money for them, in billionths of its unit."""
    created_at: Mapped[datetime] = mapped_column(default=now)

    @property
    def cost(self) -> float:
        """Money for them, in its unit."""
        return self.nanos / 10**9


class TeacherAnswer(Base):
    """An answer that was paid for."""

    __tablename__ = "teacher_answers"

    account: Mapped[str] = mapped_column(ForeignKey("teacher_accounts.name"), primary_key=True)
    image: Mapped[str] = mapped_column(primary_key=True)
    """`kdal_core.distillation.image_key`."""
    probabilities: Mapped[bytes] = mapped_column(LargeBinary)
    """float32, little-endian, one for each class."""


class ImageContent(Base):
    """What is at an address: known once the image was read, so that a round need not read it again."""

    __tablename__ = "image_contents"

    address: Mapped[bytes] = mapped_column(LargeBinary(16), primary_key=True)
    """Digest of `ImageSource.identity`."""
    content: Mapped[bytes] = mapped_column(LargeBinary(16))
    """Digest of the file."""
    width: Mapped[int]
    height: Mapped[int]
    """Pixels, upright."""


class ImageFeatures(Base):
    """Where the features of an image are: a row of an array among the assets, see `kdal.storage.features`."""

    __tablename__ = "image_features"

    backbone: Mapped[bytes] = mapped_column(LargeBinary(16), primary_key=True)
    """Digest of the backbone and of the size that images are brought to."""
    content: Mapped[bytes] = mapped_column(LargeBinary(16), primary_key=True)
    """Digest of the image's file."""
    block: Mapped[str]
    """Key of the asset."""
    row: Mapped[int]

    __table_args__ = (Index("image_features_block", "block"),)


def account_of(uid: str, teacher: str) -> str:
    """Name of a project's account with a teacher. A project that is made again under its old number has another uid."""
    return f"project/{uid}/{teacher}"
