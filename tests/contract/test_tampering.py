"""Verification finds tampering with the database: every column, change, insertion and removal, on both stores.

A table in docs/design/ledger.md says how each of them shows; the cases below are its rows.
"""

import asyncio
import random
from collections.abc import Iterable

import pytest

from headgate_server.core import ledger
from headgate_server.core.model import Head, Mismatch, Workspace
from headgate_server.core.types import WorkspaceId
from headgate_server.reading.verify import verify
from headgate_server.store import Store
from headgate_server.store.opening import open_store
from headgate_server.store.schema import events as events_table
from headgate_server.store.schema import heads as heads_table
from tests.support import database
from tests.support.drafts import append, draft
from tests.support.tampering import CHAIN, CONTENT, COUNT, HASH, HEAD, YEAR, Tampered, check, reports


def _changes(tampered: Tampered) -> dict[str, list[tuple[str, str]]]:
    """Return for each column of `events` its changed value, and the break at its event."""

    def each(kind: str, *values: str) -> list[tuple[str, str]]:
        return [(value, kind) for value in values]

    some = tampered.sql
    return {
        "created_at": each(HASH, "created_at + 1", "created_at - 1", f"created_at + {YEAR}", "0", "-1"),
        "receiver": each(HASH, "'vendor'", "''", "receiver || ' '"),
        "type": each(CONTENT, "'other'", "''", "type || ' '"),
        "source": each(CONTENT, "'other'", "''"),
        "subject": each(CONTENT, "'other'", "''"),
        "occurred_at": each(CONTENT, "occurred_at + 1", "0", "NULL"),
        "data": each(CONTENT, "NULL", some(b"{}"), some(b'{"n":99}'), some(b'{"n": 3}'), some(b""), some(b"\xff")),
        "attributes": each(
            CONTENT, "NULL", some(b"{}"), some(b'{"n":99}'), some(b'{"n": 3}'), some(b""), some(b"\xff")
        ),
        "scope": each(HASH, "'other'", "''"),
        "key": each(HASH, "'other'", "''"),
        "dedupe": each(HASH, some(bytes(16)), some(b""), some(bytes(15)), some(bytes(17))),
        "salt": each(CONTENT, some(bytes(16)), some(b""), some(bytes(15)), some(bytes(17))),
        "commitment": each(CONTENT, some(bytes(32)), some(b""), some(bytes(31)), some(bytes(33))),
        "event_hash": each(HASH, some(bytes(32)), some(b""), some(bytes(31)), some(bytes(33))),
    }


@pytest.mark.parametrize("place", [3, COUNT])
async def test_every_changed_column(tampered: Tampered, place: int) -> None:
    changes = _changes(tampered)
    assert changes.keys() | {"workspace_id", "id", "sequence"} == {column.name for column in events_table.columns}
    for column, values in changes.items():
        for number, (value, kind) in enumerate(values):
            what = f"UPDATE events SET {column} = {value} WHERE sequence = {place}"
            await tampered.change(what)
            found = await tampered.found()
            assert (place, kind) in found, what
            # The changed cell breaks its own event and the links that depend on it, and nothing else.
            assert found <= {(place, CONTENT), (place, HASH), (place + 1, HASH), (COUNT, HEAD)}, what
            if number == 0:
                await check(tampered, what, found)
            await tampered.restore()
    assert await tampered.found() == set()


async def test_an_empty_column_of_an_identity(tampered: Tampered) -> None:
    """A keyed event that releases its identity, or a part of its name, although no later event takes it over."""
    for column in ("scope", "key", "dedupe"):
        await tampered.change(f"UPDATE events SET {column} = NULL WHERE sequence = 3")
        await check(tampered, column, {(3, HASH)})
        await tampered.restore()
    await tampered.change("UPDATE events SET scope = 'test' WHERE sequence = 2")
    await check(tampered, "a scope without a key", {(2, HASH)})


async def test_a_replaced_event_lets_go_of_its_identity(store: Store, tampered: Tampered) -> None:
    workspace = tampered.workspace.id
    for n in (1, 2, 3):
        await append(store, workspace, draft("k3", {"n": n * 100}, subject="s3", on_mismatch=Mismatch.REPLACE))
    assert await tampered.found() == await tampered.found(limit=1) == set()
    # The last of them releases it too: no event holds the identity.
    await tampered.change("UPDATE events SET dedupe = NULL WHERE sequence = 9")
    assert await tampered.found() == {(9, HASH)}


async def test_another_sequence(tampered: Tampered) -> None:
    for place in (1, 3, COUNT):
        for value in ("0", "-1", "sequence + 1", "sequence - 1", "500", str(2**63 - 1)):
            what = f"UPDATE events SET sequence = {value} WHERE sequence = {place}"
            await tampered.change(what)
            found = await tampered.found()
            assert {kind for _, kind in found} >= {CHAIN, HASH}, what
            await check(tampered, what, found)
            await tampered.restore()


async def test_another_id(tampered: Tampered) -> None:
    """An id that sorts as before, one at another place of the ledger, and one of another time at the same place."""
    old = tampered.events[2]
    for name, new in (
        ("other random bits", old.id[:9] + bytes(7)),
        ("before all", ledger.event_id(old.created_at - YEAR, bytes(8))),
        ("zeros", bytes(16)),
        ("behind all", ledger.event_id(old.created_at + YEAR, bytes(8))),
        ("ones", b"\xff" * 16),
    ):
        await tampered.change(f"UPDATE events SET id = {tampered.sql_id(new)} WHERE sequence = 3")
        found = await tampered.found()
        assert (3, HASH) in found, name
        assert await tampered.found(expected=tampered.head) >= found, name
        assert await tampered.found(limit=1) == await tampered.found(limit=4) == found, name
        await tampered.restore()


async def test_an_id_whose_time_is_not_created_at(tampered: Tampered) -> None:
    """All hashes are recomputed, so only the id's own time shows the change: later events would sort before it."""
    last = tampered.events[-1]
    event_id = ledger.event_id(last.created_at + YEAR, bytes(8))
    identity = b"" if last.key is None else ledger.identity(last.receiver, last.scope or "", last.key)
    sealed = ledger.event_hash(
        tampered.events[-2].event_hash, COUNT, last.created_at, event_id, identity, last.commitment, last.receiver
    )
    await tampered.change(
        f"UPDATE events SET id = {tampered.sql_id(event_id)}, event_hash = {tampered.sql(sealed)}"
        f" WHERE sequence = {COUNT}",
        f"UPDATE heads SET hash = {tampered.sql(sealed)}",
    )
    assert await tampered.found() == {(COUNT, HASH)}


async def test_an_event_of_another_workspace(store: Store, tampered: Tampered) -> None:
    other = await store.directory.create_workspace("other")
    for place in (1, 3, COUNT):
        await tampered.change(f"UPDATE events SET workspace_id = {other.id} WHERE sequence = {place}")
        found = await tampered.found()
        assert found, place
        # If it is not the last of the range, its absence shows at the next one; at the end the head shows it.
        await check(tampered, str(place), found, in_a_range=place != COUNT)
        page = await verify(store.proof, other, limit=100)
        assert {one.type for one in page.breaks} >= {HASH, HEAD}
        await tampered.change(f"UPDATE events SET workspace_id = {tampered.workspace.id} WHERE sequence = {place}")
        assert await tampered.found() == set()


_SEQUENCES = (-1, 0, 1, 3, 5, COUNT, COUNT + 1, 30, 500)


@pytest.mark.parametrize("where", ["before", "within", "behind", "far behind", "at the end of time"])
async def test_an_inserted_event(tampered: Tampered, where: str) -> None:
    """A copy of an event with any sequence, and with an id before, between and after the others."""
    first, last = tampered.events[0].created_at, tampered.events[-1].created_at
    event_id = {
        "before": ledger.event_id(first - 1, bytes(8)),
        "within": tampered.events[2].id[:9] + b"\xff" * 7,
        "behind": ledger.event_id(last + 1, bytes(8)),
        "far behind": ledger.event_id(last + YEAR, bytes(8)),
        "at the end of time": b"\xff" * 16,
    }[where]
    for number, sequence in enumerate(_SEQUENCES):
        for like in (tampered.events[0], tampered.events[-1]):
            what = f"{where}, {sequence}, as {like.sequence}"
            await tampered.change(tampered.insertion(like, event_id, sequence))
            found = await tampered.found()
            assert (sequence, HASH) in found, what
            if where.endswith(("behind", "time")) and not sequence == like.sequence == COUNT:
                assert any(kind == HEAD for _, kind in found), what
            if number % 4 == 0:
                await check(tampered, what, found, in_a_range=where != "at the end of time")
            await tampered.restore()


async def test_five_hundred_inserted_events(tampered: Tampered) -> None:
    last = tampered.events[-1]
    await tampered.change(
        *(
            tampered.insertion(last, ledger.event_id(last.created_at + n + 1, bytes(8)), n % (COUNT + 1))
            for n in range(500)
        )
    )
    page = await verify(tampered.store.proof, tampered.workspace, limit=10_000, expected=tampered.head)
    assert page.events_checked == COUNT + 500
    assert len({one.event_id for one in page.breaks}) >= 400
    assert {one.type for one in page.breaks} >= {CHAIN, HASH}


async def test_removed_events(tampered: Tampered) -> None:
    for which, wanted in (
        ("= 1", {(2, CHAIN), (2, HASH)}),
        ("= 3", {(4, CHAIN), (4, HASH)}),
        ("IN (3, 4)", {(5, CHAIN), (5, HASH)}),
        (f"= {COUNT}", {(COUNT, HEAD)}),
        ("> 3", {(COUNT, HEAD)}),
        ("> 0", {(COUNT, HEAD)}),
    ):
        await tampered.change(f"DELETE FROM events WHERE sequence {which}")
        assert await tampered.found() == wanted, which
        assert await tampered.found(limit=1) == wanted, which
        assert await tampered.found(expected=tampered.head) == wanted, which
        await tampered.restore()


async def test_a_removed_event_that_the_expected_head_names(tampered: Tampered) -> None:
    third = Head(3, tampered.events[2].event_hash, 0)
    await tampered.change("DELETE FROM events WHERE sequence = 3")
    # The run passes its place without it; the break is named at the event in its place.
    assert await tampered.found(expected=third) >= {(4, CHAIN), (4, HASH), (COUNT, HEAD)}


async def test_a_truncated_ledger_whose_head_was_moved(tampered: Tampered) -> None:
    """If the head was set to the last event left, the ledger alone does not show it; an earlier head does."""
    fourth = tampered.events[3]
    await tampered.change(
        "DELETE FROM events WHERE sequence > 4",
        f"UPDATE heads SET sequence = 4, hash = {tampered.sql(fourth.event_hash)},"
        f" created_at = {fourth.created_at}, month_events = 4",
    )
    assert await tampered.found() == set()
    assert await tampered.found(expected=tampered.head) == await tampered.found(limit=1, expected=tampered.head)
    assert await tampered.found(expected=tampered.head) == {(COUNT, HEAD)}


async def test_reordered_events(tampered: Tampered) -> None:
    second, fourth = (tampered.sql_id(tampered.events[index].id) for index in (1, 3))
    spare = tampered.sql_id(bytes(16))
    for old, new in ((second, spare), (fourth, second), (spare, fourth)):
        await tampered.change(f"UPDATE events SET id = {new} WHERE id = {old}")
    found = await tampered.found()
    assert found >= {(2, CHAIN), (2, HASH), (4, CHAIN), (4, HASH)}
    await check(tampered, "reordered", found)


def _head_changes(tampered: Tampered) -> dict[str, Iterable[str]]:
    some = tampered.sql
    return {
        "workspace_id": (str(tampered.workspace.id + 77),),
        "sequence": ("0", "-1", "5", "7", "500"),
        "hash": (some(bytes(32)), some(b""), some(bytes(31)), some(tampered.events[2].event_hash)),
        "created_at": ("0", "-1", "created_at + 1", "created_at - 1", f"created_at + {YEAR}"),
        "month": ("0", "month + 1", "month - 1", "month + 100", "-1"),
        "month_events": ("0", "month_events + 1", "month_events - 1", "-1", "1000000"),
    }


async def test_every_column_of_the_head(tampered: Tampered) -> None:
    changes = _head_changes(tampered)
    # The quota is a setting: an operator may set this value.
    assert changes.keys() | {"quota"} == {column.name for column in heads_table.columns}
    for column, values in changes.items():
        for value in values:
            what = f"UPDATE heads SET {column} = {value}"
            await tampered.change(what)
            found = await tampered.found()
            assert {kind for _, kind in found} == {HEAD}, what
            assert await tampered.found(limit=4) == found, what
            await tampered.restore()
    await tampered.change("UPDATE heads SET quota = 1")
    await check(tampered, "the quota", set())


async def test_a_head_of_an_empty_ledger(store: Store, store_url: str) -> None:
    empty = await store.directory.create_workspace("empty")
    assert (await verify(store.proof, empty, limit=10)).breaks == []
    for column in ("created_at", "month", "month_events", "sequence"):
        await database.execute(store_url, f"UPDATE heads SET {column} = 5")
        (found,) = (await verify(store.proof, empty, limit=10)).breaks
        assert found.type == HEAD
        assert column == "sequence" or (found.expected, found.actual) == (f"{column}: 0", f"{column}: 5")
        await database.execute(store_url, f"UPDATE heads SET {column} = 0")


async def test_a_head_removed(tampered: Tampered) -> None:
    await tampered.change("DELETE FROM heads")
    await check(tampered, "no head", {(COUNT, HEAD)})


async def test_the_workspaces_row(tampered: Tampered) -> None:
    """The genesis binds the name; the id leads to the rows. A ledger without a workspace is checked too."""
    store, workspace = tampered.store, tampered.workspace
    assert await reports(store) == {"acme": set()}
    await tampered.change("UPDATE workspaces SET name = 'other'")
    assert await reports(store) == {"other": {(1, HASH)}}
    await tampered.change(f"UPDATE workspaces SET name = 'acme', id = {workspace.id + 1}")
    found = await reports(store)
    assert found.pop("acme") == {(0, HEAD)}
    ((name, breaks),) = found.items()
    assert str(workspace.id) in name
    assert breaks >= {(0, HEAD), (1, HASH)}
    await tampered.change("DELETE FROM workspaces", "DELETE FROM heads")
    assert [breaks >= {(0, HEAD), (1, HASH), (COUNT, HEAD)} for breaks in (await reports(store)).values()] == [True]
    await tampered.change("DELETE FROM events")
    assert await reports(store) == {}


async def test_a_workspace_without_a_ledger(tampered: Tampered) -> None:
    await tampered.change(
        f"INSERT INTO workspaces (id, name, created_at) VALUES ({tampered.workspace.id + 1}, 'forged', 0)"
    )
    assert await reports(tampered.store) == {"acme": set(), "forged": {(0, HEAD)}}


async def test_columns_that_no_proof_rests_on(tampered: Tampered) -> None:
    await tampered.change("UPDATE workspaces SET created_at = 0, rates = '{\"scrip\": null}'")
    assert await reports(tampered.store) == {"acme": set()}
    await check(tampered, "settings", set())


async def test_a_range_sees_what_is_in_it(tampered: Tampered) -> None:
    events = tampered.events
    await tampered.change(
        tampered.insertion(events[0], ledger.event_id(events[0].created_at - YEAR, bytes(8)), 0),
        tampered.insertion(events[-1], ledger.event_id(events[-1].created_at + YEAR, bytes(8)), 1),
    )
    inner = {"created_from": events[1].created_at, "created_to": events[-1].created_at}
    assert await tampered.found(**inner) == set()
    assert await tampered.found(created_to=events[-1].created_at) >= {(0, CHAIN), (0, HASH)}
    # A range without an end reaches to the last id, beyond the head.
    assert await tampered.found(created_from=events[1].created_at) >= {(1, CHAIN), (1, HASH), (COUNT, HEAD)}


async def test_random_changes_are_found(tampered: Tampered) -> None:
    """Several cells at once, of several rows."""
    changes = _changes(tampered)
    chance = random.Random(1)
    for _ in range(8):
        places = chance.sample(range(1, COUNT + 1), 3)
        for place in places:
            column = chance.choice(list(changes))
            value, _ = chance.choice(changes[column])
            await tampered.change(f"UPDATE events SET {column} = {value} WHERE sequence = {place}")
        found = await tampered.found()
        assert {place for place, _ in found} >= set(places), places
        await tampered.restore()


async def test_beside_writers_nothing_breaks(store: Store, store_url: str, tampered: Tampered) -> None:
    """A check reads the ledger's end and its head once, together: events appended during the check are not breaks."""
    workspace = tampered.workspace.id
    others = [store] if store_url.startswith("sqlite") else [store, await open_store(store_url)]
    checked = 0

    async def write(number: int, to: Store) -> None:
        for n in range(25):
            one = draft(f"w{number}" if n % 2 else None, {"n": n}, subject=str(n), on_mismatch=Mismatch.REPLACE)
            await append(to, workspace, one, draft())

    writers = [asyncio.ensure_future(write(number, others[number % len(others)])) for number in range(4)]
    try:
        while not all(writer.done() for writer in writers):
            kept = await store.ledgers.head(workspace)
            assert await tampered.found(limit=30) == set()
            assert await tampered.found(expected=kept) == set()
            assert await tampered.found(created_from=tampered.events[3].created_at) == set()
            checked += 1
    finally:
        await asyncio.gather(*writers)
        for other in others[1:]:
            await other.close()
    assert checked
    assert await tampered.found(expected=await store.ledgers.head(workspace)) == set()


async def test_an_identity_of_two_events_is_found(store: Store, store_url: str, workspace: int) -> None:
    """Nothing else shows it: both events were linked. It happens only where the index of identities is no guard."""
    for statement in database.unguarded(store_url):
        await database.execute(store_url, statement)
    await append(store, workspace, draft("a"), draft("k"))
    held = await database.execute(store_url, "SELECT dedupe FROM events WHERE sequence = 2")
    await database.execute(store_url, "UPDATE events SET dedupe = NULL WHERE sequence = 2")
    await append(store, workspace, draft("k"), draft("b"))
    named = Workspace(WorkspaceId(workspace), "acme")
    assert [one.sequence for one in (await verify(store.proof, named, limit=100)).breaks] == []
    value = database.literal(store_url, held[0][0])
    await database.execute(store_url, f"UPDATE events SET dedupe = {value} WHERE sequence = 2")
    for limit in (1, 100):
        found = []
        after = None
        while True:
            page = await verify(store.proof, named, limit=limit, after=after)
            found += [(one.sequence, one.type, one.expected, one.actual) for one in page.breaks]
            after = page.resume
            if after is None:
                break
        wrong = (HASH, "dedupe: of one event", "dedupe: of 2 events")
        assert found == [(2, *wrong), (3, *wrong)]
