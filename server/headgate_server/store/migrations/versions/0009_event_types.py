"""Event types, and what a workspace does with unknown ones."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add a table, and two columns with a default: no row is rewritten."""
    op.create_table(
        "event_types",
        sa.Column("workspace_id", sa.BigInteger, autoincrement=False, nullable=False),
        sa.Column("type", sa.Text().with_variant(sa.Text(collation="C"), "postgresql"), nullable=False),
        sa.Column("mode", sa.Text, nullable=False),
        sa.Column("revision", sa.BigInteger, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("updated_at", sa.BigInteger, nullable=False),
        sa.Column("schema", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("workspace_id", "type", name="event_types_pkey"),
    )
    op.add_column("workspaces", sa.Column("types_revision", sa.BigInteger, nullable=False, server_default="0"))
    op.add_column("workspaces", sa.Column("unknown_types", sa.Text, nullable=False, server_default="accept"))
