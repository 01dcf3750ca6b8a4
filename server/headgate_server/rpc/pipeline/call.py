"""One call, as the pipeline passes it on."""

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import grpc

from headgate_server.access.auth import Principal
from headgate_server.core.errors import InvalidRequest
from headgate_server.core.reasons import Reason

REQUEST_KEY = "idempotency-key"
"""The metadata key of a request key, as HTTP's `Idempotency-Key`."""

CODING_KEY = "x-headgate-content-encoding"
"""The metadata key under which the bridge passes on the content-encoding of an HTTP body, which it does not decode."""


class Failure(NamedTuple):
    """How a call ends that is not answered."""

    code: grpc.StatusCode
    message: str


@dataclass(slots=True)
class Call:
    """A call of any kind: what came in, what the interceptors found out, and what goes out beside the answer."""

    method: str
    """The full name, "/headgate.v1.IngestService/BatchIngest"."""
    metadata: dict[str, str | bytes]
    body: bytes = b""
    """The serialized request; empty where the caller streams requests."""
    messages: AsyncIterator[bytes] | None = None
    """The serialized requests as they arrive; None where the caller sends one."""
    send: Callable[[bytes], Awaitable[None]] | None = None
    """Sends one serialized response of a stream, and waits while the caller takes no more; None for a unary call."""
    repeated: frozenset[str] = frozenset()
    """Names of which nobody knows the value that is meant: see `trust.repeated`. `metadata` has the last one."""
    hold: Callable[[int], None] = lambda size: None
    """Says what a body has become, in bytes beyond those that came. Raises `Overloaded` past what may be in progress;
    from any thread.
    """
    request_id: str = ""
    principal: Principal | None = None
    reply_metadata: list[tuple[str, str | bytes]] = field(default_factory=list)
    """What the answer carries beside its body: headers for the bridge's caller, trailing metadata for a gRPC client."""
    log: dict[str, object] = field(default_factory=dict)
    """What the log line of this call says beside the usual."""
    code: grpc.StatusCode = grpc.StatusCode.OK
    """What an answered call counts as: a vendor's refusal is an answer to gRPC, and no success."""
    failure: Failure | None = None
    """Set by `interceptors.errors` where there is no answer."""
    sent: int = 0
    """Responses of a stream that were sent."""

    @property
    def bridged(self) -> bool:
        """Whether the bridge made this call of an HTTP request; then it wants an HttpBody."""
        return "x-envoy-original-path" in self.metadata

    @property
    def caller(self) -> Principal:
        """Whom the call is from; only in methods that need a key."""
        assert self.principal is not None  # noqa: S101 - the interceptor has seen to it
        return self.principal

    def text(self, key: str) -> str | None:
        """Return a metadata value, None if it was not sent. Raises `InvalidRequest` for one of `repeated`."""
        if key in self.repeated:
            raise repetition(key)
        value = self.metadata.get(key)
        return value if isinstance(value, str) else None


def repetition(key: str) -> InvalidRequest:
    """Return what to say of a header that was sent more than once and may not be."""
    return InvalidRequest(f"The header {key} was sent more than once.", reason=Reason.REPEATED_HEADER, field=key)


Handler = Callable[[Call], Awaitable[bytes]]
"""Answers a call of any kind. Returns the serialized response; a stream's went through `Call.send`, and it returns
nothing more. Raises `errors.HeadgateError`.
"""
