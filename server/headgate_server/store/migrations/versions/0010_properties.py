"""Facts about the store as a whole."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

runs_older = False
"""Programs before this revision start only on the schema that they know."""


def upgrade() -> None:
    """Add the table. Nothing that is there is touched."""
    op.create_table(
        "properties",
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("value", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("name", name="properties_pkey"),
    )
