"""Cells that do not have the type or the length of their column: a check names each, and sees everything else.

SQLite keeps any type in any column. A row of the table in docs/design/ledger.md says how such a cell shows.
"""

from collections.abc import Sequence

import pytest

from headgate_server.core import ledger
from headgate_server.core.model import Mismatch
from headgate_server.reading.verify import verify
from headgate_server.store.schema import events as events_table
from tests.support.drafts import append, draft
from tests.support.tampering import CHAIN, CONTENT, COUNT, HASH, HEAD, Tampered, check, reports


@pytest.fixture
async def sqlite_store(tampered: Tampered) -> Tampered:
    """Return the tampered store on SQLite, whose columns accept values of every type."""
    if not tampered.url.startswith("sqlite"):
        pytest.skip("PostgreSQL's columns take values of their own type alone")
    return tampered


async def test_null_where_there_is_none(tampered: Tampered) -> None:
    """A person who can change rows can usually change the tables too."""
    columns = [column.name for column in events_table.columns if not column.nullable and not column.primary_key]
    await _allow_null(tampered, "events", columns)
    wanted = {"sequence": CHAIN, "created_at": HASH, "receiver": HASH, "event_hash": HASH}
    for column in columns:
        for place in (1, 3, COUNT):
            await tampered.change(f"UPDATE events SET {column} = NULL WHERE sequence = {place}")
            found = await tampered.found()
            assert (place, wanted.get(column, CONTENT)) in found, column
            await tampered.restore()
    columns = ["sequence", "hash", "created_at", "month", "month_events"]
    await _allow_null(tampered, "heads", columns)
    for column in columns:
        await tampered.change(f"UPDATE heads SET {column} = NULL")
        await check(tampered, column, {(COUNT, HEAD)})
        await tampered.restore()


async def _allow_null(tampered: Tampered, table: str, columns: Sequence[str]) -> None:
    if tampered.url.startswith("sqlite"):
        await tampered.change(
            "PRAGMA writable_schema = ON",
            f"UPDATE sqlite_schema SET sql = replace(sql, ' NOT NULL', '') WHERE name = '{table}'",
            "PRAGMA writable_schema = RESET",
        )
        return
    for column in columns:
        await tampered.change(f"ALTER TABLE {table} ALTER COLUMN {column} DROP NOT NULL")


_CELLS = ("'abc'", "x'ff'", "x''", "7", "1.5", "CAST(x'ff' AS TEXT)", "x'0001020304050607'")
"""Values of every type, which SQLite keeps in any column; one is a text that is not UTF-8."""


@pytest.mark.parametrize("place", [1, COUNT])
async def test_a_cell_of_another_type(sqlite_store: Tampered, place: int) -> None:
    kinds = {"sequence": CHAIN} | dict.fromkeys(
        ("type", "source", "subject", "occurred_at", "data", "attributes", "salt", "commitment"), CONTENT
    )
    columns = [column.name for column in events_table.columns if not column.primary_key]
    for column in columns:
        for value in _CELLS:
            what = f"UPDATE events SET {column} = {value} WHERE sequence = {place}"
            await sqlite_store.change(what, "UPDATE events SET type = 'changed' WHERE sequence = 2")
            found = await sqlite_store.found()
            assert (place, kinds.get(column, HASH)) in found or column == "sequence", what
            assert {kind for sequence, kind in found if sequence != 2}, what
            # The break of the other changed event shows as well.
            assert (2, CONTENT) in found, what
            await sqlite_store.restore()


async def test_an_id_of_another_type_or_length(sqlite_store: Tampered) -> None:
    for value in (*_CELLS, "NULL", "id || x'00'", "substr(id, 1, 15)", "CAST(id AS TEXT)"):
        if value == "NULL":
            await _allow_null(sqlite_store, "events", ["id"])
        for place in (1, 3, COUNT):
            what = f"UPDATE events SET id = {value} WHERE sequence = {place}"
            await sqlite_store.change(what)
            found = await sqlite_store.found()
            assert (place, HASH) in found, what
            assert await sqlite_store.found(limit=1) == await sqlite_store.found(limit=4) == found, what
            assert await sqlite_store.found(expected=sqlite_store.head) >= found, what
            await sqlite_store.restore()


async def test_a_holder_of_an_identity_with_a_cell_of_another_type(sqlite_store: Tampered) -> None:
    """A replaced event leads the check to the event that replaced it, whatever that holds."""
    workspace = sqlite_store.workspace.id
    await append(sqlite_store.store, workspace, draft("k3", {"n": 300}, on_mismatch=Mismatch.REPLACE))
    assert await sqlite_store.found() == set()
    for column in ("id", "salt", "commitment", "event_hash", "created_at"):
        await sqlite_store.change("CREATE TABLE holder AS SELECT * FROM events WHERE sequence = 7")
        for value in _CELLS:
            what = f"UPDATE events SET {column} = {value} WHERE sequence = 7"
            await sqlite_store.change(what)
            assert {sequence for sequence, _ in await sqlite_store.found()} >= {7}, what
            await sqlite_store.change(
                "DELETE FROM events WHERE sequence = 7", "INSERT INTO events SELECT * FROM holder"
            )
        await sqlite_store.change("DROP TABLE holder")


async def test_many_ids_of_another_type(sqlite_store: Tampered) -> None:
    """A page ends only at an id that a token can hold: rows with other ids are checked with their page."""
    await sqlite_store.change(
        "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 3000)"
        " INSERT INTO events SELECT workspace_id, 'forged' || i, 7000 + i, created_at, receiver, type, source, subject,"
        " occurred_at, data, NULL, NULL, NULL, salt, commitment, event_hash, NULL"
        " FROM events JOIN n WHERE sequence = 2"
    )
    page = await verify(sqlite_store.store.proof, sqlite_store.workspace, limit=2)
    assert page.events_checked > 3000
    assert page.resume is not None
    assert len(page.breaks) == ledger.MAX_BREAKS


async def test_a_head_and_a_workspace_of_another_type(sqlite_store: Tampered) -> None:
    for column in ("sequence", "hash", "created_at", "month", "month_events"):
        for value in _CELLS:
            await sqlite_store.change(f"UPDATE heads SET {column} = {value}")
            assert {kind for _, kind in await sqlite_store.found()} == {HEAD}, (column, value)
            await sqlite_store.restore()
    for value in ("x'ff'", "CAST(x'ff' AS TEXT)", "'other'"):
        await sqlite_store.change(f"UPDATE workspaces SET name = {value}, rates = 'no JSON'")
        ((_, breaks),) = (await reports(sqlite_store.store)).items()
        assert breaks >= {(1, HASH)}, value
        await sqlite_store.restore()
