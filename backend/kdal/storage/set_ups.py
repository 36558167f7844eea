"""Set-ups that wait until Label Studio's API has confirmed them."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from sqlalchemy import delete, func, select, update
from sqlalchemy.exc import IntegrityError

from kdal.storage.database import Storage
from kdal.storage.tables import SetUp
from kdal_core.errors import KdalError

MOST = 1000
"""Set-ups that may wait at once: whoever sends them may have made the projects up."""
AT_ONCE = datetime(1970, 1, 1)


class TooManyError(KdalError):
    """More than kdal has time for; the same request later may be served."""


def note_set_up(storage: Storage, project: int, uid: str) -> None:
    """Note that a project may have been set up, once, however often that is said.

    Raises:
        TooManyError: too many wait already.
    """
    try:
        with storage.session() as session:
            if session.get(SetUp, (project, uid)) is not None:
                return
            if (session.scalar(select(func.count()).select_from(SetUp)) or 0) >= MOST:
                raise TooManyError(
                    f"{MOST:,} projects wait until Label Studio confirms them: is a `kdal worker` running? "
                    "Try again in a minute"
                )
            session.add(SetUp(project_id=project, uid=uid, look_at=AT_ONCE))
    except IntegrityError:  # another request noted it at the same moment
        pass


def set_up_waits(storage: Storage, project: int, uid: str) -> bool:
    """Whether a set-up is still to be confirmed."""
    with storage.session() as session:
        return session.get(SetUp, (project, uid)) is not None


def set_ups_due(storage: Storage, time: datetime) -> list[SetUp]:
    """Those that Label Studio is to be asked about by now: first those that it was asked about least often."""
    with storage.session() as session:
        return list(session.scalars(select(SetUp).where(SetUp.look_at <= time).order_by(SetUp.looks, SetUp.look_at)))


def forget_set_ups(storage: Storage, rows: Iterable[SetUp]) -> None:
    """They were confirmed, or never will be."""
    with storage.session() as session:
        for row in rows:
            session.execute(delete(SetUp).where(SetUp.project_id == row.project_id, SetUp.uid == row.uid))


def postpone_set_up(storage: Storage, row: SetUp, time: datetime, *, in_vain: bool = True) -> None:
    """Ask Label Studio again later; ``in_vain`` where it has answered."""
    with storage.session() as session:
        where = (SetUp.project_id == row.project_id, SetUp.uid == row.uid)
        session.execute(update(SetUp).where(*where).values(look_at=time, looks=SetUp.looks + in_vain))
