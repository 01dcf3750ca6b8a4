"""A job that only one process may do: it runs while its process holds a lease.

A lease is a row in the store: its name, its holder, its epoch, and the end of its term by the database's clock. The
epoch grows by one whenever the lease is taken, and only then, so it identifies one holder's term.

    waiting ──take: free, or its term is over──► holding ──the work returned or raised──► release ──► ended
       ▲                                            │
       └──────────lost: another epoch, or not renewed within the trusted time──────────────┘

If the holder is killed, its lease is free at the end of the term. A waiting process of the same machine finds out
earlier that the holder has ended, and releases the lease for it.

There are two clocks. Only the database's clock decides whether a lease is free. The process's own timer only decides
how long the process relies on its last renewal: until `margin` before the end of the term. The term is counted from the
time at which the request for the renewal was sent, so a slow answer cannot lengthen it.

Neither clock makes the work safe: a process that was frozen past its term continues the work until it checks its timer.
So every write of the work MUST name the lease's epoch (`store.leases.fence`). Then the write of a former holder changes
nothing.
"""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import structlog

from headgate_server.core.errors import HeadgateError, LeaseLost
from headgate_server.core.model import Lease
from headgate_server.process import identity
from headgate_server.store import Leases

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """The length of a lease's term, and the times to renew and take it. Times in seconds."""

    term: float = 10.0
    """If a holder is killed and no process of its machine waits for the lease, its work stops for at most this time."""
    margin: float = 2.0
    """A holder that could not renew stops this long before the end of the term. In this time its work can end."""
    renew_every: float = 3.0
    """Two renewals in a row may fail without the loss of the lease."""
    take_every: float = 1.0
    """How often waiting processes try to take the lease. Each attempt is two statements, by a primary key."""


class Leased:
    """The `run` of a job that does `work` only while this process holds the lease `name`.

    `work` gets the lease. It is cancelled when the lease is lost, and started again when the lease is taken again. An
    error of the work or of the store ends the job, and its supervisor starts it again.
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
        changed: Callable[[str, str], None] = lambda name, change: None,
        has_ended: Callable[[str], bool] = identity.has_ended,
    ):
        """`holder` is the name of this process (`identity.process_name`). No other process on the store may ever have
        the same name. `has_ended` says whether a holder has certainly ended.

        `changed` is called with the lease's name and "taken" or "lost".
        """
        self.held = False
        """Whether this process holds the lease now."""
        self._name = name
        self._leases = leases
        self._holder = holder
        self._work = work
        self._terms = terms or Terms()
        self._timer = timer
        self._changed = changed
        self._has_ended = has_ended

    async def __call__(self) -> None:
        """Wait for the lease and do the work, repeatedly, until the work returns."""
        while True:
            requested_at = self._timer()
            lease = await self._leases.take(self._name, self._holder, self._terms.term)
            if lease is None:
                if not await self._freed():
                    await asyncio.sleep(self._terms.take_every)
                continue
            log.info("lease_taken", lease=lease.name, epoch=lease.epoch)
            self._changed(lease.name, "taken")
            if await self._hold(lease, self._trusted_until(requested_at)):
                return
            log.warning("lease_lost", lease=lease.name, epoch=lease.epoch)
            self._changed(lease.name, "lost")

    async def _freed(self) -> bool:
        """Release the lease of a holder that has ended. Return whether that was so."""
        lease = await self._leases.current(self._name)
        if lease is None or not self._has_ended(lease.holder):
            return False
        log.info("lease_freed", lease=lease.name, epoch=lease.epoch)
        await self._leases.release(lease)
        return True

    async def _hold(self, lease: Lease, trusted_until: float) -> bool:
        """Do the work until it ends or the lease is lost. Return whether the work ended."""
        self.held = True
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
            self.held = False
            await _ended(work, renewing)
            # After the release other processes need not wait for the end of the term. It does not change a lost lease.
            with contextlib.suppress(HeadgateError):
                await self._leases.release(lease)

    async def _renew(self, lease: Lease, trusted_until: float) -> None:
        """Renew the lease as long as that works. Return when the process must not rely on the lease any more."""
        while (left := trusted_until - self._timer()) > 0:
            await asyncio.sleep(min(self._terms.renew_every, left))
            requested_at = self._timer()
            if requested_at >= trusted_until:
                return
            try:
                async with asyncio.timeout(trusted_until - requested_at):
                    if not await self._leases.renew(lease, self._terms.term):
                        return
            except (HeadgateError, TimeoutError):
                continue
            trusted_until = self._trusted_until(requested_at)

    def _trusted_until(self, requested_at: float) -> float:
        return requested_at + self._terms.term - self._terms.margin


async def _ended(*tasks: asyncio.Future[None]) -> None:
    """Cancel tasks and return when all have ended."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
