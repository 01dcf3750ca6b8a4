"""The job that writes refused events to the store, beside the calls that were refused."""

import asyncio
from collections.abc import Sequence

import structlog

from headgate_server.core.errors import Unavailable
from headgate_server.core.rejections import Rejection
from headgate_server.ingest.rejections import Refused, RejectionQueue
from headgate_server.process.metrics import Metrics
from headgate_server.store import Rejections

log = structlog.get_logger(__name__)

NAME = "rejections"

_PAUSE_SECONDS = 0.1
"""Between two looks at the queue: refused events of many calls go into one transaction, and are seen soon."""
_CHUNK_EVENTS = 200
_CHUNK_BYTES = 1024 * 1024
"""What one transaction writes: some milliseconds, since on SQLite every append waits behind it."""
_CLOSE_SECONDS = 2.0
"""The longest that the end of the process waits for what is not written yet."""


class KeepRejections:
    """Writes what the queue holds, in small transactions that wait for no disk, and keeps to the newest."""

    def __init__(self, queue: RejectionQueue, rejections: Rejections, metrics: Metrics):
        self._queue = queue
        self._rejections = rejections
        self._metrics = metrics

    async def __call__(self) -> None:
        """Write until cancelled. Raises `Unavailable`; what was not written is tried again by the next run."""
        while True:
            await self._queue.ready.wait()
            await asyncio.sleep(_PAUSE_SECONDS)
            await self._flush()

    async def close(self) -> None:
        """Write what still waits, for a bounded time. For the end of the process, after the last call."""
        try:
            async with asyncio.timeout(_CLOSE_SECONDS):
                await self._flush()
        except Exception as error:
            log.warning("rejections_lost", count=self._queue.waiting, error=type(error).__name__)

    async def _flush(self) -> None:
        while self._queue.ready.is_set():
            taken, omitted = self._queue.take(_CHUNK_EVENTS, _CHUNK_BYTES)
            try:
                rows = await asyncio.to_thread(_rows, taken)
                for chunk in _chunks(rows):
                    await self._rejections.keep(chunk, {})
                if omitted:
                    await self._rejections.keep((), omitted)
            except (Unavailable, asyncio.CancelledError):
                self._queue.put_back(taken, omitted)
                raise
            except Exception:
                # Another try would fail alike, and keep all that comes after from being written.
                self._queue.lose(taken)
                raise
            self._metrics.rejections_kept(len(rows))
            for workspace_id in {row.workspace_id for row in rows}:
                await self._rejections.trim(workspace_id, self._queue.config.most)


def _rows(taken: Sequence[Refused]) -> list[Rejection]:
    return [row for refused in taken for row in refused.rejections()]


def _chunks(rows: Sequence[Rejection]) -> list[list[Rejection]]:
    """Return the rows in parts that one transaction each writes."""
    chunks: list[list[Rejection]] = []
    size = 0
    for row in rows:
        if not chunks or len(chunks[-1]) == _CHUNK_EVENTS or size + len(row.event) > _CHUNK_BYTES:
            chunks.append([])
            size = 0
        chunks[-1].append(row)
        size += len(row.event)
    return chunks
