"""Where the features of images are among the assets."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the two tables."""
    op.create_table(
        "image_contents",
        sa.Column("address", sa.LargeBinary(16), primary_key=True),
        sa.Column("content", sa.LargeBinary(16), nullable=False),
        sa.Column("width", sa.Integer(), nullable=False),
        sa.Column("height", sa.Integer(), nullable=False),
    )
    op.create_table(
        "image_features",
        sa.Column("backbone", sa.LargeBinary(16), primary_key=True),
        sa.Column("content", sa.LargeBinary(16), primary_key=True),
        sa.Column("block", sa.Text(), nullable=False),
        sa.Column("row", sa.Integer(), nullable=False),
    )
    op.create_index("image_features_block", "image_features", ["block"])


def downgrade() -> None:
    """Drop them."""
    op.drop_table("image_features")
    op.drop_table("image_contents")
