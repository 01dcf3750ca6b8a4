"""Rate limits, per workspace and receiver. The store keeps the counts, so they are exact over all processes."""

from headgate_server.core.errors import RateLimited
from headgate_server.core.model import Admission, RateLimit, Workspace
from headgate_server.core.types import WorkspaceId
from headgate_server.process.clock import Clock, system_clock
from headgate_server.store import Limits

_REMEMBERED = 10_000
"""The most refusals that a process keeps. Past it the oldest is dropped, which costs one more statement."""

_SPANS: dict[float, str] = {1: "second", 60: "minute", 3_600: "hour", 86_400: "day"}


class RateLimiter:
    """Admits requests, or refuses them with the time to retry.

    A process keeps the time until which a workspace is refused, so a workspace over its limit causes no statements.
    """

    def __init__(self, limits: Limits, clock: Clock = system_clock):
        self._limits = limits
        self._clock = clock
        self._refused: dict[tuple[WorkspaceId, str], tuple[int, RateLimit, Admission]] = {}

    async def admit(self, workspace: Workspace, receiver: str, limit: RateLimit) -> Admission:
        """Count a request. Raises `RateLimited` over the limit, and `Unavailable` if the store cannot count it."""
        key = (workspace.id, receiver)
        now = self._clock()
        until, of, refusal = self._refused.get(key, (0, limit, None))
        # If more time is left than the refusal had at first, the clock was set back: ask the store again.
        if refusal is not None and of == limit and 0 < until - now <= refusal.retry_after:
            passed = refusal.retry_after - (until - now)
            raise _refused(limit, refusal._replace(retry_after=until - now, reset_after=refusal.reset_after - passed))
        admission = await self._limits.admit(workspace.id, receiver, limit)
        if admission.allowed:
            self._refused.pop(key, None)
            return admission
        while len(self._refused) >= _REMEMBERED:
            self._refused.pop(next(iter(self._refused)))
        self._refused[key] = (now + admission.retry_after, limit, admission)
        raise _refused(limit, admission)


def _refused(limit: RateLimit, admission: Admission) -> RateLimited:
    seconds = limit.period / 1_000_000
    return RateLimited(
        f"More than {limit.requests} requests per {_SPANS.get(seconds) or f'{seconds:g} seconds'}.",
        retry_after=admission.retry_after / 1e6,
        limit=limit,
        admission=admission,
    )
