"""A server of the last release runs on the schema of the next one, and starts on it."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from alembic import command
from alembic.config import Config
from click.testing import CliRunner
from sqlalchemy import Connection, inspect, text

from headgate_server.cli.commands import headgate
from headgate_server.core.errors import SetupError
from headgate_server.store import Store, migrate
from headgate_server.store.opening import open_store
from headgate_server.store.postgres.database import PostgresDatabase
from headgate_server.store.postgres.target import parse
from headgate_server.store.sqlite.database import SqliteDatabase
from tests.support import database, postgres
from tests.support.drafts import append, draft


class Shape(NamedTuple):
    """What the statements of a program rely on: of each table its columns, its primary key and its constraints."""

    columns: dict[str, dict[str, Any]]
    """By name: type, nullable, and whether there is a default."""
    key: tuple[str, ...]
    unique: frozenset[str]
    """The constraints and indexes that refuse rows."""


def _upgrade_to(connection: Connection, revision: str) -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(migrate.__file__).parent / "migrations"))
    config.attributes["connection"] = connection
    command.upgrade(config, revision)


def _shapes(connection: Connection) -> dict[str, Shape]:
    seen = inspect(connection)
    return {
        table: Shape(
            {
                column["name"]: {
                    "type": str(column["type"]),
                    "nullable": column["nullable"],
                    "default": column["default"] is not None or column.get("identity") is not None,
                }
                for column in seen.get_columns(table)
            },
            tuple(seen.get_pk_constraint(table)["constrained_columns"]),
            frozenset(
                [f"{one['name']}{one['column_names']}" for one in seen.get_unique_constraints(table)]
                + [f"{one['name']}{one['column_names']}" for one in seen.get_indexes(table) if one["unique"]]
                + [str(one["sqltext"]) for one in seen.get_check_constraints(table)]
                + [str(one["constrained_columns"]) for one in seen.get_foreign_keys(table)]
            ),
        )
        for table in seen.get_table_names()
        if table != "alembic_version"
    }


def _faults(old: dict[str, Shape], new: dict[str, Shape]) -> list[str]:
    """Return what a program that knows the old shapes would fail on."""
    faults = [f"{table} is gone" for table in old if table not in new]
    for table in old.keys() & new.keys():
        before, after = old[table], new[table]
        for name, column in before.columns.items():
            if after.columns.get(name) != column:
                faults.append(f"{table}.{name} was {column} and is {after.columns.get(name)}")
        for name in after.columns.keys() - before.columns.keys():
            if not after.columns[name]["nullable"] and not after.columns[name]["default"]:
                faults.append(f"{table}.{name} is required")
        if before.key != after.key or after.unique - before.unique:
            faults.append(f"{table} refuses other rows than before")
    return faults


@pytest.fixture(params=["sqlite", "postgres"])
async def empty(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    """Return a store without a schema, of each dialect."""
    if request.param == "sqlite":
        store = Store(SqliteDatabase(tmp_path / "headgate.db", lambda: 0, None))
        yield store
        await store.close()
        return
    await asyncio.to_thread(postgres.ensure_started)
    async with postgres.fresh_database("template1") as url:
        store = Store(PostgresDatabase(parse(url), pooler=False))
        yield store
        await store.close()


async def test_every_migration_only_adds_unless_it_says_otherwise(empty: Store) -> None:
    """A server that knows the revision before reads and writes the same columns as before, and no row is refused."""

    async def shapes_after(revision: str) -> dict[str, Shape]:
        await empty.database.write(lambda connection: _upgrade_to(connection, revision))
        return await empty.database.write(_shapes)

    every = migrate.steps()
    shapes = [await shapes_after(step.revision) for step in every]
    faults = {step.revision: _faults(old, new) for old, new, step in zip(shapes, shapes[1:], every[1:], strict=False)}
    assert {revision for revision, found in faults.items() if found} <= {
        step.revision for step in every if not step.runs_older
    }


async def test_the_rule_sees_what_an_older_server_would_fail_on(empty: Store) -> None:
    await empty.database.write(lambda connection: _upgrade_to(connection, "head"))
    before = await empty.database.write(_shapes)
    for change in (
        "ALTER TABLE heads ADD COLUMN more INTEGER NOT NULL DEFAULT 0",
        "ALTER TABLE heads ADD COLUMN other INTEGER",
        "CREATE TABLE new (id INTEGER PRIMARY KEY)",
    ):
        await empty.database.write(lambda connection, change=change: connection.execute(text(change)).close())
    assert _faults(before, await empty.database.write(_shapes)) == []
    for change, fault in (
        ("CREATE UNIQUE INDEX one ON heads (hash)", "heads refuses other rows than before"),
        ("ALTER TABLE api_keys DROP COLUMN expires_at", "api_keys.expires_at was"),
        ("ALTER TABLE rates RENAME COLUMN arrival TO arrived", "rates.arrived is required"),
        ("DROP TABLE answers", "answers is gone"),
    ):
        await empty.database.write(lambda connection, change=change: connection.execute(text(change)).close())
        assert any(found.startswith(fault) for found in _faults(before, await empty.database.write(_shapes)))


async def test_an_older_server_starts_on_a_newer_schema_that_allows_it(store_url: str) -> None:
    await (await open_store(store_url)).close()
    newest = migrate.steps()[-1].revision
    for change in (
        "ALTER TABLE heads ADD COLUMN of_the_future TEXT",
        "UPDATE alembic_version SET version_num = '9999'",
        f"UPDATE properties SET value = '{newest}' WHERE name = 'runs_since'",
    ):
        await database.execute(store_url, change)
    store = await open_store(store_url)
    try:
        workspace = await store.directory.create_workspace("acme")
        assert [one.status for one in await append(store, workspace.id, draft("a"))] == ["accepted"]
        assert await store.migrations.missing() == []
        assert await store.migrations.revision() == "9999"
    finally:
        await store.close()
    assert await database.execute(store_url, "SELECT version_num FROM alembic_version") == [("9999",)]


def test_the_oldest_program_that_runs_on_a_schema() -> None:
    def step(revision: str, runs_older: bool) -> migrate.Step:
        return migrate.Step(revision, "", "", runs_older)

    assert migrate.runs_since([step("1", True), step("2", False), step("3", True), step("4", True)]) == "2"
    assert migrate.runs_since([step("1", True), step("2", True)]) == "1"


def test_migrate_says_what_it_does_and_does_it_once(tmp_path: Path) -> None:
    def run(*arguments: str) -> list[str]:
        done = CliRunner().invoke(headgate, ["migrate", "--data-dir", str(tmp_path / "data"), *arguments])
        assert done.exit_code == 0, done.stderr
        return done.stdout.splitlines()

    planned = run("--dry-run")
    assert len(planned) == len(migrate.steps()) + 1
    assert any(line.startswith("0003  ") and "LOCKS events" in line for line in planned)
    assert planned[-1] == "nothing was changed"
    assert not (tmp_path / "data").exists()
    assert run() == [*planned[:-1], "the schema is up to date"]
    assert run() == run("--dry-run") == ["nothing to do"]


async def test_a_workspace_of_the_reserved_name_stops_the_migration(store: Store, store_url: str) -> None:
    """No version could create one. One that was made by hand must not make its keys those of operators."""
    await store.directory.create_workspace("_headgate")
    for change in (
        *(f"ALTER TABLE api_keys DROP COLUMN {name}" for name in ("name", "limits", "last_used_at", "successor")),
        "UPDATE alembic_version SET version_num = '0010'",
        "INSERT INTO api_keys (id, digest, prefix, workspace_id, scopes, created_at)"
        " SELECT 'key_1', hash, 'hg_', workspace_id, 'admin', 1 FROM heads",
    ):
        await database.execute(store_url, change)
    await store.close()
    with pytest.raises(SetupError, match="named '_headgate', made by hand"):
        await open_store(store_url)
    assert await database.execute(store_url, "SELECT version_num FROM alembic_version") == [("0010",)]
    await database.execute(store_url, "UPDATE workspaces SET name = 'other'")
    again = await open_store(store_url)
    (key,) = await again.directory.list_keys()
    assert (key.workspace.name, key.name, key.limits.calls) == ("other", "", None)
    await again.close()


async def test_migrate_leaves_what_is_stored(store: Store, store_url: str) -> None:
    """A store of revision 0009 gets the rest, and its identities stay."""
    workspace = await store.directory.create_workspace("acme")
    await append(store, workspace.id, draft("a"))
    await store.close()
    for change in database.BACK_TO_0009:
        await database.execute(store_url, change)
    looked = await open_store(store_url, as_is=True)
    assert next(step.revision for step in await looked.migrations.missing()) == "0010"
    await looked.close()
    again = await open_store(store_url)
    assert await again.migrations.missing() == []
    assert [one.status for one in await append(again, workspace.id, draft("a"))] == ["duplicate"]
    await again.close()
