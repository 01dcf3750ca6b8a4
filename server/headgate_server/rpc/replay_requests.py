"""Requests to replay rejections, in either encoding. JSON bodies are read here, so that an edited event stays exact."""

from collections.abc import Callable, Mapping
from typing import Any

from headgate.v1.bridge_view_pb2 import RawReplayRejectionRequest, RawReplayRejectionsRequest
from headgate.v1.rejection_service_pb2 import ReplayRejectionsRequest
from headgate_server.core import jsonbody, timestamps, validate
from headgate_server.core.errors import InvalidRequest
from headgate_server.core.model import Draft, Problem
from headgate_server.core.reasons import Reason
from headgate_server.core.types import Salt
from headgate_server.receivers import cloudevents
from headgate_server.rpc import decode

_ALIASES: Mapping[str, str] = {
    "keyId": "key_id",
    "pageSize": "page_size",
    "pageToken": "page_token",
    "validateOnly": "validate_only",
}
_LARGEST_INT32 = 2**31 - 1


def one(request: RawReplayRejectionRequest) -> tuple[Draft | Problem | None, bool]:
    """Return the edited event and `validate_only`. Instead of the edited event it is None if the event is to be sent
    unchanged. Raises `InvalidRequest`.
    """
    (salt,) = validate.salts(1)
    if not request.HasField("json"):
        slot = decode.proto_event(request.event, salt) if request.HasField("event") else None
        return slot, request.validate_only
    if request.HasField("event"):
        raise decode.two_encodings()
    value = jsonbody.read_one(request.json.data) if request.json.data else {}
    if isinstance(value, Problem):
        return value, request.validate_only  # of the event: no other member is nested or has numbers
    members = _members(value, {"event": None, "validate_only": _boolean})
    event = members.get("event")
    slot = None if event is None else _edited(event, salt)
    return slot, request.validate_only or members.get("validate_only", False)


def _edited(event: Any, salt: Salt) -> Draft | Problem:
    """Check and seal an edited event: a CloudEvent if it has a `specversion`, which no event of our own API has."""
    if type(event) is dict and "specversion" in event:
        return cloudevents.from_json(event, salt)
    return validate.native_json(event, salt)


def many(raw: RawReplayRejectionsRequest) -> ReplayRejectionsRequest:
    """Return the request. Raises `InvalidRequest`."""
    if not raw.HasField("json"):
        # Both messages have the same bytes on the wire.
        return ReplayRejectionsRequest.FromString(raw.SerializeToString())
    request = ReplayRejectionsRequest(validate_only=raw.validate_only)
    value = jsonbody.read_one(raw.json.data) if raw.json.data else {}
    if isinstance(value, Problem):
        raise InvalidRequest(value.message, reason=value.reason, field=value.field)
    for name, member in _members(value, _FIELDS).items():
        if name in ("from", "to"):
            getattr(request, name).FromMicroseconds(member)
        else:
            setattr(request, name, member or getattr(request, name))
    return request


def _members(value: Any, readers: Mapping[str, Callable[[str, Any], Any] | None]) -> dict[str, Any]:
    """Return the members of a body as their readers return them. Members that are null are left out. Raises
    `InvalidRequest`.
    """
    if type(value) is not dict:
        raise InvalidRequest("The body must be a JSON object.", reason=Reason.NOT_AN_OBJECT)
    members: dict[str, Any] = {}
    names: dict[str, Any] = value
    for name, member in names.items():
        field = _ALIASES.get(name, name)
        if field not in readers:
            unknown = name[:80]
            raise InvalidRequest(f"The field {unknown!r} is not known.", reason=Reason.UNKNOWN_FIELD, field=unknown)
        if field in members:
            raise InvalidRequest(f"The body has the field {field} twice.", reason=Reason.DUPLICATE_FIELD, field=field)
        read = readers[field]
        if member is not None:
            members[field] = member if read is None else read(field, member)
    return members


def _text(field: str, value: Any) -> str:
    problem = validate.text_problem(field, value)
    if problem is not None:
        raise InvalidRequest(problem.message, reason=problem.reason, field=field)
    return str(value)


def _boolean(field: str, value: Any) -> bool:
    if type(value) is not bool:
        raise InvalidRequest(f"The {field} field must be true or false.", reason=Reason.WRONG_TYPE, field=field)
    return value


def _number(field: str, value: Any) -> int:
    if type(value) is not int or not -_LARGEST_INT32 <= value <= _LARGEST_INT32:
        raise InvalidRequest(f"The {field} field must be a whole number.", reason=Reason.WRONG_TYPE, field=field)
    return value


def _microseconds(field: str, value: Any) -> int:
    try:
        return timestamps.parse(_text(field, value))[0]
    except ValueError as error:
        raise InvalidRequest(f"{field}: {error}.", reason=Reason.INVALID_TIMESTAMP, field=field) from None


_FIELDS: Mapping[str, Callable[[str, Any], Any]] = {
    "reason": _text,
    "receiver": _text,
    "key_id": _text,
    "from": _microseconds,
    "to": _microseconds,
    "page_size": _number,
    "page_token": _text,
    "validate_only": _boolean,
}
