"""Group commit where the database has its workspaces on several nodes: each has groups of its own."""

import asyncio

import pytest

from headgate_server.core.errors import Unavailable
from headgate_server.ingest.committer import CommitterConfig
from tests.unit.committing import Bench, events
from tests.unit.gatedstore import ends


async def test_on_several_nodes_each_workspace_has_its_own_groups_and_they_are_stored_together() -> None:
    bench = Bench(nodes=True)
    first = await bench.calls(events(1, 1), events(2, 1), events(1, 1))
    appends = [await bench.store.next(), await bench.store.next()]
    assert sorted(append.workspaces for append in appends) == [[1, 1], [2]]
    assert all(append.wait for append in appends)
    # One that waits delays no other, and its workspace's next group comes after it.
    slow, fast = sorted(appends, key=lambda append: append.workspaces)
    later = await bench.calls(events(1, 1), events(3, 1))
    fast.finish()
    third = await bench.store.next()
    assert third.workspaces == [3]
    third.finish()
    await ends(later[1])
    assert await bench.store.quiet()
    slow.finish()
    following = await bench.store.next()
    assert following.workspaces == [1]
    following.finish()
    await asyncio.gather(*map(ends, [*first, *later]))
    await bench.drain()


async def test_on_several_nodes_only_so_many_workspaces_are_stored_at_a_time() -> None:
    bench = Bench(nodes=True, config=CommitterConfig(workspaces_at_once=2))
    calls = await bench.calls(*(events(workspace, 1) for workspace in (1, 2, 3)))
    appends = [await bench.store.next(), await bench.store.next()]
    assert await bench.store.quiet()
    appends[0].finish()
    (await bench.store.next()).finish()
    appends[1].finish()
    await asyncio.gather(*map(ends, calls))
    await bench.drain()


async def test_on_several_nodes_a_node_that_fails_fails_its_own_callers() -> None:
    bench = Bench(nodes=True)
    lost, kept = await bench.calls(events(1, 1), events(2, 1))
    for append in [await bench.store.next(), await bench.store.next()]:
        if append.workspaces == [1]:
            append.fail(Unavailable("The node is down."))
        else:
            append.finish()
    with pytest.raises(Unavailable):
        await ends(lost)
    await ends(kept)
    await bench.drain()
