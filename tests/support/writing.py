"""Writers that send without a pause, remember what was acknowledged, and send again what was not answered."""

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Protocol

import grpc.aio
import httpx

from headgate.v1.event_pb2 import Event
from headgate.v1.ingest_service_pb2 import BatchIngestRequest
from tests.support.service import Client
from tests.support.waiting import until

BATCH = 5
SHARED_KEYS = 200
"""Keys that all writers share, beside keys of their own."""

Result = tuple[str, str]
"""A status and an id."""


class UnansweredError(Exception):
    """A call failed, so that it is not known whether its events are stored. The message says how."""


class Send(Protocol):
    """Sends a batch of events with these keys, and returns their results in order. Raises `UnansweredError`."""

    async def __call__(self, keys: Sequence[str]) -> Sequence[Result]: ...


def over_grpc(client: Client) -> Send:
    """Return what sends with a client's stub."""

    async def send(keys: Sequence[str]) -> Sequence[Result]:
        batch = BatchIngestRequest(events=[Event(type="t", source="s", idempotency_key=key) for key in keys])
        try:
            response = await client.ingest.BatchIngest(batch, metadata=client.metadata, timeout=30)
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.UNAVAILABLE:
                raise
            raise UnansweredError(f"{error.details()} {error.trailing_metadata()}") from error
        return [(result.status, result.id) for result in response.results]

    return send


def over_rest(http: httpx.AsyncClient) -> Send:
    """Return what sends with POST /v1/events/batch."""

    async def send(keys: Sequence[str]) -> Sequence[Result]:
        events = [{"type": "t", "source": "s", "idempotency_key": key} for key in keys]
        response = await http.post("/v1/events/batch", json={"events": events}, timeout=30)
        if response.status_code == 503:
            raise UnansweredError(response.text)
        return [(result["status"], result["id"]) for result in response.raise_for_status().json()["results"]]

    return send


class Writers:
    """Writers that share their records. Each has one call in progress at a time."""

    def __init__(self, *ways: Send, between: float = 0.0):
        """The writer with the number n uses the way n modulo their number. It waits for `between` seconds after each
        answer.
        """
        self.acknowledged: dict[str, str] = {}
        self.accepted: Counter[str] = Counter()
        self.answers = 0
        self.of_each: Counter[int] = Counter()
        """The number of answers, by writer."""
        self.failures: list[str] = []
        self.failures_of_each: Counter[int] = Counter()
        """The number of failures, by writer."""
        self._ways = ways
        self._between = between
        self._stop = asyncio.Event()

    async def write(self, number: int) -> None:
        """Write until `stop`."""
        count = 0
        while not self._stop.is_set():
            count += 1
            keys = [f"{number}-{count}-{index}" for index in range(BATCH)] + [f"shared-{count % SHARED_KEYS}"]
            while not await self._send(number, keys):
                pass
            await asyncio.sleep(self._between)

    async def _send(self, number: int, keys: list[str]) -> bool:
        try:
            results = await self._ways[number % len(self._ways)](keys)
        except UnansweredError as error:
            self.failures.append(str(error))
            self.failures_of_each[number] += 1
            return False
        for key, (status, event_id) in zip(keys, results, strict=True):
            assert status in ("accepted", "duplicate"), status
            self.accepted[key] += status == "accepted"
            assert self.acknowledged.setdefault(key, event_id) == event_id, "a key was acknowledged with two ids"
        self.answers += 1
        self.of_each[number] += 1
        return True

    async def some_more(self, answers: int = 100) -> None:
        """Return after so many more answers."""
        goal = self.answers + answers
        await self._reached(lambda: self.answers >= goal)

    async def each_again(self) -> None:
        """Return when no call is in progress that is in progress now."""
        goal = {number: count + 2 for number, count in self.of_each.items()}
        await self._reached(lambda: all(self.of_each[number] >= count for number, count in goal.items()))

    async def _reached(self, state: Callable[[], bool]) -> None:
        async def reached() -> bool:
            return state()

        await until(reached)

    def stop(self) -> None:
        """Let each writer end after its next answer."""
        self._stop.set()
