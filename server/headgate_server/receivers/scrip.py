"""Scrip's event API: batches of up to 100 events, one result per event in the order sent; docs/compat/scrip.md."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from headgate_server.core import jsonbody, timestamps, validate
from headgate_server.core.destinations import Fate
from headgate_server.core.errors import HeadgateError, InvalidRequest
from headgate_server.core.model import STORED, Draft, Link, Outcome, Problem, RateLimit, Status, StoredEvent
from headgate_server.core.reasons import Reason
from headgate_server.receivers import Endpoint, Find, Get, HttpRequest, Intake, Page, Receiver, Reply, Search, Take
from headgate_server.receivers.answers import (
    QUOTA_CODE,
    check_quota,
    code_of,
    members,
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
    filter_text,
    filter_uuid,
    id_in_path,
    instant,
    moment,
    page_limit,
    read_list,
    text,
)

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
_TIMES = ("created_at", "received_at", "processed_at", "updated_at")
_OPTIONAL = ("external_id", "participant_id", "recipient_id", "recipient_external_id")
_FIELDS = frozenset(_REQUIRED + _OPTIONAL)
_STATUS = {Fate.NONE: "COMPLETED", Fate.PENDING: "PENDING", Fate.DELIVERED: "COMPLETED", Fate.FAILED: "FAILED"}
"""An event's status says what became of its delivery. Where it is meant for no destination, it is completed at once."""
_CHOICES = {
    "status": (*_STATUS.values(), "PROCESSING", "RECEIVED"),
    "sort_by": ("created_at",),
    "sort_dir": ("desc", "asc"),
    "event_type": ("EXTERNAL",),
    "rule_id": (),
}
"""The values that a list's parameters may have. Ignoring another value would show events that were not requested."""


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
            ("GET", "/v1/events"): Find(read=_read_search, reply=_reply_page),
            ("GET", "/v1/events/{id}"): Get(read=id_in_path, reply=_reply_event, with_fates=True),
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
        | {"status": _STATUS[Fate.PENDING]}
    )


def _error_text(outcome: Outcome) -> str:
    """Return why an event is not stored, in the vendor's words."""
    if outcome.status is Status.CONFLICT:
        return _CONFLICT
    problem = problem_of(outcome)
    if quota_problem(outcome):
        return QUOTA_CODE
    return f"invalid {problem.field}" if problem.field in _FIELDS else problem.message


def _read_search(request: HttpRequest) -> Search:
    query = {name: value for name, value in request.query.items() if value}
    for name, choices in _CHOICES.items():
        if name in query and query[name] not in choices:
            raise InvalidRequest(f"invalid {name}", reason=Reason.INVALID_FILTER, field=name)
    fates = frozenset(fate for fate, status in _STATUS.items() if status == query.get("status"))
    return Search(
        limit=page_limit(query, 50, 200),
        cursor=query.get("cursor"),
        source=filter_uuid(query, "program_id"),
        subject=filter_text(query, "external_id"),
        created_from=instant(query, "from"),
        created_to=instant(query, "to"),
        with_fates=True,
        fates=fates if "status" in query else None,
        newest_first=query.get("sort_dir") != "asc",
        match=_matcher(query),
    )


def _matcher(query: Mapping[str, str]) -> Callable[[StoredEvent], bool] | None:
    """Return the filter for conditions on the event's content; None if the columns cover all conditions."""
    external_id, participant_id = filter_text(query, "external_id"), filter_uuid(query, "participant_id")
    event_from, event_to = instant(query, "event_from"), instant(query, "event_to")
    if not (external_id or participant_id) and event_from is None and event_to is None:
        return None

    def matches(event: StoredEvent) -> bool:
        occurred_at = event.occurred_at or 0
        if (event_from is not None and occurred_at < event_from) or (event_to is not None and occurred_at >= event_to):
            return False
        if external_id is None and participant_id is None:
            return True
        # The subject may be either of the two ids, so the event's own object decides.
        sent = jsonbody.read_exact(event.data or b"{}")
        return (external_id is None or sent.get("external_id") == external_id) and (
            participant_id is None or (sent.get("participant_id") or "").lower() == participant_id
        )

    return matches


def _reply_page(request: HttpRequest, page: Page) -> Reply:
    pagination = {"has_more": page.cursor is not None, "next_cursor": page.cursor}
    return Reply(200, {"data": list(map(_shown, page.events, page.fates)), "pagination": pagination})


def _reply_event(request: HttpRequest, page: Page) -> Reply:
    return Reply(200, _shown(page.events[0], page.fates[0]))


def _shown(event: StoredEvent, fate: Fate) -> Json:
    """Return a stored event as the vendor shows it: the object that was sent, and the fields that the service adds."""
    known = {"id": shown_id(event.id), "status": _STATUS[fate], "event_type": "EXTERNAL", "error_message": None}
    times = dict.fromkeys(_TIMES, timestamps.format(event.created_at))
    return dict.fromkeys(_OPTIONAL) | members(event) | known | times
