"""On PostgreSQL, replaces the unique B-tree of identities by an exclusion constraint on a hash index."""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

locks = "events, on PostgreSQL: about 45 seconds for ten million events"


def upgrade() -> None:
    """Replace the index. SQLite has no other kind of index and keeps the unique one.

    It takes about 45 seconds for ten million events, and the table is locked in that time.
    """
    if op.get_context().dialect.name != "postgresql":
        return
    op.drop_index("events_dedupe_key", "events")
    op.execute(
        "ALTER TABLE events ADD CONSTRAINT events_dedupe_key"
        " EXCLUDE USING hash ((int8send(workspace_id) || dedupe) WITH =) WHERE (dedupe IS NOT NULL)"
    )
