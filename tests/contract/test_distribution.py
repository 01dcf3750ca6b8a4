"""`headgate migrate --citus`, on an ordinary PostgreSQL with a stand-in for Citus's catalog."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import asyncpg
import pytest
from click.testing import CliRunner

from headgate_server.access import admin
from headgate_server.cli.migrate import migrate
from headgate_server.core.errors import SetupError
from headgate_server.core.model import Status
from headgate_server.store.citus.catalog import DISTRIBUTED, REFERENCE
from headgate_server.store.citus.database import CitusDatabase
from headgate_server.store.opening import open_store
from headgate_server.store.postgres import alone
from headgate_server.store.postgres.alone import MIGRATING
from tests.support import citus, database
from tests.support.drafts import append, draft
from tests.support.waiting import until

_PLACED = "SELECT logicalrelid::text FROM pg_dist_partition"
_GUARD = "SELECT count(*) FROM pg_constraint WHERE conname = 'events_dedupe_key'"


async def _run(url: str, *statements: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        for statement in statements:
            await connection.execute(statement)
    finally:
        await connection.close()


async def _placed(url: str) -> set[str]:
    return {name for (name,) in await database.execute(url, _PLACED)}


@pytest.fixture
async def filled_url(postgres_url: str) -> str:
    """Return the URL of a store with events, on a database that seems to have Citus."""
    store = await open_store(postgres_url)
    acme = await store.directory.create_workspace("acme")
    await append(store, acme.id, draft("k"), draft())
    await store.close()
    await _run(postgres_url, citus.STAND_IN)
    return postgres_url


async def test_a_store_with_events_is_distributed_once(filled_url: str) -> None:
    said: list[str] = []
    assert await admin.distribute(filled_url, said.append, dry_run=True)
    assert await _placed(filled_url) == set()
    assert await database.execute(filled_url, _GUARD) == [(1,)]
    assert await admin.distribute(filled_url, said.append)
    half = len(said) // 2
    assert said[:half] == said[half:], "the dry run says what is done"
    assert await _placed(filled_url) == {*DISTRIBUTED, *REFERENCE}
    assert all(any(line.startswith(f"{name}: ") for line in said) for name in (*DISTRIBUTED, *REFERENCE))
    assert not await admin.distribute(filled_url, said.append)
    assert len(said) == 2 * half
    store = await open_store(filled_url)
    try:
        assert isinstance(store.database, CitusDatabase)
        acme = await store.directory.create_workspace("acme")
        outcomes = await append(store, acme.id, draft("k"), draft("new"))
        assert [outcome.status for outcome in outcomes] == [Status.DUPLICATE, Status.ACCEPTED]
        reports = [report async for report in admin.verify_ledgers(store.proof, None)]
        assert [(report.workspace.name, report.events_checked, len(report.breaks)) for report in reports] == [
            ("acme", 3, 0)
        ]
    finally:
        await store.close()
    with pytest.raises(asyncpg.UniqueViolationError):
        await _run(
            filled_url,
            "UPDATE events SET dedupe = (SELECT dedupe FROM events WHERE sequence = 1) WHERE sequence = 2",
        )


async def test_what_fails_half_way_changes_nothing_and_is_repeated(filled_url: str) -> None:
    refusing = "ALTER TABLE pg_dist_partition ADD CONSTRAINT refused CHECK (logicalrelid <> 'rates'::regclass)"
    await _run(filled_url, refusing)
    with pytest.raises(SetupError, match="Nothing was changed"):
        await admin.distribute(filled_url, lambda _: None)
    assert await _placed(filled_url) == set()
    assert await database.execute(filled_url, _GUARD) == [(1,)]
    await _run(filled_url, "ALTER TABLE pg_dist_partition DROP CONSTRAINT refused")
    assert await admin.distribute(filled_url, lambda _: None)


async def test_two_events_of_one_identity_are_refused(filled_url: str) -> None:
    await _run(
        filled_url,
        *database.unguarded(filled_url),
        "UPDATE events SET dedupe = (SELECT dedupe FROM events WHERE sequence = 1) WHERE sequence = 2",
    )
    with pytest.raises(SetupError, match="ledger verify"):
        await admin.distribute(filled_url, lambda _: None)
    assert await _placed(filled_url) == set()


async def test_a_table_of_a_later_migration_is_distributed_with_it(distributed_url: str) -> None:
    await _run(distributed_url, "DELETE FROM pg_dist_partition WHERE logicalrelid = 'rejections'::regclass")
    await (await open_store(distributed_url)).close()
    assert "rejections" in await _placed(distributed_url)


Changing = Callable[..., Awaitable[None]]


@pytest.fixture
async def changing(filled_url: str) -> AsyncIterator[Changing]:
    """Hold the lock of a process that changes the schema of the store. Yield a function that executes statements in its
    transaction, as soon as another process waits, and commits.
    """
    connection = await asyncpg.connect(filled_url)

    async def another_waits() -> bool:
        return bool(
            await connection.fetchval(
                "SELECT count(*) FROM pg_locks JOIN pg_database ON pg_database.oid = database"
                " WHERE datname = current_database() AND locktype = 'advisory' AND NOT granted"
            )
        )

    async def finish(*statements: str) -> None:
        await until(another_waits)
        for statement in (*statements, "COMMIT"):
            await connection.execute(statement)

    try:
        await connection.execute(f"BEGIN; SELECT pg_advisory_xact_lock({MIGRATING})")
        yield finish
    finally:
        await connection.close()


async def test_a_server_that_starts_meanwhile_waits_and_then_knows_where_the_tables_are(
    filled_url: str, changing: Changing
) -> None:
    opening = asyncio.create_task(open_store(filled_url))
    await changing(
        *(f"SELECT create_reference_table('{name}')" for name in REFERENCE),
        *(f"SELECT create_distributed_table('{name}', 'workspace_id', 'none')" for name in DISTRIBUTED),
    )
    store = await opening
    try:
        assert isinstance(store.database, CitusDatabase)
    finally:
        await store.close()


async def test_only_a_long_wait_is_explained(
    filled_url: str, changing: Changing, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(alone, "NOTICE", 0.0)
    opening = asyncio.create_task(open_store(filled_url))

    async def said() -> list[str]:
        return caplog.messages

    assert await until(said) == ["Waiting for another process, which changes the schema of the store's database."]
    await changing()
    await (await opening).close()
    caplog.clear()
    monkeypatch.setattr(alone, "NOTICE", 3600.0)
    await (await open_store(filled_url)).close()
    assert caplog.messages == []


async def test_a_database_that_is_not_ready_is_refused(postgres_url: str) -> None:
    with pytest.raises(SetupError, match="CREATE EXTENSION citus"):
        await admin.distribute(postgres_url, lambda _: None)
    await _run(postgres_url, citus.STAND_IN, "DELETE FROM pg_dist_node")
    with pytest.raises(SetupError, match="citus_set_coordinator_host"):
        await admin.distribute(postgres_url, lambda _: None)


async def test_a_table_in_the_wrong_place_is_refused(distributed_url: str) -> None:
    await _run(
        distributed_url, "UPDATE pg_dist_partition SET partkey = 'id' WHERE logicalrelid = 'workspaces'::regclass"
    )
    with pytest.raises(SetupError, match="workspaces is a distributed table"):
        await open_store(distributed_url)


async def test_a_node_that_would_lose_events_is_refused(distributed_url: str) -> None:
    await _run(
        distributed_url,
        "CREATE OR REPLACE FUNCTION"
        " run_command_on_all_nodes(command text, OUT nodeid int, OUT success bool, OUT result text)"
        " LANGUAGE sql AS $$ SELECT 1, true, 'off on' $$",
    )
    with pytest.raises(SetupError, match="node localhost:5432 runs with fsync=off"):
        await open_store(distributed_url)


def test_a_store_in_a_file_has_no_nodes(tmp_path: Path) -> None:
    result = CliRunner().invoke(migrate, ["--data-dir", str(tmp_path), "--citus"])
    assert result.exit_code != 0
    assert "PostgreSQL" in str(result.output) + str(result.exception)
