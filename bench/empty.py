"""The empty RPC: what gRPC in Python allows with nothing behind it.

`python -m bench.empty` prints its port and serves until its standard input is closed: a grpc.aio server on uvloop as
the product's, with one method for each size of an answer, which takes bytes and returns canned ones. The answer to a
call of so many events is as long as the product's; nothing is read, checked or stored.
"""

import asyncio
import sys
from collections.abc import Awaitable, Callable

import grpc
import grpc.aio
import uvloop
from google.protobuf.timestamp_pb2 import Timestamp

from headgate.v1.ingest_service_pb2 import BatchIngestResponse, EventResult, IngestResponse

_SERVICE = "bench.Empty"
_SIZES = (1, 10, 100, 1_000)


def method(events: int) -> str:
    """Return the method that answers calls of so many events. Raises `ValueError` if there is none."""
    if events not in _SIZES:
        raise ValueError(f"the empty RPC answers calls of {_SIZES} events, not of {events}")
    return f"/{_SERVICE}/{_name(events)}"


def _name(events: int) -> str:
    return f"Answer{events}"


def _answer(events: int) -> bytes:
    """Return what the product would say of so many new events."""
    results = [
        EventResult(
            index=index,
            status="accepted",
            id="01a1fc55-87c1-728f-9c4c-d55d5623739d",
            sequence=1_000_000 + index,
            created_at=Timestamp(seconds=1_790_000_000, nanos=177_160_000),
            event_hash="21b9fa4b7634524aad25c6210c9209a225161981c1e5a8a020d664923ec8b621",
        )
        for index in range(events)
    ]
    if events == 1:
        return IngestResponse(result=results[0]).SerializeToString()
    return BatchIngestResponse(total=events, success_count=events, results=results).SerializeToString()


def _behaviour(answer: bytes) -> Callable[[bytes, object], Awaitable[bytes]]:
    async def behaviour(request: bytes, context: object) -> bytes:
        return answer

    return behaviour


async def _serve() -> None:
    # The options that the product's server has, which bear on a call.
    server = grpc.aio.server(options=(("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", -1)))
    handlers = {_name(size): grpc.unary_unary_rpc_method_handler(_behaviour(_answer(size))) for size in _SIZES}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(_SERVICE, handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(port, flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await server.stop(None)


if __name__ == "__main__":
    uvloop.run(_serve())
