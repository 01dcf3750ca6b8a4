"""PostgreSQL: a large group that waits for its lock looks up its identities before it has the lock. What other
processes store meanwhile is seen nevertheless.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, nullcontext

import asyncpg
import pytest

from headgate_server.core import ledger
from headgate_server.core.errors import Unavailable
from headgate_server.core.ledger import Checker
from headgate_server.core.model import Draft, EventQuery, Mismatch, Outcome, Settled, Submission
from headgate_server.core.types import WorkspaceId
from headgate_server.store import Store
from headgate_server.store.opening import open_store
from headgate_server.store.phases import Phases
from headgate_server.store.postgres import append as postgres_append
from headgate_server.store.postgres import database as postgres_database
from headgate_server.store.postgres.append import EARLY_EVENTS
from tests.support import database
from tests.support.drafts import append, draft, submission
from tests.support.waiting import until

pytestmark = pytest.mark.parametrize("store_url", ["postgres", "oldest_postgres"], indirect=True)

_FAILS = "SELECT no_such_function()"
"""In place of a statement that must not be used."""


def _many(prefix: str = "new", count: int = EARLY_EVENTS) -> list[Draft]:
    return [draft(f"{prefix}-{number}") for number in range(count)]


@asynccontextmanager
async def _storing_meanwhile(url: str, workspace: WorkspaceId, *drafts: Draft) -> AsyncIterator[None]:
    """Let another process hold the lock, with these drafts written. It commits when an append waits for the lock."""
    connection = await asyncpg.connect(url)
    try:
        sent = [submission(workspace, *drafts)]
        await postgres_append.decide_and_write(connection, sent, True, lambda: None, "on", Phases(), early=False)
        yield
        await until(lambda: database.count_lock_waiters(url))
        await connection.execute("COMMIT")
    finally:
        await connection.close()


async def _appended_meanwhile(
    store: Store, url: str, stored: Sequence[Draft], sent: Sequence[Draft]
) -> tuple[list[Outcome], int]:
    """Append drafts while another process stores events. Return the outcomes, and how often it was begun."""
    workspace, begun = await _workspace(store), list[int]()
    async with _storing_meanwhile(url, workspace, *stored):
        submissions = [submission(workspace, *sent)]
        storing = asyncio.create_task(store.database.append(submissions, begin=lambda: begun.append(1)))
    (decision,) = await storing
    assert isinstance(decision, Settled)
    checker = Checker(ledger.genesis("acme"))
    checker.add((await store.ledgers.events(EventQuery(workspace_id=workspace, limit=2_000))).events)
    checker.expect_head(await store.ledgers.head(workspace))
    assert checker.breaks == []
    return list(decision.outcomes), len(begun)


async def _workspace(store: Store) -> WorkspaceId:
    return next(workspace.id for workspace in await store.directory.workspaces() if workspace.name == "acme")


@pytest.mark.parametrize(
    ("mine", "status"),
    [
        (draft("k", {"n": 1}), "duplicate"),
        (draft("k", {"n": 2}), "conflict"),
        (draft("k", {"n": 2}, on_mismatch=Mismatch.DUPLICATE), "duplicate"),
        (draft("k", {"n": 2}, on_mismatch=Mismatch.REPLACE), "replaced"),
    ],
)
async def test_an_identity_is_stored_between_look_up_and_lock(
    store: Store, workspace: int, store_url: str, mine: Draft, status: str
) -> None:
    """The constraint refuses the group, and the second attempt looks up under the lock."""
    sent = [*_many(), mine]
    outcomes, begun = await _appended_meanwhile(store, store_url, [draft("k", {"n": 1})], sent)
    assert [outcome.status for outcome in outcomes] == ["accepted"] * EARLY_EVENTS + [status]
    assert begun == 2
    again = await append(store, workspace, *sent)
    assert {outcome.status for outcome in again[:-1]} == {"duplicate"}


@pytest.mark.parametrize(("content", "status"), [(1, "conflict"), (2, "duplicate")])
async def test_an_event_is_replaced_between_look_up_and_lock(
    store: Store, workspace: int, store_url: str, content: int, status: str
) -> None:
    """What the early look-up finds is looked up again under the lock."""
    (first,) = await append(store, workspace, draft("k", {"n": 1}))
    replacing = draft("k", {"n": 2}, on_mismatch=Mismatch.REPLACE)
    outcomes, begun = await _appended_meanwhile(store, store_url, [replacing], [draft("k", {"n": content}), *_many()])
    assert [outcome.status for outcome in outcomes] == [status] + ["accepted"] * EARLY_EVENTS
    assert begun == 1
    assert first.link is not None
    assert outcomes[0].link is not None
    assert outcomes[0].link.sequence == first.link.sequence + 1


async def test_what_is_found_free_early_is_not_looked_up_again(
    store: Store, workspace: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_append, "_PROBE_EVENTS", _FAILS)
    outcomes = await append(store, workspace, *_many())
    assert {outcome.status for outcome in outcomes} == {"accepted"}
    with pytest.raises(Unavailable):
        await append(store, workspace, *_many("few", EARLY_EVENTS - 1))
    with pytest.raises(Unavailable):
        await store.database.append([submission(workspace, *_many("unlocked"))], wait=False)


async def test_what_joins_after_the_early_look_up_is_looked_up_under_the_lock(
    store: Store, workspace: int, store_url: str
) -> None:
    await append(store, workspace, draft("old"))
    begun, submissions = list[int](), list[Submission]([submission(workspace, *_many())])
    async with database.locked(store_url, workspace):
        storing = asyncio.create_task(store.database.append(submissions, begin=lambda: begun.append(1)))
        await until(lambda: database.count_lock_waiters(store_url))
        submissions.append(submission(workspace, draft("old"), draft("new-0"), draft("joined")))
    _, joined = await storing
    assert isinstance(joined, Settled)
    assert [outcome.status for outcome in joined.outcomes] == ["duplicate", "duplicate", "accepted"]
    assert len(begun) == 1


async def test_many_that_join_during_the_early_look_up_are_looked_up_early(
    store: Store, workspace: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    submissions = [submission(workspace, *_many())]
    claimed, counts = postgres_append._claimed, list[int]()

    def joining(looked_up: Sequence[Submission]) -> list[bytes]:
        found = claimed(looked_up)
        counts.append(len(found))
        if len(counts) == 1:
            submissions.append(submission(workspace, *_many("joined")))
        return found

    monkeypatch.setattr(postgres_append, "_claimed", joining)
    decisions = await store.database.append(submissions)
    assert [type(decision) for decision in decisions] == [Settled, Settled]
    assert counts == [EARLY_EVENTS, EARLY_EVENTS, 0]


@pytest.mark.parametrize("over", [False, True])
async def test_for_a_while_after_a_collision_groups_look_up_under_the_lock(
    store: Store, workspace: int, store_url: str, monkeypatch: pytest.MonkeyPatch, over: bool
) -> None:
    if over:
        monkeypatch.setattr(postgres_database, "EARLY_PAUSE", 0.0)
    _, begun = await _appended_meanwhile(store, store_url, [draft("k")], [*_many(), draft("k")])
    assert begun == 2
    monkeypatch.setattr(postgres_append, "_HELD", _FAILS)
    with pytest.raises(Unavailable) if over else nullcontext():
        assert {outcome.status for outcome in await append(store, workspace, *_many("next"))} == {"accepted"}


async def test_without_the_constraint_nothing_is_looked_up_early(
    store: Store, workspace: int, store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for statement in database.unguarded(store_url):
        await database.execute(store_url, statement)
    monkeypatch.setattr(postgres_append, "_HELD", _FAILS)
    with pytest.raises(Unavailable):
        await append(store, workspace, *_many())
    unguarded = await open_store(store_url)
    try:
        outcomes = await append(unguarded, workspace, *_many())
        assert {outcome.status for outcome in outcomes} == {"accepted"}
    finally:
        await unguarded.close()


async def test_the_time_of_an_event_is_after_the_wait_for_the_lock(
    store: Store, workspace: int, store_url: str
) -> None:
    async with database.locked(store_url, workspace):
        storing = asyncio.create_task(append(store, workspace, draft("k")))
        await until(lambda: database.count_lock_waiters(store_url))
        released = (await database.execute(store_url, "SELECT extract(epoch FROM clock_timestamp()) * 1000000"))[0][0]
    await storing
    (event,) = (await store.ledgers.events(EventQuery(workspace_id=WorkspaceId(workspace), limit=10))).events
    assert event.created_at > released
