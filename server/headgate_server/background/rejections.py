"""The job that writes refused events to the store, so that their calls do not wait for it."""

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence

import structlog

from headgate_server.core.errors import Unavailable
from headgate_server.core.rejections import Rejection
from headgate_server.core.types import WorkspaceId
from headgate_server.ingest.rejections import Refused, RejectionQueue
from headgate_server.process.causes import Causes
from headgate_server.process.metrics import Metrics
from headgate_server.store import Rejections

log = structlog.get_logger(__name__)

NAME = "rejections"

_PAUSE_SECONDS = 0.1
"""The time between two looks at the queue. Refused events of many calls go into one transaction, and are seen soon."""
_CHUNK_EVENTS = 200
_CHUNK_BYTES = 1024 * 1024
"""The most that one transaction writes. It takes some milliseconds, because on SQLite every append waits for it."""
_CLOSE_SECONDS = 2.0
"""The longest time that the end of the process waits for the last writes."""


class KeepRejections:
    """Writes the events of the queue in small transactions that do not wait for a disk, and deletes the oldest."""

    def __init__(self, queue: RejectionQueue, rejections: Rejections, metrics: Metrics):
        self._queue = queue
        self._rejections = rejections
        self._metrics = metrics
        self._causes = Causes()

    async def __call__(self) -> None:
        """Write until cancelled. Raises `Unavailable`; the next run tries again to write the events."""
        while True:
            await self._queue.ready.wait()
            await asyncio.sleep(_PAUSE_SECONDS)
            await self._flush()

    async def close(self) -> None:
        """Write the waiting events for a bounded time. Called at the end of the process, after the last call."""
        try:
            async with asyncio.timeout(_CLOSE_SECONDS):
                await self._flush()
        except Exception as error:
            log.warning("rejections_lost", count=self._queue.waiting, error=type(error).__name__)

    async def _flush(self) -> None:
        while self._queue.ready.is_set():
            taken, omitted = self._queue.take(_CHUNK_EVENTS, _CHUNK_BYTES)
            try:
                kept = await self._write(taken)
            except BaseException:
                self._queue.put_back(taken, omitted)
                raise
            self._metrics.rejections_kept(sum(kept.values()))
            lost = Counter(refused.origin.workspace_id for refused in taken for _ in refused.positions) - kept
            for workspace_id, number in lost.items():
                self._queue.lose(workspace_id, number)
            await self._count(omitted)
            for workspace_id in kept:
                await self._rejections.trim(workspace_id, self._queue.config.most)

    async def _write(self, taken: Sequence[Refused]) -> Counter[WorkspaceId]:
        """Write events, and return for each workspace how many were written. An event that cannot be written is lost
        alone, since another try would fail as well, and would block all later events.
        """
        rows, errors = await asyncio.to_thread(_rows, taken)
        kept: Counter[WorkspaceId] = Counter()
        for chunk in _chunks(rows):
            written, failed = await self._keep(chunk)
            kept.update(row.workspace_id for row in written)
            errors += failed
        for error in errors:
            self._causes.tell("rejection_lost", error)
        return kept

    async def _keep(self, chunk: Sequence[Rejection]) -> tuple[Sequence[Rejection], list[Exception]]:
        """Write rows in one transaction. If the store refuses them, write each of them alone. Return those that were
        written, and the errors of the others.
        """
        try:
            await self._rejections.keep(chunk, {})
        except Unavailable:
            raise
        except Exception as error:
            if len(chunk) == 1:
                return (), [error]
        else:
            return chunk, []
        written: list[Rejection] = []
        errors: list[Exception] = []
        for row in chunk:
            kept, failed = await self._keep([row])
            written += kept
            errors += failed
        return written, errors

    async def _count(self, omitted: Mapping[WorkspaceId, int]) -> None:
        """Write how many events of each workspace were left out."""
        if not omitted:
            return
        try:
            await self._rejections.keep((), omitted)
        except (Unavailable, asyncio.CancelledError):
            self._queue.put_back((), omitted)
            raise


def _rows(taken: Sequence[Refused]) -> tuple[list[Rejection], list[Exception]]:
    """Return the rows of requests, and the errors of the requests whose events cannot be read."""
    rows: list[Rejection] = []
    errors: list[Exception] = []
    for refused in taken:
        try:
            rows += list(refused.rejections())
        except Exception as error:
            errors.append(error)
    return rows, errors


def _chunks(rows: Sequence[Rejection]) -> list[list[Rejection]]:
    """Split the rows into chunks, one for each transaction."""
    chunks: list[list[Rejection]] = []
    size = 0
    for row in rows:
        if not chunks or len(chunks[-1]) == _CHUNK_EVENTS or size + len(row.event) > _CHUNK_BYTES:
            chunks.append([])
            size = 0
        chunks[-1].append(row)
        size += len(row.event)
    return chunks
