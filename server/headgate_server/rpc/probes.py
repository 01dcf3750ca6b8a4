"""A port for the probes of orchestrators: `grpc.health.v1.Health` in plain text, and nothing else.

A kubelet's gRPC probe has no TLS and no certificate, so it cannot use a port that has.
"""

import grpc
import grpc.aio

from headgate_server.core.errors import SetupError
from headgate_server.process.ports import shown
from headgate_server.rpc import health

_OPTIONS = (
    # A second process on the port must fail, not share it.
    ("grpc.so_reuseport", 0),
    # A request has the name of a service.
    ("grpc.max_receive_message_length", 1024),
    ("grpc.max_metadata_size", 8 * 1024),
)


class ProbePort:
    """Serves the state of a health service on a port of its own."""

    def __init__(self, state: health.Health):
        self._server = grpc.aio.server(options=_OPTIONS)
        handler = grpc.method_handlers_generic_handler(health.SERVICE, state.handlers())
        self._server.add_generic_rpc_handlers((handler,))
        self.port = 0

    async def start(self, host: str, port: int) -> None:
        """Start to listen, and set `port`. Raises `SetupError` if the port is in use."""
        try:
            self.port = self._server.add_insecure_port(shown(host, port))
        except RuntimeError:
            raise SetupError(
                f"cannot listen on {shown(host, port)} for probes: the port is in use, or the address is not "
                "this machine's"
            ) from None
        await self._server.start()

    async def stop(self) -> None:
        """End at once. Probes are short, and the next one finds no server."""
        await self._server.stop(None)
