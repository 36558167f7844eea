"""Which revision the tables are at, and how they are brought up to date (`kdal.storage.migrations`).

Alembic is imported only when there is something to do: whoever finds the tables up to date starts sooner.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

from filelock import FileLock
from sqlalchemy import inspect, text
from sqlalchemy.engine import Connection, Engine

from kdal_core.errors import ConfigError

OPENING = 120
"""Seconds that a process waits for another that brings the tables up to date."""
LOCK_KEY = 0x6B64616C
"""PostgreSQL's number for kdal's lock on opening: the bytes of "kdal"."""


def known_revisions() -> list[str]:
    """The revisions that this kdal knows, first to last: each file of the migrations begins with its own."""
    files = (Path(__file__).parent / "migrations" / "versions").glob("[0-9]*.py")
    return sorted(file.name.partition("_")[0] for file in files)


def revision(connection: Connection) -> str | None:
    """The revision that the tables are at; None where kdal has no tables."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    found: str | None = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
    return found


def check_up_to_date(connection: Connection, place: str) -> None:
    """Check that the tables are as this kdal needs them, without changing anything.

    Args:
        connection: to the database.
        place: what messages call the database.

    Raises:
        ConfigError: there are no tables, or those of another version of kdal; says what to do.
    """
    current, known = revision(connection), known_revisions()
    if current is None:
        raise ConfigError(f"{place} holds no tables of kdal yet: `kdal up` (or `kdal serve`) makes them")
    _refuse_newer(current, known)
    if current != known[-1]:
        raise ConfigError(
            f"{place} was made by an older kdal (its tables are at {current}): "
            "`kdal up` (or `kdal serve`) brings it up to date"
        )


def bring_up_to_date(engine: Engine) -> None:
    """Make the tables, or bring those of an older kdal up to date.

    Raises:
        ConfigError: they are those of a newer kdal.
    """
    known = known_revisions()
    with _alone(engine), engine.begin() as connection:
        current = revision(connection)
        if current == known[-1]:
            return
        if current is not None:
            _refuse_newer(current, known)
        from alembic import command
        from alembic.config import Config

        config = Config()
        config.set_main_option("script_location", "kdal.storage:migrations")
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def _refuse_newer(current: str, known: list[str]) -> None:
    if current not in known:
        raise ConfigError(f"the database was made by a newer kdal (its tables are at {current}): update kdal")


@contextmanager
def _alone(engine: Engine) -> Iterator[None]:
    """No other process opens this database meanwhile: server and worker start at once on a fresh machine.

    SQLite cannot be asked to wait here: a file that two connections turn to WAL at once is "locked", whatever its
    timeout.
    """
    if engine.dialect.name == "sqlite":
        file = engine.url.database
        with nullcontext() if file in (None, "", ":memory:") else FileLock(f"{file}.lock", timeout=OPENING):
            yield
    else:
        with engine.connect() as connection:
            connection.execute(text("SELECT pg_advisory_lock(:key)"), {"key": LOCK_KEY})
            try:
                yield
            finally:
                connection.execute(text("SELECT pg_advisory_unlock(:key)"), {"key": LOCK_KEY})
