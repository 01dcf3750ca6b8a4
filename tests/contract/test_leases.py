"""A lease has one holder at a time, and an epoch that fences what an earlier holder still writes."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from headgate_server.core.errors import LeaseLost
from headgate_server.core.model import Lease, Position
from headgate_server.store import Store
from headgate_server.store.opening import open_store
from tests.support.waiting import until

TERM = 60.0
"""Is never over within a test."""

FIRST = Position(1, (1).to_bytes(16))
SECOND = Position(2, (2).to_bytes(16))

_HOLDER = """
import asyncio, sys
from headgate_server.background.leased import Leased, Terms
from headgate_server.core.model import Position
from headgate_server.process.identity import process_name
from headgate_server.store.opening import open_store

async def main(url, holder, term):
    store = await open_store(url)
    steps = 0

    async def work(lease):
        nonlocal steps
        print("holds", lease.epoch, flush=True)
        while True:
            old = await store.cursors.position("test", 1)
            await store.cursors.move("test", 1, old, Position(old.sequence + 1, bytes(16)), lease)
            steps += 1
            await asyncio.sleep(0.02)

    terms = Terms(term=float(term), margin=0.3, renew_every=0.3, take_every=0.05)
    await Leased("test", store.leases, holder or process_name(), work, terms=terms)()

asyncio.run(main(*sys.argv[1:]))
"""


async def overdue(store: Store, holder: str) -> Lease:
    """Return a lease whose term is over."""
    lease = await store.leases.take("purge", holder, 0.0)
    assert lease is not None
    return lease


async def test_one_of_many_takes_a_lease_and_the_others_wait_for_its_release(store: Store, store_url: str) -> None:
    other = await open_store(store_url)
    stores = [store, other] * 4
    taken = await asyncio.gather(
        *(each.leases.take("purge", f"holder {number}", TERM) for number, each in enumerate(stores))
    )
    (lease,) = [each for each in taken if each is not None]
    assert lease.epoch == 1
    assert await other.leases.take("purge", "late", TERM) is None
    await store.leases.release(lease)
    assert await other.leases.take("purge", "late", TERM) == Lease("purge", "late", 2)
    await other.close()


async def test_leases_of_other_names_are_apart(store: Store) -> None:
    assert await store.leases.take("one", "a", TERM) == Lease("one", "a", 1)
    assert await store.leases.take("two", "b", TERM) == Lease("two", "b", 1)


async def test_a_renewed_lease_keeps_its_epoch_and_is_not_taken(store: Store) -> None:
    lease = await overdue(store, "one")
    assert await store.leases.renew(lease, TERM)
    assert await store.leases.take("purge", "two", TERM) is None


async def test_a_lease_whose_term_is_over_passes_on_and_is_not_renewed_nor_released_by_the_old_holder(
    store: Store,
) -> None:
    old = await overdue(store, "one")
    new = await store.leases.take("purge", "two", TERM)
    assert new == Lease("purge", "two", 2)
    assert not await store.leases.renew(old, TERM)
    await store.leases.release(old)
    assert await store.leases.take("purge", "three", TERM) is None
    assert await store.leases.renew(new, TERM)


async def test_the_same_process_gets_a_new_epoch_when_it_takes_a_lease_again(store: Store) -> None:
    old = await overdue(store, "one")
    assert await store.leases.take("purge", "one", TERM) == Lease("purge", "one", 2)
    assert not await store.leases.renew(old, TERM)


async def test_a_term_that_was_begun_before_the_clock_was_set_back_is_over(store: Store) -> None:
    assert await store.leases.take("purge", "one", 3600.0) is not None
    assert await store.leases.take("purge", "two", TERM) == Lease("purge", "two", 2)


async def test_a_fenced_write_of_an_overtaken_holder_changes_nothing(store: Store, workspace: int) -> None:
    old = await overdue(store, "one")
    await store.cursors.move("tail", workspace, Position(), FIRST, old)
    new = await store.leases.take("purge", "two", TERM)
    assert new is not None
    with pytest.raises(LeaseLost):
        await store.cursors.move("tail", workspace, FIRST, SECOND, old)
    assert await store.cursors.position("tail", workspace) == FIRST
    await store.cursors.move("tail", workspace, FIRST, SECOND, new)
    assert await store.cursors.position("tail", workspace) == SECOND


@pytest.mark.parametrize("wrong", [Position(), SECOND])
async def test_a_cursor_moves_from_where_it_is_and_from_nowhere_else(
    store: Store, workspace: int, wrong: Position
) -> None:
    lease = await store.leases.take("purge", "one", TERM)
    assert lease is not None
    await store.cursors.move("tail", workspace, Position(), FIRST, lease)
    with pytest.raises(LeaseLost):
        await store.cursors.move("tail", workspace, wrong, Position(3, bytes(16)), lease)
    assert await store.cursors.position("tail", workspace) == FIRST


async def test_a_holder_that_is_killed_is_followed_by_another(store: Store, store_url: str) -> None:
    async with holding(store_url, "one") as first:
        assert await first.line() == "holds 1"
        async with holding(store_url, "two") as second:
            first.send(signal.SIGKILL)
            assert await second.line() == "holds 2"


async def test_a_killed_holder_of_the_same_machine_is_followed_before_the_end_of_its_term(
    store: Store, store_url: str
) -> None:
    async with holding(store_url, term=TERM * 60) as first:
        assert await first.line() == "holds 1"
        async with holding(store_url, term=TERM * 60) as second:
            first.send(signal.SIGKILL)
            assert await second.line() == "holds 2"


async def test_the_current_lease_is_the_one_that_was_not_released(store: Store) -> None:
    assert await store.leases.current("purge") is None
    lease = await store.leases.take("purge", "one", TERM)
    assert lease is not None
    assert await store.leases.current("purge") == lease
    await store.leases.release(lease)
    assert await store.leases.current("purge") is None


async def test_a_holder_that_is_frozen_past_its_term_and_thawed_writes_nothing_more(
    store: Store, store_url: str
) -> None:
    async with holding(store_url, "one") as first:
        assert await first.line() == "holds 1"
        first.send(signal.SIGSTOP)
        async with holding(store_url, "two") as second:
            assert await second.line() == "holds 2"
            first.send(signal.SIGCONT)
            before = (await store.cursors.position("test", 1)).sequence

            async def went_on() -> bool:
                return (await store.cursors.position("test", 1)).sequence > before + 10

            await until(went_on)
            second.send(signal.SIGKILL)
            # The one that was thawed waits for the lease like any other, and takes it with an epoch of its own.
            assert await first.line() == "holds 3"


class Process:
    """A process that holds a lease, or waits for it."""

    def __init__(self, process: asyncio.subprocess.Process):
        self._process = process

    def send(self, number: signal.Signals) -> None:
        """Send a signal."""
        os.kill(self._process.pid, number)

    async def line(self) -> str:
        """Return the next line of its own that it prints, its log left aside."""
        assert self._process.stdout is not None
        async with asyncio.timeout(30):
            async for line in self._process.stdout:
                if line.startswith(b"holds"):
                    return line.decode().strip()
        raise AssertionError("the process has ended")


@asynccontextmanager
async def holding(url: str, holder: str = "", term: float = 1.5) -> AsyncIterator[Process]:
    """Run a process that moves a cursor repeatedly while it holds the lease. Without a `holder` it has the name of its
    process.
    """
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", _HOLDER, url, holder, str(term)), stdout=asyncio.subprocess.PIPE
    )
    try:
        yield Process(process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
