"""The schema equals the sum of its migrations, and they run on stores that hold events."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, text

from headgate_server.core.errors import SetupError
from headgate_server.reading.verify import verify
from headgate_server.store import Store, migrate
from headgate_server.store.opening import open_store
from headgate_server.store.postgres.database import PostgresDatabase
from headgate_server.store.postgres.target import parse
from headgate_server.store.schema import metadata
from tests.support import database, postgres
from tests.support.drafts import append, draft

_CONSTRAINTS = text(
    "SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid) FROM pg_constraint"
    " WHERE connamespace = current_schema()::regnamespace AND conrelid::regclass::text <> 'alembic_version'"
    " ORDER BY 1, 2"
)


async def test_the_schema_is_the_sum_of_the_migrations(store: Store) -> None:
    def differences(connection: Connection) -> list[object]:
        # Alembic compares the indexes of every dialect.
        elsewhere = "events_dedupe_key" if connection.dialect.name == "postgresql" else None
        options = {"compare_type": True, "include_object": lambda _, name, *__: name != elsewhere}
        return list(compare_metadata(MigrationContext.configure(connection, opts=options), metadata))

    assert await store.database.read(differences) == []


async def test_the_constraints_are_the_sum_of_the_migrations(postgres_url: str) -> None:
    """Alembic compares neither exclusion constraints nor conditions: compare PostgreSQL's own definitions."""

    def constraints(connection: Connection) -> list[tuple[str, ...]]:
        return [tuple(row) for row in connection.execute(_CONSTRAINTS)]

    def both(connection: Connection) -> tuple[list[tuple[str, ...]], list[tuple[str, ...]]]:
        migrated = constraints(connection)
        connection.execute(text("CREATE SCHEMA declared"))
        connection.execute(text("SET LOCAL search_path = declared"))
        metadata.create_all(connection, checkfirst=False)
        return migrated, constraints(connection)

    store = await open_store(postgres_url)
    try:
        migrated, declared = await store.database.write(both)
    finally:
        await store.close()
    assert migrated == declared
    guard = "EXCLUDE USING hash (((int8send(workspace_id) || dedupe)) WITH =) WHERE ((dedupe IS NOT NULL))"
    assert ("events", "events_dedupe_key", guard) in migrated


def _upgrade_to(connection: Connection, revision: str) -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(migrate.__file__).parent / "migrations"))
    config.attributes["connection"] = connection
    command.upgrade(config, revision)


@pytest.fixture
async def unguarded_url(postgres_server: None) -> AsyncIterator[str]:
    """Return the URL of a store as it was before 0003, with three events with keys and two without."""
    async with postgres.fresh_database("template1") as url:
        store = Store(PostgresDatabase(parse(url), pooler=False))
        try:
            await store.database.write(lambda connection: _upgrade_to(connection, "0002"))
            workspace = (await store.directory.create_workspace("acme")).id
            # Today's append also writes a column that a later migration adds.
            await database.execute(url, "ALTER TABLE events ADD COLUMN attributes bytea")
            await append(store, workspace, draft("a"), draft("b"), draft(), draft("c"), draft())
            await database.execute(url, "ALTER TABLE events DROP COLUMN attributes")
        finally:
            await store.close()
        yield url


async def test_identities_stay_unique_when_their_index_is_replaced(unguarded_url: str) -> None:
    store = await open_store(unguarded_url)
    try:
        workspace = (await store.directory.create_workspace("acme")).id
        outcomes = await append(store, workspace, draft("b"), draft("d"), draft("c"))
        assert [outcome.status for outcome in outcomes] == ["duplicate", "accepted", "duplicate"]
        assert (await store.ledgers.head(workspace)).sequence == 6
    finally:
        await store.close()
    kinds = "SELECT amname FROM pg_class AS c JOIN pg_am AS a ON a.oid = c.relam WHERE relname = 'events_dedupe_key'"
    assert await database.execute(unguarded_url, kinds) == [("hash",)]


async def test_an_identity_that_is_there_twice_stops_the_migration(unguarded_url: str) -> None:
    for statement in (
        "DROP INDEX events_dedupe_key",
        "CREATE INDEX events_dedupe_key ON events (workspace_id, dedupe)",
        "UPDATE events SET dedupe = (SELECT dedupe FROM events WHERE sequence = 1) WHERE sequence = 2",
    ):
        await database.execute(unguarded_url, statement)
    with pytest.raises(SetupError, match='could not create exclusion constraint "events_dedupe_key"'):
        await open_store(unguarded_url)
    # The whole migration was undone.
    assert await database.execute(unguarded_url, "SELECT version_num FROM alembic_version") == [("0002",)]
    index = "SELECT count(*) FROM pg_indexes WHERE indexname = 'events_dedupe_key' AND indexdef LIKE '%btree%'"
    assert await database.execute(unguarded_url, index) == [(1,)]


async def test_a_month_is_counted_again(store_url: str) -> None:
    """Events may have been stored before the count existed."""
    store = await open_store(store_url)
    workspace = await store.directory.create_workspace("acme")
    other = await store.directory.create_workspace("empty")
    await append(store, workspace.id, draft("a"), draft("b"), draft())
    await store.close()
    counts = "SELECT month, month_events FROM heads ORDER BY sequence"
    counted = await database.execute(store_url, counts)
    assert [events for _, events in counted] == [0, 3]
    for change in (
        "UPDATE heads SET month = 0, month_events = 0",
        "DROP TABLE leases",
        "DROP TABLE cursors",
        "DROP TABLE destinations",
        "DROP TABLE failures",
        "DROP TABLE rejections",
        "DROP TABLE omitted_rejections",
        "ALTER TABLE events DROP COLUMN attributes",
        "DROP TABLE event_types",
        "DROP TABLE properties",
        *(f"ALTER TABLE api_keys DROP COLUMN {name}" for name in ("name", "limits", "last_used_at", "successor")),
        "ALTER TABLE workspaces DROP COLUMN types_revision",
        "ALTER TABLE workspaces DROP COLUMN unknown_types",
        "UPDATE alembic_version SET version_num = '0003'",
    ):
        await database.execute(store_url, change)
    store = await open_store(store_url)
    try:
        assert await database.execute(store_url, counts) == counted
        assert [(await verify(store.proof, one, limit=10)).breaks for one in (workspace, other)] == [[], []]
    finally:
        await store.close()
