"""grpc.health.v1.Health (https://github.com/grpc/grpc/blob/master/doc/health-checking.md), without a key.

grpcio's own servicer holds a lock while it writes to a watcher. A watcher that does not read then blocks a change of
the state and the end of the server. grpcio also answers a malformed request with a Python error message.
"""

import asyncio
from collections.abc import AsyncIterator

import grpc
from grpc_health.v1 import health_pb2

from headgate_server.core.errors import NotFound
from headgate_server.core.reasons import Reason
from headgate_server.rpc.pipeline.gate import Gate
from headgate_server.rpc.plain import Context, abort, read

SERVICE = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name

LIVE = "live"
"""The name that stands for the process alone: it serves as long as it answers, whatever the store does. A supervisor
that restarted a server whose database is away would only add to the load.
"""

_SERVING = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
_UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN


class Health:
    """The health service. The server and all its services have the same state; `LIVE` is always serving."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self._services: frozenset[str] = frozenset(("", LIVE))
        self._serving = False
        self._ended = False
        self._changed = asyncio.Event()

    def add(self, *services: str) -> None:
        """Add services by their full names."""
        self._services |= frozenset(services)

    def set_serving(self, serving: bool) -> None:
        """Set the state and wake the watchers. This does not wait until they read it."""
        self._serving = serving and not self._ended
        self._changed.set()
        self._changed = asyncio.Event()

    def end(self) -> None:
        """Set the state to not serving. It does not change any more."""
        self._ended = True
        self.set_serving(False)

    def handlers(self) -> dict[str, grpc.RpcMethodHandler]:
        """Return the service's methods."""
        return {
            "Check": grpc.stream_unary_rpc_method_handler(self.check),
            "Watch": grpc.stream_stream_rpc_method_handler(self.watch),
        }

    async def check(self, _: AsyncIterator[bytes], context: Context) -> bytes:
        """Return the state of a service. The call ends with NOT_FOUND if the server does not have it."""
        name = (await read(self._gate, health_pb2.HealthCheckRequest, context)).service
        if name not in self._services:
            raise await abort(context, NotFound("There is no such service here.", reason=Reason.NO_SUCH_SERVICE))
        return self._answer(name)

    async def watch(self, _: AsyncIterator[bytes], context: Context) -> AsyncIterator[bytes]:
        """Yield the state of a service now and whenever it changes."""
        name = (await read(self._gate, health_pb2.HealthCheckRequest, context)).service
        while True:
            changed = self._changed
            yield self._answer(name)
            await changed.wait()

    def _answer(self, name: str) -> bytes:
        state = _SERVING if self._serving or name == LIVE else _NOT_SERVING
        answer = health_pb2.HealthCheckResponse(status=state if name in self._services else _UNKNOWN)
        return bytes(answer.SerializeToString())
