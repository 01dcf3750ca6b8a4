"""A server that is killed, frozen and overloaded at random: clients lose nothing, store nothing twice, and stay small.

Every run of the tests does it for some seconds; HEADGATE_SOAK=1200 (`make soak-client`) is the long run.
"""

import asyncio
import os
import random
import signal
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

import grpc
import pytest

from headgate.v1.event_pb2 import Event
from headgate.v1.ingest_service_pb2 import BatchIngestRequest
from headgate.v1.ingest_service_pb2_grpc import IngestServiceStub
from headgate_client import AsyncClient, Client, Retry, Unavailable
from headgate_client.core.events import EventLike
from tests.support.processes import memory
from tests.support.service import ServerProcess, make_key

SECONDS = float(os.environ.get("HEADGATE_SOAK", "6"))
RETRY = Retry(first=0.05, most=1.0)
PAUSE = 0.002
"""Seconds between two events of an emitter: some hundred events a second, so that a long run can be read back."""
MEMORY = 150 << 20
"""Bytes that this process may grow by: the clients' queues, gRPC's buffers, and what the test remembers."""


class Chaos:
    """A server with bad days, always on the same port."""

    def __init__(self, store: str, log: Path, seed: int):
        self._store = store
        self._log = log
        self._random = random.Random(seed)
        self._server: ServerProcess | None = None
        self.port = 0
        self.done: Counter[str] = Counter()

    async def start(self) -> None:
        """Start a server that takes few calls at once."""
        self._server = ServerProcess(
            self._store, "--concurrent-calls", "4", "--grpc-port", str(self.port), log=self._log
        )
        await self._server.__aenter__()
        self.port = self._server.port

    async def stop(self) -> None:
        """End the server."""
        assert self._server is not None
        await self._server.__aexit__()

    async def run(self, seconds: float, key: str) -> None:
        """Do bad things for so many seconds, at least one of each."""
        end = time.monotonic() + seconds
        ways = [self._kill, self._freeze, self._overload]
        first = list(ways)
        while first or time.monotonic() < end:
            way = first.pop() if first else self._random.choice(ways)
            await way(key)
            self.done[way.__name__] += 1
            await asyncio.sleep(self._random.uniform(0.1, 0.8))

    async def _kill(self, key: str) -> None:
        assert self._server is not None
        await self._server.kill()
        await asyncio.sleep(self._random.uniform(0, 1))
        await self.start()

    async def _freeze(self, key: str) -> None:
        assert self._server is not None
        os.kill(self._server.pid, signal.SIGSTOP)
        await asyncio.sleep(self._random.uniform(0.2, 2.5))
        os.kill(self._server.pid, signal.SIGCONT)

    async def _overload(self, key: str) -> None:
        request = BatchIngestRequest(events=[Event(type="noise", source="noise", data_json=b"{}")] * 500)
        async with grpc.aio.insecure_channel(f"127.0.0.1:{self.port}") as channel:
            stub = IngestServiceStub(channel)
            calls = [stub.BatchIngest(request, metadata=(("x-api-key", key),), timeout=2) for _ in range(40)]
            await asyncio.gather(*calls, return_exceptions=True)


class Emitters:
    """Emitters of every kind. `emitted` counts the events of each source, which are numbered from 0."""

    def __init__(self, address: str, key: str, spool: Path):
        self._address = address
        self._key = key
        self._spool = spool
        self._end = threading.Event()
        self.emitted: dict[str, int] = {}
        self.failures: list[object] = []
        self.most_bytes = 0
        self._threads = [
            threading.Thread(target=work)
            for work in (
                self._buffered,
                self._spooled,
                self._direct,
                lambda: asyncio.run(self._async_buffered()),
                lambda: asyncio.run(self._async_spooled()),
            )
        ]

    def start(self) -> None:
        """Begin."""
        for thread in self._threads:
            thread.start()

    def finish(self) -> None:
        """End, and wait until everything is sent."""
        self._end.set()
        for thread in self._threads:
            thread.join(120)
            assert not thread.is_alive(), "an emitter hangs"

    def _settings(self) -> dict[str, object]:
        return {
            "max_age": 0.1,
            "max_items": 2_000,
            "max_bytes": 4 << 20,
            "close_timeout": 60.0,
            "on_failure": self.failures.append,
        }

    def _client(self) -> Client:
        return Client(self._address, api_key=self._key, attempt_timeout=1.0, timeout=120.0, retry=RETRY)

    def _buffered(self) -> None:
        with self._client() as client, client.buffered(when_full="block", **self._settings()) as buffer:
            number = 0
            while not self._end.wait(PAUSE):
                buffer.emit("t", {"n": number}, source="buffered")
                self.most_bytes = max(self.most_bytes, buffer.stats.bytes)
                number += 1
        self.emitted["buffered"] = number

    def _spooled(self) -> None:
        """Close every some hundred events without waiting: what is left is sent by the next buffer."""
        number = 0
        with self._client() as client:
            while not self._end.is_set():
                buffer = client.buffered(when_full="block", spool=self._spool, spool_fsync=False, **self._settings())
                for _ in range(300):
                    buffer.emit("t", {"n": number}, source="spooled")
                    number += 1
                    if self._end.wait(PAUSE):
                        break
                buffer.close(0.0)
            with client.buffered(spool=self._spool, **self._settings()) as buffer:
                assert buffer.flush(60) == 0
        self.emitted["spooled"] = number

    def _direct(self) -> None:
        number = 0
        with self._client() as client:
            while not self._end.wait(PAUSE * 10):
                events: Sequence[EventLike] = [
                    {"type": "t", "source": "direct", "data": {"n": number + n}} for n in range(10)
                ]
                while events:
                    try:
                        results = client.ingest_batch(events)
                    except Unavailable as error:  # as documented: they have keys now, and can be sent again
                        events = error.events
                    else:
                        assert all(result.stored for result in results)
                        events = []
                number += 10
        self.emitted["direct"] = number

    async def _async_spooled(self) -> None:
        """Do the same in an event loop, with an fsync for each event."""
        spool = self._spool.with_name("async.db")
        number = 0
        async with AsyncClient(self._address, api_key=self._key, attempt_timeout=1.0, retry=RETRY) as client:
            while not self._end.is_set():
                buffer = client.buffered(when_full="block", spool=spool, **self._settings())
                for _ in range(300):
                    await buffer.emit_wait("t", {"n": number}, source="async spooled")
                    number += 1
                    if self._end.is_set():
                        break
                    await asyncio.sleep(PAUSE)
                await buffer.close(0.0)
            async with client.buffered(spool=spool, **self._settings()) as buffer:
                assert await buffer.flush(60) == 0
        self.emitted["async spooled"] = number

    async def _async_buffered(self) -> None:
        client = AsyncClient(self._address, api_key=self._key, attempt_timeout=1.0, retry=RETRY)
        async with client, client.buffered(when_full="block", **self._settings()) as buffer:
            number = 0
            while not self._end.is_set():
                await buffer.emit_wait("t", {"n": number}, source="async")
                number += 1
                await asyncio.sleep(PAUSE)
        self.emitted["async"] = number


@pytest.mark.parametrize("seed", [7])
async def test_a_bad_server_loses_nothing_and_stores_nothing_twice(tmp_path, seed):
    store = f"sqlite:///{tmp_path}/headgate.db"
    key, noise = await make_key(store), await make_key(store, workspace="noise")
    chaos = Chaos(store, tmp_path / "log", seed)
    await chaos.start()
    emitters = Emitters(f"127.0.0.1:{chaos.port}", key, tmp_path / "events.db")
    before = memory(os.getpid())
    emitters.start()
    await chaos.run(SECONDS, noise)
    await asyncio.to_thread(emitters.finish)
    grown = memory(os.getpid()) - before
    stored = defaultdict(list)
    with Client(f"127.0.0.1:{chaos.port}", api_key=key) as client:
        for event in await asyncio.to_thread(lambda: list(client.list(page_size=1000).events())):
            stored[event.source].append(event.data["n"])
        assert (await asyncio.to_thread(client.verify)).valid
    await chaos.stop()
    print(f"{dict(chaos.done)}, {emitters.emitted}, {grown >> 20} MiB more, queue at most {emitters.most_bytes:,}")
    assert emitters.failures == []
    assert set(chaos.done) == {"_kill", "_freeze", "_overload"}
    assert {source: len(numbers) for source, numbers in stored.items()} == emitters.emitted
    for source, numbers in stored.items():
        assert numbers == list(range(emitters.emitted[source])), f"{source} is out of order"
    assert emitters.most_bytes <= 4 << 20
    assert grown < MEMORY
