"""A teacher's ledger in the project's store: true for all processes that share it, whatever is killed.

A batch is reserved by one UPDATE that the database refuses when it would exceed the budget, before the teacher is
asked; its answers are written by one transaction after. A process that dies in between leaves images that are
counted and have no answer. They stay counted for good: nobody can know whether the teacher charged for them. A later
run asks about them again, and pays again, if the budget allows it. So at most `batch_size * workers` images are lost
to a crash, and the budget is never exceeded.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, cast

import numpy as np
from sqlalchemy import CursorResult, func, select, update
from sqlalchemy.dialects import postgresql, sqlite

from kdal.storage.database import Storage
from kdal.storage.tables import TeacherAccount, TeacherAnswer
from kdal_core.distillation import Account, Teacher
from kdal_core.distillation.ledger import Answers
from kdal_core.errors import ConfigError

AT_ONCE = 500
"""Values of one statement: SQLite takes 32,766 at most."""


class StoredLedger:
    """A `LedgerStore` in the tables. Made by `open_ledger`.

    Args:
        storage: the tables.
        name: of the account.
    """

    def __init__(self, storage: Storage, name: str) -> None:
        self._storage, self._name = storage, name
        self._mine = TeacherAccount.name == name

    def account(self) -> Account:
        """What is reserved so far, by all processes."""
        with self._storage.session() as session:
            row = session.execute(select(TeacherAccount.images, TeacherAccount.nanos).where(self._mine)).one()
        return Account(row.images, row.nanos)

    def answered(self) -> int:
        """Images whose answers are there; what is reserved beyond them is under way, or was lost."""
        with self._storage.session() as session:
            query = select(func.count()).select_from(TeacherAnswer).where(TeacherAnswer.account == self._name)
            return session.scalar(query) or 0

    def reserve(self, images: int, nanos: int, most_images: int, most_nanos: int | None) -> bool:
        """Set images aside, unless a limit would be exceeded: one statement, so no other process comes between."""
        within = [self._mine, TeacherAccount.images + images <= most_images]
        if most_nanos is not None:
            within.append(TeacherAccount.nanos + nanos <= most_nanos)
        return self._add(images, nanos, within)

    def release(self, images: int, nanos: int) -> None:
        """Take back what was reserved."""
        self._add(-images, -nanos, [self._mine])

    def read(self, keys: Sequence[str]) -> Answers:
        """The answers that are there for these images."""
        found = {}
        with self._storage.session() as session:
            for part in _parts(keys):
                query = select(TeacherAnswer.image, TeacherAnswer.probabilities)
                rows = session.execute(query.where(TeacherAnswer.account == self._name, TeacherAnswer.image.in_(part)))
                found.update({row.image: np.frombuffer(row.probabilities, "<f4").astype(np.float32) for row in rows})
        return found

    def record(self, answers: Answers) -> None:
        """Write answers down; of two processes that paid for the same image, the first one's stays."""
        rows = [
            {"account": self._name, "image": image, "probabilities": answer.astype("<f4").tobytes()}
            for image, answer in answers.items()
        ]
        with self._storage.session() as session:
            for part in _parts(rows):
                session.execute(_insert(self._storage, TeacherAnswer).on_conflict_do_nothing(), part)

    def _add(self, images: int, nanos: int, where: Iterable[Any]) -> bool:
        after = {"images": TeacherAccount.images + images, "nanos": TeacherAccount.nanos + nanos}
        with self._storage.session() as session:
            done = session.execute(update(TeacherAccount).where(*where).values(after))
            return cast(CursorResult[Any], done).rowcount == 1


def open_ledger(storage: Storage, name: str, teacher: Teacher, identity: str) -> StoredLedger:
    """The account of a teacher, made when there is none.

    Args:
        storage: the tables.
        name: of the account.
        teacher: whose answers it holds.
        identity: tells this teacher from others, in words: kind, address, what it is asked.

    Raises:
        ConfigError: the account holds answers of another teacher, or for other classes.
    """
    row = {"name": name, "teacher": identity, "classes": list(teacher.classes), "images": 0, "nanos": 0}
    with storage.session() as session:
        session.execute(_insert(storage, TeacherAccount).values(row).on_conflict_do_nothing())
        found = session.get_one(TeacherAccount, name)
    if found.teacher != identity or found.classes != list(teacher.classes):
        raise ConfigError(
            f"The ledger {name!r} belongs to another teacher ({found.teacher}, classes {', '.join(found.classes)}), "
            f"not to {identity}, classes {', '.join(teacher.classes)}: give this teacher another name in "
            "KDAL_TEACHERS, or the distillation another `ledger`."
        )
    return StoredLedger(storage, name)


def _insert(storage: Storage, table: type[Any]) -> Any:
    """INSERT of the database's own kind: ON CONFLICT is not standard SQL."""
    return (postgresql if storage.engine.dialect.name == "postgresql" else sqlite).insert(table)


def _parts(values: Sequence[Any]) -> Iterator[list[Any]]:
    rest = iter(values)
    while part := list(islice(rest, AT_ONCE)):
        yield part
