"""Statements that fail leave nothing behind, and the store goes on."""

import pytest

from headgate_server.committer import Committer
from headgate_server.errors import Unavailable
from headgate_server.ingest import Ingest
from headgate_server.model import Mismatch, StoredEvent
from headgate_server.store import Store
from tests.support import database
from tests.support.drafts import append, draft, request

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
        await store.append([request(workspace, "r", draft("new"), replacing)])
    table = event.rpartition(" ")[2]
    await database.execute(store_url, "DROP TRIGGER boom" + ("" if store_url.startswith("sqlite") else f" ON {table}"))
    for name, count in {"events": 1, "answers": 0}.items():
        assert await database.execute(store_url, f"SELECT count(*) FROM {name}") == [(count,)]
    assert (await store.head(workspace)).sequence == 1
    outcomes = await append(store, workspace, draft("new"), replacing)
    assert [outcome.status for outcome in outcomes] == ["accepted", "replaced"]


async def test_a_store_without_its_tables_is_unavailable(store: Store, store_url: str, workspace: int) -> None:
    for table in ("events", "api_keys"):
        await database.execute(store_url, f"DROP TABLE {table}")
    for call in (append(store, workspace, draft()), store.fetch(workspace, [bytes(16)]), store.revoke_key("x", 1)):
        with pytest.raises(Unavailable):
            await call


async def test_a_closed_store_is_unavailable(store: Store, workspace: int) -> None:
    await store.close()
    with pytest.raises(Unavailable):
        await append(store, workspace, draft())
    with pytest.raises(Unavailable):
        await store.head(workspace)
    await store.close()


async def test_a_conflict_that_cannot_be_explained_is_still_said(
    store: Store, workspace: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The events are stored by then: an answer without the differing paths is worth more than no answer."""

    async def away(*_: object) -> list[StoredEvent]:
        raise Unavailable("The store cannot be reached.")

    committer = Committer(store)
    ingest = Ingest(store, committer)
    await append(store, workspace, draft("k", {"n": 1}))
    slots = [draft("new"), draft("k", {"n": 2})]
    monkeypatch.setattr(store, "fetch", away)
    stored, conflict = (await ingest(workspace, slots, explain=True)).outcomes
    assert (stored.status, conflict.status) == ("accepted", "conflict")
    assert conflict.problem is not None
    assert conflict.problem.differing_fields == ()
    monkeypatch.undo()
    _, explained = (await ingest(workspace, slots, explain=True)).outcomes
    assert explained.problem is not None
    assert explained.problem.differing_fields == ("/data/n",)
    await committer.close()
