"""What a worker's memory is bounded by: large bodies, many at once, of every kind."""

import asyncio
import glob
import gzip
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from pathlib import Path

import grpc.aio
import httpx
import pytest

from headgate.v1.event_pb2 import Event
from headgate.v1.ingest_service_pb2 import BatchIngestRequest, BatchIngestResponse, StreamIngestRequest
from tests.support.processes import most_memory
from tests.support.service import Client, make_key
from tests.support.up import Up

MOST = 512 << 20
"""Bytes; docs/design/wire.md states this bound."""
BODY = 8_000_000


def _events(text: bytes) -> bytes:
    return b'{"events":[' + text + b"]}"


def _repeated(part: bytes, size: int = BODY) -> bytes:
    return b",".join([part] * (size // (len(part) + 1)))


def _one_event(values: bytes) -> bytes:
    return _events(b'{"type":"t","data":{"a":[' + values + b"]}}")


async def _outcome(call: Awaitable[BatchIngestResponse]) -> str:
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return error.code().name
    return "OK"


@pytest.fixture
def up(tmp_path: Path) -> Iterator[Up]:
    """Run the service with a worker of its own."""
    with Up(folder=tmp_path) as running:
        yield running


def _large_events() -> bytes:
    return _events(b",".join(b'{"type":"t","data":{"n":%d,"text":"%s"}}' % (n, b"x" * 7_900) for n in range(1_000)))


def _small_objects() -> bytes:
    return _one_event(_repeated(b'{"a":1}'))


def _empty_lists() -> bytes:
    return _one_event(_repeated(b"[]"))


def _tiny_events() -> bytes:
    return _events(_repeated(b'{"type":"t"}'))


def _lines_of_empty_lists() -> bytes:
    line = b'{"type":"t","data":{"a":[' + _repeated(b"[]", BODY // 900) + b"]}}\n"
    return line * 900


_LINES = {"content-type": "application/x-ndjson"}


@pytest.mark.parametrize(
    ("made", "count", "packed", "lines"),
    [
        pytest.param(_large_events, 100, False, False, id="large events"),
        pytest.param(_small_objects, 12, False, False, id="small objects"),
        pytest.param(_empty_lists, 24, True, False, id="empty lists, packed"),
        pytest.param(_tiny_events, 16, False, False, id="tiny events"),
        pytest.param(_lines_of_empty_lists, 24, True, True, id="lines of empty lists, packed"),
    ],
)
async def test_bodies_at_once(up: Up, made: Callable[[], bytes], count: int, packed: bool, lines: bool) -> None:
    """They are answered, or refused with a time to come back. A body of millions of values takes
    seconds, so on a slow machine a call can also reach its deadline.
    """
    key = {"x-api-key": up.key}
    headers = key | ({"content-encoding": "gzip"} if packed else {}) | (_LINES if lines else {})
    sent = gzip.compress(made(), 1) if packed else made()
    limits = httpx.Limits(max_connections=None)
    async with (
        httpx.AsyncClient(base_url=f"http://{up.rest}", headers=headers, timeout=120, limits=limits) as http,
        httpx.AsyncClient(base_url=f"http://{up.rest}", headers=key, timeout=30) as honest,
    ):
        calls = [asyncio.create_task(http.post("/v1/events/batch", content=sent)) for _ in range(count)]
        while not all(call.done() for call in calls):
            assert (await honest.post("/v1/events", json={"type": "t"})).status_code in (200, 503)
        answers = [call.result() for call in calls]
    codes = Counter(answer.status_code for answer in answers)
    assert codes.keys() <= {200, 400, 429, 503, 504}, codes
    assert codes[504] < sum(codes.values()) / 2, codes
    assert all("retry-after" in answer.headers for answer in answers if answer.status_code in (429, 503))
    (worker,) = up.workers()
    assert most_memory(worker) < MOST


async def test_large_requests_of_all_ingest_streams(up: Up, tmp_path: Path) -> None:
    """Of two workspaces, each with as many streams as it may have."""
    event = Event(type="t", data_json=b'{"text":"%s"}' % (b"x" * 7_900))
    largest, too_large = (StreamIngestRequest(events=[event] * count) for count in (130, 1_000))
    port = int(up.grpc.rpartition(":")[2])
    (store,) = [f"sqlite:///{file}" for file in glob.glob(f"{tmp_path}/**/*.db", recursive=True)]
    async with Client(port, up.key) as first, Client(port, await make_key(store, "second")) as second:

        async def sent(client: Client) -> tuple[Counter[str], str]:
            requests = iter([largest] * 5 + [too_large] * 2)
            call = client.ingest.StreamIngest(requests, metadata=client.metadata, timeout=120)
            answers = Counter[str]()
            with suppress(grpc.aio.AioRpcError):
                async for answer in call:
                    answers["refused" if answer.HasField("error") else "stored"] += answer.requests
            return answers, (await call.code()).name

        ends = await asyncio.gather(*(sent(client) for client in (first, second) for _ in range(8)))
    assert all(answers.total() == 5 for answers, _ in ends), ends
    # gRPC's client says INTERNAL if it was writing the next request when the stream ended.
    assert "RESOURCE_EXHAUSTED" in {code for _, code in ends} <= {"RESOURCE_EXHAUSTED", "INTERNAL"}
    assert sum((answers for answers, _ in ends), Counter())["stored"] > 0
    (worker,) = up.workers()
    assert most_memory(worker) < MOST


async def test_requests_at_once_on_the_grpc_port(up: Up) -> None:
    """Also of callers without a key, whose requests are not received at all."""
    events = [Event(type="t", data_json=b'{"text":"%s"}' % (b"x" * 7_900)) for _ in range(1_000)]
    batch = BatchIngestRequest(events=events)
    port = int(up.grpc.rpartition(":")[2])
    async with Client(port, up.key) as client, Client(port, "hg_nobody") as stranger:
        ingest = client.ingest.BatchIngest
        calls = [ingest(batch, metadata=one.metadata, timeout=120) for one in (client, stranger) for _ in range(40)]
        outcomes = await asyncio.gather(*map(_outcome, calls))
    assert set(outcomes[:40]) <= {"OK", "RESOURCE_EXHAUSTED"}
    assert "OK" in outcomes
    assert set(outcomes[40:]) == {"UNAUTHENTICATED"}
    (worker,) = up.workers()
    assert most_memory(worker) < MOST
