"""The endpoint of metrics: what it answers, and readers that are slow, silent or many."""

import asyncio
import socket
from collections.abc import AsyncIterator

import httpx
import pytest

from headgate_server.core.errors import SetupError
from headgate_server.process.metrics import endpoint
from tests.support.waiting import GUARD

PAGE = b"x" * 5_000_000
"""More than the buffers of a connection take."""


@pytest.fixture
async def port() -> AsyncIterator[int]:
    async def make() -> bytes:
        return PAGE

    async with endpoint.serving("127.0.0.1", 0, make) as number:
        yield number


async def _raw(port: int, *parts: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for part in parts:
        writer.write(part)
        await writer.drain()
    answer = await asyncio.wait_for(reader.read(), GUARD)
    writer.close()
    return answer


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/metrics", 200),
        ("GET", "/metrics?x=1", 200),
        ("HEAD", "/metrics", 200),
        ("POST", "/metrics", 405),
        ("DELETE", "/metrics", 405),
        ("GET", "/", 404),
        ("GET", "/metrics/", 404),
        ("POST", "/%ff", 404),
    ],
)
async def test_answers(port: int, method: str, path: str, status: int) -> None:
    async with httpx.AsyncClient() as http:
        content = b"a" * 100_000 if method == "POST" else None
        answer = await http.request(method, f"http://127.0.0.1:{port}{path}", content=content)
    assert answer.status_code == status
    if status == 200:
        assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
        assert answer.headers["content-length"] == str(len(PAGE))
        assert answer.content == (PAGE if method == "GET" else b"")
    if status == 405:
        assert answer.headers["allow"] == "GET, HEAD"


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01\x00\x05hello\r\n\r\n",
        b"GET /metrics\r\n\r\n",
        b"GET /metrics HTTP/1.1\r\n\r\n",
        b"GET /metrics HTTP/1.1\r\nhost: a\r\nx: " + b"y" * 40_000 + b"\r\n\r\n",
    ],
    ids=["TLS", "HTTP/0.9", "no host", "too long"],
)
async def test_what_is_no_request(port: int, sent: bytes) -> None:
    answer = await _raw(port, sent)
    assert answer.split()[1] in (b"400", b"431")


async def test_one_byte_at_a_time_and_two_at_once(port: int) -> None:
    request = b"GET /metrics HTTP/1.0\r\n\r\n"
    answers = await asyncio.gather(_raw(port, *(request[i : i + 1] for i in range(len(request)))), _raw(port, request))
    assert all(answer.startswith(b"HTTP/1.1 200 OK\r\n") and answer.endswith(PAGE) for answer in answers)


async def test_readers_that_do_not_read_and_callers_that_say_nothing(
    port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are bounded in number and time, and then the next reader is answered again."""
    monkeypatch.setattr(endpoint, "_ANSWER_SECONDS", 0.2)
    monkeypatch.setattr(endpoint, "_REQUEST_SECONDS", 0.2)
    idle = [await asyncio.open_connection("127.0.0.1", port) for _ in range(20)]
    for _, writer in idle[:8]:
        writer.write(b"GET /metrics HTTP/1.1\r\nhost: a\r\n\r\n")
    refused = await asyncio.wait_for(idle[-1][0].read(), GUARD)
    assert refused == b""
    for reader, _ in idle[8:]:
        assert await asyncio.wait_for(reader.read(), GUARD) == b""

    async def answered() -> bool:
        try:
            return (await _raw(port, b"GET /metrics HTTP/1.0\r\n\r\n")).endswith(PAGE)
        except OSError:
            return False

    monkeypatch.setattr(endpoint, "_ANSWER_SECONDS", 20.0)
    while not await answered():
        pass
    for _, writer in idle:
        writer.close()


async def test_a_page_that_cannot_be_made(port: int) -> None:
    async def fails() -> bytes:
        raise RuntimeError

    async with endpoint.serving("127.0.0.1", 0, fails) as number:
        assert await _raw(number, b"GET /metrics HTTP/1.0\r\n\r\n") == b""
        assert (await _raw(number, b"GET /x HTTP/1.0\r\n\r\n")).startswith(b"HTTP/1.1 404")


async def test_a_port_in_use() -> None:
    async def make() -> bytes:
        return b""

    with socket.create_server(("127.0.0.1", 0)) as taken:
        number = taken.getsockname()[1]
        with pytest.raises(SetupError, match=f"cannot serve metrics on 127.0.0.1:{number}"):
            async with endpoint.serving("127.0.0.1", number, make):
                pass
