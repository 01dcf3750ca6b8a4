"""kill -9 of the server under writers: every accepted event reaches every destination, and order is kept.

Every run of the tests kills a few times; HEADGATE_KILLS=100 is the long run.
"""

import asyncio
import os
import random
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import grpc.aio
import nats
import orjson

from headgate.v1.event_pb2 import Event, StoredEvent
from headgate.v1.ingest_service_pb2 import BatchIngestRequest
from headgate_server.core.destinations import JetStream, Ordering
from headgate_server.store import Store
from headgate_server.store.opening import open_store
from tests.faults.test_kill import Writers
from tests.support.destinations import made
from tests.support.nats import NatsServer, nats_server
from tests.support.processes import children
from tests.support.receivers import Received, Receiver, answers, receiver
from tests.support.service import Client, ServerProcess, make_key
from tests.support.waiting import until

_PARENT = """
from headgate_server.__main__ import main
from headgate_server.process import workers

policy = workers.RestartPolicy
workers.RestartPolicy = lambda: policy(calm=0.0, failures=100)
main()
"""
"""The command line whose workers are started again at once, however often they are killed. Otherwise the pauses grow to
30 s.
"""

KILLS = int(os.environ.get("HEADGATE_KILLS", "3"))


class Arrivals:
    """A receiver that records requests and its answers. Every `fails_every`th request fails, if it is the first for its
    event: the third attempt for an event comes only after five minutes.
    """

    def __init__(self, fails_every: int = 0):
        self.came: list[int] = []
        self.delivered: set[int] = set()
        self.out_of_order: list[int] = []
        self._fails_every = fails_every
        self._count = 0
        self._good, self._bad = answers(200), answers(500)

    async def __call__(self, request: Received, writer: asyncio.StreamWriter) -> None:
        body = orjson.loads(request.body)
        sequences = [each["data"]["sequence"] for each in body.get("events", [body])]
        is_first = sequences[0] not in self.came
        self.came += sequences
        if sequences[0] > 1 and sequences[0] - 1 not in self.delivered:
            self.out_of_order.append(sequences[0])
        self._count += 1
        if self._fails_every and is_first and self._count % self._fails_every == 0:
            await self._bad(request, writer)
            return
        self.delivered |= set(sequences)
        await self._good(request, writer)


async def test_every_accepted_event_reaches_every_destination(store_url: str, tmp_path: Path) -> None:
    key = await make_key(store_url)
    ordered, parallel = Arrivals(), Arrivals(fails_every=97)
    writers = Writers(seed=11)
    with nats_server(tmp_path / "nats") as broker:
        async with receiver(ordered) as first, receiver(parallel) as second, _opened(store_url) as store:
            names = await _destinations(store, first, second)
            options = ("--webhook-allow", "127.0.0.0/8", "--nats-url", broker.url)
            for _ in range(KILLS):
                server = await ServerProcess(store_url, *options, log=tmp_path / "log").__aenter__()
                async with Client(server.port, key) as client:
                    await writers.write_once(client)
                    await _delivers(ordered, parallel)
                await writers.until_killed(server, key)
            async with (
                ServerProcess(store_url, *options, log=tmp_path / "log") as server,
                Client(server.port, key) as client,
            ):
                await writers.write_once(client)
                stored = list(await client.all_events())
                await _all_delivered(store, names, len(stored))
        sequences = [event.sequence for event in stored]
        assert {event.id for event in stored} >= set(writers.acknowledged.values())
        assert ordered.delivered == parallel.delivered == set(sequences)
        assert ordered.out_of_order == []
        await _check_stream(broker, stored)


async def test_random_workers_are_killed(postgres_url: str, tmp_path: Path) -> None:
    """One of two workers delivers. If either is killed, the other continues, and their parent replaces it."""

    async def victims(server: ServerProcess) -> list[int]:
        return sorted(children(server.pid))

    key = await make_key(postgres_url)
    ordered, parallel = Arrivals(), Arrivals(fails_every=97)
    chance = random.Random(5)
    with nats_server(tmp_path / "nats") as broker:
        async with receiver(ordered) as first, receiver(parallel) as second, _opened(postgres_url) as store:
            names = await _destinations(store, first, second)
            options = ("--workers", "2", "--webhook-allow", "127.0.0.0/8", "--nats-url", broker.url)
            accepted: set[str] = set()
            async with ServerProcess(postgres_url, *options, log=tmp_path / "log", program=("-c", _PARENT)) as server:
                for _ in range(KILLS):
                    writing = asyncio.create_task(_write(server, key, accepted))
                    await _delivers(ordered, parallel)
                    os.kill(chance.choice(await until(partial(victims, server))), signal.SIGKILL)
                    await writing
                await _write(server, key, accepted)
                stored = await until(lambda: _read(server, key))
                await _all_delivered(store, names, len(stored))
        assert {event.id for event in stored} >= accepted
        assert ordered.delivered == parallel.delivered == {event.sequence for event in stored}
        assert ordered.out_of_order == []
        await _check_stream(broker, stored)


async def _read(server: ServerProcess, key: str) -> list[StoredEvent]:
    """Return all events, none while the worker that is asked is replaced."""
    try:
        async with Client(server.port, key) as client:
            return list(await client.all_events())
    except grpc.aio.AioRpcError as error:
        if error.code() is not grpc.StatusCode.UNAVAILABLE:
            raise
        return []


async def _write(server: ServerProcess, key: str, accepted: set[str], batches: int = 20) -> None:
    """Store batches through either worker, also while one is replaced. Record the accepted events."""
    for number in range(batches):
        for attempt in count():
            try:
                async with Client(server.ports[(number + attempt) % 2], key) as client:
                    batch = BatchIngestRequest(events=[Event(type="t", data_json=b'{"n":1}')] * 10)
                    answer = await client.ingest.BatchIngest(batch, metadata=client.metadata, timeout=30)
            except grpc.aio.AioRpcError as error:
                if error.code() is not grpc.StatusCode.UNAVAILABLE:
                    raise
                await asyncio.sleep(0.05)
                continue
            accepted |= {result.id for result in answer.results if result.status == "accepted"}
            break


async def _destinations(store: Store, first: Receiver, second: Receiver) -> list[str]:
    workspace = await store.directory.workspace("acme")
    assert workspace is not None

    async def one(name: str, **values: Any) -> str:
        return (await made(store, workspace.id, name, **values)).destination.id

    return [
        await one("ordered", url=f"http://127.0.0.1:{first.port}/", ordering=Ordering.ORDERED),
        await one("parallel", url=f"http://127.0.0.1:{second.port}/"),
        await one("bus", target=JetStream(stream="ORDERS", subject_prefix="orders"), ordering=Ordering.ORDERED),
    ]


async def _delivers(*arrivals: Arrivals) -> None:
    """Wait until the delivery continues. The killed server still has the lease."""
    before = [len(one.came) for one in arrivals]

    async def state() -> bool:
        return all(len(one.came) > count for one, count in zip(arrivals, before, strict=True))

    await until(state, seconds=60)


async def _all_delivered(store: Store, names: list[str], count: int) -> None:
    workspace = await store.directory.workspace("acme")
    assert workspace is not None

    async def state() -> bool:
        found = [await store.destinations.get(workspace.id, name) for name in names]
        return all(one.destination.cursor.sequence == count and one.set_aside == 0 for one in found)

    # A killed holder's lease ends after at most 10 s. Failed events are tried again after 5 s.
    await until(state, seconds=90)


async def _check_stream(broker: NatsServer, stored: list[StoredEvent]) -> None:
    client = await nats.connect(broker.url)
    try:
        stream = client.jetstream()
        count = (await stream.stream_info("ORDERS")).state.messages
        found = [await stream.get_msg("ORDERS", seq=number) for number in range(1, count + 1)]
        assert [(one.headers or {})["Nats-Msg-Id"] for one in found] == [event.id for event in stored]
    finally:
        await client.close()


@asynccontextmanager
async def _opened(url: str) -> AsyncIterator[Store]:
    store = await open_store(url)
    try:
        yield store
    finally:
        await store.close()
