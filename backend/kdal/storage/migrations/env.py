"""Alembic runs this; kdal calls Alembic with a connection of its own, see `kdal.storage.database`.

A new step: `alembic -c backend/kdal/storage/migrations/alembic.ini revision --autogenerate -m "..."`.
"""

from __future__ import annotations

import os

from alembic import context
from sqlalchemy import create_engine
from sqlalchemy.engine import Connection

from kdal.storage.tables import Base


def migrate(connection: Connection) -> None:
    """Bring a database up to date; SQLite changes a table by copying it ("batch")."""
    context.configure(connection=connection, target_metadata=Base.metadata, render_as_batch=True)
    with context.begin_transaction():
        context.run_migrations()


given: Connection | None = context.config.attributes.get("connection")
if given is not None:
    migrate(given)
else:
    with create_engine(os.environ.get("KDAL_DATABASE_URL", "sqlite:///.kdal/kdal.sqlite")).begin() as own:
        migrate(own)
