"""Several server processes: started, kept alive, stopped together."""

import asyncio
from collections.abc import Coroutine, Iterable, Mapping, Sequence
from typing import Any

import structlog

from headgate_server.process.child import RestartPolicy, ServerProcess, keep

log = structlog.get_logger(__name__)

_KILL_SECONDS = 5.0
"""The time from the end of a worker's grace to SIGKILL: the last group may still be committing."""
_START_SECONDS = 60.0
"""A worker accepts calls after one or two seconds, on a busy machine after ten. If it takes longer, it hangs."""
_FIRST_START_SECONDS = 3600.0
"""The first start may migrate the database: an index over ten million events takes a minute."""
_SLOW_SECONDS = 30.0
"""After this time the log says that the first start takes long."""


class Workers:
    """Server processes, one for each command line. Runs on one event loop, in the main thread.

    Call `start`, then `keep` until the service shall end, then always `stop`.
    """

    def __init__(
        self,
        arguments: Sequence[Sequence[str]],
        environment: Mapping[str, str],
        *,
        grace: float,
        policy: RestartPolicy | None = None,
        start_seconds: float = _START_SECONDS,
        measured: bool = False,
        at_leisure: bool = False,
    ):
        """`arguments` are the command lines after `headgate serve`, each with a port of its own, and `environment`
        their settings in the environment. `grace` is the time, in seconds, that they give their calls when they must
        end. A start that takes longer than `start_seconds` has failed; only the first worker's first start may take
        longer. With `measured` the metrics of the processes can be read. With `at_leisure` only the first is started by
        `start`, and the others by `keep`.
        """
        self._at_leisure = at_leisure
        self._children = [
            ServerProcess(each, dict(environment), start_seconds, measured=measured) for each in arguments
        ]
        self._patience = grace + _KILL_SECONDS
        self._policy = policy or RestartPolicy()

    @property
    def children(self) -> Sequence[ServerProcess]:
        """The processes, in the order of their command lines."""
        return self._children

    async def start(self) -> None:
        """Return once all of them accept calls, or the first. Raises `SetupError` if one of them cannot start."""
        first, *others = self._children
        slow = asyncio.get_running_loop().call_later(_SLOW_SECONDS, log.warning, "worker_starts_slowly")
        try:
            # Alone: it migrates the database's schema, and a fault in the settings is reported once.
            await first.start(_FIRST_START_SECONDS)
        finally:
            slow.cancel()
        if not self._at_leisure:
            await _all(each.start() for each in others)

    async def keep(self) -> None:
        """Replace workers that die, each on its port, until cancelled.

        Raises `SetupError` if one of them cannot be started, or started again.
        """
        await _all(
            keep(child, self._policy, started=not (self._at_leisure and index))
            for index, child in enumerate(self._children)
        )

    async def stop(self) -> None:
        """Ask all of them at once to end, and return once they have ended."""
        await asyncio.gather(*(child.stop(self._patience) for child in self._children))


async def _all(works: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Return when all have ended. Raises the first error, after the others are cancelled."""
    tasks = [asyncio.create_task(work) for work in works]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
