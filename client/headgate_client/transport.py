"""The channel, and calls on it. Calls end when the process forks, and are made again after it.

Both shells use gRPC's channel for threads. A child process cannot use gRPC's asyncio at all once its parent did.
"""

import asyncio
import email.utils
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, cast

import grpc
from google.protobuf.message import DecodeError, Message
from google.rpc import error_details_pb2, status_pb2

from headgate_client import exits
from headgate_client.core.address import Address, Certificates
from headgate_client.core.errors import Closed, Problem
from headgate_client.core.scripts import Call
from headgate_client.kept import keep
from headgate_client.waking import wake

_DETAILS = "grpc-status-details-bin"

_OPTIONS = (
    # The service bounds its pages itself.
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    # gRPC's own waits between connections reach two minutes. Ours between calls are the ones that count.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 5_000),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    # A connection that a firewall has dropped is found within half a minute, also while a subscription is silent.
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
)

_OPENED_WITHIN = 0.5
"""Seconds that a fork waits for a connection that is being made. gRPC can crash parent or child of such a fork."""

_CANCELLED_WITHIN = 2.0
"""Seconds that a fork waits for calls to end. They end at once; this is the bound if they do not."""

_THREADS_END_WITHIN = 0.25
"""Seconds. Other channels of the process may have such threads too, which do not end."""

MakeChannel = Callable[[], grpc.Channel]


def channel_maker(address: Address, certificates: Certificates, options: Sequence[tuple[str, Any]]) -> MakeChannel:
    """Return a function that opens a channel."""
    # A proxy from the environment cannot reach this machine itself.
    local = (("grpc.enable_http_proxy", 0),) if address.loopback else ()
    settings = [*_OPTIONS, *local, *options]
    if address.plaintext:
        return lambda: grpc.insecure_channel(address.target, options=settings)
    trusted, shown, key = certificates
    return lambda: grpc.secure_channel(
        address.target, grpc.ssl_channel_credentials(trusted, key, shown), options=settings
    )


class Transport:
    """One channel with a key. It is opened by the first call. Safe for threads."""

    def __init__(self, make_channel: MakeChannel, key: str):
        self._make_channel = make_channel
        self._metadata = (("authorization", f"Bearer {key}"),)
        self._changed = threading.Condition(threading.RLock())
        self._channel: grpc.Channel | None = None
        self._methods: dict[str, Any] = {}
        self._running: set[Any] = set()
        self._unattended: set[Any] = set()
        """Calls whose answer nobody waits for yet. They cannot say that they have ended."""
        self._interrupted: set[Any] = set()
        self._opening = True
        """Whether gRPC may be making a connection for the calls that run."""
        self._forking = False
        self._closed = False

    def call(self, call: Call) -> Message | Problem:
        """Make a call, and return its answer. Raises `Closed` if the transport is closed."""
        return self.begin(call)()

    def begin(self, call: Call) -> Callable[[], Message | Problem]:
        """Begin a call, and return the function that waits for its answer. Both raise `Closed` if the transport is
        closed.
        """
        if exits.is_ending():
            return partial(self._call_without_thread, call)
        try:
            with self._changed:
                future = self._start(call)
                self._unattended.add(future)
            return partial(self._wait, future)
        except RuntimeError:
            # Python ends, and starts no thread any more. No call ends on this channel, and freeing it waits for one.
            with self._changed:
                keep(self._channel)
                self._channel = None
                self._methods = {}
            return partial(self._call_without_thread, call)

    def _wait(self, future: Any) -> Message | Problem:
        with self._changed:
            self._unattended.discard(future)
        try:
            # gRPC ends the call at its own timeout.
            return self._answer(future)
        except BaseException:
            future.cancel()
            raise
        finally:
            self._left(future)

    def _call_without_thread(self, call: Call) -> Message | Problem:
        """Make a call that cannot be cancelled, and that needs no thread of gRPC's."""
        with self._changed:
            begin = self._method(self._entered(), call)
        try:
            answer, _ = begin.with_call(call.request, timeout=call.timeout, metadata=self._metadata + call.metadata)
        except grpc.RpcError as error:
            return problem_of(error)
        return cast("Message", answer)

    async def call_async(self, call: Call) -> Message | Problem:
        """Do the same in an event loop."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()
        future = self._start(call)
        future.add_done_callback(self._left)
        future.add_done_callback(lambda _: wake(loop, done))
        try:
            await done
        except BaseException:
            future.cancel()
            raise
        return self._answer(future)

    def stream(
        self, method: str, request: bytes, answer: type[Message], metadata: tuple[tuple[str, str], ...] = ()
    ) -> "Stream":
        """Begin a call with many answers. Raises `Closed` if the transport is closed."""
        with self._changed:
            channel = self._entered()
            begin = channel.unary_stream(method, request_serializer=None, response_deserializer=answer.FromString)
            call = begin(request, metadata=self._metadata + metadata)
            self._running.add(call)
        return Stream(self, call)

    def close(self) -> None:
        """Close the channel. Calls that run are cancelled."""
        with self._changed:
            self._closed = True
            channel, self._channel = self._channel, None
            self._methods.clear()
            self._changed.notify_all()
        if channel is not None:
            channel.close()

    def _start(self, call: Call) -> Any:
        with self._changed:
            channel = self._entered()
            # A signal in the middle of gRPC's own work would leave a channel on which no call ends.
            exits.enter()
            try:
                begin = self._method(channel, call)
                future = begin.future(call.request, timeout=call.timeout, metadata=self._metadata + call.metadata)
                self._running.add(future)
            finally:
                exits.leave()
        return future

    def _method(self, channel: grpc.Channel, call: Call) -> Any:
        begin = self._methods.get(call.method)
        if begin is None:
            begin = self._methods[call.method] = channel.unary_unary(
                call.method, request_serializer=None, response_deserializer=call.answer.FromString
            )
        return begin

    def _entered(self) -> grpc.Channel:
        """Return the channel, once no fork is under way."""
        while self._forking:
            self._changed.wait()
        if self._closed:
            raise Closed("The client is closed.")
        if self._channel is None:
            self._channel = self._make_channel()
            self._opening = True
        return self._channel

    def _left(self, call: Any) -> None:
        with self._changed:
            self._running.discard(call)
            self._changed.notify_all()

    def _answer(self, future: Any) -> Message | Problem:
        try:
            answer: Message = future.result()
        except grpc.FutureCancelledError:
            if self._closed:
                raise Closed("The client was closed.") from None
            return self._cancelled(future)
        except grpc.RpcError as error:
            return self._problem(error)
        self._opening = False
        return answer

    def _problem(self, error: grpc.RpcError) -> Problem:
        problem = problem_of(error)
        self._opening = problem.code == "UNAVAILABLE"
        return problem

    def _cancelled(self, call: Any) -> Problem:
        with self._changed:
            ours = call in self._interrupted
            self._interrupted.discard(call)
        return Problem("CANCELLED", "The call was cancelled.", interrupted=ours)

    # Forks. The three are called by `fork.py`.

    def before_fork(self) -> None:
        """Cancel the calls that run, and hold back new ones."""
        self._changed.acquire()
        self._forking = True
        self._wait_for_connection()
        self._interrupted |= self._running
        for call in tuple(self._running):
            call.cancel()
        end = time.monotonic() + _CANCELLED_WITHIN
        while self._running - self._unattended and (left := end - time.monotonic()) > 0:
            self._changed.wait(left)
        if self._interrupted:
            _wait_for_threads_of_grpc()

    def _wait_for_connection(self) -> None:
        """Wait until a call has ended, if none has on this connection; not twice for a server that does not answer."""
        end = time.monotonic() + _OPENED_WITHIN
        while self._opening and self._running and not any(call.done() for call in self._running):
            if time.monotonic() >= end:
                self._opening = False
            self._changed.wait(0.002)

    def after_fork_in_parent(self) -> None:
        """Let calls begin again."""
        self._forking = False
        self._changed.notify_all()
        self._changed.release()

    def after_fork_in_child(self) -> None:
        """Forget the parent's channel. The next call opens one of the child's own."""
        keep((self._channel, self._methods, self._running, self._unattended, self._interrupted, self._changed))
        self._channel = None
        self._methods, self._running, self._unattended, self._interrupted = {}, set(), set(), set()
        self._changed = threading.Condition(threading.RLock())
        self._forking = False


def _wait_for_threads_of_grpc() -> None:
    """Wait a moment for the thread of gRPC that took the last call's end: where it is still inside gRPC, gRPC does not
    prepare for the fork, and with older versions the child's calls hang.
    """
    end = time.monotonic() + _THREADS_END_WITHIN
    while any(_is_of_grpc(thread) for thread in threading.enumerate()) and time.monotonic() < end:
        time.sleep(0.001)


def _is_of_grpc(thread: threading.Thread) -> bool:
    return str(getattr(getattr(thread, "_target", None), "__module__", "")).startswith("grpc._cython")


class Stream:
    """A call with many answers. Reading blocks; `cancel` ends it from any thread."""

    def __init__(self, transport: Transport, call: Any):
        self._transport = transport
        self._call = call

    def __iter__(self) -> Iterator[Message | Problem]:
        """Yield the answers, and at last the problem that ended the call; no problem if the service ended it."""
        try:
            for answer in self._call:
                self._transport._opening = False
                yield answer
        except grpc.FutureCancelledError:
            yield self._transport._cancelled(self._call)
        except grpc.RpcError as error:
            if self._call.code() is grpc.StatusCode.CANCELLED:
                yield self._transport._cancelled(self._call)
            else:
                yield self._transport._problem(error)
        finally:
            self._transport._left(self._call)

    def cancel(self) -> None:
        """End the call."""
        self._call.cancel()


def problem_of(error: Any) -> Problem:
    """Return why a call has no answer, from gRPC's error."""
    code = error.code() if callable(getattr(error, "code", None)) else None
    name = code.name if isinstance(code, grpc.StatusCode) else "UNKNOWN"
    metadata: dict[str, Any] = {}
    for part in ("initial_metadata", "trailing_metadata"):
        if callable(getattr(error, part, None)):
            metadata |= {key.lower(): value for key, value in getattr(error, part)() or ()}
    reason, field, retry_after = _details(metadata.get(_DETAILS))
    if retry_after is None:
        retry_after = _seconds(metadata.get("retry-after"))
    message = error.details() if callable(getattr(error, "details", None)) else str(error)
    return Problem(name, message or "", reason, field, retry_after, _text(metadata.get("x-request-id")))


def _details(encoded: object) -> tuple[str, str, float | None]:
    """Return reason, field and the wait of an error's details."""
    reason, field, wait = "", "", None
    if not isinstance(encoded, bytes):
        return reason, field, wait
    info, retry, request = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo(), error_details_pb2.BadRequest()
    try:
        for detail in status_pb2.Status.FromString(encoded).details:
            if detail.Unpack(info):
                reason = info.reason
            elif detail.Unpack(retry):
                wait = max(0.0, retry.retry_delay.ToNanoseconds() / 1e9)
            elif detail.Unpack(request) and request.field_violations:
                field = request.field_violations[0].field
    except DecodeError:
        pass  # the code says enough
    return reason, field, wait


def _seconds(header: object) -> float | None:
    """Return the seconds of a `Retry-After`: a number, or a date. None if it is neither."""
    text = _text(header).strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    try:
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - time.time())
    except (ValueError, TypeError, OverflowError):
        return None


def _text(value: object) -> str:
    if isinstance(value, bytes):
        return value.decode("ascii", "replace")
    return value if isinstance(value, str) else ""
