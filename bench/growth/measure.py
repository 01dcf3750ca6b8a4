"""One window: so many events stored by one design in one database, and what that cost the server."""

import fcntl
import gc
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import asyncpg

from bench import cpu
from bench.growth.designs import Design
from bench.growth.load import WORKSPACE
from bench.growth.rows import Group, groups

# The planner's, as bench.limit has them, and what must hold of every acknowledged event.
_SETTINGS = """
SET enable_sort = off;
SET enable_seqscan = off;
SET enable_bitmapscan = off;
SET enable_hashjoin = off;
SET enable_mergejoin = off;
SET plan_cache_mode = force_generic_plan;
SET jit = off
"""

_DURABLE = ("fsync", "synchronous_commit", "full_page_writes")

_WARM_UP = 10
"""Groups before the clock starts."""

_COUNTERS = """
SELECT pg_current_wal_lsn() - '0/0'::pg_lsn AS wal, w.wal_fpi AS pages, c.num_timed + c.num_requested AS checkpoints,
       s.idx_blks_read AS reads, s.idx_blks_hit AS hits, pg_relation_size(s.indexrelid) AS size
FROM pg_stat_wal AS w, pg_stat_checkpointer AS c, pg_statio_user_indexes AS s WHERE s.indexrelname = $1
"""


class Window(NamedTuple):
    """What a window took and cost."""

    events: int
    seconds: float
    wal: int
    """Bytes."""
    pages: int
    """Whole pages in the WAL: one for the first change of each page after a checkpoint."""
    checkpoints: int
    reads: int
    """Pages of the design's index that were not in shared_buffers."""
    hits: int
    """Pages of it that were."""
    size: int
    """Bytes of the index at the end."""
    database_seconds: float
    """CPU of the server's processes."""

    @property
    def rate(self) -> float:
        """Events per second."""
        return self.events / self.seconds


@contextmanager
def turn(lock: Path | None) -> Iterator[None]:
    """Hold a file's lock, so that measurements that share a machine take turns."""
    if lock is None:
        yield
        return
    with lock.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


async def connected(url: str) -> Any:
    """Connect. Raises `RuntimeError` if the server would acknowledge what is not on disk."""
    connection = await asyncpg.connect(url)
    for setting in _DURABLE:
        if await connection.fetchval(f"SHOW {setting}") != "on":
            raise RuntimeError(f"{setting} is not on: without durability nothing here means anything")
    await connection.execute(_SETTINGS)
    return connection


class Prepared:
    """A window whose rows are built; `prepared` makes one."""

    def __init__(self, connection: Any, design: Design, work: Sequence[Group]):
        self._connection = connection
        self._design = design
        self._work = work

    async def run(self, server: int) -> Window:
        """Store the events, and close the connection; `server` is the process whose CPU counts."""
        # What was prepared would otherwise be walked again and again by the collector, on the window's time.
        gc.collect()
        gc.freeze()
        try:
            return await self._run(server)
        finally:
            gc.unfreeze()
            await self._connection.close()

    async def _run(self, server: int) -> Window:
        connection, design = self._connection, self._design
        for group in self._work[:_WARM_UP]:
            await design.append(connection, group)
        before, spent = await _counters(connection, design), cpu.tree_seconds(server)
        started = time.perf_counter()
        for group in self._work[_WARM_UP:]:
            await design.append(connection, group)
        seconds = time.perf_counter() - started
        spent = cpu.tree_seconds(server) - spent
        after = await _counters(connection, design)
        wal, pages, checkpoints, reads, hits = (int(after[one] - before[one]) for one in range(5))
        events = sum(len(group.rows) for group in self._work[_WARM_UP:])
        return Window(events, seconds, wal, pages, checkpoints, reads, hits, after["size"], spent)


async def prepared(url: str, design: Design, events: int, size: int) -> Prepared:
    """Build the rows of `events` in groups of `size`, after a few groups that bring the design's pages into memory."""
    connection = await connected(url)
    await design.prepare(connection)
    sequence = await connection.fetchval("SELECT sequence FROM heads WHERE workspace_id = $1", WORKSPACE)
    work = [design.encode(group) for group in groups(sequence, events // size + _WARM_UP, size)]
    return Prepared(connection, design, work)


async def _counters(connection: Any, design: Design) -> Any:
    await connection.execute("SELECT pg_stat_force_next_flush()")
    return await connection.fetchrow(_COUNTERS, design.index)
