"""The interceptors of every method, of any kind, in one ordered list.

Each interceptor takes a method and its handler and returns a handler. They are composed once, when the server is
created. grpc's own interceptors would make a new handler object for every call.
"""

import asyncio
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING

import structlog
from google.api.httpbody_pb2 import HttpBody

from headgate_server.access import auth
from headgate_server.access.auth import Authenticator, Principal
from headgate_server.access.limits import RateLimiter
from headgate_server.core.errors import HeadgateError, InvalidRequest, PermissionDenied, Unavailable
from headgate_server.core.randomness import draw
from headgate_server.core.reasons import Reason
from headgate_server.process import logs
from headgate_server.process.aside import aside
from headgate_server.process.causes import Causes, cause_of
from headgate_server.process.metrics import Metrics
from headgate_server.rpc import status
from headgate_server.rpc.pipeline import sse
from headgate_server.rpc.pipeline.call import WORKSPACE_KEY, Call, Failure, Handler, repetition
from headgate_server.rpc.pipeline.load import Load
from headgate_server.rpc.pipeline.messages import handler_of
from headgate_server.rpc.pipeline.method import AnyMethod, BothWays, Needs, Operates, OwnWords, Public
from headgate_server.rpc.pipeline.streams import Streams
from headgate_server.rpc.pipeline.traced import traced
from headgate_server.rpc.pipeline.trust import Trust
from headgate_server.store import DataRefused

if TYPE_CHECKING:
    from headgate_server.process.tracing.spans import Tracing

log = structlog.get_logger("headgate.access")

Interceptor = Callable[[AnyMethod, Handler], Handler]
Chain = Callable[[AnyMethod], Handler]
"""Returns the handler that answers a method's calls, with all interceptors around it."""

REQUEST_ID_KEY = "x-request-id"
_REQUEST_ID = re.compile(r"[!-~]{1,128}")
_LAST_MESSAGE_SECONDS = 1.0
"""For a stream's reader to take the error that ends it."""
_RECHECK_SECONDS = 0.5
"""Before the key of a stream is checked again. With the time that a key is remembered it stays below the five seconds
within which a revoked key ends.
"""
_BEARERS = re.compile(r"bearer [^,]*(, *bearer [^,]*)+", re.IGNORECASE)
_BEARER = re.compile(r"bearer +(\S+) *", re.IGNORECASE)


def standard(
    authenticator: Authenticator,
    limiter: RateLimiter,
    metrics: Metrics,
    load: Load,
    trust: Trust,
    streams: Streams,
    body_limit: int,
    tracing: "Tracing | None" = None,
) -> Chain:
    """Return the chain of interceptors. The first is the outermost; the innermost handler reads and writes messages.

    The reasons for the order:

    - `errors` ends the call with an error, so it is outside all others.
    - `trust.drop` removes metadata that only the bridge may send, before any other part asks whether a call is bridged.
    - `request_id` comes before the parts that log it.
    - `traced` is outside `watch`, whose line has the trace's id.
    - `watch` is outside all parts that refuse a call, so that it counts refusals.
    - `words` is inside `watch`, so that `watch` gets the status of a vendor's refusal.
    - `admit` comes before `authenticate`, because a call that waits for the look-up of its key occupies memory too.
    - `streams.keep` is inside `authenticate`, because it checks the key again.
    - Bodies are read last, and only for callers that have access.
    """
    observed = (errors, trust.drop, request_id, traced(tracing), watch(metrics))
    interceptors = (*observed, trust.refuse, words, admit(load), authenticate(authenticator, limiter), streams.keep)

    def chain(method: AnyMethod) -> Handler:
        handler = handler_of(method, body_limit)
        for interceptor in reversed(interceptors):
            handler = interceptor(method, handler)
        return handler

    return chain


def errors(method: AnyMethod, handler: Handler) -> Handler:
    """Turn an error into the end of the call, with its code and details."""

    async def answered(call: Call) -> bytes:
        send = call.send  # an inner interceptor may replace it with one that refuses to send
        try:
            return await handler(call)
        except Exception as error:
            public = _public_error(method, call, error)
        if send is None or not await _said_in_stream(call, send, public):
            fail(call, public)
        return b""

    return answered


async def _said_in_stream(call: Call, send: Callable[[bytes], Awaitable[None]], error: HeadgateError) -> bool:
    """Say an error as the last message of a stream whose HTTP status was sent already. False where that is not so, or
    the reader does not take it.
    """
    if not call.bridged or not call.sent or call.sending:
        return False
    data = sse.frame(status.as_json(error), "error") if sse.is_wanted(call.text("accept")) else status.as_line(error)
    try:
        async with asyncio.timeout(_LAST_MESSAGE_SECONDS):
            await send(HttpBody(data=data).SerializeToString())
    except TimeoutError:
        return False
    return True


def _public_error(method: AnyMethod, call: Call, error: Exception) -> HeadgateError:
    """Return the error that the caller gets. For a bug it contains the request id and nothing else.

    The error has no traceback. A traceback would keep the caller's frame, and with it the request, in memory until the
    garbage collector runs.
    """
    if isinstance(error, HeadgateError):
        return error.with_traceback(None)
    if isinstance(error, DataRefused):
        # Before a text is looked up, few methods check whether a store could have it at all.
        return InvalidRequest("The store can have no such value as one of the request.", reason=Reason.INVALID_FIELD)
    cause = cause_of(error) if getattr(error, "cause_logged", False) else {"exc_info": error}
    log.error("call_failed", method=method.full_name, request_id=call.request_id, **cause, **call.log)
    return status.bug(call.request_id)


def fail(call: Call, error: HeadgateError) -> None:
    """End a call with an error: its code, message and details."""
    code = status.code_of(error)
    call.failure = Failure(code.grpc, status.printable(error.message))
    call.reply_metadata.append((status.DETAILS_KEY, status.encode(error)))
    if (seconds := status.retry_after(error)) is not None:
        call.reply_metadata.append(("retry-after", seconds))
    if code.http is not None:
        call.reply_metadata.append((status.HTTP_STATUS_KEY, str(code.http)))


def request_id(method: AnyMethod, handler: Handler) -> Handler:
    """Set the call's request id and put it into the answer. It is the caller's id if that is printable, or a new
    one.
    """

    async def identified(call: Call) -> bytes:
        sent = call.text(REQUEST_ID_KEY)
        call.request_id = sent if sent is not None and _REQUEST_ID.fullmatch(sent) else draw(16).hex()
        if not call.bridged:  # the bridge adds the header itself
            call.reply_metadata.append((REQUEST_ID_KEY, call.request_id))
        return await handler(call)

    return identified


def watch(metrics: Metrics) -> Interceptor:
    """Count every call, measure its time, and write one log line for it, without its key and its content."""

    line = logs.line_of("info", "call")
    causes = Causes()

    def interceptor(method: AnyMethod, handler: Handler) -> Handler:
        name = method.full_name

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
                if isinstance(error, Unavailable) and error.reason is not Reason.SHUTTING_DOWN:
                    causes.tell("store_failed", error)
                raise
            except asyncio.CancelledError:
                code = "CANCELLED"
                raise
            finally:
                # The event may be stored by now, so a failure of metrics or the log must not lose the answer.
                seconds = time.perf_counter() - started
                with aside("call"):
                    said = {"method": name, "code": code, "ms": round(seconds * 1000, 2), "request_id": call.request_id}
                    line({**call.log, **said})
                with aside("metrics"):
                    metrics.call(name, code, seconds)
                    if (reason := call.log.get("reason")) is not None:
                        metrics.refused(str(reason))

        return watched

    return interceptor


def words(method: AnyMethod, handler: Handler) -> Handler:
    """Replace an error by the vendor's own answer. For gRPC it is an answer, but it is counted as the error."""
    access = method.access
    if not isinstance(access, OwnWords):
        return handler

    async def worded(call: Call) -> bytes:
        if not call.bridged:
            return await handler(call)
        try:
            return await handler(call)
        except Exception as error:
            public = _public_error(method, call, error)
        answer = access.refuse(call, public)
        if answer is None:
            raise public
        call.code = status.code_of(public).grpc
        call.log["reason"] = public.reason
        return bytes(answer.SerializeToString())

    return worded


def admit(load: Load) -> Interceptor:
    """Refuse a call if too many calls, or too many bytes, are in progress."""

    def interceptor(method: AnyMethod, handler: Handler) -> Handler:
        if not method.lasting:
            return load.bounded(handler)
        return load.exchanging(handler) if isinstance(method.kind, BothWays) else load.lasting(handler)

    return interceptor


def authenticate(authenticator: Authenticator, limiter: RateLimiter) -> Interceptor:
    """Authenticate the call's key, check that it may call this method, and count the call against the key's limit.

    In a stream the key is checked again with its messages, so that a revoked key ends the stream: with the first one
    after `_RECHECK_SECONDS`, since a check takes a tenth of the time that a small message does. `Streams` checks the
    keys of silent streams.
    """

    def interceptor(method: AnyMethod, handler: Handler) -> Handler:
        access = method.access
        if isinstance(access, Public):
            return handler

        async def authenticated(call: Call) -> bytes:
            key, named = api_key(call), _only(call.text(WORKSPACE_KEY), WORKSPACE_KEY)
            owner = await authenticator.authenticate(key)
            call.log["workspace"] = owner.workspace.name
            call.log["key"] = owner.key_id
            check = _check(access, call)
            if named is None or named == owner.workspace.name:
                principal = owner
            else:
                principal = await _within(authenticator, access, owner, named)
                call.log["workspace"] = principal.workspace.name
                check = auth.require_operator
            call.principal = principal
            check(owner)
            if method.counted:
                await limiter.admit_call(owner)
            if call.send is not None:

                async def recheck() -> None:
                    check(await authenticator.authenticate(key))

                call.recheck = recheck
                _guard(call, authenticator.timer, answers=not (method.lasting and isinstance(method.kind, BothWays)))
            return await handler(call)

        return authenticated

    return interceptor


async def _within(
    authenticator: Authenticator, access: Needs | Operates | OwnWords, owner: Principal, workspace: str
) -> Principal:
    """Return who acts in a workspace that is not the key's own. Raises `PermissionDenied` and `NotFound`."""
    if not isinstance(access, Needs):
        raise PermissionDenied(f"This call is not made in a workspace of the header {WORKSPACE_KEY}.")
    return await authenticator.within(owner, workspace)


def _check(access: Needs | Operates | OwnWords, call: Call) -> Callable[[Principal], None]:
    """Return what raises `PermissionDenied` if a key may not make the call. Raises `NotFound`."""
    if isinstance(access, Operates):
        return auth.require_operator
    scopes = access.scopes(call) if isinstance(access, OwnWords) else access.scopes
    return lambda principal: auth.require(principal, *scopes)


def _guard(call: Call, timer: Callable[[], float], *, answers: bool) -> None:
    """Pass a stream's messages on as long as its key is valid; its responses too if `answers`."""
    send, messages = call.send, call.messages
    checked = timer()

    async def recheck() -> None:
        nonlocal checked
        if (now := timer()) - checked >= _RECHECK_SECONDS:
            checked = now
            await call.recheck()

    async def checked_send(message: bytes) -> None:
        await recheck()
        if send is not None:
            await send(message)

    async def checked_messages(inner: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        async for message in inner:
            await recheck()
            yield message

    if answers:
        call.send = checked_send
    if messages is not None:
        call.messages = checked_messages(messages)


def api_key(call: Call) -> str | None:
    """Return the API key of `Authorization: Bearer` (RFC 6750), or else of `X-API-Key`.

    Raises `InvalidRequest` if that header was sent with different values.
    """
    if authorization := call.text("authorization"):
        if _BEARERS.fullmatch(authorization):
            authorization = _only(authorization, "authorization") or ""
        if (bearer := _BEARER.fullmatch(authorization)) is not None:
            return bearer[1]
    return _only(call.text("x-api-key"), "x-api-key")


def _only(joined: str | None, name: str) -> str | None:
    """Return the value of a header that Envoy may have joined from several. No key contains a comma."""
    if joined is None or "," not in joined:
        return joined
    first, *others = {value.strip() for value in joined.split(",")}
    if others:
        raise repetition(name)
    return first
