"""What receivers' answers share: showing stored events, and wording what was refused. Pure."""

from collections.abc import Mapping, Sequence
from uuid import UUID

import orjson

from headgate_server.core import canonical, jsonbody, timestamps
from headgate_server.core.errors import HeadgateError, QuotaExceeded
from headgate_server.core.model import STORED, Outcome, Problem, StoredEvent
from headgate_server.core.reasons import Reason
from headgate_server.core.types import EventId
from headgate_server.receivers import HttpRequest

MAX_MESSAGE = 1_000
"""Characters of an error's message: more than any sentence of ours, less than what it might quote."""
QUOTA_CODE = "quota_exceeded"
"""What is said of an event, or of a request, that the monthly quota keeps out."""


def members(event: StoredEvent) -> dict[str, orjson.Fragment]:
    """Return the vendor's own object as it was sent, member by member, each exact and ready to stand in a reply."""
    value = jsonbody.read_exact(event.data or b"{}")
    return {name: orjson.Fragment(canonical.encode(member)) for name, member in value.items()}


def shown_id(event_id: EventId) -> str:
    """Return an event's id as a UUID's text."""
    return str(UUID(bytes=event_id))


def problem_of(outcome: Outcome) -> Problem:
    """Return why an outcome's event is not stored; only of an outcome that has a problem."""
    if outcome.problem is None:
        raise ValueError(f"an event that is {outcome.status} has no problem")
    return outcome.problem


def message_of(error: HeadgateError) -> str:
    """Return what an error says, fit for an answer: bounded, though it may quote a client's megabyte."""
    return error.message if len(error.message) <= MAX_MESSAGE else error.message[: MAX_MESSAGE - 1] + "…"


def code_of(error: HeadgateError, codes: Mapping[int, str], status: int, default: str) -> str:
    """Return a vendor's code for an error: by its status, and one for the monthly quota, of which no vendor tells."""
    return QUOTA_CODE if isinstance(error, QuotaExceeded) else codes.get(status, default)


def is_unprocessable(error: HeadgateError) -> bool:
    """Whether a refused body is JSON and only not the right one, for which some vendors have a status of its own,
    422.
    """
    return error.reason in _UNPROCESSABLE


_UNPROCESSABLE = frozenset(
    {Reason.NOT_AN_OBJECT, Reason.MISSING_FIELD, Reason.WRONG_TYPE, Reason.EMPTY_BATCH, Reason.TOO_MANY_EVENTS}
)


def quota_problem(outcome: Outcome) -> Problem | None:
    """Return the problem of an event that the monthly quota keeps out; None of every other event."""
    return outcome.problem if outcome.problem is not None and outcome.problem.reason == Reason.QUOTA_EXCEEDED else None


def check_quota(request: HttpRequest, outcomes: Sequence[Outcome]) -> None:
    """Raise `QuotaExceeded` where nothing of a request was stored and the monthly quota kept something of it out.

    It can be sent again on the first of next month, UTC.
    """
    beyond = [problem for problem in map(quota_problem, outcomes) if problem is not None]
    if beyond and not any(outcome.status in STORED for outcome in outcomes):
        _, next_month = timestamps.month(request.now)
        raise QuotaExceeded(beyond[0].message, retry_after=(next_month - request.now) / 1e6)
