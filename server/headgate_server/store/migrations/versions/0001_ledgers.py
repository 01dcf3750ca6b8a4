"""Workspaces, their ledgers, stored answers and API keys."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_SERIAL = sa.BigInteger().with_variant(sa.Integer, "sqlite")
_EVENT_ID = sa.LargeBinary(16).with_variant(postgresql.UUID(), "postgresql")


def upgrade() -> None:
    """Create every table."""
    _workspaces()
    _events()
    _answers()
    _api_keys()


def _workspaces() -> None:
    op.create_table(
        "workspaces",
        sa.Column("id", _SERIAL, sa.Identity(always=False), nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("id", name="workspaces_pkey"),
        sa.UniqueConstraint("name", name="workspaces_name_key"),
    )
    op.create_table(
        "heads",
        sa.Column("workspace_id", sa.BigInteger, autoincrement=False, nullable=False),
        sa.Column("sequence", sa.BigInteger, nullable=False),
        sa.Column("hash", sa.LargeBinary(32), nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("workspace_id", name="heads_pkey"),
        postgresql_with={"fillfactor": "10"},
    )


def _events() -> None:
    op.create_table(
        "events",
        sa.Column("workspace_id", sa.BigInteger, autoincrement=False, nullable=False),
        sa.Column("id", _EVENT_ID, nullable=False),
        sa.Column("sequence", sa.BigInteger, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("receiver", sa.Text, nullable=False),
        sa.Column("type", sa.Text, nullable=False),
        sa.Column("source", sa.Text, nullable=False),
        sa.Column("subject", sa.Text, nullable=False),
        sa.Column("occurred_at", sa.BigInteger),
        sa.Column("data", sa.LargeBinary),
        sa.Column("scope", sa.Text),
        sa.Column("key", sa.Text),
        sa.Column("dedupe", sa.LargeBinary(16)),
        sa.Column("salt", sa.LargeBinary(16), nullable=False),
        sa.Column("commitment", sa.LargeBinary(32), nullable=False),
        sa.Column("event_hash", sa.LargeBinary(32), nullable=False),
        sa.PrimaryKeyConstraint("workspace_id", "id", name="events_pkey"),
    )
    op.create_index(
        "events_dedupe_key",
        "events",
        ["workspace_id", "dedupe"],
        unique=True,
        postgresql_where=sa.text("dedupe IS NOT NULL"),
        sqlite_where=sa.text("dedupe IS NOT NULL"),
    )


def _answers() -> None:
    op.create_table(
        "answers",
        sa.Column("workspace_id", sa.BigInteger, autoincrement=False, nullable=False),
        sa.Column("scope", sa.Text, nullable=False),
        sa.Column("key", sa.LargeBinary(16), nullable=False),
        sa.Column("fingerprint", sa.LargeBinary(32), nullable=False),
        sa.Column("answer", sa.LargeBinary, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("workspace_id", "scope", "key", name="answers_pkey"),
    )


def _api_keys() -> None:
    op.create_table(
        "api_keys",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("digest", sa.LargeBinary(32), nullable=False),
        sa.Column("prefix", sa.Text, nullable=False),
        sa.Column("workspace_id", _SERIAL, nullable=False),
        sa.Column("scopes", sa.Text, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("expires_at", sa.BigInteger),
        sa.Column("revoked_at", sa.BigInteger),
        sa.ForeignKeyConstraint(["workspace_id"], ["workspaces.id"], name="api_keys_workspace_id_fkey"),
        sa.PrimaryKeyConstraint("id", name="api_keys_pkey"),
        sa.UniqueConstraint("digest", name="api_keys_digest_key"),
    )
