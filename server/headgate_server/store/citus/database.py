"""The `Database` promise on PostgreSQL whose tables are distributed by Citus. It speaks to the coordinator alone."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

from sqlalchemy import Connection, func, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from headgate_server.core.errors import SetupError
from headgate_server.core.model import Submission
from headgate_server.core.types import WorkspaceId
from headgate_server.store import migrate
from headgate_server.store.citus import append, distribution
from headgate_server.store.database import not_durable
from headgate_server.store.holds import DISTRIBUTED
from headgate_server.store.phases import Phases
from headgate_server.store.postgres.append import CommitMarker, Decided
from headgate_server.store.postgres.database import PostgresDatabase
from headgate_server.store.postgres.durability import LEVELS
from headgate_server.store.postgres.target import Target
from headgate_server.store.schema import events

OVERFLOW = 12
"""Additional connections for appends. Each workspace's group has its own transaction, of several at a time, and those
that wait for a node that does not answer must leave connections to the others."""

_NODES = """
SELECT nodename || ':' || nodeport AS node, result
FROM run_command_on_all_nodes('SELECT current_setting(''fsync'') || '' '' || current_setting(''synchronous_commit'')')
JOIN pg_dist_node USING (nodeid) WHERE success ORDER BY node
"""

_SIZE = """
SELECT coalesce(sum(result::bigint), 0)
FROM run_command_on_all_nodes('SELECT pg_database_size(current_database())') WHERE success
"""


class CitusDatabase(PostgresDatabase):
    """The `Database` promise on Citus. `PostgresDatabase.open` makes one, where the events are distributed.

    A commit that stores events is a two-phase commit of Citus. When it returns, the events are on the disk of their
    node, and the coordinator's disk says that they are committed. If the node fails right then, readers see them when
    the node is back and Citus has finished the commit; until then the workspace's head is locked.
    """

    one_workspace_per_group = True
    _overflow = OVERFLOW
    # Citus hides its shards from the catalog, by a function for each of its rows. With that the driver's look-up of
    # types, once a connection, takes seconds.
    _settings: ClassVar[Mapping[str, str]] = {"citus.override_table_visibility": "off"}

    def __init__(self, target: Target, *, pooler: bool):
        super().__init__(target, pooler=pooler)
        for engine in (self._appending, self._reading):
            setattr(engine.dialect, DISTRIBUTED, True)

    def _upgrade(self, connection: Connection) -> None:
        """Run the missing migrations, and distribute the tables that they add."""
        connection.execute(text(distribution.IN_ORDER))
        migrate.upgrade(connection)
        for step in distribution.missing(connection):
            step.do(connection)

    def _check_settings(self, connection: Connection) -> str:
        level = super()._check_settings(connection)
        for node, fsync, synchronous_commit in _settings_of_nodes(connection):
            if fsync != "on" or synchronous_commit not in LEVELS:
                raise SetupError(
                    f"The node {node} runs with fsync={fsync} and synchronous_commit={synchronous_commit}: "
                    "it would lose acknowledged events. Set both to on."
                )
        return level

    def check_durable(self, connection: Connection) -> None:
        """Raise `errors.Unavailable` unless commits are synced, on every node that answers."""
        super().check_durable(connection)
        for node, fsync, _ in _settings_of_nodes(connection):
            if fsync != "on":
                raise not_durable(f"The node {node} of the store's database runs with fsync=off")

    async def _decide(
        self, connection: Any, submissions: Sequence[Submission], wait: bool, begin: Callable[[], None], phases: Phases
    ) -> Decided:
        return await append.decide_and_write(connection, submissions, wait, begin, self._commit_level, phases)

    def _is_unsettled(self, error: BaseException) -> bool:
        """Whatever the coordinator's error says: a node may have committed before it."""
        return True

    async def _was_committed(self, connection: Any, marker: CommitMarker) -> bool:
        return await append.was_committed(connection, marker)

    async def _begin_write(self, connection: AsyncConnection, level: str) -> None:
        # The settings after the first apply to the nodes' transactions, too.
        await connection.exec_driver_sql("SET LOCAL citus.propagate_set_commands = 'local'")
        adapted: Any = (await connection.get_raw_connection()).dbapi_connection
        await connection.run_sync(
            lambda _: adapted.run_async(
                lambda driver: driver.execute(f"{append.BOUNDED} SET LOCAL synchronous_commit = {level}")
            )
        )

    def guards_identities(self, connection: Connection) -> bool:
        """Return False: each shard has its own index, which the coordinator's catalog does not show."""
        return False

    def size(self, connection: Connection) -> int:
        """Return the size of the database on all nodes that answer, with its indexes."""
        return int(connection.execute(text(_SIZE)).scalar_one())

    def describe(self, connection: Connection) -> Mapping[str, str]:
        """Return the coordinator's version and settings, Citus's version, and the number of nodes."""
        found = connection.execute(
            text(
                "SELECT (SELECT extversion FROM pg_extension WHERE extname = 'citus'),"
                " (SELECT count(*) FROM pg_dist_node WHERE isactive AND shouldhaveshards)"
            )
        ).one()
        return {**super().describe(connection), "citus": str(found[0]), "nodes": str(found[1])}

    def workspaces_of_events(self, connection: Connection) -> Sequence[WorkspaceId]:
        """Return the ids in `events.workspace_id`, each once, by one statement for each: Citus has no recursive query
        over all nodes.
        """
        found: list[WorkspaceId] = []
        lowest = select(func.min(events.c.workspace_id))
        following = connection.execute(lowest).scalar_one()
        while following is not None:
            found.append(following)
            following = connection.execute(lowest.where(events.c.workspace_id > following)).scalar_one()
        return found


def _settings_of_nodes(connection: Connection) -> Sequence[tuple[str, str, str]]:
    """Return the name, `fsync` and `synchronous_commit` of each node that answers."""
    return [(row.node, *row.result.split()) for row in connection.execute(text(_NODES))]
