"""The attributes of events, such as CloudEvents' extensions."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column. No row is rewritten, and every event that is there has none."""
    op.add_column("events", sa.Column("attributes", sa.LargeBinary))
