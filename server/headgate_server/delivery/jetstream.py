"""A sender to a NATS JetStream stream: every event once, in the order of the ledger.

The stream itself is the cursor. A sender reads the stream's last message when it starts, and continues after it. It
sends many messages before it waits. Each message has the sequence and the id that the stream's last message must have.
So the stream stores a message directly after its predecessor or not at all. Even if messages are lost, repeated,
delayed or sent by another publisher, no event is in the stream twice and none is left out.
"""

import asyncio
import re
import time
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import NamedTuple
from uuid import UUID

import nats
import structlog
from nats.js import api
from nats.js.errors import NotFoundError

from headgate_server.core.errors import HeadgateError
from headgate_server.core.model import StoredEvent
from headgate_server.core.types import EventId
from headgate_server.delivery.attempt import Attempt, Verdict, printable
from headgate_server.delivery.nats_connection import Ack, Connection, Nats, NotConnected
from headgate_server.delivery.payload import Render
from headgate_server.process.tracing.outgoing import outgoing

log = structlog.get_logger(__name__)

Known = Callable[[Sequence[EventId]], Awaitable[Collection[EventId]]]
"""Returns which of these events the ledger has. Raises `HeadgateError` if it cannot be read."""

_LOOK = 64
"""Messages that are read at once, to find an event that the ledger has."""
_WINDOW_MESSAGES = 512
_WINDOW_BYTES = 4 * 1024 * 1024
"""The most messages and bytes that are sent and not yet confirmed. This keeps a connection of 50 ms latency busy."""
_UNBROKEN = 16
"""The most messages without a turn of the event loop. Sending does not wait, and the event loop also answers callers.
"""
_HEADER_BYTES = 1024
"""The most bytes of a message's headers."""
_WRONG_LAST_ID, _WRONG_LAST_SEQUENCE = 10070, 10071
_OWNER = "Headgate-Destination"
_MSG_ID = api.Header.MSG_ID.value
_EXPECTED_STREAM = api.Header.EXPECTED_STREAM.value
_EXPECTED_LAST_SEQUENCE = api.Header.EXPECTED_LAST_SEQUENCE.value
_EXPECTED_LAST_MSG_ID = api.Header.EXPECTED_LAST_MSG_ID.value

LONGEST_NAME = 255
"""NATS's bound on a stream's name."""


class _End(NamedTuple):
    """The end of a stream."""

    sequence: int
    event: EventId | None
    """The id of the event in the last message; None: the stream is empty. Once it is `agreed`: that of the last event
    that the ledger has, too.
    """
    agreed: bool = False
    """Whether the ledger is known to have the event."""


class _Trouble(Exception):
    """The stream cannot store events. The message is the reason."""


class _Overtaken(_Trouble):
    """The stream does not have the expected end."""


class JetStream:
    """Sends events to one stream. It keeps the promise of `Sender`.

    Events MUST come in the order of the ledger, and MUST NOT leave out one that failed: the destination is ordered.
    Events that are already in the stream count as delivered. A missing stream is created. `owner` is the destination's
    id. Each message has it, and a message of another publisher stops the destination.
    """

    def __init__(
        self,
        shared: Nats,
        *,
        stream: str,
        subject_prefix: str,
        owner: str,
        render: Render,
        known: Known,
        timeout: float = 10.0,
        timer: Callable[[], float] = time.monotonic,
    ):
        self._nats = shared
        self._stream = stream
        self._prefix = subject_prefix
        self._owner = owner
        self._render = render
        self._known = known
        self._timeout = timeout
        self._timer = timer
        self._end: tuple[Connection, _End] | None = None
        self._one_at_a_time = asyncio.Lock()

    async def send(self, events: Sequence[StoredEvent], attempt: int) -> Attempt:
        """Deliver the events that the stream does not have yet. `attempt` makes no difference."""
        started = self._timer()
        try:
            async with self._one_at_a_time, asyncio.timeout(self._timeout) as limit:
                await self._deliver(events, limit)
        except TimeoutError:
            complaint = self._nats.complaint(self._concerns)
            detail = f"no confirmation within {self._timeout:g} s"
            return self._failed(f"{detail}; NATS said: {complaint}" if complaint else detail, started)
        except (_Trouble, NotConnected) as trouble:
            return self._failed(str(trouble), started)
        except (nats.errors.Error, OSError) as error:
            return self._failed(f"NATS: {error}", started)
        except HeadgateError as error:
            return self._failed(f"the ledger cannot be read: {error}", started)
        return Attempt(Verdict.DELIVERED, None, "", None, self._timer() - started)

    async def close(self) -> None:
        """Do nothing: the connection is shared."""

    def _concerns(self, complaint: str) -> bool:
        """Whether a complaint of the server names no subject, or only ones of this destination. Another one may be of
        another workspace, which this one must not see.
        """
        mine, stream = f"{self._prefix}.".lower(), self._stream.lower()
        return all(
            subject.startswith((mine, "_inbox.")) or (subject.startswith("$js.") and stream in subject.split("."))
            for subject in _QUOTED.findall(complaint.lower())
        )

    def _failed(self, detail: str, started: float) -> Attempt:
        return Attempt(Verdict.FAILED, None, printable(detail), None, self._timer() - started)

    async def _deliver(self, events: Sequence[StoredEvent], limit: asyncio.Timeout) -> None:
        # The stream may have grown without this sender: confirmations were lost, or a process that delivered before
        # still published. The second round reads its end again.
        for last in (False, True):
            connection, end = await self._known_end()
            # The end is unknown until all messages are confirmed.
            self._end = None
            try:
                if end.event is not None and not end.agreed and events[0].id <= end.event:
                    # Events are about to count as delivered.
                    end = await self._agreed(connection, end, limit)
                rest = [event for event in events if end.event is None or event.id > end.event]
                self._end = connection, await self._publish(connection, rest, end, limit)
                return
            except _Overtaken:
                if last:
                    raise

    async def _known_end(self) -> tuple[Connection, _End]:
        if self._end is not None and self._end[0].is_open:
            return self._end
        connection = await self._nats.connection()
        return connection, await self._find_end(connection)

    async def _find_end(self, connection: Connection) -> _End:
        try:
            info = await connection.stream.stream_info(self._stream)
        except NotFoundError:
            info = await connection.stream.add_stream(
                name=self._stream,
                subjects=[f"{self._prefix}.>"],
                storage=api.StorageType.FILE,
                description="Events of Headgate",
            )
        if not any(covers(subject, f"{self._prefix}.>") for subject in info.config.subjects or ()):
            raise _Trouble(f"the stream {self._stream} does not take the subjects {self._prefix}.>")
        if info.config.no_ack:
            raise _Trouble(f"the stream {self._stream} confirms nothing (no_ack)")
        if not info.state.messages:
            return _End(info.state.last_seq, None)
        last = await self._last_message(connection, info.state.last_seq)
        headers = last.headers or {}
        if headers.get(_OWNER) != self._owner:
            raise _Trouble(
                f"the stream {self._stream} was written to by another publisher: its message {last.seq} on "
                f"{last.subject} is not of this destination"
            )
        return _End(max(info.state.last_seq, last.seq or 0), _event_id(headers.get(_MSG_ID, "")))

    async def _last_message(self, connection: Connection, sequence: int) -> api.RawStreamMsg:
        try:
            return await connection.stream.get_msg(self._stream, seq=sequence)
        except NotFoundError:
            # The last message was deleted.
            return await connection.stream.get_msg(self._stream, subject=f"{self._prefix}.>")

    async def _agreed(self, connection: Connection, end: _End, limit: asyncio.Timeout) -> _End:
        """Return the end with the last event of the stream that the ledger has.

        A ledger that was restored lacks events that are in the stream. If the clock is behind, new events have older
        ids than those, so ids that the ledger does not have say nothing about what is delivered.
        """
        if end.event is None or end.event in await self._known([end.event]):
            return end._replace(agreed=True)
        first = (await connection.stream.stream_info(self._stream)).state.first_seq
        for after in range(end.sequence, first - 1, -_LOOK):
            ids = await asyncio.gather(
                *(self._event_at(connection, at) for at in range(after, max(after - _LOOK, first - 1), -1))
            )
            limit.reschedule(asyncio.get_running_loop().time() + self._timeout)
            known = await self._known([one for one in ids if one is not None])
            for back, one in enumerate(ids):
                if one in known:
                    log.warning("stream_ahead_of_ledger", stream=self._stream, messages=end.sequence - after + back)
                    return _End(end.sequence, one, agreed=True)
        log.warning("stream_ahead_of_ledger", stream=self._stream, messages=end.sequence - first + 1)
        return _End(end.sequence, None, agreed=True)

    async def _event_at(self, connection: Connection, sequence: int) -> EventId | None:
        """Return the event of a message; None if the message was deleted or is not of this destination."""
        try:
            message = await connection.stream.get_msg(self._stream, seq=sequence)
        except NotFoundError:
            return None
        headers = message.headers or {}
        return _event_id(headers.get(_MSG_ID, "")) if headers.get(_OWNER) == self._owner else None

    async def _publish(
        self, connection: Connection, events: Sequence[StoredEvent], end: _End, limit: asyncio.Timeout
    ) -> _End:
        """Publish events behind `end`, and return the new end when all are confirmed."""
        waiting = _Window()
        try:
            previous = None
            for sequence, event in enumerate(events, end.sequence):
                headers, body = self._headers(event, sequence, previous), self._render(event)
                size = len(body) + _HEADER_BYTES
                if size > connection.largest:
                    raise _Trouble(f"event {event.sequence} has {len(body)} bytes, more than NATS takes (max_payload)")
                if sequence % _UNBROKEN == 0:
                    await asyncio.sleep(0)
                while waiting.is_full(size):
                    await self._confirmed(waiting.oldest(), limit)
                future = await connection.publish(subject_of(self._prefix, event.type), body, headers)
                waiting.add(_Sent(size, sequence + 1, future))
                previous = headers[_MSG_ID]
            while waiting.sent:
                await self._confirmed(waiting.oldest(), limit)
        except _Overtaken:
            # Messages in progress may still be stored. Wait for their answers before the end is read again.
            await asyncio.gather(*(sent.future for sent in waiting.sent))
            raise
        return _End(end.sequence + len(events), events[-1].id, agreed=True) if events else end

    def _headers(self, event: StoredEvent, sequence: int, previous: str | None) -> dict[str, str]:
        headers = {
            _MSG_ID: str(UUID(bytes=event.id)),
            _EXPECTED_STREAM: self._stream,
            _EXPECTED_LAST_SEQUENCE: str(sequence),
            _OWNER: self._owner,
            "Content-Type": "application/json",
            **dict(outgoing()),
        }
        # The first message does not have it. A server before 2.15 forgets the id of the last message at a restart if
        # the message is older than the stream's duplicate window. It would refuse the right successor for ever.
        if previous is not None:
            headers[_EXPECTED_LAST_MSG_ID] = previous
        return headers

    async def _confirmed(self, sent: "_Sent", limit: asyncio.Timeout) -> None:
        """Wait until a message is confirmed at its place."""
        ack = await sent.future
        limit.reschedule(asyncio.get_running_loop().time() + self._timeout)
        if ack.code in (_WRONG_LAST_ID, _WRONG_LAST_SEQUENCE):
            raise _Overtaken(f"another publisher writes to the stream {self._stream}: {ack.error}")
        if ack.error:
            raise _Trouble(f"the stream {self._stream} refused a message: {ack.error}")
        # A duplicate at its place is accepted. An earlier attempt, or a process that delivered before, stored it.
        if ack.sequence != sent.sequence:
            raise _Overtaken(f"the stream {self._stream} has a message at {ack.sequence} and not at {sent.sequence}")


class _Sent(NamedTuple):
    """A message that is not confirmed yet."""

    size: int
    sequence: int
    """Its place in the stream."""
    future: asyncio.Future[Ack]


class _Window:
    """The messages that are not confirmed yet, the oldest first."""

    def __init__(self) -> None:
        self.sent: deque[_Sent] = deque()
        self._bytes = 0

    def is_full(self, size: int) -> bool:
        """Whether a message of this size must wait for a confirmation."""
        return bool(self.sent) and (len(self.sent) >= _WINDOW_MESSAGES or self._bytes + size > _WINDOW_BYTES)

    def add(self, sent: _Sent) -> None:
        """Add a message that was sent."""
        self.sent.append(sent)
        self._bytes += sent.size

    def oldest(self) -> _Sent:
        """Remove and return the oldest message."""
        sent = self.sent.popleft()
        self._bytes -= sent.size
        return sent


def _event_id(text: str) -> EventId:
    try:
        return EventId(UUID(text).bytes)
    except ValueError:
        raise _Trouble("the stream's last message has no id of an event") from None


_UNSAFE = re.compile(r"[^A-Za-z0-9_\-.]")
_QUOTED = re.compile(r'"([^"]*)"')
"""A subject in a complaint of the server."""
_NAME = re.compile(r"[A-Za-z0-9_-]+")
_SUBJECT = re.compile(r"[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*")


def check_stream(name: str) -> str:
    """Return the name of a stream. Raises `ValueError` with a sentence about the fault."""
    if len(name) > LONGEST_NAME or not _NAME.fullmatch(name):
        raise ValueError(f"a stream's name has 1 to {LONGEST_NAME} letters, digits, - and _")
    return name


def check_prefix(prefix: str) -> str:
    """Return the prefix of a stream's subjects. Raises `ValueError` with a sentence about the fault."""
    # NATS's own subjects begin with $ and _INBOX. A workspace must not publish there, because it could reach other
    # streams.
    if len(prefix) > LONGEST_NAME or not _SUBJECT.fullmatch(prefix) or prefix.startswith("_INBOX"):
        raise ValueError(
            f"a prefix of subjects has 1 to {LONGEST_NAME} letters, digits, - and _, in parts that dots separate, and "
            "is not _INBOX"
        )
    return prefix


def subject_of(prefix: str, event_type: str) -> str:
    """Return the subject of an event. Different types have different subjects. Characters that a subject cannot have
    are written as the `%XX` of their UTF-8, and an empty part as `%`.
    """
    safe = _UNSAFE.sub(lambda match: "".join(f"%{byte:02X}" for byte in match[0].encode()), event_type)
    return ".".join([prefix, *(part or "%" for part in safe.split("."))])


def covers(wide: str, narrow: str) -> bool:
    """Whether a subject with wildcards matches all subjects that another one matches."""
    if wide == ">" or wide == narrow:
        return True
    head, _, rest = wide.partition(".")
    other, _, other_rest = narrow.partition(".")
    if other == ">" or not rest or not other_rest:
        return False
    return head in ("*", other) and covers(rest, other_rest)
