"""Makes the count of a month's events exact, also for events that were stored before events were counted."""

from datetime import UTC, datetime, timedelta

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_HEADS = "SELECT workspace_id, sequence, created_at FROM heads WHERE sequence > 0"
_BEFORE = "SELECT sequence FROM events WHERE workspace_id = :workspace_id AND id < :first ORDER BY id DESC LIMIT 1"
_COUNT = "UPDATE heads SET month = :month, month_events = :events WHERE workspace_id = :workspace_id"


def upgrade() -> None:
    """Count again, from the sequences, which have no gaps. This reads one row of `events` for each workspace."""
    connection = op.get_bind()
    postgres = connection.dialect.name == "postgresql"
    before = sa.text(_BEFORE.replace(":first", "CAST(:first AS uuid)") if postgres else _BEFORE)
    for workspace_id, sequence, created_at in connection.execute(
        sa.text(_HEADS + (" FOR NO KEY UPDATE" if postgres else ""))
    ).all():
        # The month of the earliest time that the next event can have, as in `settle`.
        moment = _EPOCH + timedelta(microseconds=created_at + 1)
        start = datetime(moment.year, moment.month, 1, tzinfo=UTC)
        milliseconds = (start - _EPOCH) // timedelta(milliseconds=1)
        first = (milliseconds << 80).to_bytes(16, "big")
        earlier = connection.execute(
            before, {"workspace_id": workspace_id, "first": first.hex() if postgres else first}
        ).scalar_one_or_none()
        connection.execute(
            sa.text(_COUNT),
            {
                "month": moment.year * 100 + moment.month,
                "events": sequence - (earlier or 0),
                "workspace_id": workspace_id,
            },
        )
