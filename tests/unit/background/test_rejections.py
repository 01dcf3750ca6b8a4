"""The job that writes refused events: nothing is lost while the store is away, and an end does not wait for ever."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

import pytest
from structlog.testing import capture_logs

from headgate_server.background import rejections
from headgate_server.background.rejections import KeepRejections
from headgate_server.core.errors import Unavailable
from headgate_server.core.model import Outcome, Problem, Status
from headgate_server.core.reasons import Reason
from headgate_server.core.rejections import Encoding, Rejection
from headgate_server.ingest.rejections import Origin, RejectionConfig, RejectionQueue
from headgate_server.process.metrics import Metrics
from headgate_server.store import DataRefused
from tests.support.waiting import until

REJECTED = Outcome(Status.REJECTED, problem=Problem(Reason.MISSING_FIELD, "type", "The type field is required."))


class Topic:
    """Stands in for the store's topic: keeps rows in memory, fails or hangs as a test says."""

    def __init__(self) -> None:
        self.rows: dict[bytes, Rejection] = {}
        self.transactions: list[int] = []
        self.omitted = 0
        self.lost: Counter[int] = Counter()
        """What was omitted, by workspace."""
        self.transactions_left: int | None = None
        """After so many transactions the store is away."""
        self.trimmed: list[tuple[int, int]] = []
        self.failure: Exception | None = None
        self.hangs = False
        self.counts = True
        """Whether numbers of events that were left out can be stored."""

    async def keep(self, kept: Sequence[Rejection], omitted: Mapping[int, int]) -> None:
        """Store rows, or do as the test says."""
        if self.failure is not None:
            raise self.failure
        if any(row.event == b"poison" for row in kept):
            raise DataRefused("DataError")
        if self.transactions_left is not None:
            if not self.transactions_left:
                raise Unavailable("The store is away.")
            self.transactions_left -= 1
        if omitted and not self.counts:
            raise Unavailable("The store is away.")
        if self.hangs:
            await asyncio.Event().wait()
        self.rows |= {row.id: row for row in kept}
        self.omitted += sum(omitted.values())
        self.lost.update(omitted)
        self.transactions.append(len(kept))

    async def trim(self, workspace_id: int, most: int) -> int:
        """Note that it was asked for."""
        self.trimmed.append((workspace_id, most))
        return 0


class Bench:
    """A queue, a topic, and the job between them."""

    def __init__(self) -> None:
        self.metrics = Metrics()
        self.queue = RejectionQueue(RejectionConfig(most=77, burst=1_000, per_second=0.0), self.metrics)
        self.topic = Topic()
        self.job = KeepRejections(self.queue, self.topic, self.metrics)  # type: ignore[arg-type]

    def refuse(self, count: int = 1, text: bytes = b"{}", workspace: int = 1) -> None:
        """Refuse a request of so many events."""
        origin = Origin(workspace, "key_1", "r-1", "native", "", Encoding.JSON)
        self.queue.note(origin, [REJECTED] * count, lambda positions: [text] * len(positions), count * len(text))

    def kept(self) -> float | None:
        """Return what the metric says was kept."""
        return self.metrics.registry.get_sample_value("headgate_rejections_total", {"fate": "kept"})

    @asynccontextmanager
    async def running(self) -> AsyncIterator["asyncio.Task[None]"]:
        """Run the job for the length of a block."""
        task = asyncio.create_task(self.job())
        try:
            yield task
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def test_what_is_refused_is_written_and_trimmed() -> None:
    bench = Bench()
    async with bench.running():
        bench.refuse(3)
        bench.refuse(1_200, workspace=2)

        async def all_trimmed() -> bool:
            return {workspace for workspace, _ in bench.topic.trimmed} == {1, 2}

        await until(all_trimmed)
    assert len(bench.topic.rows) == 1_003
    assert bench.topic.omitted == 200
    assert bench.kept() == 1_003
    assert {most for _, most in bench.topic.trimmed} == {77}
    assert max(bench.topic.transactions) <= 200


async def test_large_events_are_written_in_small_transactions() -> None:
    bench = Bench()
    bench.refuse(40, b"x" * 64 * 1024)
    await bench.job.close()
    assert len(bench.topic.rows) == 40
    assert bench.topic.transactions == [16, 16, 8]


async def test_nothing_is_lost_while_the_store_is_away() -> None:
    bench = Bench()
    bench.refuse(2)
    bench.topic.failure = Unavailable("The store is away.")
    async with bench.running() as task:
        with pytest.raises(Unavailable):
            await task
    assert bench.queue.waiting == 2
    bench.topic.failure = None
    async with bench.running():

        async def written() -> bool:
            return len(bench.topic.rows) == 2

        await until(written)
    assert bench.kept() == 2


async def test_what_fails_otherwise_is_counted_and_does_not_come_again() -> None:
    bench = Bench()
    bench.refuse(2, b"poison")
    bench.refuse(1_001, b"poison", workspace=2)
    with capture_logs() as lines:
        async with bench.running():

            async def counted() -> bool:
                return bench.topic.omitted == 2 + 1_000 + 1

            await until(counted)
    await bench.job.close()
    assert (bench.topic.rows, bench.topic.omitted, bench.queue.waiting) == ({}, 2 + 1_000 + 1, 0)
    assert lines[0] == {"event": "rejection_lost", "log_level": "error", "error": "DataRefused"}
    assert bench.kept() is None or bench.kept() == 0


async def test_an_event_that_cannot_be_written_is_lost_alone() -> None:
    """Also one whose request cannot be read."""

    def unreadable(positions: Sequence[int]) -> Sequence[bytes]:
        raise ValueError("a bug")

    bench = Bench()
    bench.refuse(3)
    bench.refuse(1, b"poison")
    origin = Origin(3, "key_1", "r-2", "native", "", Encoding.JSON)
    bench.queue.note(origin, [REJECTED] * 4, unreadable, 8)
    bench.refuse(3, workspace=2)
    with capture_logs() as lines:
        await bench.job.close()
    assert Counter(row.workspace_id for row in bench.topic.rows.values()) == {1: 3, 2: 3}
    assert bench.topic.lost == {1: 1, 3: 4}
    assert (bench.kept(), bench.queue.waiting) == (6, 0)
    assert [line["error"] for line in lines] == ["ValueError", "DataRefused"]


async def test_the_others_are_tried_again_if_the_store_goes_away_meanwhile() -> None:
    bench = Bench()
    bench.refuse(3)
    bench.refuse(1, b"poison")
    bench.topic.transactions_left = 1
    with pytest.raises(Unavailable):
        await bench.job()
    assert (bench.queue.waiting, bench.topic.omitted) == (4, 0)
    bench.topic.transactions_left = None
    await bench.job.close()
    assert (len(bench.topic.rows), bench.topic.lost) == (3, {1: 1})


async def test_counts_that_are_not_written_wait_alone() -> None:
    """The events of the same round are stored, so they are not written again."""
    bench = Bench()
    bench.refuse(1_001)
    bench.topic.counts = False
    with pytest.raises(Unavailable):
        await bench.job()
    assert (bench.queue.waiting, bench.kept()) == (0, 1_000)
    bench.topic.counts = True
    await bench.job.close()
    assert (len(bench.topic.rows), bench.topic.omitted, bench.kept()) == (1_000, 1, 1_000)


async def test_the_end_writes_what_still_waits() -> None:
    bench = Bench()
    async with bench.running():
        await asyncio.sleep(0)
    bench.refuse(5)
    await bench.job.close()
    assert len(bench.topic.rows) == 5


async def test_the_end_does_not_wait_for_a_store_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rejections, "_CLOSE_SECONDS", 0.05)
    bench = Bench()
    bench.refuse()
    bench.topic.hangs = True
    await bench.job.close()
    assert bench.queue.waiting == 1


async def test_the_end_does_not_fail_with_the_store() -> None:
    bench = Bench()
    bench.refuse()
    bench.topic.failure = Unavailable("The store is away.")
    await bench.job.close()
    assert bench.topic.rows == {}
