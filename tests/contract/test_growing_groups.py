"""PostgreSQL: a group grows until its workspaces are locked, and what joins is stored as if it had been there."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from headgate_server.core import ledger
from headgate_server.core.ledger import Checker
from headgate_server.core.model import EventQuery, Settled
from headgate_server.ingest.committer import Committer
from headgate_server.store import Store
from headgate_server.store.opening import open_store
from tests.support import database
from tests.support.drafts import draft, submission
from tests.support.proxy import Proxy
from tests.support.waiting import until


@pytest.fixture(params=["postgres", "distributed"])
def url(request: pytest.FixtureRequest) -> str:
    """Return the URL of a fresh store, of each kind whose heads are locked one by one."""
    found: str = request.getfixturevalue(f"{request.param}_url")
    return found


@pytest.fixture
async def opened(url: str) -> AsyncIterator[Store]:
    """Return the store."""
    store = await open_store(url)
    yield store
    await store.close()


async def test_a_group_grows_until_its_head_is_locked(opened: Store, url: str) -> None:
    workspace, begun = (await opened.directory.create_workspace("acme")).id, list[int]()
    submissions = [submission(workspace, draft("a"))]
    async with database.locked(url, workspace):
        storing = asyncio.create_task(opened.database.append(submissions, begin=lambda: begun.append(len(submissions))))
        await until(lambda: database.count_lock_waiters(url))
        submissions += [submission(workspace, draft("b"), draft("a")), submission(workspace, draft("c"))]
        assert begun == []
    decisions = await storing
    assert begun == [3]
    statuses = [outcome.status for one in decisions if isinstance(one, Settled) for outcome in one.outcomes]
    assert statuses == ["accepted", "accepted", "duplicate", "accepted"]
    assert (await opened.ledgers.head(workspace)).sequence == 3


async def test_what_joins_a_group_whose_workspace_is_skipped_is_skipped(opened: Store, url: str) -> None:
    ids = [(await opened.directory.create_workspace(name)).id for name in ("one", "two", "three")]
    submissions = [submission(workspace, draft()) for workspace in ids]

    def begin() -> None:
        # The last moment: the locks are held, or were not to be had.
        submissions.extend(submission(workspace, draft()) for workspace in ids)

    for skipped in ids:
        del submissions[3:]
        async with database.locked(url, skipped):
            decisions = await opened.database.append(submissions, wait=False, begin=begin)
        assert [decision is None for decision in decisions] == [workspace == skipped for workspace in ids] * 2
    assert [(await opened.ledgers.head(workspace)).sequence for workspace in ids] == [4, 4, 4]


@pytest.mark.parametrize(("lost_at", "begins"), [(b"FOR NO KEY UPDATE", 1), (b"FROM unnest", 2)])
async def test_a_group_whose_connection_is_lost_grows_until_the_first_lock(
    postgres_url: str, tmp_path: Path, lost_at: bytes, begins: int
) -> None:
    async with Proxy(tmp_path, postgres_url, "before", lost_at) as proxy:
        store, begun = await open_store(proxy.url), list[int]()
        try:
            workspace = (await store.directory.create_workspace("acme")).id
            submissions = [submission(workspace, draft("a"))]

            def begin() -> None:
                begun.append(len(submissions))
                if len(begun) == 1:
                    submissions.append(submission(workspace, draft("b")))

            proxy.times = 1
            decisions = await store.database.append(submissions, begin=begin)
            assert proxy.lost == 1
            assert len(begun) == begins
            assert [type(decision) for decision in decisions] == [Settled, Settled]
            assert (await store.ledgers.head(workspace)).sequence == 2
        finally:
            await store.close()


async def test_the_callers_of_two_processes_store_each_event_once_and_in_their_order(opened: Store, url: str) -> None:
    """Both commit groups to one ledger, and wait for each other's locks."""
    workspace = (await opened.directory.create_workspace("acme")).id
    other = await open_store(url)
    sequences: dict[str, list[int]] = {}
    committers = [Committer(store.database) for store in (opened, other)]

    async def caller(number: int) -> None:
        mine = sequences[f"caller-{number}"] = []
        for count in range(8):
            # Callers of both processes send every key, in the same order.
            key = f"{number // 2}-{count}"
            decision = await committers[number % 2].submit(submission(workspace, draft(key, {"key": key})))
            assert isinstance(decision, Settled)
            (outcome,) = decision.outcomes
            assert outcome.link is not None
            mine.append(outcome.link.sequence)

    try:
        await asyncio.gather(*map(caller, range(40)))
        for committer in committers:
            await committer.close()
    finally:
        await other.close()
    assert all(mine == sorted(mine) for mine in sequences.values())
    assert all(sequences[f"caller-{n}"] == sequences[f"caller-{n + 1}"] for n in range(0, 40, 2))
    checker = Checker(ledger.genesis("acme"))
    checker.add((await opened.ledgers.events(EventQuery(workspace_id=workspace, limit=1_000))).events)
    checker.expect_head(await opened.ledgers.head(workspace))
    assert (checker.breaks, checker.checked) == ([], 160)
