"""The audit log: who read, changed, exported or deleted what. Each line contains the digest of the one before."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from resources.append_only import forbid_rewriting

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Creates the table and its triggers."""
    op.create_table(
        "audit_log",
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("at", sa.String(32), nullable=False),
        sa.Column("who", sa.String(200), nullable=False),
        sa.Column("origin", sa.String(200), nullable=False),
        sa.Column("action", sa.String(32), nullable=False),
        sa.Column("subject", sa.String(300), nullable=False),
        sa.Column("details", sa.Text, nullable=False),
        sa.Column("previous", sa.String(64), nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
    )
    forbid_rewriting(op.get_bind(), "audit_log", "the audit log")
