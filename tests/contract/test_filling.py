"""A fill takes the constraints and indexes of a PostgreSQL away while it copies. Afterwards they are as the migrations
made them, and the store works like one that a service filled.
"""

import hashlib
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from headgate_server.core.model import Status, Workspace
from headgate_server.core.types import Dedupe, Identity
from headgate_server.reading.verify import verify
from headgate_server.store import Store
from tests.support import filling
from tests.support.drafts import append, draft

pytestmark = pytest.mark.parametrize("store_url", ["postgres", "oldest_postgres"], indirect=True)

_CATALOGUE = (
    """
    SELECT indexrelid::regclass::text AS name, pg_get_indexdef(indexrelid), indisunique, indisprimary, indisexclusion,
           indimmediate, indisvalid, indisready, indislive, indisclustered, indisreplident, reloptions, reltablespace
    FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid WHERE indrelid = 'events'::regclass ORDER BY indexrelid
    """,
    """
    SELECT conname, pg_get_constraintdef(oid), contype, condeferrable, condeferred, convalidated, conislocal,
           conindid::regclass::text
    FROM pg_constraint WHERE conrelid = 'events'::regclass ORDER BY conindid, conname
    """,
)
_TABLE = """
SELECT reltuples, relallvisible, (SELECT count(DISTINCT (ctid::text::point)[0]) FROM events) AS pages
FROM pg_class WHERE oid = 'events'::regclass
"""
_AGAIN = """
INSERT INTO events (workspace_id, id, sequence, created_at, receiver, type, source, subject, dedupe, salt, commitment,
                    event_hash)
SELECT workspace_id, gen_random_uuid(), 11, created_at, receiver, type, source, subject, dedupe, salt, commitment,
       event_hash
FROM events WHERE workspace_id = $1 AND sequence = 5
"""


@pytest.fixture
async def acme(store: Store) -> Workspace:
    return await store.directory.create_workspace("acme")


@pytest.fixture
async def connection(store_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Any]:
    """Return a connection. A fill takes several statements, and stores more events than the smallest index holds."""
    monkeypatch.setattr(filling, "_AT_ONCE", 400)
    opened = await asyncpg.connect(store_url)
    yield opened
    await opened.close()


async def _catalogue(connection: Any) -> list[list[tuple[Any, ...]]]:
    return [[tuple(row) for row in await connection.fetch(query)] for query in _CATALOGUE]


async def test_a_fill_leaves_the_constraints_and_indexes_as_they_were(
    store_url: str, acme: Workspace, connection: Any
) -> None:
    await connection.execute('CREATE INDEX "A later" ON events (subject) WITH (fillfactor = 70) WHERE type <> source')
    await connection.execute('ALTER TABLE events ADD CONSTRAINT "Another" UNIQUE (workspace_id, sequence)')
    before = await _catalogue(connection)
    await filling.fill(store_url, acme.id, 1_000)
    after = await _catalogue(connection)
    assert after == before
    assert [row[0] for row in after[0]] == ["events_pkey", "events_dedupe_key", '"A later"', '"Another"']
    table = await connection.fetchrow(_TABLE)
    assert table["reltuples"] == 1_000
    # Every row is on a page that is known to be visible to all, so nothing is left for autovacuum.
    assert table["relallvisible"] >= table["pages"] > 10


async def test_a_filled_store_deduplicates_and_appends(
    store: Store, store_url: str, acme: Workspace, connection: Any
) -> None:
    await filling.fill(store_url, acme.id, 1_000)
    random = hashlib.sha256((5).to_bytes(8, "big")).digest()
    known = draft("known")._replace(identity=Identity(random), dedupe=Dedupe(random[:16]))
    outcomes = await append(store, acme.id, known, draft("new"))
    assert [outcome.status for outcome in outcomes] == [Status.CONFLICT, Status.ACCEPTED]
    assert (await store.ledgers.head(acme.id)).sequence == 1_001
    # The constraint refuses a write that does not look for identities.
    with pytest.raises(asyncpg.ExclusionViolationError, match="events_dedupe_key"):
        await connection.execute(_AGAIN, acme.id)
    with pytest.raises(asyncpg.UniqueViolationError, match="events_pkey"):
        await connection.execute(_AGAIN.replace("gen_random_uuid()", "id"), acme.id)


async def test_a_fill_keeps_the_events_of_other_workspaces(store: Store, store_url: str, acme: Workspace) -> None:
    other = await store.directory.create_workspace("other")
    await append(store, other.id, draft("a"), draft("b"))
    await filling.fill(store_url, acme.id, 10)
    (again,) = await append(store, other.id, draft("a"))
    assert again.status == Status.DUPLICATE
    found = await verify(store.proof, other, limit=1_000, expected=await store.ledgers.head(other.id))
    assert (found.events_checked, list(found.breaks)) == (2, [])


async def test_a_fill_that_fails_changes_nothing(
    store: Store, store_url: str, acme: Workspace, connection: Any
) -> None:
    await filling.fill(store_url, acme.id, 1_000)
    before, head = await _catalogue(connection), await store.ledgers.head(acme.id)
    # The workspace is not empty: the same identities come again, which shows when the constraint is made.
    with pytest.raises(asyncpg.ExclusionViolationError):
        await filling.fill(store_url, acme.id, 1_000)
    assert await _catalogue(connection) == before
    assert await store.ledgers.head(acme.id) == head
    assert await connection.fetchval("SELECT count(*) FROM events WHERE workspace_id = $1", acme.id) == 1_000
