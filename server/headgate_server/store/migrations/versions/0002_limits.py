"""Quotas, the count of a month's events, and rate limits."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns of limits to workspaces and heads, and the table of rates."""
    op.add_column("workspaces", sa.Column("rates", sa.Text))
    op.add_column("heads", sa.Column("quota", sa.BigInteger))
    op.add_column("heads", sa.Column("month", sa.Integer, nullable=False, server_default="0"))
    op.add_column("heads", sa.Column("month_events", sa.BigInteger, nullable=False, server_default="0"))
    op.create_table(
        "rates",
        sa.Column("workspace_id", sa.BigInteger, autoincrement=False, nullable=False),
        sa.Column("receiver", sa.Text, nullable=False),
        sa.Column("arrival", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("workspace_id", "receiver", name="rates_pkey"),
    )
