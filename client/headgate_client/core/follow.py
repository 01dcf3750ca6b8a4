"""A subscription that continues by itself: where it is, and what to do when a stream ends."""

from collections.abc import Callable
from datetime import datetime

from headgate.v1.event_service_pb2 import SubscribeRequest, SubscribeResponse
from headgate_client.core.errors import Problem, call_error
from headgate_client.core.model import StoredEvent
from headgate_client.core.requests import stored_event, timestamp_of
from headgate_client.core.retry import Retry, Verdict, verdict

SUBSCRIBE = "/headgate.v1.EventService/Subscribe"

SILENCE = 45.0
"""Seconds without a message after which a stream is dead. The service sends one every 15 seconds at least."""


class Follow:
    """Where a subscription is."""

    def __init__(
        self,
        retry: Retry,
        *,
        type: str = "",  # noqa: A002 - the field's name
        source: str = "",
        subject: str = "",
        after_sequence: int | None = None,
        after_id: str = "",
        start: datetime | None = None,
    ):
        if (after_sequence is not None) + bool(after_id) + (start is not None) > 1:
            raise ValueError("a subscription begins at one of after_sequence, after_id and start")
        self._retry = retry
        self._filter = SubscribeRequest(type=type, source=source, subject=subject)
        self._begin = SubscribeRequest(after_sequence=after_sequence, after_id=after_id)
        if (stamp := timestamp_of(start)) is not None:
            getattr(self._begin, "from").CopyFrom(stamp)
        self._failures = 0
        self.sequence: int | None = after_sequence
        self.caught_up = False

    def request(self) -> bytes:
        """Return the request that continues after the last message."""
        request = SubscribeRequest()
        request.CopyFrom(self._filter)
        if self.sequence is None:
            request.MergeFrom(self._begin)
        else:
            request.after_sequence = self.sequence
        return request.SerializeToString()

    def take(self, message: SubscribeResponse) -> StoredEvent | None:
        """Take a message, and return its event, if it has one."""
        self._failures = 0
        kind = message.WhichOneof("content")
        if kind == "event":
            self.sequence = message.event.sequence
            return stored_event(message.event)
        if kind is not None:
            self.sequence = getattr(message, kind).sequence
            self.caught_up = self.caught_up or kind == "caught_up"
        return None

    def ended(self, problem: Problem | None, draw: Callable[[float, float], float] | None = None) -> float:
        """Return the seconds to wait before the stream is begun again. Raises what a retry does not help.

        `problem` None: the service ended the stream, or it was silent for too long.
        """
        if problem is not None:
            if problem.interrupted:
                return 0.0
            if verdict(problem) is not Verdict.AGAIN:
                raise call_error(problem)
        self._failures += 1
        floor = problem.retry_after if problem is not None else None
        return self._retry.delay(self._failures, floor, *((draw,) if draw else ()))
