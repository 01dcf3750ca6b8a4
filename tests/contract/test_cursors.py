"""One query returns the ledgers that a follower has not read to their end."""

import asyncio

from headgate_server.background.follower import Following
from headgate_server.background.wakeup import Wakeup
from headgate_server.core.model import Lagging, Lease, Position, StoredEvent
from headgate_server.store import Store
from tests.support.drafts import append, draft
from tests.support.waiting import until

TERM = 60.0


async def taken(store: Store) -> Lease:
    lease = await store.leases.take("follow", "one", TERM)
    assert lease is not None
    return lease


async def test_ledgers_that_moved_are_found_and_those_that_were_read_are_not(store: Store) -> None:
    lease = await taken(store)
    ids = [(await store.directory.create_workspace(name)).id for name in ("a", "b", "empty")]
    for workspace, count in zip(ids, (2, 1, 0), strict=True):
        for _ in range(count):
            await append(store, workspace, draft())
    assert list(await store.cursors.lagging("tail", 10)) == [
        Lagging(ids[0], Position(), 2),
        Lagging(ids[1], Position(), 1),
    ]
    link = (await append(store, ids[1], draft()))[0].link
    assert link is not None
    await store.cursors.move("tail", ids[1], Position(), Position(link.sequence, link.id), lease)
    assert [each.workspace_id for each in await store.cursors.lagging("tail", 10)] == [ids[0]]
    assert len(await store.cursors.lagging("other", 10)) == 2
    await append(store, ids[1], draft())
    # The one that was never read has waited longer.
    found = await store.cursors.lagging("tail", 10)
    assert found == [Lagging(ids[0], Position(), 2), Lagging(ids[1], Position(2, link.id), 3)]
    assert [each.workspace_id for each in await store.cursors.lagging("tail", 1)] == [ids[0]]
    assert [each.workspace_id for each in await store.cursors.lagging("tail", 1, without=[ids[0]])] == [ids[1]]


async def test_a_follower_sees_every_event_of_every_ledger_in_order_while_they_are_written(store: Store) -> None:
    lease = await taken(store)
    ids = [(await store.directory.create_workspace(f"w{number}")).id for number in range(3)]
    seen: dict[int, list[int]] = {workspace: [] for workspace in ids}

    class Notes:
        name = "notes"

        async def process(self, workspace_id: int, events: list[StoredEvent], lease: Lease) -> None:
            seen[workspace_id] += [event.sequence for event in events]

    following = asyncio.create_task(Following(Notes(), store.ledgers, store.cursors, Wakeup())(lease))

    async def write(workspace: int) -> None:
        for _ in range(10):
            await append(store, workspace, draft(), draft())

    await asyncio.gather(*map(write, ids))

    async def caught_up() -> bool:
        return seen == {workspace: list(range(1, 21)) for workspace in ids}

    await until(caught_up)

    async def moved() -> bool:
        return {(await store.cursors.position("notes", workspace)).sequence for workspace in ids} == {20}

    await until(moved)
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)
