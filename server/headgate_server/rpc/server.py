"""The gRPC server: methods onto a port, errors onto codes."""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import grpc
import grpc.aio
import structlog
from google.protobuf import descriptor_pool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1._async import HealthServicer
from grpc_reflection.v1alpha import reflection

from headgate_server.core.errors import HeadgateError, Overloaded, SetupError
from headgate_server.rpc import status
from headgate_server.rpc.call import Call, Handler, Method
from headgate_server.rpc.interceptors import Interceptor, compose
from headgate_server.rpc.transport import Farewell, server_options

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerConfig:
    """Where and how the gRPC server listens."""

    host: str = "127.0.0.1"
    """Loopback unless told otherwise: there is no TLS, so what lies before this port must be trusted."""
    port: int = 50051
    """0 takes any free port."""
    body_limit: int = 8 * 1024 * 1024
    """Bytes of one request: a thousand events of 8 KiB."""
    concurrent_calls: int = 2_000
    """Calls in progress; further ones are refused at once. Streams of health and reflection do not count: whoever
    holds them needs no key, and must not shut out those who have one.
    """
    bytes_in_progress: int = 128 * 1024 * 1024
    """Bodies of the calls in progress, which take some times as much memory while they are read; past it calls are
    refused.
    """


class GrpcServer:
    """Serves methods, health and reflection."""

    def __init__(self, config: ServerConfig, methods: Iterable[Method], interceptors: Sequence[Interceptor]):
        self._config = config
        self._server = grpc.aio.server(options=server_options(config.body_limit))
        self._farewell = Farewell()
        self._health = HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        load = Load(config)
        services: dict[str, dict[str, grpc.RpcMethodHandler]] = {}
        for method in methods:
            services.setdefault(method.service, {})[method.name] = grpc.unary_unary_rpc_method_handler(
                _behaviour(method, interceptors, load, self._farewell)
            )
        for name, handlers in services.items():
            self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(name, handlers),))
        self.services = tuple(services)
        reflection.enable_server_reflection(
            (*services, health_pb2.DESCRIPTOR.services_by_name["Health"].full_name, reflection.SERVICE_NAME),
            self._server,
            pool=_MethodsToo(),
        )
        self.port = 0

    async def start(self) -> None:
        """Listen. `port` is then the port. Raises `SetupError` if it is taken."""
        host = f"[{self._config.host}]" if ":" in self._config.host else self._config.host
        address = f"{host}:{self._config.port}"
        try:
            self.port = self._server.add_insecure_port(address)
        except RuntimeError:
            raise SetupError(
                f"cannot listen on {address} for gRPC: the port is in use, or the address is not this machine's"
            ) from None
        await self._server.start()
        await self.set_serving(True)

    async def set_serving(self, serving: bool) -> None:
        """Tell those who watch grpc.health.v1.Health, of the server and of each service."""
        state = health_pb2.HealthCheckResponse.SERVING if serving else health_pb2.HealthCheckResponse.NOT_SERVING
        for name in ("", *self.services):
            await self._health.set(name, state)

    async def stop(self, grace: float) -> None:
        """Refuse new calls, give those in progress `grace` seconds, and return when all have ended."""
        await self._health.enter_graceful_shutdown()
        await self._farewell.stop(self._server, grace)


class _MethodsToo:
    """The descriptor pool, which also finds the file of a method: ghz asks for that, and protobuf's own pool knows
    no methods.
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


class Load:
    """How much is in progress, over all methods."""

    def __init__(self, config: ServerConfig):
        self.config = config
        self._calls = 0
        self._bytes = 0

    def bounded(self, handler: Handler) -> Handler:
        """Refuse calls past the bounds; one that is alone is never too large."""

        async def admitted(call: Call) -> bytes:
            size = len(call.body)
            if self._calls >= self.config.concurrent_calls or (
                self._calls and self._bytes + size > self.config.bytes_in_progress
            ):
                raise Overloaded("Too many calls are in progress; nothing of this one was done.")
            self._calls += 1
            self._bytes += size
            try:
                return await handler(call)
            finally:
                self._calls -= 1
                self._bytes -= size

        return admitted


def _behaviour(
    method: Method, interceptors: Sequence[Interceptor], load: Load, farewell: Farewell
) -> Callable[[bytes, grpc.aio.ServicerContext[bytes, bytes]], Awaitable[bytes]]:
    """Return what grpc calls: bytes and context in, bytes out; errors end the call with their code and details."""
    # Innermost: a refusal has a request id and is logged, and who has no key takes no place.
    handler = farewell.keeping_back(compose(interceptors, replace(method, handler=load.bounded(method.handler))))
    body_limit = load.config.body_limit

    async def behaviour(body: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        call = Call(method.full_name, body, dict(context.invocation_metadata() or ()), context, body_limit)
        try:
            answer = await handler(call)
        except HeadgateError as error:
            code = status.code_of(error)
            call.reply_metadata.append((status.DETAILS_KEY, status.encode(error)))
            if (seconds := status.retry_after(error)) is not None:
                call.reply_metadata.append(("retry-after", seconds))
            if code.http is not None:
                call.reply_metadata.append((status.HTTP_STATUS_KEY, str(code.http)))
            await context.abort(code.grpc, status.printable(error.message), tuple(call.reply_metadata))
        except Exception:
            # A bug: the caller learns where to look, and nothing else.
            log.exception("call_failed", method=method.full_name, request_id=call.request_id)
            bug = status.bug(call.request_id)
            call.reply_metadata.append((status.DETAILS_KEY, status.encode(bug)))
            await context.abort(grpc.StatusCode.INTERNAL, bug.message, tuple(call.reply_metadata))
        if call.reply_metadata and call.bridged:
            # Of an answer that is no error Envoy makes headers of the initial metadata alone.
            await context.send_initial_metadata(tuple(call.reply_metadata))
        elif call.reply_metadata:
            context.set_trailing_metadata(tuple(call.reply_metadata))
        return answer

    return behaviour
