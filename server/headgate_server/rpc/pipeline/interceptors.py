"""What stands around every method, in one ordered list, whatever its kind.

Each interceptor takes a method and its handler and returns a handler. They are composed once, when the server is
built: grpc's own interceptors would make a new handler object for every call.
"""

import asyncio
import re
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable

import structlog
from google.api.httpbody_pb2 import HttpBody

from headgate_server.access import auth
from headgate_server.access.auth import Authenticator
from headgate_server.core.errors import HeadgateError, Unavailable
from headgate_server.process.aside import aside
from headgate_server.process.causes import Causes
from headgate_server.process.metrics import Metrics
from headgate_server.rpc import status
from headgate_server.rpc.pipeline.call import Call, Failure, Handler, repetition
from headgate_server.rpc.pipeline.load import Load
from headgate_server.rpc.pipeline.messages import handler_of
from headgate_server.rpc.pipeline.method import AnyMethod, OwnWords, Public
from headgate_server.rpc.pipeline.trust import Trust

log = structlog.get_logger("headgate.access")

Interceptor = Callable[[AnyMethod, Handler], Handler]
Chain = Callable[[AnyMethod], Handler]
"""Makes of a method the handler that answers its calls, with all interceptors around it."""

REQUEST_ID_KEY = "x-request-id"
_REQUEST_ID = re.compile(r"[!-~]{1,128}")
_BEARERS = re.compile(r"bearer [^,]*(, *bearer [^,]*)+", re.IGNORECASE)
_BEARER = re.compile(r"bearer +(\S+) *", re.IGNORECASE)


def standard(authenticator: Authenticator, metrics: Metrics, load: Load, trust: Trust, body_limit: int) -> Chain:
    """Return the interceptors, of which the first is outermost, around what reads and writes messages.

    Errors end the call, so they stand outside of all. What others than the bridge say in its name is dropped before
    anything asks whether a call is bridged. The request id comes before whatever logs it. Watching is
    outside of all that refuses; a vendor's words for a refusal are within it, so that it knows the status. Admission
    comes before authentication: a call that waits for its key to be looked up is in memory like any other. Bodies are
    read last, and only of callers who may.
    """
    seen = (errors, trust.drop, request_id, watch(metrics))
    around = (*seen, trust.refuse, words, admit(load), authenticate(authenticator))

    def chain(method: AnyMethod) -> Handler:
        handler = handler_of(method, body_limit)
        for interceptor in reversed(around):
            handler = interceptor(method, handler)
        return handler

    return chain


def errors(method: AnyMethod, handler: Handler) -> Handler:
    """Turn an error into the end of the call, with its code and details."""

    async def answered(call: Call) -> bytes:
        send = call.send  # what stands within may refuse to send any more
        try:
            return await handler(call)
        except Exception as error:
            told = _told(method, call, error)
        if send is not None and call.sent and call.bridged:
            # HTTP's status is gone already: there the error is the last line of the stream.
            await send(HttpBody(data=status.as_line(told)).SerializeToString())
        else:
            _fail(call, told)
        return b""

    return answered


def _told(method: AnyMethod, call: Call, error: Exception) -> HeadgateError:
    """Return what a caller is told of an error: of a bug where to look, and nothing else."""
    if isinstance(error, HeadgateError):
        return error
    log.error("call_failed", method=method.full_name, request_id=call.request_id, exc_info=error, **call.log)
    return status.bug(call.request_id)


def _fail(call: Call, error: HeadgateError) -> None:
    code = status.code_of(error)
    call.failure = Failure(code.grpc, status.printable(error.message))
    call.reply_metadata.append((status.DETAILS_KEY, status.encode(error)))
    if (seconds := status.retry_after(error)) is not None:
        call.reply_metadata.append(("retry-after", seconds))
    if code.http is not None:
        call.reply_metadata.append((status.HTTP_STATUS_KEY, str(code.http)))


def request_id(method: AnyMethod, handler: Handler) -> Handler:
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

    line = log.bind()  # once: the proxy would make a new logger for each line
    causes = Causes()

    def interceptor(method: AnyMethod, handler: Handler) -> Handler:
        async def watched(call: Call) -> bytes:
            started = time.perf_counter()
            code = "INTERNAL"
            try:
                answer = await handler(call)
                code = call.code.name
                return answer
            except HeadgateError as error:
                code = status.code_of(error).grpc.name
                call.log["reason"] = error.reason
                if isinstance(error, Unavailable):
                    causes.tell("store_failed", error)
                raise
            except asyncio.CancelledError:
                code = "CANCELLED"
                raise
            finally:
                # The event may be stored by now: what only counts and tells must not take its answer away.
                seconds = time.perf_counter() - started
                with aside("call"):
                    usual = {"method": method.full_name, "code": code, "ms": round(seconds * 1000, 2)}
                    line.info("call", **{**call.log, **usual, "request_id": call.request_id})
                with aside("metrics"):
                    metrics.call(method.full_name, code, seconds)

        return watched

    return interceptor


def words(method: AnyMethod, handler: Handler) -> Handler:
    """Answer with a vendor's own words in place of an error. Counts as what it is, though to gRPC it is an answer."""
    access = method.access
    if not isinstance(access, OwnWords):
        return handler

    async def worded(call: Call) -> bytes:
        if not call.bridged:
            return await handler(call)
        try:
            return await handler(call)
        except Exception as error:
            told = _told(method, call, error)
        answer = access.refuse(call, told)
        if answer is None:
            raise told
        call.code = status.code_of(told).grpc
        call.log["reason"] = told.reason
        return bytes(answer.SerializeToString())

    return worded


def admit(load: Load) -> Interceptor:
    """Refuse what is too much to be in progress at once."""
    return lambda method, handler: load.bounded(handler)


def authenticate(authenticator: Authenticator) -> Interceptor:
    """Find out whom the call is from, and whether that key may call this method.

    A stream is asked again with every message, so that a revoked key ends it.
    """

    def interceptor(method: AnyMethod, handler: Handler) -> Handler:
        access = method.access
        if isinstance(access, Public):
            return handler

        async def authenticated(call: Call) -> bytes:
            scopes = access.scopes(call) if isinstance(access, OwnWords) else access.scopes
            key = api_key(call)
            principal = call.principal = await authenticator.authenticate(key)
            call.log["workspace"] = principal.workspace.name
            call.log["key"] = principal.key_id
            auth.require(principal, *scopes)
            if call.send is not None:
                _guard(call, lambda: authenticator.authenticate(key), scopes)
            return await handler(call)

        return authenticated

    return interceptor


def _guard(call: Call, again: Callable[[], Awaitable[auth.Principal]], scopes: tuple[str, ...]) -> None:
    """Let a stream's messages through as long as its key is good."""
    send, messages = call.send, call.messages

    async def checked_send(message: bytes) -> None:
        auth.require(await again(), *scopes)
        if send is not None:
            await send(message)

    async def checked_messages(inner: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        async for message in inner:
            auth.require(await again(), *scopes)
            yield message

    call.send = checked_send
    if messages is not None:
        call.messages = checked_messages(messages)


def api_key(call: Call) -> str | None:
    """Return the API key of `Authorization: Bearer` (RFC 6750), else of `X-API-Key`.

    Raises `InvalidRequest` if the one that counts was sent with different values.
    """
    authorization = call.text("authorization") or ""
    if _BEARERS.fullmatch(authorization):
        authorization = _only(authorization, "authorization") or ""
    bearer = _BEARER.fullmatch(authorization)
    return bearer[1] if bearer is not None else _only(call.text("x-api-key"), "x-api-key")


def _only(joined: str | None, name: str) -> str | None:
    """Return the value of a header that Envoy may have made of several. No key has a comma."""
    if joined is None or "," not in joined:
        return joined
    first, *others = {value.strip() for value in joined.split(",")}
    if others:
        raise repetition(name)
    return first
