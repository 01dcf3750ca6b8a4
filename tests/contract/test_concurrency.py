"""Concurrent appends have the same result as appends in sequence."""

import asyncio
import random
from collections import Counter

from headgate_server.core import ledger
from headgate_server.core.ledger import Checker
from headgate_server.core.model import EventQuery, Replayed, Settled
from headgate_server.store import Store
from headgate_server.store.opening import open_store
from tests.support import database
from tests.support.drafts import append, draft, request, submission

_KEYS = [f"key-{n}" for n in range(60)]


async def _writer(store: Store, workspace: int, seed: int, accepted: "Counter[str]") -> None:
    keys = random.Random(seed).sample(_KEYS, len(_KEYS))
    for start in range(0, len(keys), 10):
        batch = keys[start : start + 10]
        outcomes = await append(store, workspace, *(draft(key, {"key": key}) for key in batch))
        for key, outcome in zip(batch, outcomes, strict=True):
            assert outcome.status in ("accepted", "duplicate")
            accepted[key] += outcome.status == "accepted"


async def _assert_sound(store: Store, workspace: int, name: str, count: int) -> None:
    checker = Checker(ledger.genesis(name))
    checker.add((await store.ledgers.events(EventQuery(workspace_id=workspace, limit=1_000))).events)
    checker.expect_head(await store.ledgers.head(workspace))
    assert (checker.breaks, checker.checked) == ([], count)


async def test_each_key_is_accepted_once(store: Store, workspace: int) -> None:
    accepted: Counter[str] = Counter()
    await asyncio.gather(*(_writer(store, workspace, seed, accepted) for seed in range(8)))
    assert accepted == dict.fromkeys(_KEYS, 1)
    await _assert_sound(store, workspace, "acme", len(_KEYS))


async def test_each_key_is_accepted_once_by_two_stores_on_one_database(
    store: Store, store_url: str, workspace: int
) -> None:
    other = await open_store(store_url)
    try:
        accepted: Counter[str] = Counter()
        writers = [_writer((store, other)[seed % 2], workspace, seed, accepted) for seed in range(8)]
        await asyncio.gather(*writers)
    finally:
        await other.close()
    assert accepted == dict.fromkeys(_KEYS, 1)
    await _assert_sound(store, workspace, "acme", len(_KEYS))


async def test_a_request_key_answers_once(store: Store, workspace: int) -> None:
    decisions = await asyncio.gather(*(store.database.append([request(workspace, "r", draft())]) for _ in range(10)))
    kinds = Counter(type(decision) for (decision,) in decisions)
    assert kinds == {Settled: 1, Replayed: 9}
    assert (await store.ledgers.head(workspace)).sequence == 1


async def test_groups_of_several_workspaces_do_not_deadlock(store: Store, workspace: int) -> None:
    spaces = [workspace] + [(await store.directory.create_workspace(f"w{n}")).id for n in range(4)]

    async def write(seed: int) -> None:
        order = random.Random(seed).sample(spaces, len(spaces))
        for _ in range(5):
            await store.database.append([submission(space, draft(), draft()) for space in order])

    await asyncio.gather(*(write(seed) for seed in range(6)))
    assert [(await store.ledgers.head(space)).sequence for space in spaces] == [60] * 5


async def test_a_locked_workspace_is_skipped_on_request(store: Store, store_url: str, workspace: int) -> None:
    async with database.locked(store_url, workspace):
        assert await store.database.append([submission(workspace, draft("k"))], wait=False) == [None]
    (decision,) = await store.database.append([submission(workspace, draft("k"))], wait=False)
    assert isinstance(decision, Settled)
    assert (await store.ledgers.head(workspace)).sequence == 1


async def test_a_locked_workspace_is_waited_for(store: Store, store_url: str, workspace: int) -> None:
    async with database.locked(store_url, workspace):
        waiting = asyncio.create_task(append(store, workspace, draft("k")))
        done, _ = await asyncio.wait([waiting], timeout=0.1)
        assert not done
    assert [outcome.status for outcome in await waiting] == ["accepted"]


async def test_readers_do_not_wait_for_a_writer(store: Store, store_url: str, workspace: int) -> None:
    await append(store, workspace, draft())
    async with database.locked(store_url, workspace):
        assert (await store.ledgers.head(workspace)).sequence == 1
        assert len((await store.ledgers.events(EventQuery(workspace_id=workspace, limit=10))).events) == 1


async def test_pages_stay_correct_while_events_are_added(store: Store, workspace: int) -> None:
    done = asyncio.Event()

    async def write() -> None:
        for _ in range(30):
            await append(store, workspace, *(draft() for _ in range(7)))
        done.set()

    writing = asyncio.create_task(write())
    seen: list[int] = []
    after = None
    while not (done.is_set() and len(seen) == 210):
        page = await store.ledgers.events(EventQuery(workspace_id=workspace, limit=13, after=after))
        seen += [event.sequence for event in page.events]
        after = page.resume or (page.events[-1].id if page.events else after)
    await writing
    assert seen == list(range(1, 211))
