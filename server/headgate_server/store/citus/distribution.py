"""Distributes a store's tables over the nodes of a Citus: what `headgate migrate --citus` does.

All of it is one transaction, so a store is distributed or it is not. Only then the coordinator's own copies of the rows
are removed, table by table.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from sqlalchemy import Connection, text
from sqlalchemy.exc import IntegrityError

from headgate_server.core.errors import SetupError
from headgate_server.store.citus.catalog import DISTRIBUTED, REFERENCE, has_citus, placed
from headgate_server.store.postgres.database import PostgresDatabase
from headgate_server.store.postgres.errors import DRIVER_ERRORS, describe

IN_ORDER = "SELECT set_config('citus.multi_shard_modify_mode', 'sequential', true)"
"""Citus changes one shard after another then, as it must within a transaction that does more than one thing."""

LOCK_TIMEOUT = 30
"""Seconds to wait for each table, until the transactions in progress have ended."""


class Step(NamedTuple):
    """One change, and what is said of it."""

    summary: str
    statements: Sequence[str]

    def do(self, connection: Connection) -> None:
        """Execute its statements in the caller's transaction."""
        for statement in self.statements:
            connection.execute(text(statement))


def missing(connection: Connection) -> list[Step]:
    """Return what there is to do, in order. Raises `SetupError` if a table is where it must not be."""
    found = placed(connection)
    steps = []
    if "events" not in found:
        steps.append(_IDENTITIES)
    for name in REFERENCE:
        if _kind(found, name, "reference") is None:
            call = f"SELECT create_reference_table('{name}')"
            steps.append(Step(f"{name}: to every node", [call]))
    for name in DISTRIBUTED:
        if _kind(found, name, "distributed") is None:
            beside = "none" if name == DISTRIBUTED[0] else DISTRIBUTED[0]
            call = f"SELECT create_distributed_table('{name}', 'workspace_id', colocate_with => '{beside}')"
            steps.append(Step(f"{name}: to the node of its workspace", [call]))
    return steps


def _kind(found: Mapping[str, str], name: str, wanted: str) -> str | None:
    kind = found.get(name)
    if kind not in (None, wanted):
        raise SetupError(f"The table {name} is a {kind} table of Citus; it has to be a {wanted} table.")
    return kind


# A constraint of a distributed table must compare the workspace itself; the exclusion constraint compares an
# expression. A unique index does both: it guards, and every plan of a look-up uses it.
_IDENTITIES = Step(
    "events: the guard of identities becomes a unique index",
    [
        "ALTER TABLE events DROP CONSTRAINT IF EXISTS events_dedupe_key",
        "DROP INDEX IF EXISTS events_dedupe_key",
        "CREATE UNIQUE INDEX events_dedupe_key ON events (workspace_id, dedupe) WHERE dedupe IS NOT NULL",
    ],
)


async def distribute(url: str, say: Callable[[str], None], *, dry_run: bool = False) -> bool:
    """Distribute the tables of a store that has the newest schema, and say each step. Return whether there was any.

    Raises `SetupError`; nothing is changed then.
    """
    database = await PostgresDatabase.open(url, as_is=True)
    try:
        steps = await database.alone(_planned)
        for step in steps:
            say(step.summary)
        if dry_run:
            return bool(steps)
        if steps:
            await database.alone(_do)
        for name in (*DISTRIBUTED, *reversed(REFERENCE)):
            await database.alone(_removal(name))
        return bool(steps)
    except IntegrityError as error:
        raise SetupError(
            "Two events have one identity: `headgate ledger verify` names them. Nothing was changed."
        ) from error
    except DRIVER_ERRORS as error:
        raise SetupError(f"The tables cannot be distributed: {describe(error)}. Nothing was changed.") from error
    finally:
        await database.close()


def _planned(connection: Connection) -> list[Step]:
    """Return what there is to do. Raises `SetupError` if the database is not ready for it."""
    if not has_citus(connection):
        raise SetupError("The database has no Citus: CREATE EXTENSION citus, on every node.")
    if not connection.execute(text("SELECT EXISTS (SELECT FROM pg_dist_node WHERE groupid = 0)")).scalar_one():
        raise SetupError(
            "The coordinator has no address that the nodes know: "
            "SELECT citus_set_coordinator_host('its name', its port), on the coordinator."
        )
    return missing(connection)


def _do(connection: Connection) -> None:
    """Do everything that there is to do: another process may have done it meanwhile."""
    connection.execute(text(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}s'"))
    connection.execute(text(IN_ORDER))
    steps = missing(connection)
    if steps:
        tables = ", ".join((*REFERENCE, *DISTRIBUTED))
        connection.execute(text(f"LOCK TABLE {tables} IN ACCESS EXCLUSIVE MODE"))
    for step in steps:
        step.do(connection)


def _removal(name: str) -> Callable[[Connection], None]:
    """Return what removes the coordinator's own copy of a table's rows."""

    def work(connection: Connection) -> None:
        connection.execute(text(f"SELECT truncate_local_data_after_distributing_table('{name}')"))

    return work
