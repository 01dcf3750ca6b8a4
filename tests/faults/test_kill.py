"""kill -9 at random moments: every acknowledged event is stored once, and the ledger is sound.

Every run of the tests kills a few times; HEADGATE_KILLS=200 (`make faults`) is the long run.
"""

import asyncio
import os
import random
import signal
from collections import Counter
from collections.abc import Sequence
from contextlib import AsyncExitStack

import grpc.aio

from headgate.v1.event_pb2 import Event
from headgate.v1.ingest_service_pb2 import BatchIngestRequest, EventResult
from headgate.v1.ledger_service_pb2 import VerifyLedgerRequest
from tests.support.processes import children
from tests.support.service import Client, ServerProcess, make_key
from tests.support.waiting import until

KILLS = int(os.environ.get("HEADGATE_KILLS", "5"))
WRITERS = 8
BATCH = 10
SHARED_KEYS = 400
"""Keys that all writers share, beside keys of their own."""


class Writers:
    """Writers that remember the acknowledged events, and send the same batch again after a failure."""

    def __init__(self, seed: int):
        self.acknowledged: dict[str, str] = {}
        self.unkeyed: list[str] = []
        self._random = random.Random(seed)
        self._unanswered: dict[int, BatchIngestRequest] = {}
        self._count = 0
        self._trigger = asyncio.Event()
        self._trigger_at = 0

    async def until_killed(self, server: ServerProcess, key: str) -> None:
        """Write until, at a random moment after a random number of answers, the server is killed."""
        async with Client(server.port, key) as client:
            writers = [asyncio.create_task(self._write(client, number)) for number in range(WRITERS)]
            await self._moment()
            await server.kill()
            await asyncio.gather(*writers)

    async def while_workers_are_killed(self, server: ServerProcess, key: str, kills: int) -> None:
        """Write to all workers while, at random moments, one of them is killed, and then the last ones and their
        parent.
        """
        async with AsyncExitStack() as stack:
            clients = [await stack.enter_async_context(Client(port, key)) for port in server.ports]
            stop = asyncio.Event()
            writers = [
                asyncio.create_task(self._insist(clients[number % len(clients)], number, stop))
                for number in range(WRITERS)
            ]

            async def running() -> list[int]:
                return sorted(children(server.pid))

            try:
                for _ in range(kills):
                    await self._moment()
                    # Both may have been killed, and not be replaced yet.
                    os.kill(self._random.choice(await until(running)), signal.SIGKILL)
                await self._moment()
            finally:
                stop.set()
                await server.kill()
                await asyncio.gather(*writers)

    async def _moment(self) -> None:
        """Return at a random moment after a random number of answers."""
        self._trigger = asyncio.Event()
        self._trigger_at = self._count + self._random.randint(1, 60)
        await self._trigger.wait()
        await asyncio.sleep(self._random.uniform(0, 0.02))

    async def _insist(self, client: Client, number: int, stop: asyncio.Event) -> None:
        while not stop.is_set():
            if not await self._send(client, number):
                await asyncio.sleep(0.05)  # until its worker is replaced

    async def write_once(self, client: Client) -> None:
        """Send the unanswered batches, each writer once."""
        for number in range(WRITERS):
            assert await self._send(client, number)

    async def _write(self, client: Client, number: int) -> None:
        while await self._send(client, number):
            pass

    async def _send(self, client: Client, number: int) -> bool:
        """Send the unanswered batch if there is one, otherwise a new one. Return False if the server has ended."""
        batch = self._unanswered.setdefault(number, self._batch(number))
        try:
            response = await client.ingest.BatchIngest(batch, metadata=client.metadata, timeout=30)
        except grpc.aio.AioRpcError as error:
            if error.code() not in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED):
                raise
            return False
        del self._unanswered[number]
        self._remember(batch, response.results)
        return True

    def _batch(self, number: int) -> BatchIngestRequest:
        own = [f"{number}-{self._random.getrandbits(64):x}" for _ in range(BATCH - 2)]
        shared = [f"shared-{self._random.randrange(SHARED_KEYS)}" for _ in range(2)]
        return BatchIngestRequest(
            events=[Event(type="t", source="kill", idempotency_key=key, data_json=b'{"n":1}') for key in own + shared]
        )

    def _remember(self, batch: BatchIngestRequest, results: Sequence[EventResult]) -> None:
        assert len(results) == len(batch.events)
        for event, result in zip(batch.events, results, strict=True):
            assert result.status in ("accepted", "duplicate"), result
            earlier = self.acknowledged.setdefault(event.idempotency_key, result.id)
            assert earlier == result.id, "a key was acknowledged with two ids"
        self._count += 1
        if self._count >= self._trigger_at:
            self._trigger.set()


async def test_what_was_acknowledged_survives_kill_9(store_url, tmp_path):
    key = await make_key(store_url)
    writers = Writers(seed=7)
    for _ in range(KILLS):
        server = await ServerProcess(store_url, log=tmp_path / "log").__aenter__()
        await writers.until_killed(server, key)
    async with ServerProcess(store_url, log=tmp_path / "log") as server, Client(server.port, key) as client:
        await _check(writers, client)


async def test_what_was_acknowledged_survives_kill_9_of_one_of_two_workers(sqlite_url, tmp_path):
    """On SQLite, where the killed one may hold the turn to write, or be the next."""
    key = await make_key(sqlite_url)
    writers = Writers(seed=8)
    server = await ServerProcess(sqlite_url, "--workers", "2", log=tmp_path / "log").__aenter__()
    await writers.while_workers_are_killed(server, key, KILLS)
    async with ServerProcess(sqlite_url, log=tmp_path / "log") as server, Client(server.port, key) as client:
        await _check(writers, client)


async def _check(writers, client):
    # The database may still execute the last statement of the killed server. A write waits for it; reads do not.
    await writers.write_once(client)
    stored = await client.all_events()
    verified = await client.ledger.VerifyLedger(VerifyLedgerRequest(limit=100_000), metadata=client.metadata)
    assert verified.valid
    assert verified.events_checked == len(stored)
    assert [event.sequence for event in stored] == list(range(1, len(stored) + 1))
    assert max(Counter(event.idempotency_key for event in stored).values()) == 1
    ids = {event.idempotency_key: event.id for event in stored}
    assert len(writers.acknowledged) >= KILLS
    assert {key: ids.get(key) for key in writers.acknowledged} == writers.acknowledged
