"""One ledger that processes with the compiled core and without it write in turn, as during an upgrade."""

import io
from collections.abc import Sequence

import asyncpg

from headgate_server.core import compiled
from headgate_server.core.model import Draft, EventQuery, Head, Mismatch, Problem, Status, StoredEvent
from headgate_server.core.types import EventHash, WorkspaceId
from headgate_server.reading.verify import verify
from headgate_server.rpc import decode
from headgate_server.store import Store
from headgate_server.store.opening import open_store
from headgate_server.store.postgres.append import copy_events
from tests.native import twins
from tests.native.driver import TYPES
from tests.native.shapes import SHAPES, as_json, as_message
from tests.support.drafts import append, draft
from tests.unit.test_specification import verified

pytestmark = twins.needs_core


def _decoded(turn: int) -> Sequence[Draft | Problem]:
    """Decode all shapes of events, in an encoding that changes with the turn."""
    if turn % 2:
        return decode.events([as_message(shape, source=f"s{turn}") for shape in SHAPES], len(SHAPES))
    texts = [as_json(shape, source=f"s{turn}") for shape in SHAPES]
    return twins.slots_of(decode.batch(twins.json_request(b"[%s]" % b",".join(texts)), len(SHAPES)))


async def test_both_write_one_ledger(store: Store, workspace: WorkspaceId) -> None:
    """The verifier that was written from the specification alone finds nothing wrong, nor does the server's own."""
    for turn in range(6):
        core = twins.FOUND.core if turn in (0, 3, 4) else None
        with compiled.using(core):
            slots = _decoded(turn)
            (*outcomes, last) = await append(
                store, workspace, *slots, draft("k", {"turn": turn}, on_mismatch=Mismatch.REPLACE)
            )
        assert {outcome.status for outcome in outcomes} == {Status.ACCEPTED}
        assert last.status is (Status.REPLACED if turn else Status.ACCEPTED)
        keyed = [slot for slot in slots if isinstance(slot, Draft) and slot.key is not None]
        with compiled.using(None if core else twins.FOUND.core):
            again = await append(store, workspace, *keyed)
        assert [outcome.status for outcome in again] == [Status.DUPLICATE] * len(keyed) != []
    events = (await store.ledgers.events(EventQuery(workspace_id=workspace, limit=1_000))).events
    assert len(events) == 6 * (len(SHAPES) + 1)
    head = verified("acme", events)
    named = await store.directory.workspace("acme")
    assert named is not None
    expected = Head(len(events), EventHash(head), events[-1].created_at)
    checked = await verify(store.proof, named, limit=1_000, expected=expected)
    assert (checked.events_checked, list(checked.breaks)) == (len(events), [])


async def test_the_rows_that_the_core_sends_are_those_that_postgresql_returns(postgres_url: str) -> None:
    """PostgreSQL writes the same binary format when a table is copied from it. The columns have the types that the core
    writes.
    """
    store = await open_store(postgres_url)
    connection = await asyncpg.connect(postgres_url)
    try:
        workspace = (await store.directory.create_workspace("acme")).id
        with compiled.using(twins.FOUND.core):
            await append(store, workspace, *_decoded(0), draft("é", {"a": "👍" * 300_000}), draft("o", occurred_at=-1))
            events = (await store.ledgers.events(EventQuery(workspace_id=workspace, limit=1_000))).events
            returned = io.BytesIO()
            query = f"SELECT {','.join(StoredEvent._fields)} FROM events ORDER BY sequence"
            await connection.copy_from_query(query, output=returned, format="binary")
            pieces = compiled.copy_rows(events)
            await connection.execute("DELETE FROM events")
            await copy_events(connection, events)
        assert pieces is not None
        assert b"".join(pieces) == returned.getvalue()
        again = io.BytesIO()
        await connection.copy_from_query(query, output=again, format="binary")
        assert again.getvalue() == returned.getvalue()
        columns = await connection.fetch(
            "SELECT column_name, data_type FROM information_schema.columns WHERE table_name = 'events'"
        )
        assert {name: kind for name, kind in columns if name in StoredEvent._fields} == TYPES
    finally:
        await connection.close()
        await store.close()
