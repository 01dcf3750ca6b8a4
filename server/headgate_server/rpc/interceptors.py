"""What stands around every method, in one ordered list.

Each interceptor takes a method and its handler and returns a handler. They are composed once, when the server is
built: grpc's own interceptors would make a new handler object for every call.
"""

import asyncio
import re
import time
import uuid
from collections.abc import Callable, Sequence
from functools import reduce

import structlog

from headgate_server.access import auth
from headgate_server.access.auth import Authenticator
from headgate_server.core.errors import HeadgateError
from headgate_server.process.metrics import Metrics
from headgate_server.rpc import status
from headgate_server.rpc.call import Call, Handler, Method

log = structlog.get_logger("headgate.access")

Interceptor = Callable[[Method, Handler], Handler]

REQUEST_ID_KEY = "x-request-id"
_REQUEST_ID = re.compile(r"[!-~]{1,128}")
_BEARER = re.compile(r"bearer +(\S+) *", re.IGNORECASE)


def standard(authenticator: Authenticator, metrics: Metrics) -> Sequence[Interceptor]:
    """Return the interceptors, outermost first.

    The request id comes first, since the log mentions it. Watching is outside of the authentication, so that it sees
    refusals too. What turns errors into codes stands outside of all of them, in `server.py`: it ends the call.
    """
    return (request_id, watch(metrics), authenticate(authenticator))


def compose(interceptors: Sequence[Interceptor], method: Method) -> Handler:
    """Return the method's handler with the interceptors around it, the first outermost."""
    return reduce(lambda handler, around: around(method, handler), reversed(interceptors), method.handler)


def request_id(method: Method, handler: Handler) -> Handler:
    """Give the call the caller's request id if it is fit to print, else one of its own, and say it in the answer."""

    async def identified(call: Call) -> bytes:
        given = call.text(REQUEST_ID_KEY)
        call.request_id = given if given is not None and _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
        if not call.bridged:  # the bridge says it by itself
            call.reply_metadata.append((REQUEST_ID_KEY, call.request_id))
        return await handler(call)

    return identified


def watch(metrics: Metrics) -> Interceptor:
    """Count every call, time it, and write one log line of it: never a key, never content."""

    def interceptor(method: Method, handler: Handler) -> Handler:
        async def watched(call: Call) -> bytes:
            started = time.perf_counter()
            code = "INTERNAL"
            try:
                answer = await handler(call)
                code = "OK"
                return answer
            except HeadgateError as error:
                code = status.code_of(error).grpc.name
                call.log["reason"] = error.reason
                raise
            except asyncio.CancelledError:
                code = "CANCELLED"
                raise
            finally:
                seconds = time.perf_counter() - started
                metrics.call(method.full_name, code, seconds)
                milliseconds = round(seconds * 1000, 2)
                log.info(
                    "call", method=method.full_name, code=code, ms=milliseconds, request_id=call.request_id, **call.log
                )

        return watched

    return interceptor


def authenticate(authenticator: Authenticator) -> Interceptor:
    """Find out whom the call is from, and whether that key may call this method."""

    def interceptor(method: Method, handler: Handler) -> Handler:
        scope = method.scope
        if scope is None:
            return handler

        async def authenticated(call: Call) -> bytes:
            principal = call.principal = await authenticator.authenticate(api_key(call))
            call.log["workspace"] = principal.workspace.name
            call.log["key"] = principal.key_id
            auth.require(principal, scope)
            return await handler(call)

        return authenticated

    return interceptor


def api_key(call: Call) -> str | None:
    """Return the API key of `Authorization: Bearer` (RFC 6750), else of `X-API-Key`."""
    bearer = _BEARER.fullmatch(call.text("authorization") or "")
    return bearer[1] if bearer is not None else call.text("x-api-key")
