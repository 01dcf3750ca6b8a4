"""One call as a servicer sees it."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import grpc.aio
import orjson
from google.api.httpbody_pb2 import HttpBody
from google.protobuf.message import DecodeError, Message

from headgate_server.access.auth import Principal
from headgate_server.core.errors import InvalidRequest
from headgate_server.core.model import Scope

_Request = TypeVar("_Request", bound=Message)


@dataclass(slots=True)
class Call:
    """A unary call: what came in, what the interceptors found out, and what goes out beside the answer."""

    method: str
    """The full name, "/headgate.v1.IngestService/BatchIngest"."""
    body: bytes
    """The serialized request."""
    metadata: dict[str, str | bytes]
    context: grpc.aio.ServicerContext[bytes, bytes]
    body_limit: int
    """Bytes that a body may have."""
    request_id: str = ""
    principal: Principal | None = None
    reply_metadata: list[tuple[str, str | bytes]] = field(default_factory=list)
    """What the answer carries beside its body: headers for the bridge's caller, trailing metadata for a gRPC client."""
    log: dict[str, object] = field(default_factory=dict)
    """What the log line of this call says beside the usual."""

    @property
    def bridged(self) -> bool:
        """Whether the bridge made this call of an HTTP request; then it wants an HttpBody."""
        return "x-envoy-original-path" in self.metadata

    @property
    def caller(self) -> Principal:
        """Whom the call is from; only in methods that need a key."""
        assert self.principal is not None  # noqa: S101 - the auth interceptor has seen to it
        return self.principal

    def text(self, key: str) -> str | None:
        """Return a metadata value, None if it was not sent."""
        value = self.metadata.get(key)
        return value if isinstance(value, str) else None

    def read(self, kind: type[_Request]) -> _Request:
        """Parse the request. Raises `InvalidRequest` if it is no such message."""
        try:
            return kind.FromString(self.body)
        except DecodeError:
            raise InvalidRequest(
                f"The request is not a serialized {kind.DESCRIPTOR.full_name}.", reason="MALFORMED_REQUEST"
            ) from None

    def answer(self, message: Callable[[], Message], json: Callable[[], Any]) -> bytes:
        """Return the answer in the form that the caller understands: its message, or JSON for the bridge."""
        if self.bridged:
            body: Message = HttpBody(content_type="application/json", data=orjson.dumps(json()))
            return body.SerializeToString()
        return message().SerializeToString()


Handler = Callable[[Call], Awaitable[bytes]]
"""Answers one call with the serialized response. Raises `errors.HeadgateError`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """One RPC: its full name, who may call it, and what answers it."""

    service: str
    name: str
    scope: Scope | None
    """None: no key is needed. Only probes have none."""
    handler: Handler

    @property
    def full_name(self) -> str:
        """The name on the wire."""
        return f"/{self.service}/{self.name}"
