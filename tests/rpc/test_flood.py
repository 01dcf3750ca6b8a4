"""More calls at once than gRPC's limits allow: every accepted call gets our own answer."""

import asyncio
import signal
from collections import Counter

import grpc
import grpc.aio
import pytest

from headgate.v1.ledger_service_pb2 import GetHeadRequest
from tests.support.calls import BATCH, Caller, batch_bytes, event
from tests.support.http2 import Connection
from tests.support.inprocess import Service
from tests.support.marks import on_sqlite
from tests.support.service import ServerProcess, make_key

OK, UNAVAILABLE = grpc.StatusCode.OK, grpc.StatusCode.UNAVAILABLE


async def code_of(call: grpc.aio.UnaryUnaryCall[bytes, bytes]) -> grpc.StatusCode:
    """Return how a call ended."""
    return await call.code()


@on_sqlite
async def test_thousands_of_calls_at_once_are_all_answered(service: Service) -> None:
    """From 1,000 calls on, gRPC's core cancels calls that wait for the event loop."""
    async with grpc.aio.insecure_channel(f"127.0.0.1:{service.port}") as channel:
        head = channel.unary_unary("/headgate.v1.LedgerService/GetHead")
        calls = [head(GetHeadRequest().SerializeToString()) for _ in range(3_500)]
        codes = Counter(await asyncio.gather(*map(code_of, calls)))
    assert codes == {grpc.StatusCode.UNAUTHENTICATED: 3_500}


@on_sqlite
async def test_an_idle_connection_may_be_pinged(service: Service) -> None:
    async with Connection("127.0.0.1", service.port) as connection:
        for _ in range(6):
            assert await connection.ping()
            await asyncio.sleep(0.3)  # not faster than clients are allowed to


@pytest.mark.parametrize("again", [False, True], ids=["at once", "one after another"])
async def test_no_call_is_cancelled_by_the_end(sqlite_url: str, again: bool) -> None:
    """Calls accepted before SIGTERM are stored and answered; later ones are UNAVAILABLE."""
    key = await make_key(sqlite_url)
    body = batch_bytes(event())
    codes: Counter[grpc.StatusCode] = Counter()
    async with ServerProcess(sqlite_url) as server, Caller(server.port, key) as caller:
        await caller.batch(event())
        async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
            batch = channel.unary_unary(BATCH)
            begun = asyncio.Event()

            async def calling() -> None:
                code = OK
                while code is OK:
                    code = await code_of(batch(body, metadata=caller.metadata))
                    codes[code] += 1
                    begun.set()
                    if not again:
                        break

            callers = [asyncio.create_task(calling()) for _ in range(600)]
            await begun.wait()
            assert await server.end(signal.SIGTERM) == 0
            await asyncio.gather(*callers)
    assert codes.keys() <= {OK, UNAVAILABLE}
    assert codes[OK] >= 600
    async with ServerProcess(sqlite_url) as server, Caller(server.port, key) as caller:
        assert await caller.stored() == codes[OK] + 1
