"""Whether an event could be stored now: one answer for REST, gRPC health, and whoever else asks."""

import asyncio
import time
from collections.abc import Callable

from headgate_server.core.errors import Unavailable
from headgate_server.core.reasons import Reason
from headgate_server.store import Probe

_FRESH_SECONDS = 1.0
"""How long an answer holds: those who ask have no key, and asking must not become a flood of commits."""
_PROBE_SECONDS = 10.0
"""However much is stored, a probe at least so often: it alone sees that the database was set to lose what it stores."""
_PATIENCE_SECONDS = 6.0
"""After which a store that does not answer counts as lost: a little more than either store waits for a lock."""


class Readiness:
    """Asks the store by a probe that writes, unless a commit has just shown it. Lives on one event loop.

    What the committer sees counts as well: after a commit that failed the next probe is thorough, and the last answer
    is forgotten.
    """

    def __init__(self, probe: Probe, clock: Callable[[], float] = time.monotonic):
        self._database_probe = probe
        self._clock = clock
        self._fresh_until = self._probed = float("-inf")
        self._refusal: Unavailable | None = None
        self._thorough = False
        self._probing: asyncio.Task[None] | None = None

    def stored(self) -> None:
        """Note that a commit has just succeeded."""
        self._thorough = False
        if self._clock() < self._probed + _PROBE_SECONDS and not self._not_durable():
            self._answer(None)

    def _not_durable(self) -> bool:
        """Whether the last probe found what no commit shows."""
        return self._refusal is not None and self._refusal.reason == Reason.STORE_NOT_DURABLE

    def failed(self) -> None:
        """Note that a commit has just failed."""
        self._thorough = True
        self._fresh_until = float("-inf")

    async def check(self) -> None:
        """Return if an event can be stored, raise `Unavailable` if not. At most one probe runs, whoever asks."""
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

    async def close(self) -> None:
        """End a probe that is under way."""
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
            # A store that fails in a way of which nobody thought stores nothing either.
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
        self._fresh_until = self._clock() + _FRESH_SECONDS

    def _tell(self) -> None:
        if self._refusal is not None:
            raise self._refusal.with_traceback(None)  # it is raised to many, and would grow by each
