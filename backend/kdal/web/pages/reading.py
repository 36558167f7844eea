"""What the page reads from the tables: bounded, whatever a project has grown to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func, select

from kdal.storage.database import Storage
from kdal.storage.tables import Event, Project, Round, UnusableTask

MOST_PROJECTS = 200
"""Projects of a list."""
MOST_ROUNDS = 100
"""Rounds of a project that the page knows: the newest."""


@dataclass(frozen=True)
class Inbox:
    """Events that no worker has dealt with yet."""

    waiting: int
    oldest: datetime | None


@dataclass(frozen=True)
class Standing:
    """A project with its newest rounds, oldest first."""

    project: Project
    rounds: Sequence[Round]

    @property
    def last(self) -> Round | None:
        """The newest round, whatever its state."""
        return self.rounds[-1] if self.rounds else None

    @property
    def published(self) -> Round | None:
        """The newest round whose order annotators have, or have had."""
        return next((row for row in reversed(self.rounds) if row.opened_at is not None), None)

    @property
    def counting(self) -> Round | None:
        """The round that labels count for: a cancelled one counts those of the round to come."""
        last, published = self.last, self.published
        return last if published is not None and last is not None and last.state == "cancelled" else published

    @property
    def serving(self) -> Round | None:
        """The round whose model makes the suggestions."""
        return self.of(self.project.serving_round)

    def of(self, number: int | None) -> Round | None:
        """A round by its number."""
        return next((row for row in self.rounds if row.number == number), None)


def standing(storage: Storage, number: int) -> Standing | None:
    """How a project stands; None where kdal does not know it."""
    with storage.session() as session:
        project = session.get(Project, number)
        if project is None:
            return None
        newest = select(Round).where(Round.project_id == number).order_by(Round.number.desc()).limit(MOST_ROUNDS)
        return Standing(project, list(session.scalars(newest))[::-1])


def standings(storage: Storage) -> list[Standing]:
    """How all projects stand, those that kdal serves first; each with its last rounds only."""
    with storage.session() as session:
        query = select(Project).order_by(Project.disconnected_at.is_not(None), Project.id).limit(MOST_PROJECTS)
        projects = list(session.scalars(query))
        last = select(Round.project_id, func.max(Round.number).label("number")).group_by(Round.project_id).subquery()
        opened = (
            select(Round.project_id, func.max(Round.number).label("number"))
            .where(Round.opened_at.is_not(None))
            .group_by(Round.project_id)
            .subquery()
        )
        rounds: dict[int, dict[int, Round]] = {project.id: {} for project in projects}
        for newest in (last, opened):
            joined = (Round.project_id == newest.c.project_id) & (Round.number == newest.c.number)
            for row in session.scalars(select(Round).join(newest, joined)):
                if row.project_id in rounds:
                    rounds[row.project_id][row.number] = row
        return [Standing(project, [row for _, row in sorted(rounds[project.id].items())]) for project in projects]


def inbox(storage: Storage, project: int | None = None) -> Inbox:
    """What waits in the inbox, of one project or of all."""
    query = select(func.count(Event.id), func.min(Event.received_at)).where(Event.done_at.is_(None))
    if project is not None:
        query = query.where(Event.project_id == project)
    with storage.session() as session:
        waiting, oldest = session.execute(query).one()
    return Inbox(int(waiting), oldest)


def unusable(storage: Storage, project: int, number: int, most: int) -> tuple[int, list[UnusableTask]]:
    """How many tasks a round could not use, and the first of them."""
    where = (UnusableTask.project_id == project, UnusableTask.round == number)
    with storage.session() as session:
        count = session.scalar(select(func.count()).select_from(UnusableTask).where(*where)) or 0
        first = session.scalars(select(UnusableTask).where(*where).order_by(UnusableTask.task_id).limit(most))
        return int(count), list(first)
