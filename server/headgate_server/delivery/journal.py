"""Records the reports of many destinations in few transactions."""

import asyncio
from typing import NamedTuple

from headgate_server.core.destinations import Report
from headgate_server.core.model import Lease
from headgate_server.store import Deliveries

_MOST = 200
"""The most reports of one transaction. It locks the lease's row, so the lease is renewed between transactions."""


class _Entry(NamedTuple):
    report: Report
    recorded: "asyncio.Future[float | None]"


class Journal:
    """Records reports under one lease. Reports that arrive during a transaction go into the next one, so that many
    destinations need few commits. Used on one event loop only.
    """

    def __init__(self, deliveries: Deliveries, lease: Lease):
        self._deliveries = deliveries
        self._lease = lease
        self._waiting: list[_Entry] = []
        self._writing: asyncio.Task[None] | None = None

    async def record(self, report: Report) -> float | None:
        """Record a report. Return the same as `Deliveries.record`. Raises the store's errors, and `LeaseLost`."""
        entry = _Entry(report, asyncio.get_running_loop().create_future())
        self._waiting.append(entry)
        if self._writing is None:
            self._writing = asyncio.create_task(self._write())
        return await entry.recorded

    async def _write(self) -> None:
        try:
            while self._waiting:
                group, self._waiting = self._waiting[:_MOST], self._waiting[_MOST:]
                await self._write_group(group)
        finally:
            self._writing = None

    async def _write_group(self, group: list[_Entry]) -> None:
        try:
            recorded = await self._deliveries.record([entry.report for entry in group], self._lease)
        except Exception as error:
            for entry in group:
                if not entry.recorded.done():
                    entry.recorded.set_exception(error)
            return
        for entry, answer in zip(group, recorded, strict=True):
            if not entry.recorded.done():
                entry.recorded.set_result(answer)
