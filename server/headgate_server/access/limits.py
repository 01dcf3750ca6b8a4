"""Rate limits, of receivers and of keys. The store keeps the counts, so they are exact over all processes."""

from typing import NamedTuple

from headgate_server.access.auth import Principal
from headgate_server.core.errors import RateLimited
from headgate_server.core.model import Admission, RateLimit, Workspace
from headgate_server.core.types import WorkspaceId
from headgate_server.process.clock import Clock, system_clock
from headgate_server.store import Limits
from headgate_server.store.directory import limit_name

_REMEMBERED = 10_000
"""The most refusals that a process keeps. Past it the oldest is dropped, which costs one more statement."""

_SPANS: dict[float, str] = {1: "second", 60: "minute", 3_600: "hour", 86_400: "day"}


_MOST_EVENTS = 100_000
"""The most events that one request is counted as. No setting allows so many in a request."""


class _Counted(NamedTuple):
    """What a limit counts: the name of its count in the store, and the word for a message."""

    workspace_id: WorkspaceId
    name: str
    what: str


def _of_key(caller: Principal, what: str, limit: RateLimit) -> _Counted:
    """Return the count of a key's limit. A changed limit has another count: an old one may be far ahead."""
    name = f"{limit_name(caller.key_id)}:{what}:{limit.requests}/{limit.period}:{limit.burst}"
    return _Counted(caller.workspace.id, name, f"{what} with this key")


class RateLimiter:
    """Admits requests, or refuses them with the time to retry.

    A process keeps the time until which a workspace is refused, so a workspace over its limit causes no statements.
    """

    def __init__(self, limits: Limits, clock: Clock = system_clock):
        self._limits = limits
        self._clock = clock
        self._refused: dict[tuple[WorkspaceId, str, int], tuple[int, RateLimit, Admission]] = {}

    async def admit(self, workspace: Workspace, receiver: str, limit: RateLimit) -> Admission:
        """Count a request. Raises `RateLimited` over the limit, and `Unavailable` if the store cannot count it."""
        return await self._admit(_Counted(workspace.id, receiver, "requests"), limit)

    async def admit_call(self, caller: Principal) -> None:
        """Count a call against the limit of its key, if it has one. Raises like `admit`."""
        if (limit := caller.limits.calls) is not None:
            await self._admit(_of_key(caller, "calls", limit), limit)

    async def admit_events(self, caller: Principal, count: int) -> None:
        """Count the events of a request against the limit of its key, if it has one. Raises like `admit`."""
        if count and (limit := caller.limits.events) is not None:
            await self._admit(_of_key(caller, "events", limit), limit, min(count, _MOST_EVENTS), _MOST_EVENTS)

    async def _admit(self, counted: "_Counted", limit: RateLimit, cost: int = 1, most: int = 1) -> Admission:
        key = (counted.workspace_id, counted.name, cost)
        now = self._clock()
        until, of, refusal = self._refused.get(key, (0, limit, None))
        # If more time is left than the refusal had at first, the clock was set back: ask the store again.
        if refusal is not None and of == limit and 0 < until - now <= refusal.retry_after:
            passed = refusal.retry_after - (until - now)
            left = refusal._replace(retry_after=until - now, reset_after=refusal.reset_after - passed)
            raise _refused(counted, limit, left)
        admission = await self._limits.admit(counted.workspace_id, counted.name, limit, cost, most)
        if admission.allowed:
            self._refused.pop(key, None)
            return admission
        while len(self._refused) >= _REMEMBERED:
            self._refused.pop(next(iter(self._refused)))
        self._refused[key] = (now + admission.retry_after, limit, admission)
        raise _refused(counted, limit, admission)


def _refused(counted: _Counted, limit: RateLimit, admission: Admission) -> RateLimited:
    seconds = limit.period / 1_000_000
    return RateLimited(
        f"More than {limit.requests} {counted.what} per {_SPANS.get(seconds) or f'{seconds:g} seconds'}.",
        retry_after=admission.retry_after / 1e6,
        limit=limit,
        admission=admission,
    )
