"""The metrics of a service that has several processes: its workers' values as one, and Envoy's own beside them.

A scrape asks all workers at the same time and waits a second at most. For a worker that does not answer, the counters
that it showed last are used, and its gauges are left out. When a worker has ended, the counters that it showed last are
kept, and those of its successor are added to them. So no counter goes backwards. What a worker that was killed counted
after the last scrape is not shown.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Protocol

from headgate_server.process.metrics.catalogue import (
    BY_NAME,
    CALLS,
    ENVOY_ANSWERING,
    WORKER_CALLS,
    WORKERS,
    WORKERS_ANSWERING,
    Kind,
    Merge,
    Metric,
)
from headgate_server.process.metrics.cells import Labels, Reading, Snapshot, Value
from headgate_server.process.metrics.text import text

PATIENCE_SECONDS = 1.0
"""The time for a worker or Envoy to answer, of the 10 s that Prometheus waits by default."""

Merged = dict[str, dict[Labels, Value]]


class Source(Protocol):
    """A process whose metrics can be read."""

    @property
    def generation(self) -> int:
        """How often the process was started. A new process counts from zero."""

    async def read(self) -> Snapshot | None:
        """Return the values of this moment, None if the process cannot answer. It may be cancelled."""


class Page:
    """The text of a scrape of the whole service. Scrapes at the same time share one reading. Used on one event loop."""

    def __init__(
        self,
        sources: Sequence[Source],
        *,
        own: Callable[[], Sequence[Reading]] = lambda: (),
        further: Callable[[], Awaitable[bytes]] | None = None,
        patience: float = PATIENCE_SECONDS,
    ):
        """`own` returns the values of this process. `further` returns text that is added as it is: Envoy's. It raises
        nothing but `OSError`.
        """
        self._parts = [_Part(source, patience) for source in sources]
        self._own = own
        self._further = further
        self._patience = patience
        self._reading: asyncio.Task[bytes] | None = None

    async def __call__(self) -> bytes:
        """Return the text. It takes little longer than `patience`, whatever the processes do."""
        if self._reading is None:
            self._reading = asyncio.create_task(self._read())
            self._reading.add_done_callback(self._ended)
        return await asyncio.shield(self._reading)

    def _ended(self, _: object) -> None:
        self._reading = None

    async def _read(self) -> bytes:
        further, *answered = await asyncio.gather(self._read_further(), *(part.read() for part in self._parts))
        merged: Merged = {}
        for part, answers in zip(self._parts, answered, strict=True):
            for shown in part.shown(answers=bool(answers)):
                add(merged, shown)
        if self._parts:
            merged[WORKER_CALLS.name] = {(str(index),): part.calls() for index, part in enumerate(self._parts)}
            merged[WORKERS.name] = {(): float(len(self._parts))}
            merged[WORKERS_ANSWERING.name] = {(): float(sum(map(bool, answered)))}
        if self._further is not None:
            merged[ENVOY_ANSWERING.name] = {(): float(bool(further))}
        for metric, labels, value in self._own():
            merged.setdefault(metric.name, {})[labels] = value
        return text(merged) + (further if isinstance(further, bytes) else b"")

    async def _read_further(self) -> bytes:
        if self._further is None:
            return b""
        try:
            async with asyncio.timeout(self._patience):
                return await self._further()
        except OSError:  # a TimeoutError is one, too
            return b""


class _Part:
    """One process: what it shows, and what its predecessors showed last."""

    def __init__(self, source: Source, patience: float):
        self._source = source
        self._patience = patience
        self._generation = source.generation
        self._kept: Merged = {}
        self._last: Snapshot = {}
        self._reading: asyncio.Task[tuple[int, Snapshot | None]] | None = None

    async def read(self) -> bool:
        """Read the process's values. Return whether it has answered in time. A reading that takes longer goes on, and
        the next scrape waits for the same one: a process that hangs is asked once.
        """
        if self._reading is None:
            self._reading = asyncio.create_task(self._read_source())
        done, _ = await asyncio.wait((self._reading,), timeout=self._patience)
        self._follow()
        if not done:
            return False
        reading, self._reading = self._reading, None
        if reading.cancelled() or reading.exception() is not None:
            return False
        generation, snapshot = reading.result()
        if snapshot is None or generation != self._generation:
            return False
        self._last = snapshot
        return True

    async def _read_source(self) -> tuple[int, Snapshot | None]:
        generation = self._source.generation
        return generation, await self._source.read()

    def _follow(self) -> None:
        """Keep the counters of a process that has been replaced."""
        if self._source.generation == self._generation:
            return
        self._generation = self._source.generation
        add(self._kept, _counters(self._last))
        self._last = {}
        if self._reading is not None and not self._reading.done():
            self._reading.cancel()
            self._reading = None

    def calls(self) -> float:
        """Return how many calls the process and its predecessors have counted."""
        return sum(_number(value) for one in (self._kept, self._last) for value in one.get(CALLS.name, {}).values())

    def shown(self, *, answers: bool) -> Sequence[Snapshot]:
        """Return the snapshots whose sum is shown."""
        return self._kept, self._last if answers else _counters(self._last)


def _number(value: Value) -> float:
    assert isinstance(value, float | int)  # noqa: S101 - of a counter
    return value


def add(merged: Merged, snapshot: Snapshot) -> None:
    """Add a process's values to those of others."""
    for name, values in snapshot.items():
        metric = BY_NAME[name]
        known = merged.setdefault(name, {})
        for labels, value in values.items():
            known[labels] = _joined(metric, known[labels], value) if labels in known else value


def _joined(metric: Metric, one: Value, other: Value) -> Value:
    if isinstance(one, float | int) and isinstance(other, float | int):
        if metric.kind is Kind.GAUGE and metric.merge is not Merge.SUM:
            return max(one, other) if metric.merge is Merge.MAX else min(one, other)
        return one + other
    assert not isinstance(one, float | int)  # noqa: S101 - both are of the same metric
    assert not isinstance(other, float | int)  # noqa: S101
    return [left + right for left, right in zip(one, other, strict=True)]


def _counters(snapshot: Snapshot) -> Mapping[str, Mapping[Labels, Value]]:
    return {name: values for name, values in snapshot.items() if BY_NAME[name].kind is not Kind.GAUGE}
