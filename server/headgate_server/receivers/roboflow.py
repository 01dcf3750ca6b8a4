"""Roboflow's vision events: batches of up to 100 events, most faults are only warnings; docs/compat/roboflow.md."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from headgate_server.core import jsonbody, validate
from headgate_server.core.errors import HeadgateError, InvalidRequest
from headgate_server.core.model import STORED, Draft, Mismatch, Outcome, Problem, Scope, StoredEvent
from headgate_server.core.reasons import Reason
from headgate_server.receivers import Endpoint, Find, HttpRequest, Intake, Page, Receiver, Reply, Search, Take, schema
from headgate_server.receivers.answers import check_quota, members, message_of, problem_of
from headgate_server.receivers.common import (
    EVENTS,
    Invalid,
    Json,
    a_list,
    an_object,
    decode_event,
    instant,
    iso_moment,
    page_limit,
    read_list,
    read_object,
    text,
)

NAME = "roboflow"

MOST_EVENTS = 100
MOST_TYPES = 20
"""The most event types of one query."""

_OWN_SCOPES = ("vision-events:write", "device:update")
_WRITERS = (Scope.EVENTS_WRITE, *_OWN_SCOPES)
"""Our scope and the vendor's; any one of them is enough."""

_FORBIDDEN = "Insufficient permissions for this resource."

_DEPRECATED = {
    "solution": "useCaseId",
    "event_schema": "eventType",
    "event_data": "eventData",
    "custom_metadata": "customMetadata",
}
"""The present names by the deprecated names."""
_FILTERS = frozenset({"useCaseId", "startTime", "endTime", "eventType", "eventTypes", "limit", "cursor"})

_DAY = 86_400_000_000
_ENVELOPE = "event"
"""The schema of the fields that all types have. The other schemas are those of `eventData`, by type."""

_TYPES = {"array": "an array", "number": "a number", "object": "an object", "string": "a string"}
_AS_A_WHOLE = {
    "images": "images should hold objects only.",
    "customMetadata": "customMetadata should have keys of 1 to 100 letters, digits, spaces, _ or -, "
    "and values that are strings of at most 1000 characters, numbers or booleans.",
}
"""Sentences for members that have one sentence for all violations within them."""


class Roboflow(Receiver):
    """Roboflow's Vision Events API."""

    name = NAME
    scopes = _OWN_SCOPES

    def routes(self) -> Mapping[tuple[str, str], Endpoint]:
        """Return the endpoints by method and path."""
        return {
            ("POST", "/vision-events/batch"): Take(
                read=_read_batch, reply=_reply_batch, list_name=EVENTS, scopes=_WRITERS
            ),
            ("POST", "/vision-events"): Take(read=_read_single, reply=_reply_single, scopes=_WRITERS),
            ("POST", "/vision-events/query"): Find(read=_read_query, reply=_reply_query),
        }

    def refusal(self, status: int, error: HeadgateError) -> Reply:
        """Return an error as `{"error": text}`."""
        return Reply(status, {"error": _FORBIDDEN if status == 403 else message_of(error)})


def _read_batch(request: HttpRequest) -> Intake:
    return _intake(read_list(request, MOST_EVENTS), request.now)


def _read_single(request: HttpRequest) -> Intake:
    return _intake([jsonbody.read_one(request.body)], request.now)


def _intake(items: Sequence[Any], now: int) -> Intake:
    return Intake([decode_event(item, lambda event: _draft(event, now)) for item in items], items=items)


def _draft(sent: Json, now: int) -> Draft | Problem:
    """Return one event's draft. The event is refused only if it cannot be stored; every other fault is a warning."""
    event = _renamed(sent)
    event_id = text(event, "eventId", required=True)
    event_type = text(event, "eventType", required=True)
    use_case = text(event, "useCaseId", required=True, most=256)
    timestamp, warnings = iso_moment(event, "timestamp")
    an_object(event, "eventData", required=True)
    draft = validate.seal(
        receiver=NAME,
        type_=event_type,
        source=use_case,
        subject=_subject(event),
        occurred_at=timestamp,
        data=sent,
        identity=("", event_id),
        on_mismatch=Mismatch.REPLACE,
    )
    if isinstance(draft, Problem):
        return draft
    if timestamp is not None and timestamp > now + _DAY:
        warnings += ("timestamp is later than tomorrow.",)
    # The schemas come after `seal`: they cannot check a text with a lone surrogate, and `seal` refuses such a text.
    return draft._replace(warnings=warnings + _warnings(event))


def _renamed(sent: Json) -> Json:
    """Return the event with the present names and without null members: a null counts as absent."""
    members_sent = {name: value for name, value in sent.items() if value is not None}
    event = {new: members_sent.pop(old) for old, new in _DEPRECATED.items() if old in members_sent}
    return event | members_sent


def _subject(event: Json) -> str:
    """Return the device if a store can store its text, or else "". The event's data keeps the value that was sent."""
    device = event.get("deviceId")
    return device if device is not None and validate.text_problem("deviceId", device, 256) is None else ""


def _warnings(event: Json) -> tuple[str, ...]:
    validators, kind = schema.validators(NAME), event["eventType"]
    sentences = [_sentence(violation) for violation in schema.violations(validators[_ENVELOPE], event)]
    if kind != _ENVELOPE and kind in validators:
        data = {name: value for name, value in event["eventData"].items() if value is not None}
        sentences += [_sentence(violation, "eventData.") for violation in schema.violations(validators[kind], data)]
    return tuple(sentences)


def _sentence(violation: schema.Violation, above: str = "") -> str:
    name = str(violation.path[-1])
    match violation.keyword:
        case "enum":
            return f"{above}{name} should be one of {', '.join(violation.rule)}."
        case "type":
            return f"{above}{name} should be {_TYPES[violation.rule[0]]}."
        case "maxLength":
            return f"{above}{name} is longer than {violation.rule} characters."
        case "maxProperties":
            return f"{above}{name} has more than {violation.rule} keys."
        case _:
            return _AS_A_WHOLE[name]


def _reply_batch(request: HttpRequest, intake: Intake, outcomes: Sequence[Outcome]) -> Reply:
    event_ids: list[str] = []
    warnings: dict[str, list[str]] = {}
    for index, (slot, outcome) in enumerate(zip(intake.slots, outcomes, strict=True)):
        if isinstance(slot, Draft) and outcome.status in STORED:
            event_ids.append(str(slot.key))
            sentences = list(outcome.warnings)
        else:
            sentences = [problem_of(outcome).message]
        if sentences:
            warnings[str(index)] = sentences
    if not event_ids:
        return _nothing_stored(request, outcomes)
    body: Json = {"created": len(event_ids), "eventIds": event_ids}
    if warnings:
        body["warnings"] = warnings
    return Reply(201, body | _deprecations(intake))


def _reply_single(request: HttpRequest, intake: Intake, outcomes: Sequence[Outcome]) -> Reply:
    slot, outcome = intake.slots[0], outcomes[0]
    if not isinstance(slot, Draft) or outcome.status not in STORED:
        return _nothing_stored(request, outcomes)
    body: Json = {"eventId": slot.key, "created": True}
    if outcome.warnings:
        body["warnings"] = list(outcome.warnings)
    return Reply(201, body | _deprecations(intake))


def _deprecations(intake: Intake) -> Json:
    """Return the member `deprecations` with a sentence for each deprecated name that the events use."""
    used = {name for item in intake.items if type(item) is dict for name in _DEPRECATED.keys() & item.keys()}
    sentences = [f"{name} is deprecated; use {new}." for name, new in _DEPRECATED.items() if name in used]
    return {"deprecations": sentences} if sentences else {}


def _nothing_stored(request: HttpRequest, outcomes: Sequence[Outcome]) -> Reply:
    """Return the first event's problem. Raises `QuotaExceeded` if the quota refused an event: it can be sent again."""
    check_quota(request, outcomes)
    return Reply(400, {"error": problem_of(outcomes[0]).message})


def _read_query(request: HttpRequest) -> Search:
    query = read_object(request)
    if unknown := query.keys() - _FILTERS:
        # If a filter were ignored, the answer would have events that were not requested.
        raise InvalidRequest(f"The filter {min(unknown)!r} is not supported.", reason=Reason.UNKNOWN_FILTER)
    try:
        use_case = text(query, "useCaseId", required=True, most=256)
        types = _types(query)
        cursor = text(query, "cursor")
    except Invalid as error:
        raise InvalidRequest(str(error), reason=error.problem.reason, field=error.problem.field) from None
    return Search(
        limit=page_limit(query, 50, 1_000),
        cursor=cursor,
        type=types[0] if len(types) == 1 else None,
        source=use_case,
        current_only=True,
        match=_match(types, instant(query, "startTime"), instant(query, "endTime")),
    )


def _types(query: Json) -> Sequence[str]:
    single = text(query, "eventType")
    types = [*(a_list(query, "eventTypes") or ()), *([] if single is None else [single])]
    if len(types) > MOST_TYPES:
        message = f"eventTypes may name at most {MOST_TYPES} types."
        raise InvalidRequest(message, reason=Reason.TOO_MANY, field="eventTypes")
    for kind in types:
        text({"eventTypes": kind}, "eventTypes", required=True)
    return types


def _match(types: Sequence[str], start: int | None, end: int | None) -> Callable[[StoredEvent], bool] | None:
    """Return the filter for conditions without a column: several types, and the vendor's time range with both ends.
    None if there is no such condition.
    """
    if len(types) < 2 and start is None and end is None:
        return None

    def match(event: StoredEvent) -> bool:
        at = event.occurred_at
        in_time = at is not None and (start is None or start <= at) and (end is None or at <= end)
        return in_time and (not types or event.type in types)

    return match


def _reply_query(request: HttpRequest, page: Page) -> Reply:
    events = [members(event) for event in page.events]
    return Reply(200, {"events": events, "nextCursor": page.cursor, "hasMore": page.cursor is not None})
