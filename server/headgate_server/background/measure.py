"""The job that measures the store for the metrics. It does nothing while nobody reads them."""

import asyncio
from collections.abc import Iterable

from headgate_server.core.errors import HeadgateError
from headgate_server.process.causes import Causes
from headgate_server.process.metrics import Metrics
from headgate_server.process.metrics.cells import Reading
from headgate_server.store import Measures

NAME = "measure"

_EVERY_SECONDS = 60.0
"""The shortest time between two measurements. A store grows slowly, and PostgreSQL looks at each of its files."""


class Measure:
    """Measures once at the start, and then after a scrape if the last measurement is old. So the first scrape after a
    long time shows an old size, and the next one the new size.
    """

    def __init__(self, measures: Measures, metrics: Metrics, *, every: float = _EVERY_SECONDS):
        self._measures = measures
        self._metrics = metrics
        self._every = every
        self._causes = Causes()
        self._loop = asyncio.get_running_loop()
        self._scraped = asyncio.Event()
        metrics.add_source(self._asked)

    async def __call__(self) -> None:
        """Measure until cancelled."""
        while True:
            try:
                found = await self._measures.read()
                self._metrics.store_bytes(found.size)
                if found.free is not None:
                    self._metrics.store_free_bytes(found.free)
                self._metrics.destination_states(found.destinations)
                if found.verified is not None:
                    self._metrics.ledgers_verified(*found.verified)
            except HeadgateError as error:
                self._causes.tell("store_not_measured", error)
            await asyncio.sleep(self._every)
            self._scraped.clear()
            await self._scraped.wait()

    def _asked(self) -> Iterable[Reading]:
        """Note that the metrics are read. It has no values itself, and runs on any thread."""
        self._loop.call_soon_threadsafe(self._scraped.set)
        return ()
