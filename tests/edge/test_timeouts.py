"""Clients that send or read too slowly, with Envoy's times made short."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import orjson
import pytest

from headgate_bridge import BridgeConfig, Envoy
from headgate_server.rpc.pipeline.trust import PUBLIC
from tests.support.inprocess import Service, serving
from tests.support.waiting import until

SHIPPED = Path(__file__).parents[2] / "envoy.yaml"
SHORT = {"request_timeout: 60s": "request_timeout: 1s", "int_value: 30000": "int_value: 1000"}
"""What is replaced in envoy.yaml: the time for a whole request, and TCP_USER_TIMEOUT in milliseconds."""


@pytest.fixture
async def impatient(sqlite_url: str, tmp_path: Path) -> AsyncIterator[tuple[Service, int]]:
    """Run a server behind an Envoy with short times. Return it and Envoy's port."""
    text = SHIPPED.read_text()
    for long, short in SHORT.items():
        assert text.count(long) == 1
        text = text.replace(long, short)
    (tmp_path / "envoy.yaml").write_text(text)
    async with serving(sqlite_url) as service:
        upstreams = (("127.0.0.1", service.port),)
        config = BridgeConfig(
            http_port=0,
            upstreams=upstreams,
            body_limit=8 << 20,
            marker=PUBLIC,
            config_file=tmp_path / "envoy.yaml",
        )
        async with Envoy(config) as envoy:
            yield service, envoy.port


async def test_a_body_that_does_not_arrive(impatient: tuple[Service, int]) -> None:
    """The answer is 408, and says that the request can be sent again."""
    service, port = impatient
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = f"POST /v1/events HTTP/1.1\r\nhost: h\r\nx-api-key: {await service.key()}\r\ncontent-length: 1000\r\n\r\n"
    writer.write(head.encode() + b'{"type":')
    answer = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 30)
    assert answer.startswith(b"HTTP/1.1 408 ")
    body = orjson.loads((await reader.read()).strip())
    assert body["details"][0]["reason"] == "REQUEST_TIMEOUT"
    writer.close()


async def test_an_answer_that_is_not_read(impatient: tuple[Service, int]) -> None:
    """The kernel closes the connection, and with it everything that waited for the reader is freed."""
    service, port = impatient
    async with service.caller() as caller:
        large = orjson.dumps({"events": [{"type": "t", "data": {"text": "x" * 8_000}}] * 900})
        await caller.json(large)
    request = f"GET /v1/events?page_size=900 HTTP/1.1\r\nhost: h\r\nx-api-key: {await service.key()}\r\n\r\n"
    _, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
    writer.transport.pause_reading()  # type: ignore[attr-defined]
    writer.write(request.encode() * 8)

    async def is_closed() -> bool:
        writer.write(b" ")
        return writer.is_closing()

    await until(is_closed, seconds=30)
