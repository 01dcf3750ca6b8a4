"""The job that watches whether an event can be stored."""

import asyncio
from collections.abc import Callable

import structlog

from headgate_server.ingest.readiness import Readiness
from headgate_server.process.causes import Causes

log = structlog.get_logger(__name__)

NAME = "watch"

_PROBE_SECONDS = 2.0
"""A probe is a commit. At this interval it costs almost nothing, and a lost store is found before most load balancers
check twice.
"""


class Watch:
    """Reports to grpc.health.v1.Health and the log whether an event can be stored. It continues after any error."""

    def __init__(self, readiness: Readiness, set_serving: Callable[[bool], None]):
        self._readiness = readiness
        self._set_serving = set_serving
        self._causes = Causes()
        self._serving = True

    async def __call__(self) -> None:
        """Watch until cancelled."""
        while True:
            try:
                await self._readiness.check()
                self._now(True)
            except Exception as error:
                self._now(False)
                self._causes.tell("not_ready", error)
            await asyncio.sleep(_PROBE_SECONDS)

    def _now(self, serving: bool) -> None:
        if serving != self._serving:
            log.warning("store_found" if serving else "store_lost")
            self._set_serving(serving)
            self._serving = serving
