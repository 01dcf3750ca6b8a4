"""On PostgreSQL, an exclusion constraint on a hash index in place of the unique B-tree of identities."""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Replace the index; SQLite has no other kind and keeps the unique one.

    About 45 seconds for ten million events, with the table locked.
    """
    if op.get_context().dialect.name != "postgresql":
        return
    op.drop_index("events_dedupe_key", "events")
    op.execute(
        "ALTER TABLE events ADD CONSTRAINT events_dedupe_key"
        " EXCLUDE USING hash ((int8send(workspace_id) || dedupe) WITH =) WHERE (dedupe IS NOT NULL)"
    )
