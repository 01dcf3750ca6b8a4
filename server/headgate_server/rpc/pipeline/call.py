"""The values of one call that the pipeline passes on."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import grpc

from headgate_server.access.auth import Principal
from headgate_server.core.audit import Actor
from headgate_server.core.errors import HeadgateError, InvalidRequest
from headgate_server.core.reasons import Reason

REQUEST_KEY = "idempotency-key"
"""The metadata key of a request key, as HTTP's `Idempotency-Key`."""

WORKSPACE_KEY = "headgate-workspace"
"""The metadata key of the workspace of a call: any with an operator's key, and that of the key with another one."""

CODING_KEY = "x-headgate-content-encoding"
"""The metadata key for the content-encoding of an HTTP body. The bridge passes it on and does not decode the body."""


ADDRESS_KEY = "x-envoy-original-path"
"""The metadata key of the path and the query of an HTTP request. Only calls that the bridge makes have it."""


async def _nothing() -> None:
    pass


class Failure(NamedTuple):
    """The end of a call that has no answer."""

    code: grpc.StatusCode
    message: str


@dataclass(slots=True)
class Call:
    """A call of any kind: its request, the interceptors' results, and the metadata of its answer."""

    method: str
    """The full name, "/headgate.v1.IngestService/BatchIngest"."""
    metadata: dict[str, str | bytes]
    receive: Callable[[], Awaitable[bytes]] | None = None
    """Receives the serialized request, once; None if the caller streams requests. Until then gRPC holds little of
    it. Raises `InvalidRequest` if the caller sends none, `Overloaded` and `TooSlow`.
    """
    size: int = 0
    """Bytes of the serialized request, once it is received."""
    messages: AsyncIterator[bytes] | None = None
    """The serialized requests as they arrive; None if the caller sends one."""
    send: Callable[[bytes], Awaitable[None]] | None = None
    """Sends one serialized response of a stream. It waits while the caller does not read. None for a unary call."""
    begin: Callable[[], Awaitable[None]] = _nothing
    """Sends a stream's headers before there is a response. The bridge then waits for requests without a time limit."""
    ended: "asyncio.Future[HeadgateError] | None" = None
    """For a lasting stream of requests: gets the error with which the handler has to end it."""
    sending: bool = False
    """Whether a response is being sent, or was cancelled while it was sent. Then no other can follow it."""
    recheck: Callable[[], Awaitable[None]] = _nothing
    """Raises what authentication raises, if the call's key may not make it any more."""
    repeated: frozenset[str] = frozenset()
    """Names that were sent with several values although only one is allowed: see `trust.repeated`. `metadata` has the
    last value.
    """
    hold: Callable[[int], None] = lambda size: None
    """Reports how many bytes a body takes after decompression, beyond those received. Raises `Overloaded` past the
    bound of bytes in progress. May be called from any thread.
    """
    request_id: str = ""
    principal: Principal | None = None
    acting: Actor | None = None
    """Who acts, if that is not the owner of a key: a command at the store."""
    reply_metadata: list[tuple[str, str | bytes]] = field(default_factory=list)
    """Metadata of the answer: headers for the bridge's caller, trailing metadata for a gRPC client."""
    log: dict[str, object] = field(default_factory=dict)
    """Additional fields of this call's log line."""
    code: grpc.StatusCode = grpc.StatusCode.OK
    """The code under which an answered call is counted. For gRPC a vendor's refusal is an answer, but it is counted as
    an error.
    """
    failure: Failure | None = None
    """Set by `interceptors.errors` if there is no answer."""
    sent: int = 0
    """The number of responses of a stream that were sent."""

    @property
    def bridged(self) -> bool:
        """Whether the bridge made this call from an HTTP request. The answer is an HttpBody then."""
        return ADDRESS_KEY in self.metadata

    @property
    def caller(self) -> Principal:
        """The owner of the call's key. Only methods that need a key have it."""
        assert self.principal is not None  # noqa: S101 - the interceptor has set it
        return self.principal

    @property
    def actor(self) -> Actor:
        """The owner of the call's key, or the user of the command, for the audit."""
        return self.acting or Actor("key", self.caller.key_id, self.request_id)

    def text(self, key: str) -> str | None:
        """Return a metadata value, None if it was not sent. Raises `InvalidRequest` for one of `repeated`."""
        if key in self.repeated:
            raise repetition(key)
        value = self.metadata.get(key)
        return value if isinstance(value, str) else None


def repetition(key: str) -> InvalidRequest:
    """Return the error for a header that was sent more than once although only one is allowed."""
    return InvalidRequest(f"The header {key} was sent more than once.", reason=Reason.REPEATED_HEADER, field=key)


Handler = Callable[[Call], Awaitable[bytes]]
"""Answers a call of any kind. Returns the serialized response, or nothing if the responses were sent by `Call.send`.
Raises `errors.HeadgateError`.
"""
