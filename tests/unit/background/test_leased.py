"""A leased job works while its process holds the lease, and stops when it cannot rely on the lease any more."""

import asyncio

import pytest

from headgate_server.background.leased import Leased, Terms
from headgate_server.core.errors import LeaseLost, Unavailable
from headgate_server.core.model import Lease
from tests.support.waiting import until

LONG = Terms(term=60.0, margin=1.0, renew_every=0.01, take_every=0.01)
"""A lease that is not lost on a busy machine."""
SHORT = Terms(term=0.4, margin=0.1, renew_every=0.05, take_every=0.01)
"""A lease that expires within a test."""


class Desk:
    """Leases in memory: one lease, with switches for what a database can do."""

    def __init__(self) -> None:
        self.epoch = 0
        self.taken_by: str | None = None
        self.renewals = 0
        self.released = 0
        self.failing = False
        self.hanging = False

    async def take(self, name: str, holder: str, term: float) -> Lease | None:
        if self.taken_by is not None:
            return None
        self.taken_by = holder
        self.epoch += 1
        return Lease(name, holder, self.epoch)

    async def renew(self, lease: Lease, term: float) -> bool:
        if self.hanging:
            await asyncio.Event().wait()
        if self.failing:
            raise Unavailable("The database is gone.")
        self.renewals += 1
        return lease.epoch == self.epoch and self.taken_by == lease.holder

    async def current(self, name: str) -> Lease | None:
        return None if self.taken_by is None else Lease(name, self.taken_by, self.epoch)

    async def release(self, lease: Lease) -> None:
        self.released += 1
        if lease.epoch == self.epoch:
            self.taken_by = None


class Work:
    """Work that continues until it is cancelled, and records when it runs."""

    def __init__(self) -> None:
        self.running: list[int] = []
        self.begun: list[int] = []

    async def __call__(self, lease: Lease) -> None:
        self.begun.append(lease.epoch)
        self.running.append(lease.epoch)
        try:
            await asyncio.Event().wait()
        finally:
            self.running.remove(lease.epoch)

    async def is_running(self) -> bool:
        return bool(self.running)

    async def was_ended(self) -> bool:
        return len(self.begun) > len(self.running) > 0 or (bool(self.begun) and not self.running)


async def ended(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_the_work_runs_while_the_lease_is_renewed_and_releases_it_at_its_end() -> None:
    desk, work = Desk(), Work()
    task = asyncio.create_task(Leased("purge", desk, "one", work, terms=LONG)())

    async def renewed() -> bool:
        return desk.renewals > 10

    await until(renewed)
    assert work.begun == [1]
    assert work.running == [1]
    await ended(task)
    assert not work.running
    assert (desk.released, desk.taken_by) == (1, None)


async def test_who_waits_takes_the_lease_when_it_is_released() -> None:
    desk, first, second = Desk(), Work(), Work()
    holder = asyncio.create_task(Leased("purge", desk, "one", first, terms=LONG)())
    await until(first.is_running)
    waiting = asyncio.create_task(Leased("purge", desk, "two", second, terms=LONG)())
    await asyncio.sleep(0.05)
    assert not second.begun
    await ended(holder)
    await until(second.is_running)
    assert second.begun == [2]
    await ended(waiting)


async def test_who_waits_frees_the_lease_of_a_holder_that_has_ended() -> None:
    desk, work = Desk(), Work()
    desk.taken_by, desk.epoch = "killed", 7
    asked: list[str] = []

    def has_ended(holder: str) -> bool:
        asked.append(holder)
        return len(asked) > 3

    task = asyncio.create_task(Leased("purge", desk, "one", work, terms=LONG, has_ended=has_ended)())
    await until(work.is_running)
    assert asked == ["killed"] * 4
    assert (work.begun, desk.taken_by) == ([8], "one")
    await ended(task)


@pytest.mark.parametrize("trouble", ["failing", "hanging"])
async def test_the_work_ends_before_the_term_does_when_the_lease_cannot_be_renewed(trouble: str) -> None:
    desk, work = Desk(), Work()
    task = asyncio.create_task(Leased("purge", desk, "one", work, terms=SHORT)())
    await until(work.is_running)
    setattr(desk, trouble, True)
    await until(work.was_ended)
    await ended(task)


async def test_a_database_that_fails_for_a_moment_costs_no_lease() -> None:
    desk, work = Desk(), Work()
    task = asyncio.create_task(Leased("purge", desk, "one", work, terms=LONG)())
    await until(work.is_running)
    desk.failing = True
    await asyncio.sleep(LONG.renew_every * 5)
    desk.failing = False
    before = desk.renewals

    async def renewed() -> bool:
        return desk.renewals > before + 8

    await until(renewed)
    assert work.begun == [1]
    await ended(task)


async def test_a_lease_that_passed_to_somebody_else_ends_the_work_and_is_not_released() -> None:
    desk, work = Desk(), Work()
    task = asyncio.create_task(Leased("purge", desk, "one", work, terms=LONG)())
    await until(work.is_running)
    desk.epoch, desk.taken_by = 2, "two"
    await until(work.was_ended)
    assert desk.taken_by == "two"
    await ended(task)


async def test_work_that_found_itself_overtaken_waits_for_the_lease_again() -> None:
    desk = Desk()
    begun: list[int] = []

    async def overtaken(lease: Lease) -> None:
        begun.append(lease.epoch)
        if lease.epoch < 3:
            raise LeaseLost("overtaken")

    await asyncio.wait_for(Leased("purge", desk, "one", overtaken, terms=LONG)(), 5)
    assert begun == [1, 2, 3]


async def test_an_error_of_the_work_is_the_jobs_and_frees_the_lease() -> None:
    desk = Desk()

    async def broken(lease: Lease) -> None:
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        await Leased("purge", desk, "one", broken, terms=LONG)()
    assert desk.taken_by is None
