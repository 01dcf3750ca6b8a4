"""Sends a file's batches, one after the other, and notes how far it has come."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from headgate_client import AsyncClient, CallError, HeadgateError, Result
from headgate_server.cli.importing.batches import Batch
from headgate_server.cli.importing.records import Place
from headgate_server.cli.importing.rejects import Rejects
from headgate_server.cli.importing.state import State
from headgate_server.core.errors import SetupError
from headgate_server.core.model import STORED, Problem, Status
from headgate_server.core.reasons import Reason

VALID = "valid"
"""What a dry run says of a record that it would send."""


class Sender(Protocol):
    """Stores a batch."""

    async def __call__(self, batch: Batch, attempt: str) -> list[Result]:
        """Return a result for each event of the batch. Raises `SetupError` if there is none."""


class Summary(NamedTuple):
    """What became of the records of a file, over all runs of its import."""

    counts: Mapping[str, int]
    seconds: float
    """The time of this run."""
    records: int
    """The records of this run."""

    @property
    def refused(self) -> int:
        """Records that are not stored."""
        return sum(count for name, count in self.counts.items() if name not in _STORED)


_STORED = frozenset({*(status.value for status in STORED), VALID})


@dataclass(slots=True)
class Import:
    """One run of an import."""

    send: Sender | None
    """None: a dry run."""
    rejects: Rejects
    state: State
    save: Callable[[State], None]
    """Keeps the state for a run that continues this one."""
    told: Callable[[int], None] = lambda records: None
    """Is called with the number of records of each batch."""

    async def run(self, batches: Iterator[Batch]) -> Summary:
        """Send all batches. Raises `SetupError` if it cannot continue; the same import then continues there.

        The next batch is read on a thread while one is sent. If it raises, the thread may read still: the caller
        stops the source, and the thread ends then.
        """
        started, before = time.monotonic(), self.state.counts.total()
        reading = asyncio.create_task(asyncio.to_thread(next, batches, None))
        try:
            while (batch := await reading) is not None:
                reading = asyncio.create_task(asyncio.to_thread(next, batches, None))
                await self._store(batch)
        finally:
            # A reading of standard input would wait for its next line.
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
        counts = self.state.counts
        return Summary(dict(counts), time.monotonic() - started, counts.total() - before)

    async def _store(self, batch: Batch) -> None:
        results = iter(await self._results(batch))
        counts: Counter[str] = Counter()
        for record, slot in batch.items:
            if isinstance(slot, Problem):
                counts[Status.REJECTED.value] += 1
                self.rejects.add(record, Status.REJECTED.value, slot.reason, slot.field, slot.message)
            elif self.send is None:
                counts[VALID] += 1
            else:
                result = next(results)
                counts[result.status] += 1
                if error := result.error:
                    self.rejects.add(record, result.status, error.reason, error.field, error.message)
        self.rejects.flush()
        self.state.counts += counts
        self.state.place = batch.after
        self.state.rejects = self.rejects.size
        self.save(self.state)
        self.told(len(batch.items))

    async def _results(self, batch: Batch) -> list[Result]:
        """Send the events of a batch. Raises `SetupError` if some may be stored later, such as in the next month."""
        if self.send is None or not batch.events:
            return []
        results = await self.send(batch, f"{self.state.run}/{self.state.attempt}")
        for result in results:
            if result.error is not None and result.error.retryable:
                # Under the same request key the service would give the same answer for a day.
                self.state.attempt += 1
                self.save(self.state)
                raise _stopped(self.state.place, f"{result.error.message} ({result.error.reason})")
        return results


class Sending:
    """Stores batches at a service, with retries."""

    def __init__(self, client: AsyncClient, *, keyed: bool, place: Callable[[], Place]):
        """`keyed`: a batch is the same request whenever it is sent. `place` says where the batch begins."""
        self._client = client
        self._keyed = keyed
        self._place = place

    async def __call__(self, batch: Batch, attempt: str) -> list[Result]:
        """Return a result for each event. Raises `SetupError` if the service gives none."""
        key = batch.request_key(attempt) if self._keyed else None
        try:
            return await self._client.ingest_batch(batch.events, request_key=key, raise_partial=False)
        except CallError as error:
            said = str(error)
            if error.reason == Reason.TOO_MANY_EVENTS:
                said = f"{said}; use a smaller --batch-size"
            raise _stopped(self._place(), said) from error
        except HeadgateError as error:
            raise _stopped(self._place(), str(error)) from error


def _stopped(place: Place, said: str) -> SetupError:
    return SetupError(f"stopped after line {place.lines:,}: {said}; the same command continues from there")
