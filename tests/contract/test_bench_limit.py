"""The benchmark's limit writes the product's rows, and a filled store has rows like the product's: otherwise its ratios
would have no meaning.
"""

import inspect
from collections.abc import AsyncIterator
from typing import Any

import pytest

from bench import limit
from bench.contender import Assignment
from bench.suite import By, Load
from headgate_server.core import ledger
from headgate_server.core.model import EventQuery, Workspace
from headgate_server.reading.verify import verify
from headgate_server.store import Store
from tests.support import filling


@pytest.fixture
async def acme(store: Store) -> Workspace:
    return await store.directory.create_workspace("acme")


@pytest.fixture
async def opened(store_url: str, acme: Workspace) -> AsyncIterator[Any]:
    """Return the limit on a fresh store."""
    made = await limit.opened(store_url, acme.id)
    yield made
    if inspect.isawaitable(closing := made.connection.close()):
        await closing


async def test_the_limit_writes_a_ledger_that_verifies(store: Store, acme: Workspace, opened: Any) -> None:
    assignment = Assignment(Load(By.LIMIT, 70), 140)
    for after in (0, 140):
        work = await limit.prepare(opened, assignment)
        assert work.after.sequence == after
        await work.run()
        timing = await work.check()
        assert (timing.events, timing.stored) == (140, 140)
    found = await verify(store.proof, acme, limit=1_000, expected=await store.ledgers.head(acme.id))
    assert (found.events_checked, list(found.breaks)) == (280, [])


async def test_the_limit_fails_where_its_events_are_known(opened: Any) -> None:
    work = await limit.prepare(opened, Assignment(Load(By.LIMIT, 10), 10))
    await work.run()
    with pytest.raises(RuntimeError, match="was stored before"):
        await work.run()


async def test_a_filled_store_is_like_one_that_a_service_has_filled(
    store: Store, store_url: str, acme: Workspace, opened: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(filling, "_AT_ONCE", 4)
    await filling.fill(store_url, acme.id, 10)
    work = await limit.prepare(opened, Assignment(Load(By.LIMIT, 10), 10))
    assert work.after.sequence == 10
    await work.run()
    page = await store.ledgers.events(EventQuery(workspace_id=acme.id, limit=20, newest_first=False))
    filled, usual = page.events[:10], page.events[10]
    assert [event.sequence for event in page.events] == list(range(1, 21))
    assert filled[-1].event_hash == work.after.hash
    for event in filled:
        assert ledger.event_id(event.created_at, event.id[8:]) == event.id
        for name, value in usual._asdict().items():
            assert type(getattr(event, name)) is type(value)
            if isinstance(value, bytes):
                assert abs(len(getattr(event, name)) - len(value)) < 8, name
    assert len({event.dedupe for event in filled}) == 10
