"""What only one process may do: a job that runs while its process holds a lease.

A lease is a row in the store: its name, its holder, its epoch, and when its term ends by the database's clock. The
epoch grows by one whenever the lease is taken, and never otherwise, so it names one holder's time in office.

    waiting ──take: free, or its term is over──► holding ──the work returned or raised──► release ──► ended
       ▲                                            │
       └──────────lost: another epoch, or not renewed within the trusted time──────────────┘

Two clocks are used, each for what it can tell. The database's clock alone says whether a lease is free. The process's
own timer says only how long the process trusts its last renewal: until `margin` before the end of the term, counted
from the moment at which it began to ask, so that a slow answer cannot stretch it.

Neither makes the work safe: a process that was frozen past its term goes on with the work until its timer is looked
at. So every write of the work MUST name the lease's epoch (`store.leases.fence`): the write of a holder that was
overtaken changes nothing.
"""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import structlog

from headgate_server.core.errors import HeadgateError, LeaseLost
from headgate_server.core.model import Lease
from headgate_server.store import Leases

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """How long a lease is held for at once. Times in seconds."""

    term: float = 10.0
    """After a holder was killed, its work stands still for at most so long."""
    margin: float = 2.0
    """How long before the end of the term a holder stops that could not renew: time to end what is under way."""
    renew_every: float = 3.0
    """Twice between two renewals a database may fail for a moment without the lease being lost."""
    take_every: float = 2.0
    """How often those who wait ask for the lease: one statement each, by a primary key."""


class Leased:
    """A job's `run` that does `work` while, and only while, this process holds the lease `name`.

    `work` is given the lease, and is cancelled when the lease is lost; it is started again when the lease is taken
    again. The error that it raises, and the store's, end the job: its supervisor starts it again.
    """

    def __init__(
        self,
        name: str,
        leases: Leases,
        holder: str,
        work: Callable[[Lease], Awaitable[None]],
        *,
        terms: Terms | None = None,
        timer: Callable[[], float] = time.monotonic,
    ):
        """`holder` names this process alone, among all that share the store, now and ever."""
        self._name = name
        self._leases = leases
        self._holder = holder
        self._work = work
        self._terms = terms or Terms()
        self._timer = timer

    async def __call__(self) -> None:
        """Wait for the lease, do the work, again and again, until the work returns."""
        while True:
            asked = self._timer()
            lease = await self._leases.take(self._name, self._holder, self._terms.term)
            if lease is None:
                await asyncio.sleep(self._terms.take_every)
                continue
            log.info("lease_taken", lease=lease.name, epoch=lease.epoch)
            if await self._hold(lease, self._trusted_until(asked)):
                return
            log.warning("lease_lost", lease=lease.name, epoch=lease.epoch)

    async def _hold(self, lease: Lease, trusted_until: float) -> bool:
        """Do the work until it ends or the lease is lost; True if it ended."""
        work = asyncio.ensure_future(self._work(lease))
        renewing = asyncio.create_task(self._renew(lease, trusted_until))
        try:
            await asyncio.wait((work, renewing), return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                return False
            try:
                await work
            except LeaseLost:
                return False
            return True
        finally:
            await _ended(work, renewing)
            # Those who wait need not wait for the end of the term. A lease that was lost is not touched by it.
            with contextlib.suppress(HeadgateError):
                await self._leases.release(lease)

    async def _renew(self, lease: Lease, trusted_until: float) -> None:
        """Renew the lease as long as that works, and return when it must not be relied on any more."""
        while (left := trusted_until - self._timer()) > 0:
            await asyncio.sleep(min(self._terms.renew_every, left))
            asked = self._timer()
            if asked >= trusted_until:
                return
            try:
                async with asyncio.timeout(trusted_until - asked):
                    if not await self._leases.renew(lease, self._terms.term):
                        return
            except (HeadgateError, TimeoutError):
                continue
            trusted_until = self._trusted_until(asked)

    def _trusted_until(self, asked: float) -> float:
        return asked + self._terms.term - self._terms.margin


async def _ended(*tasks: asyncio.Future[None]) -> None:
    """Cancel tasks and return when all have ended."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
