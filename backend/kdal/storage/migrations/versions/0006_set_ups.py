"""Set-ups that Label Studio's API has not confirmed yet, what it was told to log in with, and who shares the tables."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the tables and the column."""
    op.add_column("projects", sa.Column("told", sa.Text(), nullable=True))
    op.create_table(
        "installation",
        sa.Column("name", sa.Text(), primary_key=True),
        sa.Column("value", sa.Text(), nullable=False),
    )
    op.create_table(
        "set_ups",
        sa.Column("project_id", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("uid", sa.Text(), primary_key=True),
        sa.Column("received_at", sa.DateTime(), nullable=False),
        sa.Column("look_at", sa.DateTime(), nullable=False),
        sa.Column("looks", sa.Integer(), nullable=False),
    )


def downgrade() -> None:
    """Drop them."""
    op.drop_table("set_ups")
    op.drop_table("installation")
    op.drop_column("projects", "told")
