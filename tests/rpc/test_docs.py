"""The files of the reference, over gRPC: the setting that turns them off, and the bound on readers."""

import asyncio
import gzip
import hashlib
from collections.abc import AsyncIterator
from typing import Any

import grpc.aio
import pytest
from google.api.httpbody_pb2 import HttpBody

from headgate_bridge import reference as vendored
from headgate_server.rpc import reference
from headgate_server.rpc.docs_servicer import DocsConfig
from tests.support.inprocess import serving
from tests.support.openapi import PATH
from tests.support.waiting import until

SERVICE = "/headgate.v1.DocsService/"
BRIDGED = (("x-envoy-original-path", "/docs"), ("x-headgate-bridge", "1"))


@pytest.fixture
async def channel(sqlite_url: str) -> AsyncIterator[grpc.aio.Channel]:
    """Return a channel to a server with the default settings."""
    async with serving(sqlite_url) as service, grpc.aio.insecure_channel(f"127.0.0.1:{service.port}") as opened:
        yield opened


def _call(channel: grpc.aio.Channel, name: str, **more: Any) -> Any:
    return channel.unary_stream(SERVICE + name, response_deserializer=HttpBody.FromString)(b"", **more)


async def _all(call: Any) -> bytes:
    return b"".join([part.data async for part in call])


async def test_a_grpc_client_gets_the_files_in_parts(channel: grpc.aio.Channel) -> None:
    assert await _all(_call(channel, "GetOpenApi")) == PATH.read_bytes()
    parts = [part async for part in _call(channel, "GetReferenceScript")]
    program = b"".join(part.data for part in parts)
    assert hashlib.sha256(program).hexdigest() == vendored.SHA256
    assert max(len(part.data) for part in parts) <= 64 * 1024
    assert {part.content_type for part in parts} == {"text/javascript; charset=utf-8"}


@pytest.mark.parametrize("name", ["GetOpenApi", "GetReference", "GetReferenceScript"])
async def test_off_means_that_there_is_no_such_path(sqlite_url: str, name: str) -> None:
    async with (
        serving(sqlite_url, docs=DocsConfig(docs="off")) as service,
        grpc.aio.insecure_channel(f"127.0.0.1:{service.port}") as channel,
    ):
        for metadata in ((), BRIDGED):
            call = _call(channel, name, metadata=metadata)
            assert await call.code() == grpc.StatusCode.NOT_FOUND
            assert b"NO_SUCH_PATH" in dict(await call.trailing_metadata())["grpc-status-details-bin"]


async def test_slow_readers_are_bounded_and_leave_room_when_they_go(channel: grpc.aio.Channel) -> None:
    slow = [_call(channel, "GetReferenceScript") for _ in range(16)]
    for call in slow:
        await call.read()  # the rest is not read
    late = _call(channel, "GetReference")
    assert await late.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    for call in slow:
        call.cancel()

    async def free() -> bool:
        try:
            return bool(await _all(_call(channel, "GetReference")))
        except grpc.aio.AioRpcError:
            return False

    assert await until(free)


async def test_many_readers_who_read_are_all_served(channel: grpc.aio.Channel) -> None:
    for _ in range(4):
        files = await asyncio.gather(*(_all(_call(channel, "GetOpenApi")) for _ in range(8)))
        assert set(files) == {PATH.read_bytes()}


def test_the_vendored_program_is_the_pinned_one() -> None:
    """`make reference` writes it again."""
    program = gzip.decompress(vendored.TARGET.read_bytes())
    assert hashlib.sha256(program).hexdigest() == vendored.SHA256
    assert f"`{vendored.VERSION}`".encode() in program
    assert "MIT License" in vendored.TARGET.with_name("scalar.LICENSE").read_text()


@pytest.mark.parametrize("file", [reference.open_api, reference.page, reference.script])
def test_the_parts_of_a_file_are_the_file(file: Any) -> None:
    found = file()
    plain = b"".join(found.parts(compressed=False))
    assert plain == gzip.decompress(b"".join(found.parts(compressed=True)))
    assert found.parts(compressed=True).__next__() == found.compressed[: 64 * 1024]
