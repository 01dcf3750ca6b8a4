"""The empty RPC: the most that gRPC in Python can do, without any function.

`python -m bench.empty` prints its port and serves until its standard input is closed: a grpc.aio server on uvloop as
the product's, with one method that takes bytes and returns as many as the product's answer to a new event has.
"""

import asyncio
import sys

import grpc
import grpc.aio
import uvloop

from headgate.v1.ingest_service_pb2 import EventResult, IngestResponse

METHOD = "/bench.Empty/Answer"
ANSWER = IngestResponse(result=EventResult(status="accepted", id=119 * "0")).SerializeToString()
"""As many bytes as the product answers to a new event with."""


async def _answer(request: bytes, context: object) -> bytes:
    return ANSWER


async def _serve() -> None:
    # The options of the product's server that bear on a call.
    server = grpc.aio.server(options=(("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", -1)))
    handler = grpc.unary_unary_rpc_method_handler(_answer)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("bench.Empty", {"Answer": handler}),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(port, flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await server.stop(None)


if __name__ == "__main__":
    uvloop.run(_serve())
