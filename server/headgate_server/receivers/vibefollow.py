"""VibeFollow's event API: batches of up to 500 events, stored completely or not at all; docs/compat/vibefollow.md."""

from collections.abc import Mapping, Sequence

from headgate_server.core import jsonbody, validate
from headgate_server.core.errors import BodyTooLarge, HeadgateError, RequestKeyReused
from headgate_server.core.model import STORED, Draft, Outcome, Problem, Status
from headgate_server.core.reasons import Reason
from headgate_server.receivers import Endpoint, HttpRequest, Intake, Receiver, Reply, Take
from headgate_server.receivers.answers import check_quota, code_of, is_unprocessable, message_of, quota_problem
from headgate_server.receivers.common import EVENTS, Invalid, Json, an_object, decode_event, is_larger, read_list, text

NAME = "vibefollow"

MOST_EVENTS = 500
MOST_BODY = 5 * 1024 * 1024
"""Bytes of a body after decompression."""
MOST_PROPERTIES = 100
MOST_PROPERTIES_BYTES = 1024 * 1024
"""Bytes of `properties` as canonical JSON: white space does not count."""

_INVALID = "validation_failed"
_CODES = {
    400: "bad_request",
    401: "auth_required",
    403: "forbidden",
    404: "not_found",
    413: "payload_too_large",
    422: _INVALID,
    429: "rate_limited",
    503: "unavailable",
}
"""The `code` of an error by its status. The vendor documents those of 401 and 422."""
_FIELDS = frozenset({"events", "external_user_id", "name", "properties"})
"""The fields that a `field` may name. The vendor's clients do not know other fields of problems, such as our `data`."""


class VibeFollow(Receiver):
    """VibeFollow's event API."""

    name = NAME

    def routes(self) -> Mapping[tuple[str, str], Endpoint]:
        """Return the endpoints by method and path."""
        return {
            ("POST", "/api/v1/events/batch"): Take(
                read=_read_batch, reply=_reply_batch, list_name=EVENTS, request_key=True
            ),
            ("POST", "/api/v1/events"): Take(read=_read_single, reply=_reply_single, request_key=True),
        }

    def refusal(self, status: int, error: HeadgateError) -> Reply:
        """Return an error in the vendor's own body."""
        if isinstance(error, RequestKeyReused):
            return _refused(422, _error("idempotency_key_reuse", message_of(error)))
        if is_unprocessable(error):
            return _refused(422, _error(_INVALID, _message(error.reason, message_of(error)), error.field))
        return _refused(status, _error(code_of(error, _CODES, status, "server_error"), message_of(error)))


def _refused(status: int, *errors: Json) -> Reply:
    return Reply(status, {"errors": list(errors)})


def _error(code: str, message: str, field: str = "") -> Json:
    return {"code": code, "message": message} | ({"field": field} if field else {})


def _message(reason: Reason, message: str) -> str:
    return "required" if reason == Reason.MISSING_FIELD else message


def _read_batch(request: HttpRequest) -> Intake:
    _check_size(request)
    slots = [decode_event(event, _draft) for event in read_list(request, MOST_EVENTS)]
    return Intake(slots, atomic=True)


def _read_single(request: HttpRequest) -> Intake:
    _check_size(request)
    return Intake([decode_event(jsonbody.read_one(request.body), _draft)], atomic=True)


def _check_size(request: HttpRequest) -> None:
    if len(request.body) > MOST_BODY:
        raise BodyTooLarge(f"The body has {len(request.body)} bytes, more than the limit of {MOST_BODY} (5 MB).")


def _draft(event: Json) -> Draft | Problem:
    user_id = text(event, "external_user_id", required=True)
    name = text(event, "name", required=True)
    properties = an_object(event, "properties")
    if properties is not None and len(properties) > MOST_PROPERTIES:
        raise Invalid(
            Reason.TOO_MANY_PROPERTIES, "properties", f"The properties field has over {MOST_PROPERTIES} keys."
        )
    draft = validate.seal(
        receiver=NAME,
        type_=name,
        source="",
        subject=user_id,
        occurred_at=None,
        data=event,
        identity=None,
    )
    if isinstance(draft, Draft) and is_larger(draft, event, "properties", MOST_PROPERTIES_BYTES):
        raise Invalid(Reason.TOO_LONG, "properties", "The properties field is larger than 1 MB.")
    return draft


def _reply_batch(request: HttpRequest, intake: Intake, outcomes: Sequence[Outcome]) -> Reply:
    return _reply(request, outcomes, [f"events[{index}]" for index in range(len(outcomes))])


def _reply_single(request: HttpRequest, intake: Intake, outcomes: Sequence[Outcome]) -> Reply:
    return _reply(request, outcomes, [""])


def _reply(request: HttpRequest, outcomes: Sequence[Outcome], places: Sequence[str]) -> Reply:
    """Accept the request as a whole, or name the fault of every invalid event, in order."""
    if all(outcome.status in STORED for outcome in outcomes):
        return Reply(202, {"data": {"accepted": True}})
    invalid = [
        _offender(place, outcome.problem)
        for place, outcome in zip(places, outcomes, strict=True)
        if outcome.problem is not None and outcome.status is Status.REJECTED and quota_problem(outcome) is None
    ]
    if not invalid:
        check_quota(request, outcomes)
    return _refused(422, *invalid)


def _offender(place: str, problem: Problem) -> Json:
    field = problem.field if problem.field in _FIELDS else ""
    path = ".".join(part for part in (place, field) if part)
    return _error(_INVALID, _message(problem.reason, problem.message), path)
