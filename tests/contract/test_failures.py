"""Failed statements leave nothing behind, and the store continues."""

import asyncio

import asyncpg
import pytest
from pysqlite3 import dbapi2 as sqlite

from headgate_server.core.errors import Unavailable
from headgate_server.core.model import Mismatch, Settled, StoredEvent, Workspace
from headgate_server.ingest.committer import Committer
from headgate_server.store import Store
from headgate_server.store.opening import open_store
from headgate_server.store.schema import events
from tests.support import database
from tests.support.drafts import append, draft, request, submission
from tests.support.ingesting import ingest_of
from tests.support.waiting import until

_SQLITE = "CREATE TRIGGER boom BEFORE {event} BEGIN SELECT RAISE(ABORT, 'boom'); END"
_FUNCTION = "CREATE FUNCTION boom() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'boom'; END $$"
_POSTGRES = "CREATE TRIGGER boom BEFORE {event} FOR EACH ROW EXECUTE FUNCTION boom()"


async def _fail_at(url: str, event: str) -> None:
    if url.startswith("sqlite"):
        await database.execute(url, _SQLITE.format(event=event))
    else:
        await database.execute(url, _FUNCTION)
        await database.execute(url, _POSTGRES.format(event=event))


@pytest.mark.parametrize("event", ["INSERT ON events", "UPDATE ON heads", "INSERT ON answers", "UPDATE ON events"])
async def test_a_failing_statement_leaves_nothing(store: Store, store_url: str, workspace: int, event: str) -> None:
    await append(store, workspace, draft("old", 1))
    await _fail_at(store_url, event)
    replacing = draft("old", 2, on_mismatch=Mismatch.REPLACE)
    with pytest.raises(Unavailable):
        await store.database.append([request(workspace, "r", draft("new"), replacing)])
    table = event.rpartition(" ")[2]
    await database.execute(store_url, "DROP TRIGGER boom" + ("" if store_url.startswith("sqlite") else f" ON {table}"))
    for name, count in {"events": 1, "answers": 0}.items():
        assert await database.execute(store_url, f"SELECT count(*) FROM {name}") == [(count,)]
    assert (await store.ledgers.head(workspace)).sequence == 1
    outcomes = await append(store, workspace, draft("new"), replacing)
    assert [outcome.status for outcome in outcomes] == ["accepted", "replaced"]


def _past_the_lock(url: str, workspace: int, other: int) -> str:
    """Return a statement that copies the events of the workspace `other` into `workspace`, without its lock."""
    columns = [column.name for column in events.columns]
    event_id = database.id_literal(url, bytes(16))
    return f"INSERT INTO events SELECT {workspace}, {event_id}, {', '.join(columns[2:])} FROM events" + (
        f" WHERE workspace_id = {other}"
    )


async def test_a_taken_identity_is_refused_also_without_the_look_up(
    store: Store, store_url: str, workspace: int
) -> None:
    await append(store, workspace, draft("k"))
    with pytest.raises((sqlite.IntegrityError, asyncpg.ExclusionViolationError), match=r"dedupe"):
        await database.execute(store_url, _past_the_lock(store_url, workspace, workspace))
    other = (await store.directory.create_workspace("other")).id
    await database.execute(store_url, _past_the_lock(store_url, other, workspace))
    assert await database.execute(store_url, "SELECT count(*) FROM events") == [(2,)]


async def test_what_was_written_past_the_lock_is_seen_at_the_next_attempt(postgres_url: str) -> None:
    store = await open_store(postgres_url)
    writer = await asyncpg.connect(postgres_url)
    try:
        workspace, other = [(await store.directory.create_workspace(name)).id for name in ("acme", "other")]
        await append(store, other, draft("k"))
        async with writer.transaction():
            await writer.execute(_past_the_lock(postgres_url, workspace, other))
            appending = asyncio.create_task(append(store, workspace, draft("k"), draft("new")))
            # It has looked for the identity, found nothing, and waits for the other transaction's row.
            await until(lambda: _waits_for_another(postgres_url))
        assert [outcome.status for outcome in await appending] == ["duplicate", "accepted"]
    finally:
        await writer.close()
        await store.close()


async def _waits_for_another(url: str) -> bool:
    waiting = (
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'transactionid' AND datname = current_database()"
    )
    return await database.execute(url, waiting) == [(1,)]


async def test_a_store_without_its_tables_is_unavailable(store: Store, store_url: str, workspace: int) -> None:
    for table in ("events", "api_keys"):
        await database.execute(store_url, f"DROP TABLE {table}")
    for call in (
        append(store, workspace, draft()),
        store.ledgers.fetch(workspace, [bytes(16)]),
        store.directory.revoke_key("x", 1),
    ):
        with pytest.raises(Unavailable):
            await call


async def test_a_closed_store_is_unavailable(store: Store, workspace: int) -> None:
    await store.close()
    with pytest.raises(Unavailable):
        await append(store, workspace, draft())
    with pytest.raises(Unavailable):
        await store.ledgers.head(workspace)
    await store.close()


async def test_a_conflict_that_cannot_be_explained_is_still_said(
    store: Store, workspace: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The events are already stored: an answer without the differing paths is better than no answer."""

    async def away(*_: object) -> list[StoredEvent]:
        raise Unavailable("The store cannot be reached.")

    committer = Committer(store.database)
    ingest = ingest_of(store, committer)
    await append(store, workspace, draft("k", {"n": 1}))
    slots = [draft("new"), draft("k", {"n": 2})]
    monkeypatch.setattr(store.ledgers, "fetch", away)
    decision = await ingest.take(Workspace(workspace, "acme"), submission(workspace, *slots))
    assert isinstance(decision, Settled)
    stored, conflict = decision.outcomes
    assert (stored.status, conflict.status) == ("accepted", "conflict")
    assert conflict.link is not None
    assert await ingest.differences(workspace, slots, {1: conflict.link.id}) == {}
    monkeypatch.undo()
    assert await ingest.differences(workspace, slots, {1: conflict.link.id}) == {1: ("/data/n",)}
    await committer.close()
