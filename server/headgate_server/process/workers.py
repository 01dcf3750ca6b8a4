"""Several server processes: started, kept alive, stopped together."""

import asyncio
from collections.abc import Coroutine, Iterable, Mapping, Sequence
from typing import Any

import structlog

from headgate_server.process.child import RestartPolicy, ServerProcess, keep

log = structlog.get_logger(__name__)

_KILL_SECONDS = 5.0
"""From the end of a worker's own grace to SIGKILL: the last group may still be at its commit then."""
_START_SECONDS = 60.0
"""A worker takes calls after one or two seconds, on a busy machine after ten. Longer than this, it hangs."""
_FIRST_START_SECONDS = 3600.0
"""The first start may migrate the database: an index over ten million events takes a minute."""
_SLOW_SECONDS = 30.0
"""After this the log says that the first start takes long."""


class Workers:
    """Server processes, one for each command line. Lives on one event loop, in the main thread.

    `start`, then `keep` until the end is wanted, then `stop`, whatever became of the others.
    """

    def __init__(
        self,
        arguments: Sequence[Sequence[str]],
        environment: Mapping[str, str],
        *,
        grace: float,
        policy: RestartPolicy | None = None,
        start_seconds: float = _START_SECONDS,
    ):
        """`arguments` are the command lines after `headgate serve`, each with a port of its own, and `environment`
        their settings in the environment. `grace` is the time, in seconds, that they give their calls when they are
        asked to end. A start that takes longer than `start_seconds` has failed, but for the first one.
        """
        self._children = [ServerProcess(each, dict(environment), start_seconds) for each in arguments]
        self._patience = grace + _KILL_SECONDS
        self._policy = policy or RestartPolicy()

    async def start(self) -> None:
        """Return once all of them take calls. Raises `SetupError` if one of them cannot."""
        first, *others = self._children
        slow = asyncio.get_running_loop().call_later(_SLOW_SECONDS, log.warning, "worker_starts_slowly")
        try:
            # Alone: it brings the database's schema up to date, and what is wrong with the settings is said once.
            await first.start(_FIRST_START_SECONDS)
        finally:
            slow.cancel()
        await _all(each.start() for each in others)

    async def keep(self) -> None:
        """Replace those that die, each on its port, until cancelled.

        Raises `SetupError` if one of them cannot be started again.
        """
        await _all(keep(child, self._policy) for child in self._children)

    async def stop(self) -> None:
        """Ask all of them at once to end, and return once they have."""
        await asyncio.gather(*(child.stop(self._patience) for child in self._children))


async def _all(works: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Return when all have ended; with the first error, at which the others are cancelled."""
    tasks = [asyncio.create_task(work) for work in works]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
