"""What a client raises. There is one class for each thing that a caller can do about it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from headgate_client.core.events import Event
    from headgate_client.core.model import Result


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a call has no answer."""

    code: str
    """The gRPC code. Example: "UNAVAILABLE"."""
    message: str = ""
    reason: str = ""
    """The service's constant for programs (docs/reasons.md). Empty: the answer does not come from the service."""
    field: str = ""
    retry_after: float | None = None
    """The least number of seconds to wait. None: not said."""
    request_id: str = ""
    interrupted: bool = False
    """The client itself ended the call, because the process forks. The call is made again at once."""


class HeadgateError(Exception):
    """Base of all errors of this package."""


class InvalidEvent(HeadgateError, ValueError):
    """The event cannot be sent as it is, and nothing was sent. The message says what is wrong; `index` says at which
    position of the batch.
    """

    def __init__(self, message: str, index: int = 0):
        super().__init__(message)
        self.index = index


class CallError(HeadgateError):
    """The call failed as a whole, and a retry would not help. `code` is the gRPC code, `reason` the service's constant.

    `events` are the events of the call, with their keys, if it was to store some: they can be sent again.
    """

    def __init__(self, problem: Problem, events: "Sequence[Event]" = ()):
        told = ", ".join(part for part in (problem.code, problem.reason) if part)
        super().__init__(f"{problem.message or 'The call failed.'} ({told})")
        self.problem = problem
        self.events = events

    @property
    def code(self) -> str:
        """The gRPC code."""
        return self.problem.code

    @property
    def reason(self) -> str:
        """The service's constant for programs. Empty: the answer does not come from the service."""
        return self.problem.reason

    @property
    def field(self) -> str:
        """The part of the request at fault. Empty: all of it."""
        return self.problem.field

    @property
    def retry_after(self) -> float | None:
        """The least number of seconds to wait before the call is made again. None: not said."""
        return self.problem.retry_after

    @property
    def request_id(self) -> str:
        """The id under which the service's log has the call. Empty: unknown."""
        return self.problem.request_id


class Unavailable(CallError):
    """The service gave no answer in time, after all retries. The events may be stored or not. Each of `events` has a
    key, so it is safe to send them again.
    """


class Denied(CallError):
    """The key is unknown, revoked, or lacks a scope, or there is no such service at the address."""


class NotFound(CallError):
    """The workspace has no such event."""


class EventRejected(HeadgateError):
    """The event is not stored, for the reason in `result.error`. Correct it; a retry does not help."""

    def __init__(self, result: "Result"):
        error = result.error
        super().__init__(
            result.status if error is None else f"{error.message or result.status} ({error.reason or result.status})"
        )
        self.result = result

    @property
    def reason(self) -> str:
        """The service's constant for programs."""
        return self.result.error.reason if self.result.error else ""


class EventConflict(EventRejected):
    """Another event with other content is stored under this key: `result.id` is that event's."""


class PartialFailure(HeadgateError):
    """Some events of a batch are not stored. `results` has one result for each event, in the order sent. A result with
    the status `unanswered` belongs to an event of a call that failed: `__cause__` is its error.
    """

    def __init__(self, results: "Sequence[Result]"):
        self.results = results
        self.failed = [result for result in results if not result.stored]
        first = self.failed[0]
        said = first.error.message if first.error else first.status
        super().__init__(
            f"{len(self.failed)} of {len(results)} events are not stored; the first, at {first.index}: {said}"
        )


class QueueFull(HeadgateError):
    """The queue has no room for the event, and the event was not taken."""


class Closed(HeadgateError):
    """The client or the queue is closed, and the event was not taken."""


class Dropped(HeadgateError):
    """The event was removed from a full queue, as `when_full="drop_oldest"` asks for."""


class NotSent(HeadgateError):
    """The queue was closed before these events got an answer. They may be stored or not. Each of `events` has a key, so
    it is safe to send them again. `spooled`: they are in the spool, and `events` is empty.
    """

    def __init__(self, events: "Sequence[Event]", *, spooled: bool = False):
        many = f"{len(events)} events have" if len(events) != 1 else "1 event has"
        stays = "The queue was closed; the event is in the spool, and the next process sends it."
        super().__init__(stays if spooled else f"{many} no answer: the queue was closed first.")
        self.events = events
        self.spooled = spooled


class Forked(HeadgateError):
    """The event was emitted before the process forked. The parent process sends it, and gets its result."""


class SpoolError(HeadgateError):
    """The spool's file cannot be read or written. An event that is being emitted was not taken."""


class SpoolInUse(SpoolError):
    """Another process uses the spool's file."""


def call_error(problem: Problem, events: "Sequence[Event]" = ()) -> CallError:
    """Return the error of the class that belongs to a problem that is final."""
    return _CLASSES.get(problem.code, CallError)(problem, events)


_CLASSES: dict[str, type[CallError]] = {
    "UNAVAILABLE": Unavailable,
    "DEADLINE_EXCEEDED": Unavailable,
    "RESOURCE_EXHAUSTED": Unavailable,
    "ABORTED": Unavailable,
    "CANCELLED": Unavailable,
    "UNAUTHENTICATED": Denied,
    "PERMISSION_DENIED": Denied,
    "UNIMPLEMENTED": Denied,
    "NOT_FOUND": NotFound,
}
