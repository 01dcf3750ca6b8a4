"""A call that fails leaves no part of its request to the garbage collector, and one that succeeds nothing of ours. The
collector runs seldom, and then it stops every call.
"""

import asyncio
import gc
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import grpc.aio
import pytest

from headgate.v1.event_pb2 import Event
from headgate.v1.ingest_service_pb2 import BatchIngestRequest
from headgate_server.core.errors import InvalidRequest, Overloaded, Unavailable
from headgate_server.ingest.committer import Committer
from headgate_server.rpc.pipeline.call import Call
from tests.support.inprocess import serving
from tests.support.waiting import until

_TEXT = "not-for-the-collector"
_REQUEST = BatchIngestRequest(
    events=[Event(type="a.b", source="test", data_json=f'{{"text":"{_TEXT}","n":{n}}}'.encode()) for n in range(20)]
).SerializeToString()
_CALLS = 10


async def _never(*_: object) -> None:
    await asyncio.get_running_loop().create_future()


def _raising(error: Callable[[], Exception]) -> Callable[..., Awaitable[None]]:
    async def fail(*_: object) -> None:
        raise error()

    return fail


def _refuse(*_: object) -> None:
    raise Overloaded("Full.", retry_after=1.0)


@contextmanager
def _without_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()


def _collected() -> Sequence[object]:
    """Return what the collector would free now."""
    gc.set_debug(gc.DEBUG_SAVEALL)
    gc.collect()
    return gc.garbage


def _has_request(thing: object) -> bool:
    return any(isinstance(part, bytes) and _TEXT.encode() in part for part in gc.get_referents(thing))


@pytest.mark.parametrize(
    ("method", "does", "gives_up"),
    [
        ("check_room", _refuse, False),
        ("submit", _raising(lambda: Unavailable("The store is down.")), False),
        ("submit", _raising(lambda: InvalidRequest("No.")), False),
        ("submit", _raising(lambda: RuntimeError("a bug")), False),
        ("submit", _never, True),
    ],
    ids=["refused", "not stored", "invalid", "bug", "given up"],
)
async def test_no_request_is_left_to_the_collector(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str, does: object, gives_up: bool
) -> None:
    async with (
        serving(f"sqlite:///{tmp_path}/store.db") as service,
        grpc.aio.insecure_channel(f"127.0.0.1:{service.port}") as channel,
    ):
        metadata, begun = [("x-api-key", await service.key())], asyncio.Semaphore(0)
        send = channel.unary_unary("/headgate.v1.IngestService/BatchIngest")
        await send(_REQUEST, metadata=metadata)

        def noted(*arguments: object) -> object:
            begun.release()
            return does(*arguments)  # type: ignore[operator]

        monkeypatch.setattr(Committer, method, noted)
        with _without_collector():
            before = len(asyncio.all_tasks())

            async def all_ended() -> bool:
                return len(asyncio.all_tasks()) <= before

            for _ in range(_CALLS):
                call = send(_REQUEST, metadata=metadata)
                await begun.acquire()
                if gives_up:
                    call.cancel()
                with suppress(asyncio.CancelledError, grpc.aio.AioRpcError):
                    await call
                    pytest.fail("the call succeeded")
            del call
            await until(all_ended)  # the server has ended the calls, too
            left = _collected()
            assert [thing for thing in left if _has_request(thing)] == []


async def test_calls_that_succeed_leave_nothing_to_the_collector(tmp_path: Path) -> None:
    async with (
        serving(f"sqlite:///{tmp_path}/store.db") as service,
        grpc.aio.insecure_channel(f"127.0.0.1:{service.port}") as channel,
    ):
        metadata = [("x-api-key", await service.key())]
        send = channel.unary_unary("/headgate.v1.IngestService/BatchIngest")
        await send(_REQUEST, metadata=metadata)
        with _without_collector():
            for _ in range(_CALLS):
                await send(_REQUEST, metadata=metadata)
            assert [thing for thing in _collected() if isinstance(thing, Call) or _has_request(thing)] == []
