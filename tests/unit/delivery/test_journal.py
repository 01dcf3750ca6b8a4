"""Reports of many destinations go into few transactions, and every caller gets its own result."""

import asyncio
from collections.abc import Sequence

from headgate_server.core.destinations import Report
from headgate_server.core.errors import LeaseLost
from headgate_server.core.model import Lease
from headgate_server.delivery.journal import Journal

LEASE = Lease("deliver", "one", 1)


class Deliveries:
    """Records reports when the test allows it, and keeps the groups."""

    def __init__(self, error: Exception | None = None) -> None:
        self.groups: list[list[str]] = []
        self.open = asyncio.Event()
        self.error = error

    async def record(self, reports: Sequence[Report], lease: Lease) -> Sequence[float | None]:
        assert lease == LEASE
        self.groups.append([report.destination_id for report in reports])
        await self.open.wait()
        if self.error is not None:
            raise self.error
        return [None if report.destination_id == "gone" else float(report.delivered) for report in reports]


async def test_reports_during_a_transaction_go_into_the_next() -> None:
    deliveries = Deliveries()
    journal = Journal(deliveries, LEASE)  # type: ignore[arg-type]
    first = asyncio.create_task(journal.record(Report(1, "a", delivered=1)))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    rest = [asyncio.create_task(journal.record(Report(1, name, delivered=2))) for name in ("b", "gone", "c")]
    await asyncio.sleep(0)
    rest[2].cancel()
    deliveries.open.set()
    assert await first == 1.0
    assert await asyncio.gather(*rest, return_exceptions=True) != []
    assert [task.result() for task in rest[:2]] == [2.0, None]
    assert deliveries.groups == [["a"], ["b", "gone", "c"]]


async def test_an_error_reaches_all_of_its_group_and_the_next_group_is_tried() -> None:
    deliveries = Deliveries(LeaseLost("x"))
    deliveries.open.set()
    journal = Journal(deliveries, LEASE)  # type: ignore[arg-type]
    results = await asyncio.gather(*(journal.record(Report(1, name)) for name in "ab"), return_exceptions=True)
    assert [type(result) for result in results] == [LeaseLost, LeaseLost]
    deliveries.error = None
    assert await journal.record(Report(1, "c")) == 0.0
