"""The common parts of receivers' answers: stored events, and the words for refusals. Pure."""

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
"""Characters of an error's message. Our own sentences are shorter, but a message may quote a long text of the client.
"""
QUOTA_CODE = "quota_exceeded"
"""The code for an event, or a request, that the monthly quota refuses."""


def members(event: StoredEvent) -> dict[str, orjson.Fragment]:
    """Return the members of the vendor's own object as they were sent. Each is exact and can be put into a reply."""
    value = jsonbody.read_exact(event.data or b"{}")
    return {name: orjson.Fragment(canonical.encode(member)) for name, member in value.items()}


def shown_id(event_id: EventId) -> str:
    """Return an event's id as a UUID's text."""
    return str(UUID(bytes=event_id))


def problem_of(outcome: Outcome) -> Problem:
    """Return why an outcome's event is not stored. Raises `ValueError` if the outcome has no problem."""
    if outcome.problem is None:
        raise ValueError(f"an event that is {outcome.status} has no problem")
    return outcome.problem


def message_of(error: HeadgateError) -> str:
    """Return an error's message, shortened for an answer: it may quote a very long text of the client."""
    return error.message if len(error.message) <= MAX_MESSAGE else error.message[: MAX_MESSAGE - 1] + "…"


def code_of(error: HeadgateError, codes: Mapping[int, str], status: int, default: str) -> str:
    """Return a vendor's code for an error, by its status. The monthly quota has our code, as no vendor documents
    one.
    """
    return QUOTA_CODE if isinstance(error, QuotaExceeded) else codes.get(status, default)


def is_unprocessable(error: HeadgateError) -> bool:
    """Whether a refused body is valid JSON of the wrong form. Some vendors have the status 422 for that."""
    return error.reason in _UNPROCESSABLE


_UNPROCESSABLE = frozenset(
    {Reason.NOT_AN_OBJECT, Reason.MISSING_FIELD, Reason.WRONG_TYPE, Reason.EMPTY_BATCH, Reason.TOO_MANY_EVENTS}
)


def quota_problem(outcome: Outcome) -> Problem | None:
    """Return the problem of an event that the monthly quota refuses, None for every other event."""
    return outcome.problem if outcome.problem is not None and outcome.problem.reason == Reason.QUOTA_EXCEEDED else None


def check_quota(request: HttpRequest, outcomes: Sequence[Outcome]) -> None:
    """Raise `QuotaExceeded` if no event of a request was stored, and the monthly quota refused at least one.

    The request can be sent again on the first of next month, UTC.
    """
    beyond = [problem for problem in map(quota_problem, outcomes) if problem is not None]
    if beyond and not any(outcome.status in STORED for outcome in outcomes):
        _, next_month = timestamps.month(request.now)
        raise QuotaExceeded(beyond[0].message, retry_after=(next_month - request.now) / 1e6)
