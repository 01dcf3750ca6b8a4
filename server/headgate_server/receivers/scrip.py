"""Scrip's event API: batches of up to 100 events, one result per event in the order sent; docs/compat/scrip.md."""

from collections.abc import Mapping, Sequence
from typing import Any

from headgate_server.core import jsonbody, validate
from headgate_server.core.destinations import Fate
from headgate_server.core.errors import HeadgateError
from headgate_server.core.model import STORED, Draft, Link, Outcome, Problem, RateLimit, Status
from headgate_server.core.reasons import Reason
from headgate_server.receivers import Endpoint, Find, Get, HttpRequest, Intake, Receiver, Reply, Retried, Retry, Take
from headgate_server.receivers.answers import (
    QUOTA_CODE,
    check_quota,
    code_of,
    message_of,
    problem_of,
    quota_problem,
    shown_id,
)
from headgate_server.receivers.common import (
    EVENTS,
    Invalid,
    Json,
    a_uuid,
    an_object,
    decode_event,
    id_before_verb,
    id_in_path,
    moment,
    read_list,
    text,
)
from headgate_server.receivers.scrip_reads import OPTIONAL, STATUS, read_search, reply_event, reply_page

NAME = "scrip"

MOST_EVENTS = 100
_CONFLICT = "idempotency_conflict"
_CODES = {
    400: "bad_request",
    401: "unauthorized",
    403: "forbidden",
    404: "not_found",
    409: _CONFLICT,
    413: "payload_too_large",
    429: "too_many_requests",
    503: "service_unavailable",
}
"""The `code` of an error by its status. The vendor documents those of 401, 403, 409 and 429."""

_ECHOED = ("idempotency_key", "program_id", "participant_id", "external_id", "event_timestamp")
"""Members of an event that an answer repeats. `_draft` has checked these texts."""
_REQUIRED = ("program_id", "idempotency_key", "event_timestamp", "event_data")
_FIELDS = frozenset(_REQUIRED + OPTIONAL)


class Scrip(Receiver):
    """Scrip's event API."""

    name = NAME
    rate = RateLimit(requests=10, period=1_000_000, burst=30)
    rate_headers = True

    def routes(self) -> Mapping[tuple[str, str], Endpoint]:
        """Return the endpoints by method and path."""
        return {
            ("POST", "/v1/events/batch"): Take(read=_read_batch, reply=_reply_batch, list_name=EVENTS),
            ("POST", "/v1/events"): Take(read=_read_single, reply=_reply_single),
            ("GET", "/v1/events"): Find(read=read_search, reply=reply_page),
            ("GET", "/v1/events/{id}"): Get(read=id_in_path, reply=reply_event, with_fates=True),
            ("POST", "/v1/events/{id}/retry"): Retry(read=id_before_verb, reply=_reply_retry),
        }

    def refusal(self, status: int, error: HeadgateError) -> Reply:
        """Return an error in the vendor's own body."""
        return _refused(status, code_of(error, _CODES, status, "internal_error"), message_of(error))


def _refused(status: int, code: str, message: str) -> Reply:
    return Reply(status, {"code": code, "message": message})


def _read_batch(request: HttpRequest) -> Intake:
    events = read_list(request, MOST_EVENTS)
    return Intake([decode_event(event, _draft) for event in events], items=events)


def _read_single(request: HttpRequest) -> Intake:
    event = jsonbody.read_one(request.body)
    return Intake([decode_event(event, _draft)], items=[event])


def _draft(event: Json) -> Draft | Problem:
    program_id = a_uuid("program_id", text(event, "program_id", required=True))
    key = text(event, "idempotency_key", required=True)
    occurred_at, warnings = moment(event, "event_timestamp", required=True)
    payload = an_object(event, "event_data", required=True)
    external_id = text(event, "external_id")
    participant_id = _uuid(event, "participant_id")
    _uuid(event, "recipient_id")
    text(event, "recipient_external_id")
    if external_id is None and participant_id is None:
        raise Invalid(Reason.MISSING_FIELD, "", "external_id or participant_id is required")
    return validate.seal(
        receiver=NAME,
        type_=_type(payload),
        source=program_id,
        subject=external_id or participant_id or "",
        occurred_at=occurred_at,
        data=event,
        identity=(program_id, key),
        warnings=warnings,
    )


def _uuid(event: Json, name: str) -> str | None:
    value = text(event, name)
    return None if value is None else a_uuid(name, value)


def _type(payload: Json) -> str:
    """Return the payload's `type` if it is a valid text, or else "event". The vendor has no rules for a payload."""
    value = payload.get("type")
    return str(value) if value and validate.text_problem("type", value) is None else "event"


def _reply_batch(request: HttpRequest, intake: Intake, outcomes: Sequence[Outcome]) -> Reply:
    results = [_result(*numbered) for numbered in enumerate(zip(intake.items, outcomes, strict=True))]
    stored = sum(outcome.status in STORED for outcome in outcomes)
    failed = len(results) - stored
    return Reply(200, {"total": len(results), "success_count": stored, "error_count": failed, "results": results})


def _result(index: int, settled: tuple[Any, Outcome]) -> Json:
    event, outcome = settled
    if outcome.link is not None and outcome.status in STORED:
        return {"index": index, "status": "accepted", "event": _receipt(event, outcome.link)}
    return {"index": index, "status": "error", "error": _error_text(outcome), "event": None}


def _reply_single(request: HttpRequest, intake: Intake, outcomes: Sequence[Outcome]) -> Reply:
    (outcome,), (event,) = outcomes, intake.items
    if outcome.link is not None and outcome.status in STORED:
        return Reply(200, _receipt(event, outcome.link))
    check_quota(request, outcomes)
    if outcome.status is Status.CONFLICT:
        return _refused(409, _CONFLICT, problem_of(outcome).message)
    return _refused(400, _CODES[400], _error_text(outcome))


def _receipt(event: Json, link: Link) -> Json:
    """Return the answer to ingestion for a stored event. For a resent event it is the same as for the original."""
    return (
        {"id": shown_id(link.id)}
        | {name: event.get(name) or None for name in _ECHOED}
        | {"status": STATUS[Fate.PENDING]}
    )


def _error_text(outcome: Outcome) -> str:
    """Return why an event is not stored, in the vendor's words."""
    if outcome.status is Status.CONFLICT:
        return _CONFLICT
    problem = problem_of(outcome)
    if quota_problem(outcome):
        return QUOTA_CODE
    return f"invalid {problem.field}" if problem.field in _FIELDS else problem.message


def _reply_retry(request: HttpRequest, retried: Retried) -> Reply:
    """Say that the event is tried again. What a destination answered is not shown: only the operator may see that."""
    if not retried.destinations:
        return _refused(409, "conflict", f"Only an event with the status {STATUS[Fate.FAILED]} can be retried.")
    places = "1 destination" if retried.destinations == 1 else f"{retried.destinations} destinations"
    answer = {
        "event_id": shown_id(retried.event_id),
        "message": "Event queued for retry",
        "previous_error": f"The event was not delivered to {places}.",
        "previous_status": STATUS[Fate.FAILED],
        "status": STATUS[Fate.PENDING],
    }
    return Reply(200, answer)
