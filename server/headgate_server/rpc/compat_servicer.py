"""headgate.v1.CompatService: HTTP requests to vendors' APIs, and the vendors' answers."""

from collections.abc import Mapping, Sequence
from functools import partial
from math import ceil
from typing import NamedTuple
from urllib.parse import parse_qsl, unquote

import orjson
from google.api.httpbody_pb2 import HttpBody

from headgate.v1 import compat_service_pb2
from headgate_server.access.limits import RateLimiter
from headgate_server.core import jsonscan
from headgate_server.core.errors import HeadgateError, NotFound, RateLimited
from headgate_server.core.model import Admission, Outcome, RateLimit
from headgate_server.core.reasons import Reason
from headgate_server.core.rejections import Encoding
from headgate_server.ingest.compat import Compat
from headgate_server.ingest.rejections import KEPT, Origin, RejectionQueue
from headgate_server.process.aside import aside
from headgate_server.process.clock import Clock
from headgate_server.process.metrics import Metrics
from headgate_server.receivers import STATUSES, Endpoint, HttpRequest, Receiver, Reply, Take
from headgate_server.rpc import status
from headgate_server.rpc.pipeline.call import REQUEST_KEY, Call
from headgate_server.rpc.pipeline.method import AnyMethod, Method, OwnWords, Unary
from headgate_server.rpc.taking import REPLAYED_KEY, counted

SERVICE = compat_service_pb2.DESCRIPTOR.services_by_name["CompatService"].full_name
PREFIX = "/compat/"
PATH_KEY = "x-headgate-path"
METHOD_KEY = "x-headgate-method"
"""The metadata in which the bridge passes method and path. It calls the same RPC for every request."""


_WITHHELD = frozenset({"authorization", "x-api-key", "te", "content-type"})
"""Headers that receivers do not get: keys, and headers of the bridge's own request to the server."""
_BRIDGES = ("x-headgate-", "x-envoy-", "grpc-", ":")


class Route(NamedTuple):
    """Where a request goes: the receiver, its endpoint, and the vendor's own path and query."""

    receiver: Receiver
    endpoint: Endpoint
    method: str
    path: str
    query: str


class CompatServicer:
    """Finds the receiver and the endpoint of a request, and answers in the vendor's words."""

    def __init__(
        self,
        compat: Compat,
        receivers: Mapping[str, Receiver],
        limiter: RateLimiter,
        metrics: Metrics,
        clock: Clock,
        rejections: RejectionQueue,
    ):
        self._compat = compat
        self._receivers = receivers
        self._routes = {name: receiver.routes() for name, receiver in receivers.items()}
        self._limiter = limiter
        self._metrics = metrics
        self._clock = clock
        self._rejections = rejections

    def methods(self) -> Sequence[AnyMethod]:
        """Return the service's method."""
        return (
            Method(
                service=SERVICE,
                name="Receive",
                request=HttpBody,
                response=HttpBody,
                access=OwnWords(self.scopes, self.refuse),
                kind=Unary(self.receive),
                admit=self.admit,
            ),
        )

    def scopes(self, call: Call) -> tuple[str, ...]:
        """Return the scopes that the endpoint names. Raises `NotFound`."""
        call.log["receiver"] = self._receiver(call).name
        return self._route(call).endpoint.scopes

    async def admit(self, call: Call, body: HttpBody) -> None:
        """Count the request for the rate limit, and refuse it before it is read if it could not be stored. Raises
        `RateLimited` and `Overloaded`.
        """
        receiver, endpoint, *_ = self._route(call)
        workspace = call.caller.workspace
        limit = workspace.rates.get(receiver.name, receiver.rate)
        if limit is not None:
            admission = await self._limiter.admit(workspace, receiver.name, limit)
            if receiver.rate_headers:
                call.reply_metadata += _rate_headers(limit, admission, self._clock())
        if isinstance(endpoint, Take):
            self._compat.check_room(workspace, len(body.data))

    async def receive(self, call: Call, body: HttpBody) -> HttpBody:
        """Answer one request."""
        route = self._route(call)
        receiver, endpoint, method, path, query = route
        parameters = dict(parse_qsl(query, keep_blank_values=True))
        request = HttpRequest(method, path, parameters, body.data, self._clock(), _headers(call), body.content_type)
        workspace, key = call.caller.workspace, call.text(REQUEST_KEY)
        admit = partial(self._limiter.admit_events, call.caller)
        exchange = await self._compat(receiver, endpoint, workspace, request, key, call.actor, admit)
        with aside("events"):
            statuses = counted(call, exchange.outcomes, self._metrics)
            if KEPT & statuses.keys() and isinstance(endpoint, Take):
                self._note(call, route, endpoint.list_name, request.body, exchange.outcomes)
        if exchange.replayed:
            call.log["replayed"] = True
            call.reply_metadata.append((REPLAYED_KEY, "true"))
        if not isinstance(exchange.reply, Reply):
            raise exchange.reply
        call.code = status.counted_as(exchange.reply.status)
        return _answer(call, exchange.reply)

    def _note(self, call: Call, route: Route, list_name: str | None, body: bytes, outcomes: Sequence[Outcome]) -> None:
        """Note what was refused, so that it can be seen and replayed."""
        where = f"{route.method} {route.path}"
        caller = call.caller
        origin = Origin(caller.workspace.id, caller.key_id, call.request_id, route.receiver.name, where, Encoding.JSON)
        self._rejections.note(origin, outcomes, lambda positions: jsonscan.sent(body, positions, list_name), len(body))

    def refuse(self, call: Call, error: HeadgateError) -> HttpBody | None:
        """Return an error in the vendor's words, None if the request names no receiver."""
        try:
            receiver = self._receiver(call)
        except NotFound:
            return None
        call.reply_metadata += _retry_headers(error)
        if isinstance(error, RateLimited) and receiver.rate_headers:
            call.reply_metadata += _rate_headers(error.limit, error.admission, self._clock())
        return _answer(call, receiver.refusal(status.http_of(error), error))

    def _receiver(self, call: Call) -> Receiver:
        """Return the receiver that the address names. Raises `NotFound`."""
        address = call.text(PATH_KEY) or ""
        vendor = address.removeprefix(PREFIX).partition("?")[0].partition("/")[0]
        receiver = self._receivers.get(vendor)
        if not address.startswith(PREFIX) or receiver is None:
            names = ", ".join(sorted(self._receivers))
            raise NotFound(f"There is no receiver {vendor[:80]!r}; there are: {names}.", reason=Reason.NO_SUCH_RECEIVER)
        return receiver

    def _route(self, call: Call) -> Route:
        """Return the route of the call. An id in its path is unescaped. Raises `NotFound`."""
        receiver = self._receiver(call)
        method = (call.text(METHOD_KEY) or "POST").upper()
        address, _, query = (call.text(PATH_KEY) or "").partition("?")
        path = address.removeprefix(PREFIX + receiver.name)
        routes = self._routes[receiver.name]
        exact = routes.get((method, path))
        if exact is not None:
            return Route(receiver, exact, method, path, query)
        head, _, last = path.rpartition("/")
        folder, _, before = head.rpartition("/")
        for start, segment, end in ((head, last, ""), (folder, before, f"/{last}")):
            one = routes.get((method, f"{start}/{{id}}{end}")) if segment else None
            if one is not None:
                return Route(receiver, one, method, f"{start}/{unquote(segment)}{end}", query)
        raise NotFound(f"{receiver.name} has no {method} {path[:200]} here.", reason=Reason.NO_SUCH_PATH)


def _headers(call: Call) -> Mapping[str, str]:
    """Return the request's headers, without the key and without the bridge's own headers."""
    return {
        name: value
        for name, value in call.metadata.items()
        if isinstance(value, str) and name not in _WITHHELD and not name.startswith(_BRIDGES)
    }


def _answer(call: Call, reply: Reply) -> HttpBody:
    """Return a reply's body; its status and headers go into the call's metadata. Raises `ValueError` if the status is
    not allowed, because the bridge would answer with another.
    """
    if reply.status not in STATUSES:
        raise ValueError(f"{reply.status} is not an allowed status of a reply")
    data = reply.body if isinstance(reply.body, bytes) else orjson.dumps(reply.body)
    answer = HttpBody(content_type=reply.content_type if data else "", data=data)
    call.log["status"] = reply.status
    call.reply_metadata.append((status.HTTP_STATUS_KEY, str(reply.status)))
    call.reply_metadata += reply.headers
    return answer


def _retry_headers(error: HeadgateError) -> list[tuple[str, str]]:
    seconds = status.retry_after(error)
    return [] if seconds is None else [("retry-after", seconds)]


def _rate_headers(limit: RateLimit, admission: Admission, now: int) -> list[tuple[str, str]]:
    """Return the headers with the burst, the rest of it, and the Unix time in seconds when it is complete again."""
    return [
        ("x-ratelimit-limit", str(limit.burst)),
        ("x-ratelimit-remaining", str(admission.remaining)),
        ("x-ratelimit-reset", str(ceil((now + admission.reset_after) / 1_000_000))),
    ]
