"""Databases with distributed tables: on a real Citus, or on an ordinary PostgreSQL with a stand-in for its catalog.

With the stand-in every table is where it was, but the store believes that it is distributed, and takes that path.
"""

import os
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import pytest

from headgate_server.core.errors import SetupError
from headgate_server.store.citus.catalog import DISTRIBUTED, LOCAL, REFERENCE
from headgate_server.store.citus.distribution import distribute
from headgate_server.store.opening import open_store
from tests.support import postgres

VARIABLE = "HEADGATE_TEST_CITUS"
"""The environment variable with the URL of a database on a real Citus. The tests delete what is in it."""

STAND_IN = """
CREATE TABLE pg_dist_partition (logicalrelid regclass PRIMARY KEY, partkey text);
CREATE TABLE pg_dist_node (
    nodeid int, groupid int, nodename text, nodeport int, isactive bool DEFAULT true, shouldhaveshards bool DEFAULT true
);
INSERT INTO pg_dist_node VALUES (1, 0, 'localhost', 5432);
CREATE FUNCTION create_distributed_table(name text, col text, colocate_with text) RETURNS void LANGUAGE sql
    AS 'INSERT INTO pg_dist_partition VALUES (name::regclass, col)';
CREATE FUNCTION create_reference_table(name text) RETURNS void LANGUAGE sql
    AS 'INSERT INTO pg_dist_partition VALUES (name::regclass, NULL)';
CREATE FUNCTION truncate_local_data_after_distributing_table(name text) RETURNS void LANGUAGE sql AS '';
CREATE FUNCTION run_command_on_all_nodes(command text, OUT nodeid int, OUT success bool, OUT result text)
    LANGUAGE plpgsql
    AS 'BEGIN nodeid := 1; success := true; EXECUTE command INTO result; END';
"""
"""What the store uses of Citus."""


async def pretend(url: str) -> None:
    """Make a database believe that its tables are distributed."""
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(STAND_IN)
    finally:
        await connection.close()
    await distribute(url, lambda _: None)


async def make_template() -> str:
    """Make a database that believes that its tables are distributed, and return its name."""
    name = f"template_{uuid.uuid4().hex}"
    await postgres.make_database(name)
    await pretend(postgres.url(name))
    return name


@asynccontextmanager
async def emptied() -> AsyncIterator[str]:
    """Yield the URL of the real Citus, without any rows. One test uses it at a time."""
    url = os.environ.get(VARIABLE)
    if not url:
        pytest.skip(f"no Citus: {VARIABLE}=postgresql://… names a database whose content may be deleted")
    connection = await asyncpg.connect(url)
    try:
        assert "test" in await connection.fetchval("SELECT current_database()"), "its name must contain 'test'"
        await connection.execute("SELECT pg_advisory_lock(1)")
        try:
            await _empty(url, connection)
        except (SetupError, asyncpg.PostgresError):
            # The test before has changed the schema.
            await connection.execute(f"DROP TABLE IF EXISTS alembic_version, {', '.join(_TABLES)} CASCADE")
            await _empty(url, connection)
        yield url
    finally:
        await connection.close()


_TABLES = (*DISTRIBUTED, *reversed(REFERENCE), *LOCAL)


async def _empty(url: str, connection: "asyncpg.Connection[asyncpg.Record]") -> None:
    """Make the tables that are missing, and delete the rows of all."""
    for (left,) in await connection.fetch(
        "SELECT tablename FROM pg_tables WHERE schemaname = 'public' AND tablename <> ALL ($1)",
        ["alembic_version", *_TABLES],
    ):
        await connection.execute(f"DROP TABLE {left}")
    await (await open_store(url)).close()
    await distribute(url, lambda _: None)
    for table in _TABLES:
        if table != "properties":
            await connection.execute(f"TRUNCATE {table} RESTART IDENTITY CASCADE")
