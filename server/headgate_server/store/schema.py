"""The tables, for both dialects.

Every key begins with `workspace_id`, because on Citus a workspace is the shard. `events` has only two indexes, because
each index on a random value reduces throughput for ever. Times are microseconds since the epoch. Ids are the 16 bytes
of a UUIDv7.
"""

from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    ForeignKey,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    func,
    text,
)
from sqlalchemy.dialects import postgresql
from sqlalchemy.types import TypeEngine

from headgate_server.core.model import StoredEvent
from headgate_server.core.rejections import Rejection
from headgate_server.store.postgres.ids import UuidBytes


def id_type(elsewhere: TypeEngine[Any]) -> TypeEngine[Any]:
    """Return the type of a column of ids: `uuid` on PostgreSQL, and `elsewhere` on a database without that type."""
    return elsewhere.with_variant(UuidBytes(), "postgresql")


_EVENT_ID = id_type(LargeBinary(16))

# SQLite assigns row ids only to a column whose type is exactly INTEGER.
_SERIAL = BigInteger().with_variant(Integer, "sqlite")

# Constraints get their names by rule, so that a later migration can name the one that it changes.
metadata = MetaData(
    naming_convention={
        "ix": "%(table_name)s_%(column_0_N_name)s_idx",
        "uq": "%(table_name)s_%(column_0_N_name)s_key",
        "fk": "%(table_name)s_%(column_0_N_name)s_fkey",
        "pk": "%(table_name)s_pkey",
    }
)

workspaces = Table(
    "workspaces",
    metadata,
    Column("id", _SERIAL, Identity(always=False), primary_key=True),
    Column("name", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    # JSON: the workspace's own rate limits by receiver. Each is [count, period in microseconds, burst], or null for no
    # limit.
    Column("rates", Text),
    # Grows with every change of the event types and of the setting below.
    Column("types_revision", BigInteger, nullable=False, server_default="0"),
    # What is done with an event of an unknown type.
    Column("unknown_types", Text, nullable=False, server_default="accept"),
    UniqueConstraint("name"),
)

heads = Table(
    "heads",
    metadata,
    Column("workspace_id", BigInteger, primary_key=True, autoincrement=False),
    Column("sequence", BigInteger, nullable=False),
    Column("hash", LargeBinary(32), nullable=False),
    Column("created_at", BigInteger, nullable=False),
    # Events in a month; null means no quota. The month's events are counted here, because the append locks this row
    # anyway.
    Column("quota", BigInteger),
    # The month (UTC) that is counted, such as 202611, and the number of events stored in it.
    Column("month", Integer, nullable=False, server_default="0"),
    Column("month_events", BigInteger, nullable=False, server_default="0"),
    # One row is updated thousands of times. Free space in its page lets PostgreSQL update it without the index (HOT)
    # and clean up the page.
    postgresql_with={"fillfactor": "10"},
)

_EVENT_COLUMNS: tuple[Column[Any], ...] = (
    Column("workspace_id", BigInteger, primary_key=True, autoincrement=False),
    Column("id", _EVENT_ID, primary_key=True),
    Column("sequence", BigInteger, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("receiver", Text, nullable=False),
    Column("type", Text, nullable=False),
    Column("source", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("occurred_at", BigInteger),
    Column("data", LargeBinary),
    Column("scope", Text),
    Column("key", Text),
    Column("dedupe", LargeBinary(16)),
    Column("salt", LargeBinary(16), nullable=False),
    Column("commitment", LargeBinary(32), nullable=False),
    Column("event_hash", LargeBinary(32), nullable=False),
    Column("attributes", LargeBinary),
)

events = Table(
    "events",
    metadata,
    *sorted(_EVENT_COLUMNS, key=lambda column: StoredEvent._fields.index(column.name)),
)

CONTENT_SIZE = func.coalesce(func.octet_length(events.c.data), 0) + func.coalesce(
    func.octet_length(events.c.attributes), 0
)
"""The bytes of an event's content that have no small bound. Pages of events are bounded by them."""

# The look-up under the head's lock ensures that an identity is stored once. These constraints protect it against
# writers that do not take the lock. On PostgreSQL a hash index has half the pages of a B-tree; its guard is an
# exclusion constraint (docs/design/performance.md, Growth).
Index(
    "events_dedupe_key",
    events.c.workspace_id,
    events.c.dedupe,
    unique=True,
    sqlite_where=text("dedupe IS NOT NULL"),
).ddl_if(dialect="sqlite")
events.append_constraint(
    postgresql.ExcludeConstraint(
        (text("(int8send(workspace_id) || dedupe)"), "="),
        name="events_dedupe_key",
        using="hash",
        where=text("dedupe IS NOT NULL"),
    ).ddl_if(dialect="postgresql")
)

answers = Table(
    "answers",
    metadata,
    Column("workspace_id", BigInteger, primary_key=True, autoincrement=False),
    Column("scope", Text, primary_key=True),
    # The first 16 bytes of the key's SHA-256: a caller's key may be long, and its text is not needed.
    Column("key", LargeBinary(16), primary_key=True),
    Column("fingerprint", LargeBinary(32), nullable=False),
    Column("answer", LargeBinary, nullable=False),
    Column("created_at", BigInteger, nullable=False),
)

rates = Table(
    "rates",
    metadata,
    Column("workspace_id", BigInteger, primary_key=True, autoincrement=False),
    # A receiver, or a limit of a key.
    Column("receiver", Text, primary_key=True),
    # GCRA's theoretical arrival time of the next request, in microseconds.
    Column("arrival", BigInteger, nullable=False),
)

api_keys = Table(
    "api_keys",
    metadata,
    Column("id", Text, primary_key=True),
    Column("digest", LargeBinary(32), nullable=False),
    Column("prefix", Text, nullable=False),
    Column("workspace_id", _SERIAL, ForeignKey("workspaces.id"), nullable=False),
    # Separated by spaces, sorted.
    Column("scopes", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger),
    Column("revoked_at", BigInteger),
    Column("name", Text, nullable=False, server_default=""),
    # JSON: the limits of calls and of events, each as in `workspaces.rates`.
    Column("limits", Text),
    # To the minute.
    Column("last_used_at", BigInteger),
    # The key that replaces this one.
    Column("successor", Text),
    UniqueConstraint("digest"),
)

leases = Table(
    "leases",
    metadata,
    Column("name", Text, primary_key=True),
    # Empty if the lease is free.
    Column("holder", Text, nullable=False),
    # How often the lease was taken. It identifies one holder's term.
    Column("epoch", BigInteger, nullable=False),
    # By the database's clock.
    Column("ends_at", BigInteger, nullable=False),
)

cursors = Table(
    "cursors",
    metadata,
    Column("follower", Text, primary_key=True),
    Column("workspace_id", BigInteger, primary_key=True, autoincrement=False),
    # The last event that was processed.
    Column("sequence", BigInteger, nullable=False),
    Column("event_id", _EVENT_ID, nullable=False),
    # By the database's clock. The ledgers that wait longest are read first.
    Column("moved_at", BigInteger, nullable=False),
)

destinations = Table(
    "destinations",
    metadata,
    Column("workspace_id", BigInteger, primary_key=True, autoincrement=False),
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False),
    # JSON: filter, ordering and target.
    Column("settings", Text, nullable=False),
    # JSON: what signs, and headers. Plain, since each request needs them: who reads the database can sign.
    Column("secrets", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("why", Text, nullable=False),
    # The sequence after which it began.
    Column("start", BigInteger, nullable=False),
    # The last event that was delivered or set aside, or did not match.
    Column("cursor", BigInteger, nullable=False),
    Column("cursor_id", _EVENT_ID),
    # The same of a replay, and the last sequence that it covers; null: there is none.
    Column("replay", BigInteger),
    Column("replay_id", _EVENT_ID),
    Column("replay_until", BigInteger),
    Column("delivered", BigInteger, nullable=False),
    Column("failed_attempts", BigInteger, nullable=False),
    Column("failing_since", BigInteger),
    Column("last_error", Text, nullable=False),
    Column("last_error_at", BigInteger),
    Column("created_at", BigInteger, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
    # Grows with every change that an operator makes.
    Column("revision", BigInteger, nullable=False),
    UniqueConstraint("workspace_id", "name"),
)

# Only failures have rows: a success moves the cursor, once a page.
failures = Table(
    "failures",
    metadata,
    Column("workspace_id", BigInteger, primary_key=True, autoincrement=False),
    Column("destination_id", Text, primary_key=True),
    Column("sequence", BigInteger, primary_key=True, autoincrement=False),
    Column("event_id", _EVENT_ID, nullable=False),
    Column("state", Text, nullable=False),
    Column("attempts", BigInteger, nullable=False),
    Column("first_failed_at", BigInteger, nullable=False),
    Column("last_attempt_at", BigInteger, nullable=False),
    # By the database's clock; null: there will be none.
    Column("next_attempt_at", BigInteger),
    Column("status", Integer),
    Column("error", Text, nullable=False),
    Index(None, "workspace_id", "destination_id", "state", "next_attempt_at"),
)

_REJECTION_COLUMNS: tuple[Column[Any], ...] = (
    Column("workspace_id", BigInteger, primary_key=True, autoincrement=False),
    Column("id", _EVENT_ID, primary_key=True),
    Column("received_at", BigInteger, nullable=False),
    Column("reason", Text, nullable=False),
    Column("field", Text, nullable=False),
    Column("message", Text, nullable=False),
    Column("receiver", Text, nullable=False),
    Column("endpoint", Text, nullable=False),
    Column("key_id", Text, nullable=False),
    Column("request_id", Text, nullable=False),
    Column("encoding", Text, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("replayed_at", BigInteger),
    Column("event_id", _EVENT_ID),
    # The largest comes last, so that a filter on the others need not read it.
    Column("event", LargeBinary, nullable=False),
)

rejections = Table(
    "rejections",
    metadata,
    *sorted(_REJECTION_COLUMNS, key=lambda column: Rejection._fields.index(column.name)),
    # For the purge of what is too old, in all workspaces.
    Index("rejections_received_at_idx", "received_at"),
)

omitted_rejections = Table(
    "omitted_rejections",
    metadata,
    Column("workspace_id", BigInteger, primary_key=True, autoincrement=False),
    # Since 1970-01-01, by the database's clock.
    Column("day", Integer, primary_key=True, autoincrement=False),
    Column("number", BigInteger, nullable=False),
)

properties = Table(
    "properties",
    metadata,
    Column("name", Text, primary_key=True),
    Column("value", Text, nullable=False),
)

# Sorted by code points on every database.
_EXACT_TEXT = Text().with_variant(Text(collation="C"), "postgresql")

event_types = Table(
    "event_types",
    metadata,
    Column("workspace_id", BigInteger, primary_key=True, autoincrement=False),
    Column("type", _EXACT_TEXT, primary_key=True),
    Column("mode", Text, nullable=False),
    # The workspace's `types_revision` when it was last put.
    Column("revision", BigInteger, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
    # Canonical JSON.
    Column("schema", LargeBinary, nullable=False),
)
