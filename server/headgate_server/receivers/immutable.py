"""Immutable's audit log: batches of up to 100 events, one result per event, in order; docs/compat/immutable.md."""

from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from operator import attrgetter

from headgate_server.core import canonical, jsonbody, timestamps, validate
from headgate_server.core.errors import HeadgateError
from headgate_server.core.ledger import Break
from headgate_server.core.model import STORED, Draft, Mismatch, Outcome, Problem, Status, StoredEvent
from headgate_server.core.reasons import Reason
from headgate_server.core.types import EventHash
from headgate_server.receivers import (
    Check,
    Checked,
    Endpoint,
    Find,
    Get,
    HttpRequest,
    Intake,
    Page,
    Receiver,
    Reply,
    Search,
    Take,
    Verify,
    answers,
    common,
    schema,
)
from headgate_server.receivers.common import Json

NAME = "immutable"

MOST_EVENTS = 100
MOST_METADATA = 64 * 1024
"""Bytes of `metadata` as canonical JSON: white space does not count."""

_INVALID = "validation_failed"
_ERRORS = {
    400: "bad_request",
    401: "unauthenticated",
    403: "forbidden",
    404: "not_found",
    413: "payload_too_large",
    422: _INVALID,
    429: "rate_limited",
    503: "unavailable",
}
"""The `error` of a refusal by its status. The vendor documents those of 401 and 422."""

_SENTENCES = {
    "required": "The {field} field is required.",
    "minLength": "The {field} field is required.",
    "type": "The {field} field must be {rule}.",
    "maxProperties": "The {field} field must not have more than {rule} items.",
}
"""The vendor's sentences for broken rules of schemas/immutable/event.json."""
_TYPES = {"string": "a string", "object": "an object", "array": "an array", "integer": "an integer"}

_OWN = ("action_category", "metadata", "tenant_id", "session_id", "ip_country", "ip_city", "idempotency_key", "version")
_FILTERS = ("resource_id", "tenant_id", "session_id")
_TARGET_FILTERS = {"target_type": "type", "target_id": "id"}
_SEARCHED = ("actor_name", "action", "resource_name", "metadata")


class Immutable(Receiver):
    """Immutable's audit log API."""

    name = NAME

    def routes(self) -> Mapping[tuple[str, str], Endpoint]:
        """Return the endpoints by method and path."""
        return {
            ("POST", "/api/v1/events/batch"): Take(read=_read_batch, reply=_reply_batch, list_name=common.EVENTS),
            ("POST", "/api/v1/events"): Take(read=_read_single, reply=_reply_single),
            ("GET", "/api/v1/events"): Find(read=_read_search, reply=_reply_page),
            ("GET", "/api/v1/events/{id}"): Get(read=common.id_in_path, reply=_reply_event, with_previous=True),
            ("GET", "/api/v1/verify"): Verify(read=_read_check, reply=_reply_checked),
        }

    def refusal(self, status: int, error: HeadgateError) -> Reply:
        """Return an error in the vendor's own body."""
        if answers.is_unprocessable(error):
            status = 422
        code = answers.code_of(error, _ERRORS, status, "server_error")
        return Reply(status, {"error": code, "message": answers.message_of(error)})


def _read_batch(request: HttpRequest) -> Intake:
    return Intake([common.decode_event(event, _draft) for event in common.read_list(request, MOST_EVENTS)])


def _read_single(request: HttpRequest) -> Intake:
    return Intake([common.decode_event(jsonbody.read_one(request.body), _draft)])


def _draft(event: Json) -> Draft | Problem:
    actor_id = common.text(event, "actor_id", required=True)
    action = common.text(event, "action", required=True)
    resource = common.text(event, "resource")
    key = common.text(event, "idempotency_key")
    occurred_at, warnings = common.iso_moment(event, "occurred_at", required=False)
    draft = validate.seal(
        receiver=NAME,
        type_=action,
        source=resource or "",
        subject=actor_id,
        occurred_at=occurred_at,
        data=event,
        identity=None if key is None else ("", key),
        on_mismatch=Mismatch.DUPLICATE,
        warnings=warnings,
    )
    if isinstance(draft, Problem):
        return draft
    # The schema comes after `seal`: the validator needs Unicode and bounded nesting, which the canonical form ensures.
    broken = schema.violations(schema.validators(NAME)["event"], event)
    if broken:
        return _problem(broken[0])
    if common.is_larger(draft, event, "metadata", MOST_METADATA):
        return Problem(Reason.TOO_LONG, "metadata", "The metadata field must not be larger than 64 KB.")
    return draft


def _problem(broken: schema.Violation) -> Problem:
    field = ".".join(map(str, broken.path))
    rule = broken.rule
    if broken.keyword == "type":
        [rule] = (_TYPES[kind] for kind in broken.rule if kind != "null")
    return Problem(Reason.INVALID_FIELD, field, _SENTENCES[broken.keyword].format(field=field, rule=rule))


def _reply_batch(request: HttpRequest, intake: Intake, outcomes: Sequence[Outcome]) -> Reply:
    answers.check_quota(request, outcomes)
    return Reply(202, {"events": [_result(outcome) for outcome in outcomes]})


def _reply_single(request: HttpRequest, intake: Intake, outcomes: Sequence[Outcome]) -> Reply:
    answers.check_quota(request, outcomes)
    result = _result(outcomes[0])
    if result["id"] is None:
        return Reply(422, {name: result[name] for name in ("error", "message")})
    return Reply(202, result)


def _result(outcome: Outcome) -> Json:
    if outcome.link is not None and outcome.status in STORED:
        status = "duplicate" if outcome.status is Status.DUPLICATE else "queued"
        return {"id": answers.shown_id(outcome.link.id), "status": status}
    error = _INVALID if answers.quota_problem(outcome) is None else answers.QUOTA_CODE
    return {"id": None, "status": "invalid", "error": error, "message": answers.problem_of(outcome).message}


def _read_search(request: HttpRequest) -> Search:
    query = request.query
    action = common.filter_text(query, "action")
    prefix = action[:-1] if action and action.endswith("*") else None
    return Search(
        limit=common.page_limit(query, 25, 100),
        cursor=query.get("cursor"),
        type=action if prefix is None else None,
        type_prefix=prefix,
        source=common.filter_text(query, "resource"),
        subject=common.filter_text(query, "actor_id"),
        created_from=common.instant(query, "from"),
        created_to=common.instant_after(query, "to"),
        with_previous=True,
        match=_matcher(query),
    )


def _matcher(query: Mapping[str, str]) -> Callable[[StoredEvent], bool] | None:
    """Return the filter for conditions on the event's content; None if the columns cover all conditions."""
    own = {name: query[name] for name in _FILTERS if query.get(name)}
    of_targets = {member: query[name] for name, member in _TARGET_FILTERS.items() if query.get(name)}
    words = canonical.encode(query.get("search", "")).decode()[1:-1].casefold()
    if not (own or of_targets or words):
        return None

    def matches(event: StoredEvent) -> bool:
        sent = jsonbody.read_exact(event.data or b"{}")
        return (
            _has(sent, own)
            and (not of_targets or any(_has(target, of_targets) for target in sent.get("targets") or ()))
            and any(words in canonical.encode(sent.get(name) or "").decode().casefold() for name in _SEARCHED)
        )

    return matches


def _has(sent: Json, values: Mapping[str, str]) -> bool:
    return all(sent.get(name) == value for name, value in values.items())


def _reply_page(request: HttpRequest, page: Page) -> Reply:
    pagination = {"has_more": page.cursor is not None, "next_cursor": page.cursor}
    shown = [_shown(event, previous) for event, previous in zip(page.events, page.previous, strict=True)]
    return Reply(200, {"data": shown, "pagination": pagination})


def _reply_event(request: HttpRequest, page: Page) -> Reply:
    return Reply(200, {"data": _shown(page.events[0], page.previous[0])})


def _shown(event: StoredEvent, previous: EventHash) -> Json:
    """Return a stored event as the vendor shows it, followed by all other sent members under their own names."""
    sent = answers.members(event)
    created_at = timestamps.format(event.created_at)
    known: Json = {
        "id": answers.shown_id(event.id),
        "actor": {name: sent.get(f"actor_{name}") for name in ("id", "name", "type")},
        "action": event.type,
        "resource": {"type": sent.get("resource"), "id": sent.get("resource_id"), "name": sent.get("resource_name")},
        "targets": sent.get("targets", []),
        **{name: sent.get(name) for name in _OWN},
        "integrity": {
            "event_hash": event.event_hash.hex(),
            # The vendor's chain begins with null. Ours begins with a hash of the workspace's name, which GetHead shows.
            "previous_event_hash": None if event.sequence == 1 else previous.hex(),
        },
        "occurred_at": created_at if event.occurred_at is None else timestamps.format(event.occurred_at),
        "created_at": created_at,
    }
    return known | {name: value for name, value in sent.items() if name not in known}


def _read_check(request: HttpRequest) -> Check:
    query = request.query
    limit = common.page_limit(query, 10_000, 100_000)
    return Check(limit, common.instant(query, "from"), common.instant_after(query, "to"))


def _reply_checked(request: HttpRequest, checked: Checked) -> Reply:
    breaks = [_break(list(found)) for _, found in groupby(checked.breaks, attrgetter("event_id", "sequence"))]
    return Reply(200, {"data": {"valid": not breaks, "events_checked": checked.events_checked, "breaks": breaks}})


def _break(found: Sequence[Break]) -> Json:
    """Return the breaks of one event as one break of the vendor. A chain break takes precedence, as it says more."""
    hashes = next((each for each in found if each.names_hashes), None)
    return {
        "event_id": None if found[0].event_id is None else answers.shown_id(found[0].event_id),
        "type": "chain_break" if any(each.type.is_of_the_chain for each in found) else "hash_mismatch",
        "expected_hash": None if hashes is None else hashes.expected,
        "actual_hash": None if hashes is None else hashes.actual,
    }
