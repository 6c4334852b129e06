"""The log of requests in PostgreSQL, which several scoring services share (``ASSETLINE_HISTORY_URL``).

The tables are in every database of the project, and stay empty where the log is in files.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Creates the tables."""
    op.create_table(
        "request_writers",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("model", sa.String(200), nullable=False),
        sa.Column("day", sa.String(10), nullable=False),
        sa.Column("name", sa.String(64), nullable=False),
        sa.UniqueConstraint("model", "day", "name"),
    )
    op.create_table(
        "request_lines",
        sa.Column("writer", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("n", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("line", sa.Text, nullable=False),
        sa.ForeignKeyConstraint(["writer"], ["request_writers.id"], ondelete="CASCADE"),
    )
