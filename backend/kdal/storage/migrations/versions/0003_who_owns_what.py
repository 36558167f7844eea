"""The version in force, what a project was like before kdal, disconnecting, and restarts of rounds."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns; the version in force is that of the newest round that was opened."""
    with op.batch_alter_table("projects") as table:
        table.add_column(sa.Column("version", sa.Text(), nullable=True))
        table.add_column(sa.Column("before", sa.JSON(), nullable=True))
        table.add_column(sa.Column("backend_id", sa.Integer(), nullable=True))
        table.add_column(sa.Column("disconnected_at", sa.DateTime(), nullable=True))
        table.add_column(sa.Column("refusal", sa.Text(), nullable=True))
    with op.batch_alter_table("rounds") as table:
        table.add_column(sa.Column("restarts", sa.Integer(), nullable=False, server_default="0"))
    op.execute(
        "UPDATE projects SET version = (SELECT r.version FROM rounds r WHERE r.project_id = projects.id"
        " AND r.opened_at IS NOT NULL ORDER BY r.number DESC LIMIT 1)"
    )


def downgrade() -> None:
    """Drop the columns."""
    with op.batch_alter_table("rounds") as table:
        table.drop_column("restarts")
    with op.batch_alter_table("projects") as table:
        for name in ("refusal", "disconnected_at", "backend_id", "before", "version"):
            table.drop_column(name)
