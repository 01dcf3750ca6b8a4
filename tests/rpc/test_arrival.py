"""Requests are received late: after the caller is authenticated, and few at a time."""

from collections.abc import AsyncIterator

import grpc
import grpc.aio
import pytest

from headgate_server.rpc import reflection
from tests.support.calls import BATCH, Caller, event, refused, statuses
from tests.support.http2 import DATA, END_STREAM, HEADERS, RST_STREAM, Connection, call_headers, frame
from tests.support.inprocess import Service
from tests.support.marks import on_sqlite

pytestmark = on_sqlite

CHECK = "/grpc.health.v1.Health/Check"
SIZE = 8 << 20


def _begun(stream: int, path: str, *headers: tuple[str, str]) -> bytes:
    """Return a call whose request begins and does not end."""
    return call_headers(stream, path, *headers) + frame(DATA, 0, stream, b"\0" + SIZE.to_bytes(4) + b"x" * 1_000)


async def test_a_call_without_a_key_is_answered_before_its_request_arrives(service: Service) -> None:
    async with Connection("127.0.0.1", service.port) as connection:
        await connection.send(_begun(1, BATCH, ("x-api-key", "hg_nobody")))
        while (got := await connection.receive()) is not None and got.stream != 1:
            pass
    assert got is not None
    assert got.kind in (HEADERS, RST_STREAM)
    assert got.kind == RST_STREAM or got.flags & END_STREAM


async def test_slow_requests_of_one_workspace_do_not_delay_others(service: Service, caller: Caller) -> None:
    async with Connection("127.0.0.1", service.port) as connection, service.caller(workspace="other") as other:
        key = dict(caller.metadata)["x-api-key"]
        for stream in range(1, 60, 2):
            await connection.send(_begun(stream, BATCH, ("x-api-key", key)))
        for _ in range(5):
            assert statuses(await other.batch(event())) == ["accepted"]


async def test_slow_requests_without_a_key_do_not_delay_others(service: Service, caller: Caller) -> None:
    async with Connection("127.0.0.1", service.port) as connection:
        for stream in range(1, 60, 2):
            await connection.send(_begun(stream, CHECK))
        assert statuses(await caller.batch(event())) == ["accepted"]


async def test_a_call_without_a_request(service: Service, caller: Caller) -> None:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{service.port}") as channel:
        refusal = await refused(channel.stream_unary(BATCH)(_nothing(), metadata=caller.metadata))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "MALFORMED_REQUEST")


async def test_a_stream_of_reflection_has_an_end(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """It needs no key, and may hold a request of the largest size."""
    monkeypatch.setattr(reflection, "_SECONDS", 0.05)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{service.port}") as channel:
        stream = channel.stream_stream(f"/{reflection.SERVICE}/ServerReflectionInfo")()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stream.read()
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED


async def _nothing() -> AsyncIterator[bytes]:
    return
    yield b""
