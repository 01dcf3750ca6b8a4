"""What one process at a store does, another one takes into account: nothing that it keeps in memory hides it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing

import pytest

from headgate_server.access import admin
from headgate_server.access.auth import CACHE_SECONDS, Authenticator, Principal
from headgate_server.background.heads import Heads
from headgate_server.background.subscription import CaughtUp, Start, Subscriptions
from headgate_server.background.wakeup import Wakeup
from headgate_server.core.errors import Unauthenticated
from headgate_server.core.event_types import Mode
from headgate_server.core.model import Draft, EventQuery, Problem, Scope, StoredEvent
from headgate_server.ingest.checker import Checker
from headgate_server.ingest.event_types import EventTypeChecks
from headgate_server.store import Store
from headgate_server.store.opening import open_store
from tests.support.drafts import append, draft, submission
from tests.support.rejections import rejection


@pytest.fixture
async def other(store: Store, store_url: str) -> AsyncIterator[Store]:
    """Return the same store as another process has it open."""
    opened = await open_store(store_url)
    yield opened
    await opened.close()


class _Timer:
    """Time of which a test decides."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def pass_a_cache(self) -> None:
        """Let so much time pass that what was looked up is looked up again."""
        self.now += CACHE_SECONDS + 0.001


async def test_a_subscription_gets_what_others_store(store: Store, other: Store, workspace: int) -> None:
    heads = Heads(store.ledgers, Wakeup())
    looking = asyncio.create_task(heads())
    events = Subscriptions(store.ledgers, heads).follow(EventQuery(workspace_id=workspace, limit=1), Start())
    try:
        async with aclosing(events), asyncio.timeout(10):
            assert await anext(events) == CaughtUp(0)
            for sequence in range(1, 4):
                await append(other if sequence % 2 else store, workspace, draft())
                item = await anext(events)
                assert isinstance(item, StoredEvent)
                assert item.sequence == sequence
    finally:
        looking.cancel()
        await asyncio.gather(looking, return_exceptions=True)


async def test_heads_identities_and_answers_of_groups_that_take_turns(
    store: Store, other: Store, workspace: int
) -> None:
    """Each group begins at the head that the other one's left, and knows its identities."""
    for number in range(1, 6):
        for one, status in ((store, "accepted"), (other, "duplicate")):
            decided = await one.database.append(
                [submission(workspace, draft(f"k{number}")), submission(workspace, draft())]
            )
            statuses = [decision.outcomes[0].status for decision in decided if decision is not None]
            assert statuses == [status, "accepted"]
        assert await store.ledgers.head(workspace) == await other.ledgers.head(workspace)
    assert (await store.ledgers.head(workspace)).sequence == 15


async def test_a_key_that_another_process_makes_and_revokes(store: Store, other: Store) -> None:
    timer = _Timer()
    authenticator = Authenticator(store.directory, timer=timer)
    key = await admin.create_key(other.directory, "acme", frozenset({Scope.EVENTS_WRITE}))
    principal = await authenticator.authenticate(key)
    await admin.revoke_key(other.directory, principal.key_id)
    timer.pass_a_cache()
    with pytest.raises(Unauthenticated):
        await authenticator.authenticate(key)


async def test_an_event_type_that_another_process_changes(store: Store, other: Store) -> None:
    """It counts as soon as the key is looked up again, because the revision comes with the key."""
    timer, checker = _Timer(), Checker()
    authenticator = Authenticator(store.directory, timer=timer)
    checks = EventTypeChecks(store.event_types, checker)
    key = await admin.create_key(other.directory, "acme", frozenset({Scope.EVENTS_WRITE}))

    async def checked(caller: Principal) -> type[Draft | Problem]:
        (slot,) = await checks.check(caller.workspace, [draft(type="order", data={"amount": "x"})])
        return type(slot)

    async def after_a_change(schema: bytes) -> type[Draft | Problem]:
        await other.event_types.put(caller.workspace.id, "order", schema, Mode.STRICT)
        timer.pass_a_cache()
        return await checked(await authenticator.authenticate(key))

    try:
        caller = await authenticator.authenticate(key)
        assert await checked(caller) is Draft
        assert await after_a_change(b'{"properties":{"amount":{"type":"number"}}}') is Problem
        assert await after_a_change(b'{"properties":{"amount":{"type":"string"}}}') is Draft
    finally:
        await checker.close()


async def test_rejections_of_several_processes_have_one_bound(store: Store, other: Store, workspace: int) -> None:
    now = await store.ledgers.now()

    async def keep(one: Store, start: int) -> None:
        for number in range(10):
            await one.rejections.keep([rejection(workspace, now + start + 2 * number)], {workspace: 1})
            await one.rejections.trim(workspace, 5)

    await asyncio.gather(keep(store, 0), keep(other, 1))
    for one in (store, other):
        assert await one.rejections.trim(workspace, 5) == 0
        assert await one.rejections.trim(workspace, 4) == (one is store)
