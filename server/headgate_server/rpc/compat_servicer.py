"""headgate.v1.CompatService: HTTP requests to vendors' APIs, and the vendors' answers."""

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from math import ceil
from urllib.parse import parse_qsl, unquote

import orjson
import structlog
from google.api.httpbody_pb2 import HttpBody
from google.protobuf.message import Message

from headgate_server.access.auth import Authenticator, Principal
from headgate_server.access.limits import RateLimiter
from headgate_server.core.errors import (
    HeadgateError,
    NotFound,
    PermissionDenied,
    RateLimited,
)
from headgate_server.core.inflate import check_size, gunzip
from headgate_server.core.model import Admission, RateLimit
from headgate_server.ingest.compat import Compat, Exchange
from headgate_server.process.clock import Clock
from headgate_server.process.metrics import Metrics
from headgate_server.receivers import Endpoint, HttpRequest, Receiver, Reply
from headgate_server.rpc import status
from headgate_server.rpc.call import Call, Method
from headgate_server.rpc.ingest_servicer import CODING_KEY, REPLAYED_KEY, REQUEST_KEY
from headgate_server.rpc.interceptors import api_key

log = structlog.get_logger(__name__)

SERVICE = "headgate.v1.CompatService"
PREFIX = "/compat/"
PATH_KEY = "x-headgate-path"
METHOD_KEY = "x-headgate-method"
"""Where the bridge says method and path: it calls every RPC of this service alike."""


class CompatServicer:
    """Finds the receiver and the endpoint of a request, lets it in, and answers in the vendor's words whatever
    happens.
    """

    def __init__(
        self,
        compat: Compat,
        receivers: Mapping[str, Receiver],
        authenticator: Authenticator,
        limiter: RateLimiter,
        metrics: Metrics,
        clock: Clock,
    ):
        self._compat = compat
        self._receivers = receivers
        self._routes = {name: receiver.routes() for name, receiver in receivers.items()}
        self._authenticator = authenticator
        self._limiter = limiter
        self._metrics = metrics
        self._clock = clock

    def methods(self) -> Sequence[Method]:
        """Return the service's method. It has no scope here: the endpoint has, and a refusal must be in the vendor's
        words.
        """
        return (Method(service=SERVICE, name="Receive", scope=None, handler=self.receive),)

    async def receive(self, call: Call) -> bytes:
        """Answer one request."""
        address, _, query = (call.text(PATH_KEY) or "").partition("?")
        vendor, slash, rest = address.removeprefix(PREFIX).partition("/")
        receiver = self._receivers.get(vendor)
        if not address.startswith(PREFIX) or receiver is None:
            names = ", ".join(sorted(self._receivers))
            raise NotFound(f"There is no receiver {vendor[:80]!r}; there are: {names}.", reason="NO_SUCH_RECEIVER")
        call.log["receiver"] = vendor
        method = (call.text(METHOD_KEY) or "POST").upper()
        try:
            reply = await self._answer(call, receiver, method, slash + rest, query)
        except Exception as error:
            if not call.bridged:
                raise
            if not isinstance(error, HeadgateError):
                # A bug: it is told in the vendor's shape too, and where to look.
                log.exception("call_failed", receiver=vendor, request_id=call.request_id)
                error = status.bug(call.request_id)
            call.log["reason"] = error.reason
            code = status.http_of(error)
            reply = receiver.refusal(code, error)
            call.reply_metadata += _retry_headers(error)
            if isinstance(error, RateLimited) and receiver.rate_headers:
                call.reply_metadata += _rate_headers(error.limit, error.admission, self._clock())
        call.log["status"] = reply.status
        call.reply_metadata.append((status.HTTP_STATUS_KEY, str(reply.status)))
        call.reply_metadata += reply.headers
        body: Message = HttpBody(content_type="application/json", data=orjson.dumps(reply.body))
        return body.SerializeToString()

    async def _answer(self, call: Call, receiver: Receiver, method: str, path: str, query: str) -> Reply:
        endpoint, path = self._endpoint(receiver, method, path)
        principal = await self._admit(call, endpoint)
        limit = principal.workspace.rates.get(receiver.name, receiver.rate)
        if limit is not None:
            admission = await self._limiter.admit(principal.workspace, receiver.name, limit)
            if receiver.rate_headers:
                call.reply_metadata += _rate_headers(limit, admission, self._clock())
        parsed = call.read(HttpBody)
        body = await _inflated(call, parsed.data)
        request = HttpRequest(method, path, dict(parse_qsl(query, keep_blank_values=True)), body, self._clock())
        exchange = await self._compat(receiver, endpoint, principal.workspace, request, call.text(REQUEST_KEY))
        self._tell(call, exchange)
        return exchange.reply

    def _endpoint(self, receiver: Receiver, method: str, path: str) -> tuple[Endpoint, str]:
        """Return the endpoint, and the path with what is escaped in its last segment unescaped. Raises `NotFound`."""
        routes = self._routes[receiver.name]
        exact = routes.get((method, path))
        if exact is not None:
            return exact, path
        folder, _, last = path.rpartition("/")
        one = routes.get((method, folder + "/{id}")) if last else None
        if one is None:
            raise NotFound(f"{receiver.name} has no {method} {path[:200]} here.", reason="NO_SUCH_PATH")
        return one, f"{folder}/{unquote(last)}"

    async def _admit(self, call: Call, endpoint: Endpoint) -> Principal:
        principal = call.principal = await self._authenticator.authenticate(api_key(call))
        call.log["workspace"] = principal.workspace.name
        call.log["key"] = principal.key_id
        if not any(principal.may(scope) for scope in endpoint.scopes):
            scopes = " or ".join(f'"{scope}"' for scope in endpoint.scopes)
            raise PermissionDenied(f"The API key lacks the scope {scopes}.")
        return principal

    def _tell(self, call: Call, exchange: Exchange) -> None:
        statuses = Counter(outcome.status.value for outcome in exchange.outcomes)
        call.log.update(statuses)
        self._metrics.events(statuses)
        if exchange.replayed:
            call.log["replayed"] = True
            call.reply_metadata.append((REPLAYED_KEY, "true"))


async def _inflated(call: Call, body: bytes) -> bytes:
    """Return the body as the client meant it. Raises `BodyTooLarge` and `InvalidRequest`."""
    if call.text(CODING_KEY) == "gzip":
        return await asyncio.to_thread(gunzip, body, call.body_limit)
    check_size(len(body), call.body_limit)
    return body


def _retry_headers(error: HeadgateError) -> list[tuple[str, str]]:
    seconds = status.retry_after(error)
    return [] if seconds is None else [("retry-after", seconds)]


def _rate_headers(limit: RateLimit, admission: Admission, now: int) -> list[tuple[str, str]]:
    """Return the burst, what is left of it, and the Unix time in seconds at which all of it is there again."""
    return [
        ("x-ratelimit-limit", str(limit.burst)),
        ("x-ratelimit-remaining", str(admission.remaining)),
        ("x-ratelimit-reset", str(ceil((now + admission.reset_after) / 1_000_000))),
    ]
