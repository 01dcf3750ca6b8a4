"""Unknown callers: their bodies are not kept, and callers with a key are served at the same time."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest

from tests.support.edge import Edge
from tests.support.http2 import DATA, END_STREAM, HEADERS, RST_STREAM, Connection, call_headers, frame
from tests.support.processes import children, memory

CROWD = 24
READERS = 24
BODY = 8 << 20
PIECE = 1 << 16
FEW = 64 << 20
"""Bytes: a third of the bytes that the crowd sends."""

NO_KEY = ""
UNKNOWN_KEY = "x-api-key: hg_" + "u" * 43 + "\r\n"


def _envoy(edge: Edge) -> int:
    """Return Envoy's process id."""
    return next(pid for pid, name in children(edge.up.pid).items() if "envoy" in name)


@asynccontextmanager
async def _crowd(edge: Edge, path: str, header: str) -> AsyncIterator[None]:
    """Hold connections that have sent a body without its last byte."""
    host, _, port = edge.up.rest.partition(":")
    request = (
        f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n{header}content-length: {BODY}\r\n\r\n"
    )
    opened = await asyncio.gather(*(asyncio.open_connection(host, int(port)) for _ in range(CROWD)))

    async def send(writer: asyncio.StreamWriter) -> None:
        writer.write(request.encode())
        for at in range(0, BODY - 1, PIECE):
            writer.write(b"[" * min(PIECE, BODY - 1 - at))
            await writer.drain()

    try:
        await asyncio.gather(*(send(writer) for _, writer in opened))
        yield
    finally:
        for _, writer in opened:
            writer.close()


@pytest.mark.parametrize(
    ("path", "header"),
    [
        pytest.param("/v1/events/batch", NO_KEY, id="no key"),
        pytest.param("/v1/events/batch", UNKNOWN_KEY, id="unknown key"),
        pytest.param("/compat/scrip/v1/events/batch", UNKNOWN_KEY, id="of a vendor"),
    ],
)
async def test_their_bodies_are_not_held(edge: Edge, path: str, header: str) -> None:
    envoy = _envoy(edge)
    before = memory(envoy)
    async with (
        _crowd(edge, path, header),
        httpx.AsyncClient(base_url=edge.http.base_url, headers=edge.http.headers, timeout=30) as http,
    ):
        for _ in range(10):
            assert (await http.post("/v1/events", json={"type": "t"})).status_code == 200
        assert memory(envoy) - before < FEW


async def test_slow_bodies_with_a_key_hold_up_nobody(edge: Edge) -> None:
    """The server gets such a request when its body is complete."""
    async with (
        _crowd(edge, "/v1/events/batch", f"x-api-key: {edge.key}\r\n"),
        httpx.AsyncClient(base_url=edge.http.base_url, headers=edge.http.headers, timeout=30) as http,
    ):
        for _ in range(10):
            assert (await http.post("/v1/events", json={"type": "t"})).status_code == 200


async def test_a_grpc_body_without_a_key_is_refused_before_it_is_there(edge: Edge) -> None:
    """The call ends while the caller still sends."""
    host, _, port = edge.up.rest.partition(":")
    async with Connection(host, int(port)) as connection:
        await connection.send(call_headers(1, "/headgate.v1.IngestService/BatchIngest", ("x-api-key", "hg_nobody")))
        await connection.send(frame(DATA, 0, 1, b"\0" + BODY.to_bytes(4) + b"x" * 10_000))
        while (got := await connection.receive()) is not None and got.stream != 1:
            pass
    assert got is not None
    assert got.kind in (HEADERS, RST_STREAM)
    assert got.kind == RST_STREAM or got.flags & END_STREAM


async def test_readers_that_never_read_hold_up_nobody(edge: Edge) -> None:
    """Each requests many large answers on one connection, and reads none of them."""
    edge.batch(*({"type": "t", "data": {"text": "x" * 8_000}} for _ in range(500)))
    host, _, port = edge.up.rest.partition(":")
    request = f"GET /v1/events?page_size=500 HTTP/1.1\r\nhost: x\r\nx-api-key: {edge.key}\r\n\r\n".encode()
    writers = []
    try:
        for _ in range(READERS):
            _, writer = await asyncio.open_connection(host, int(port), limit=1024)
            writers.append(writer)
            writer.transport.pause_reading()  # type: ignore[attr-defined]
            writer.write(request * 8)
        async with httpx.AsyncClient(base_url=edge.http.base_url, headers=edge.http.headers, timeout=30) as http:
            for _ in range(40):
                answers = await asyncio.gather(*(http.post("/v1/events", json={"type": "t"}) for _ in range(4)))
                assert {answer.status_code for answer in answers} == {200}
    finally:
        for writer in writers:
            writer.transport.abort()
