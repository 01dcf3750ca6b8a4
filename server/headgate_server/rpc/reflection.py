"""grpc.reflection.v1alpha.ServerReflection, by grpcio's own servicer. Malformed requests get our own error."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import grpc
from google.protobuf import descriptor_pool
from grpc_reflection.v1alpha import reflection, reflection_pb2

from headgate_server.core.errors import TooSlow
from headgate_server.rpc.plain import Context, abort, parse

SERVICE = reflection.SERVICE_NAME

_STREAMS = 4
"""Streams at once; others wait. Each may hold a request of the largest size, and its caller needs no key."""
_SECONDS = 10.0
"""The longest time of a stream."""


class Reflection:
    """The reflection service. It describes the services with the given names."""

    def __init__(self, services: Sequence[str]):
        """Raises `KeyError` if the protos of a service are not imported: tools that describe everything would fail."""
        for name in services:
            descriptor_pool.Default().FindServiceByName(name)
        self._turn = asyncio.Semaphore(_STREAMS)
        self._servicer = reflection.aio.ReflectionServicer(services, pool=_MethodsToo())

    def handlers(self) -> dict[str, grpc.RpcMethodHandler]:
        """Return the service's methods."""
        return {"ServerReflectionInfo": grpc.stream_stream_rpc_method_handler(self.info)}

    async def info(self, _: AsyncIterator[bytes], context: Context) -> None:
        """Answer each request of a stream. The call ends with an error after `_SECONDS`."""

        async def requests() -> AsyncIterator[reflection_pb2.ServerReflectionRequest]:
            while (body := await context.read()) is not grpc.aio.EOF:
                yield await parse(body, reflection_pb2.ServerReflectionRequest, context)

        try:
            async with asyncio.timeout(_SECONDS), self._turn:
                async for answer in self._servicer.ServerReflectionInfo(requests(), context):
                    await context.write(answer.SerializeToString())
        except TimeoutError:
            await abort(context, TooSlow(f"A stream of reflection lasts {_SECONDS:g} s at most."))


class _MethodsToo:
    """The descriptor pool, extended to find the file of a method. ghz asks for methods, and protobuf's own pool cannot
    find them.
    """

    def __init__(self) -> None:
        self._pool = descriptor_pool.Default()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pool, name)

    def FindFileContainingSymbol(self, symbol: str) -> Any:
        """Return the file that defines the symbol, or whose service has the method. Raises `KeyError` if there is
        none.
        """
        try:
            return self._pool.FindFileContainingSymbol(symbol)
        except KeyError:
            service, _, method = symbol.rpartition(".")
            if method not in self._pool.FindServiceByName(service).methods_by_name:
                raise
            return self._pool.FindFileContainingSymbol(service)
