"""Finds out whether an event can be stored now. REST, gRPC health and the background work use the same answer."""

import asyncio
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

from headgate_server.core.errors import Unavailable
from headgate_server.core.reasons import Reason
from headgate_server.process.causes import cause_of
from headgate_server.process.metrics import catalogue
from headgate_server.process.metrics.cells import Reading
from headgate_server.store import Probe

_FRESH_SECONDS = 1.0
"""How long an answer is valid. Health checks need no key, and many of them must not cause many commits."""
_PROBE_SECONDS = 10.0
"""A probe runs at least this often, even if events are stored all the time. Only a probe detects that the database's
settings would lose events.
"""
_PATIENCE_SECONDS = 6.0
"""After this time a store that does not answer counts as unavailable: a little longer than a store waits for a lock."""


class Part(NamedTuple):
    """The state of one part of the service, for people."""

    name: str
    state: str
    detail: str = ""


class Readiness:
    """Checks the store with a probe that writes, unless a commit has just succeeded. It runs on one event loop.

    The committer reports its commits: after a failed commit the last answer is dropped, and the next probe is thorough.
    """

    def __init__(self, probe: Probe, clock: Callable[[], float] = time.monotonic):
        self._database_probe = probe
        self._clock = clock
        self._fresh_until = self._probed = float("-inf")
        self._succeeded = float("-inf")
        self._refusal: Unavailable | None = None
        self._thorough = False
        self._probing: asyncio.Task[None] | None = None

    def stored(self) -> None:
        """Record that a commit has just succeeded."""
        self._thorough = False
        if self._clock() < self._probed + _PROBE_SECONDS and not self._not_durable():
            self._answer(None)

    def _not_durable(self) -> bool:
        """Whether the last probe found a database that is not durable. No commit shows that."""
        return self._refusal is not None and self._refusal.reason == Reason.STORE_NOT_DURABLE

    def failed(self) -> None:
        """Record that a commit has just failed."""
        self._thorough = True
        self._fresh_until = float("-inf")

    async def check(self) -> None:
        """Return if an event can be stored. Raises `Unavailable` if not. At most one probe runs at the same time."""
        now = self._clock()
        if now < self._fresh_until and now < self._probed + _PROBE_SECONDS:
            self._tell()
            return
        if self._probing is None:
            self._probing = asyncio.create_task(self._probe(self._thorough))
        done, _ = await asyncio.wait((self._probing,), timeout=_PATIENCE_SECONDS)
        if not done:
            raise Unavailable("The store has not answered in time.")
        self._tell()

    def part(self) -> Part:
        """Return the store's state. If it is unavailable, the detail is its reason and the cause's code."""
        if self._refusal is None:
            return Part("store", "ready", f"The last commit was {max(0.0, self._clock() - self._succeeded):.1f} s ago.")
        cause = cause_of(self._refusal)
        codes = [cause[name] for name in ("reason", "sqlite", "sqlstate", "condition", "errno") if name in cause]
        return Part("store", "unavailable", " ".join(codes))

    def readings(self) -> Iterator[Reading]:
        """Yield the last answer, for the metrics."""
        yield catalogue.READY, (), self._refusal is None

    async def close(self) -> None:
        """Cancel a probe that is in progress."""
        if self._probing is not None:
            self._probing.cancel()
            await asyncio.gather(self._probing, return_exceptions=True)

    async def _probe(self, thorough: bool) -> None:
        refusal: Unavailable | None = None
        try:
            await self._database_probe.ping(thorough=thorough)
        except Unavailable as error:
            refusal = error
        except Exception as error:
            # A store that fails with an unexpected error cannot store events either.
            refusal = Unavailable("The store failed.")
            refusal.__cause__ = error
        finally:
            self._probing = None
            self._probed = self._clock()
        if refusal is not None:
            self._thorough = True
        elif thorough:
            self._thorough = False
        self._answer(refusal)

    def _answer(self, refusal: Unavailable | None) -> None:
        self._refusal = refusal
        if refusal is None:
            self._succeeded = self._clock()
        self._fresh_until = self._clock() + _FRESH_SECONDS

    def _tell(self) -> None:
        if self._refusal is not None:
            raise self._refusal.with_traceback(None)  # it is raised many times, and its traceback would grow each time
