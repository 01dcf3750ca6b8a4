"""Which table is where on Citus, and whether a database's tables are distributed."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, text

from headgate_server.store.schema import api_keys, heads, leases, metadata, properties, workspaces

REFERENCE = (workspaces.name, api_keys.name)
"""The directory. Every node has a copy of it."""

LOCAL = (leases.name, properties.name)
"""Tables that only the coordinator has. They belong to no workspace. A copy of the leases on every node would be
written to all nodes, so one node that is down would stop all background work."""

_ELSEWHERE = (heads.name, *REFERENCE, *LOCAL)

DISTRIBUTED = (heads.name, *sorted(name for name in metadata.tables if name not in _ELSEWHERE))
"""The others, by `workspace_id`. They are colocated: all rows of a workspace are on one node. `heads` comes first, and
the others are put beside it."""

_FOUND = "SELECT to_regclass('pg_dist_partition') IS NOT NULL"
_EVENTS = "SELECT EXISTS (SELECT FROM pg_dist_partition WHERE logicalrelid = to_regclass('events'))"

_KINDS = """
SELECT relname, CASE WHEN partkey IS NULL THEN 'reference' ELSE 'distributed' END AS kind
FROM pg_dist_partition JOIN pg_class ON pg_class.oid = logicalrelid
WHERE pg_table_is_visible(logicalrelid)
"""


async def is_distributed(connection: Any) -> bool:
    """Return whether the events are distributed. On an ordinary PostgreSQL this is one look at its catalog. Raises
    asyncpg's errors.
    """
    return bool(await connection.fetchval(_FOUND) and await connection.fetchval(_EVENTS))


def has_citus(connection: Connection) -> bool:
    """Return whether the database has the extension."""
    return bool(connection.execute(text(_FOUND)).scalar_one())


def holds_events(connection: Connection) -> bool:
    """Return whether the events are distributed, as `is_distributed`."""
    return has_citus(connection) and bool(connection.execute(text(_EVENTS)).scalar_one())


def placed(connection: Connection) -> Mapping[str, str]:
    """Return the tables that Citus has, each with `reference` or `distributed`."""
    return {row.relname: row.kind for row in connection.execute(text(_KINDS))}
