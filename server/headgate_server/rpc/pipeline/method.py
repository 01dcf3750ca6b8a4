"""RPCs as values: name, messages, kind, and access. `interceptors.py` processes their calls."""

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from google.api.httpbody_pb2 import HttpBody
from google.protobuf.message import Message

from headgate_server.core.errors import HeadgateError
from headgate_server.rpc.pipeline.call import Call

Request = TypeVar("Request", bound=Message)
Response = TypeVar("Response", bound=Message)


@dataclass(frozen=True, slots=True)
class Serialized:
    """A response that is serialized already. It is not for the bridge, which needs JSON."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Unary(Generic[Request, Response]):
    """One request, one response. A handler may return an `HttpBody` for the bridge instead, which is sent unchanged, or
    to any other caller the bytes of its response.
    """

    handler: Callable[[Call, Request], Awaitable[Response | HttpBody | Serialized]]


@dataclass(frozen=True, slots=True)
class ServerStream(Generic[Request, Response]):
    """One request, any number of responses. `handler` is an async generator; it is closed when the caller has gone."""

    handler: Callable[[Call, Request], AsyncGenerator[Response | HttpBody, None]]
    lasting: bool = False
    """Whether it lasts until the caller ends it. Then it counts against the bound on streams, not on calls, its key is
    checked also while nothing is sent, and it ends when the server begins to end. The method needs a key.
    """


@dataclass(frozen=True, slots=True)
class BothWays(Generic[Request, Response]):
    """Any number of requests and of responses. `handler` is an async generator that reads requests at its own pace: the
    caller can send no faster.
    """

    handler: Callable[[Call, AsyncIterator[Request]], AsyncGenerator[Response | HttpBody, None]]
    lasting: bool = False
    """Whether it lasts until the caller ends it. Then it has a bound of its own. When its key is revoked or the server
    begins to end, `Call.ended` gets the error: the handler answers what it has read, and raises it. The method needs a
    key, and its answers are sent even if the key was revoked meanwhile.
    """


@dataclass(frozen=True, slots=True)
class Public:
    """The call needs no key."""


@dataclass(frozen=True, slots=True)
class Needs:
    """The call needs a key that has at least one of these scopes; any valid key where none is named."""

    scopes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Operates:
    """The call needs an operator's key: one of the reserved workspace, with the scope `admin`."""


@dataclass(frozen=True, slots=True)
class OwnWords:
    """The call is an HTTP request to a vendor's API: its receiver decides its scopes and words its refusals."""

    scopes: Callable[[Call], tuple[str, ...]]
    """Returns the scopes of which the key needs one. Raises `NotFound` if no endpoint answers the request."""
    refuse: Callable[[Call, HeadgateError], HttpBody | None]
    """Returns the answer in place of an error; None if no receiver can word it."""


Access = Public | Needs | Operates | OwnWords


@dataclass(frozen=True, slots=True, kw_only=True)
class Method(Generic[Request, Response]):
    """One RPC."""

    service: str
    name: str
    request: type[Request]
    response: type[Response]
    access: Access
    kind: Unary[Request, Response] | ServerStream[Request, Response] | BothWays[Request, Response]
    admit: Callable[[Call, Request], Awaitable[None]] | None = None
    """Refuses a request from its known size, before its HTTP body is inflated and read."""

    largest: int | None = None
    """The most bytes of a request, if the server's limit is too high for it."""

    counted: bool = True
    """Whether a call counts against the limit of its key. Only the bridge's own check of a key does not."""

    @property
    def lasting(self) -> bool:
        """Whether its calls last until the caller ends them."""
        return not isinstance(self.kind, Unary) and self.kind.lasting

    @property
    def full_name(self) -> str:
        """The name on the wire."""
        return f"/{self.service}/{self.name}"


AnyMethod = Method[Any, Any]
