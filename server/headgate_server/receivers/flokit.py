"""FloKit's events API: batches of up to 1,000 events, with rejected ones in `errors`; docs/compat/flokit.md."""

from collections.abc import Mapping, Sequence
from typing import Any

from headgate_server.core import jsonbody, validate
from headgate_server.core.errors import HeadgateError
from headgate_server.core.model import STORED, Draft, Link, Outcome, Problem, RateLimit
from headgate_server.core.reasons import Reason
from headgate_server.receivers import Endpoint, HttpRequest, Intake, Receiver, Reply, Take, schema
from headgate_server.receivers.answers import check_quota, code_of, message_of, problem_of
from headgate_server.receivers.common import EVENTS, Invalid, Json, an_object, decode_event, iso_moment, read_list, text

NAME = "flokit"

MOST_EVENTS = 1_000

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
"""Crockford's base 32, as in the vendor's ids. Its order is that of ASCII, so ids sort as text."""

_CODES = {
    400: "validation_error",
    401: "unauthorized",
    403: "forbidden",
    404: "not_found",
    413: "payload_too_large",
    422: "idempotency_key_reuse",
    429: "rate_limit_exceeded",
    503: "service_unavailable",
}
"""The `error` of an answer, by its status. The vendor documents those of 401 and 403."""
_MESSAGES = {401: "Invalid or missing API key", 403: "This operation requires a read-write key"}


class FloKit(Receiver):
    """FloKit's events API."""

    name = NAME
    rate = RateLimit(requests=100, period=60_000_000, burst=100)

    def routes(self) -> Mapping[tuple[str, str], Endpoint]:
        """Return the endpoints by method and path."""
        return {
            ("POST", "/v1/batch/events"): Take(
                read=_read_batch, reply=_reply_batch, list_name=EVENTS, request_key=True
            ),
            ("POST", "/v1/events"): Take(read=_read_single, reply=_reply_single, request_key=True),
        }

    def refusal(self, status: int, error: HeadgateError) -> Reply:
        """Return an error as `{"error": code, "message": text}`."""
        message = _MESSAGES.get(status) or _reason(error.reason, error.field, message_of(error))
        return _error(status, code_of(error, _CODES, status, "internal_error"), message)


def event_id(link: Link) -> str:
    """Return an event's id in the vendor's form: `evt_` and the UUIDv7 in 26 digits. The ids sort like the UUIDs."""
    number = int.from_bytes(link.id)
    return "evt_" + "".join(_ALPHABET[number >> shift & 31] for shift in range(125, -1, -5))


def _read_batch(request: HttpRequest) -> Intake:
    return _intake(read_list(request, MOST_EVENTS))


def _read_single(request: HttpRequest) -> Intake:
    return _intake([jsonbody.read_one(request.body)])


def _intake(items: Sequence[Any]) -> Intake:
    return Intake([decode_event(item, _draft) for item in items], items=items)


def _name(item: Any) -> str | None:
    """Return an event's name, None if it has no name that can be shown in an answer."""
    name = item.get("event") if type(item) is dict else None
    return name if name is not None and validate.text_problem("event", name) is None else None


def _draft(event: Json) -> Draft | Problem:
    name = text(event, "event", required=True)
    user = text(event, "user_id") or text(event, "anonymous_id")
    if user is None:
        field = "user_id or anonymous_id"
        raise Invalid(Reason.MISSING_FIELD, field, f"One of {field} is required.")
    timestamp, _ = iso_moment(event, "timestamp")
    properties = an_object(event, "properties") or {}
    draft = validate.seal(
        receiver=NAME,
        type_=name,
        source="",
        subject=user,
        occurred_at=timestamp,
        data=event,
        identity=None,
    )
    # The schemas come after `seal`: they cannot check a text with a lone surrogate, and `seal` refuses such a text.
    return draft if isinstance(draft, Problem) else _property_problem(name, properties) or draft


def _property_problem(name: str, properties: Json) -> Problem | None:
    """Return the first fault in the properties of an event whose name is in the vendor's taxonomy."""
    validator = schema.validators(NAME).get(name)
    # A null counts as absent, also in the answer.
    present = {member: value for member, value in properties.items() if value is not None}
    found = [] if validator is None else schema.violations(validator, present)
    if not found:
        return None
    field = str(found[0].path[-1])
    if found[0].keyword == "type":
        return Problem(Reason.WRONG_TYPE, field, f"The {field} field must be a string.")
    return Problem(Reason.MISSING_FIELD, field, f"The {field} field is required.")


def _reason(reason: Reason, field: str, message: str) -> str:
    """Return the vendor's sentence for a missing field, our message for every other reason."""
    return f"Missing required field: {field}" if reason == Reason.MISSING_FIELD else message


def _reply_batch(request: HttpRequest, intake: Intake, outcomes: Sequence[Outcome]) -> Reply:
    event_ids: list[str] = []
    errors: list[Json] = []
    for index, outcome in enumerate(outcomes):
        if outcome.link is not None and outcome.status in STORED:
            event_ids.append(event_id(outcome.link))
        else:
            problem, name = problem_of(outcome), _name(intake.items[index])
            reason = _reason(problem.reason, problem.field, problem.message)
            errors.append({"index": index, "event": name, "reason": reason})
    counts = {"status": "ok", "accepted": len(event_ids), "rejected": len(errors)}
    return Reply(200, counts | {"event_ids": event_ids, "errors": errors})


def _reply_single(request: HttpRequest, intake: Intake, outcomes: Sequence[Outcome]) -> Reply:
    outcome = outcomes[0]
    if outcome.link is not None and outcome.status in STORED:
        return Reply(200, {"status": "ok", "event_id": event_id(outcome.link)})
    check_quota(request, outcomes)
    problem = problem_of(outcome)
    return _error(400, _CODES[400], _reason(problem.reason, problem.field, problem.message))


def _error(status: int, code: str, message: str) -> Reply:
    return Reply(status, {"error": code, "message": message})
