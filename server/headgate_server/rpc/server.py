"""The gRPC server: it serves methods of every kind on a port."""

import asyncio
import re
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeAlias, assert_never

import grpc
import grpc.aio

from headgate_server.core.errors import SetupError
from headgate_server.process.aside import aside
from headgate_server.process.ports import HIGHEST_PORT, host_of, shown
from headgate_server.process.setting import setting
from headgate_server.rpc import health, reflection
from headgate_server.rpc.encryption import Encryption
from headgate_server.rpc.pipeline.call import Call, Handler
from headgate_server.rpc.pipeline.gate import Gate
from headgate_server.rpc.pipeline.interceptors import Chain
from headgate_server.rpc.pipeline.load import LoadConfig
from headgate_server.rpc.pipeline.method import AnyMethod, BothWays, ServerStream, Unary
from headgate_server.rpc.pipeline.streams import Streams
from headgate_server.rpc.pipeline.trust import PUBLIC, repeated, token_of
from headgate_server.rpc.probes import ProbePort
from headgate_server.rpc.transport import Farewell, received, server_options

_Context: TypeAlias = grpc.aio.ServicerContext[bytes, bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerConfig(LoadConfig):
    """The address of the gRPC server, and the limits of its requests."""

    host: str = setting(
        "127.0.0.1",
        "grpc-host",
        "Address of the gRPC server. An address of a network needs --tls-cert, or --plaintext.",
        read=host_of,
    )
    """The loopback address: a service that others can reach is somebody's decision."""
    port: int = setting(
        50051,
        "grpc-port",
        "Port of the gRPC server, each further worker has the next; 0 takes any free ones.",
        least=0,
        most=HIGHEST_PORT,
    )
    """gRPC's customary port."""
    bridge_token: str = setting(
        PUBLIC,
        "bridge-token",
        "The server recognizes its bridge by this token. Both must have the same one. `headgate up` makes its own.",
        metavar="TOKEN",
        read=token_of,
        secret=True,
    )
    """Not secret by default, so that server and bridge work together without a setting."""
    body_limit: int = setting(8 * 1024 * 1024, "body-limit", "Bytes of one request.", least=1024, most=1 << 30)
    """Bytes of one request: a thousand events of 8 KiB. Envoy's own limit follows from this one."""
    health_port: int | None = setting(
        None,
        "health-port",
        "A port with only grpc.health.v1, in plain text, for probes without TLS; each further worker has the next.",
        least=0,
        most=HIGHEST_PORT,
    )
    """None: probes use the server's port, which is enough without TLS."""
    bridge_socket: Path | None = None
    """A Unix socket on which the bridge's calls are taken in plain text beside the port. `headgate up` sets it if the
    port has TLS, in a folder that only its own user can enter.
    """


class GrpcServer:
    """Serves methods, health and reflection."""

    def __init__(
        self,
        config: ServerConfig,
        methods: Iterable[AnyMethod],
        chain: Chain,
        public: Gate,
        streams: Streams,
        encryption: Encryption | None = None,
    ):
        """`public` receives the requests to the health service, whose callers need no key. `streams` is the same object
        that the chain got. Without `encryption` the port is in plain text.
        """
        self._config = config
        self._encryption = encryption
        self._streams = streams
        self._server = grpc.aio.server(options=server_options(config.body_limit))
        self._farewell = Farewell()
        self._health = health.Health(public)
        self._probes = ProbePort(self._health) if config.health_port is not None else None
        services: dict[str, dict[str, grpc.RpcMethodHandler]] = {}
        for method in methods:
            handler = self._farewell.keeping_back(chain(method))
            services.setdefault(method.service, {})[method.name] = _bind(method, handler, self._farewell)
        self.services = tuple(services)
        self._health.add(*services)
        services[health.SERVICE] = self._health.handlers()
        services[reflection.SERVICE] = reflection.Reflection((*services, reflection.SERVICE)).handlers()
        for name, handlers in services.items():
            self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(name, handlers),))
        self.port = 0

    async def start(self) -> None:
        """Start to listen, and set `port`. Raises `SetupError` if the port is in use."""
        address = shown(self._config.host, self._config.port)
        try:
            if self._encryption is None:
                self.port = self._server.add_insecure_port(address)
            else:
                self.port = self._server.add_secure_port(address, self._encryption.credentials)
        except RuntimeError:
            raise SetupError(
                f"cannot listen on {address} for gRPC: the port is in use, or the address is not this machine's"
            ) from None
        if self._config.bridge_socket is not None:
            try:
                self._server.add_insecure_port(f"unix:{self._config.bridge_socket}")
            except RuntimeError:
                raise SetupError(f"cannot listen on the Unix socket {self._config.bridge_socket}") from None
        if self._probes is not None:
            await self._probes.start(self._config.host, self._config.health_port or 0)
        await self._server.start()
        self.set_serving(True)

    @property
    def health_port(self) -> int | None:
        """The port for probes, once `start` has returned; None if there is none."""
        return self._probes.port if self._probes is not None else None

    def set_serving(self, serving: bool) -> None:
        """Set the state that grpc.health.v1.Health reports for the server and for each service."""
        self._health.set_serving(serving)

    async def stop(self, grace: float) -> None:
        """Say that the server is not healthy, and serve until callers that ask for it have gone elsewhere. Then end the
        streams and refuse new calls. Calls in progress have `grace` seconds to end. Return when all calls have ended.
        """
        self._health.end()
        left = await self._farewell.turn_away(grace)
        self._farewell.begin()
        self._streams.close()
        await self._farewell.stop(self._server, left)
        if self._probes is not None:
            await self._probes.stop()


def _bind(method: AnyMethod, handler: Handler, farewell: Farewell) -> grpc.RpcMethodHandler:
    """Return the handler that grpc calls with a context. It returns bytes, or ends a failed call with its code.

    Every method is registered as a stream of requests, which is the same on the wire. For a single request grpc calls
    the handler only after it has received the whole request.
    """
    match method.kind:
        case Unary():

            async def unary(_: AsyncIterator[bytes], context: _Context) -> bytes:
                call = _call(method, context)
                answer = await handler(call)
                await _end(call, context)
                return answer

            return grpc.stream_unary_rpc_method_handler(unary)
        case ServerStream():

            async def server_stream(_: AsyncIterator[bytes], context: _Context) -> None:
                if method.lasting:
                    farewell.watch(context)
                await _stream(handler, _call(method, context), context)

            return grpc.stream_stream_rpc_method_handler(server_stream)
        case BothWays():

            async def both_ways(messages: AsyncIterator[bytes], context: _Context) -> None:
                if method.lasting:
                    farewell.watch(context)
                await _stream(handler, _call(method, context, _until_gone(messages)), context)

            return grpc.stream_stream_rpc_method_handler(both_ways)
        case _ as never:
            assert_never(never)


def _call(method: AnyMethod, context: _Context, messages: AsyncIterator[bytes] | None = None) -> Call:
    sent = context.invocation_metadata() or ()
    metadata = dict(sent)
    twice = repeated(sent) if len(metadata) != len(sent) else frozenset()
    receive = partial(received, context) if messages is None else None
    return Call(method.full_name, metadata, receive, messages=messages, repeated=twice)


async def _until_gone(messages: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Yield a stream's requests. They also end if the caller is gone. grpc cancels the call soon after that, so this
    waits a moment: the call is cancelled then, and does not end as if the caller had no more requests.
    """
    async for message in messages:
        yield message
    await asyncio.sleep(_CANCELLED_WITHIN)


_CANCELLED_WITHIN = 0.01
"""Seconds. One turn of the event loop was too short in one of some thousand tests."""


async def _stream(handler: Handler, call: Call, context: _Context) -> None:
    """Answer a call with a stream. The bridge gets the metadata before the first message, and makes headers of it."""
    begun = False

    async def begin() -> None:
        nonlocal begun
        if not begun:
            # A separate call: if the first message is cancelled, it is still certain that the metadata was sent.
            await context.send_initial_metadata(tuple(call.reply_metadata) if call.bridged else ())
        begun = True

    async def send(message: bytes) -> None:
        await begin()
        call.sending = True
        await context.write(message)
        call.sending = False

    call.begin, call.send = begin, send
    await handler(call)
    if call.failure is not None or not (begun and call.bridged):
        await _end(call, context)


async def _end(call: Call, context: _Context) -> None:
    """End a failed call with its code. Otherwise send the metadata of its answer."""
    if call.failure is not None:
        await context.abort(call.failure.code, call.failure.message, tuple(call.reply_metadata))
    with aside("reply_metadata"):
        metadata = tuple(filter(_is_sendable, call.reply_metadata))
        if metadata and call.bridged:
            # If the call succeeds, Envoy makes headers of the initial metadata only.
            await context.send_initial_metadata(metadata)
        elif metadata:
            context.set_trailing_metadata(metadata)


def _is_sendable(entry: tuple[str, str | bytes]) -> bool:
    """Whether grpc accepts the entry. With one entry that it does not accept, the caller would get no answer."""
    name, value = entry
    if not _NAME.fullmatch(name):
        return False
    return name.endswith("-bin") if isinstance(value, bytes) else value.isascii() and value.isprintable()


_NAME = re.compile(r"[0-9a-z_.-]+")
