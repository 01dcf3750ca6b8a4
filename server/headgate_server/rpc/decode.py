"""Turns requests into drafts, each event on its own, from either encoding. `wire.py` is the other direction."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from google.protobuf.message import DecodeError
from google.protobuf.struct_pb2 import Struct, Value
from google.protobuf.timestamp_pb2 import Timestamp

from headgate.v1.bridge_view_pb2 import RawBatchIngestRequest, RawIngestRequest
from headgate.v1.event_pb2 import Event
from headgate_server.core import compiled, jsonbody, jsonlines, jsonscan, timestamps, validate
from headgate_server.core.errors import InvalidRequest
from headgate_server.core.model import Draft, Problem
from headgate_server.core.reasons import Reason
from headgate_server.core.types import Salt


class DecodedBatch(NamedTuple):
    """A batch: one slot for each event, and the options."""

    slots: Sequence[Draft | Problem]
    atomic: bool = False
    validate_only: bool = False
    lines: Sequence[int] = ()
    """The number of each event's line, in a body with one event a line."""


def batch(request: RawBatchIngestRequest, max_events: int) -> DecodedBatch:
    """Decode a batch in either encoding. Raises `InvalidRequest` if it is not a batch; nothing of it is stored then."""
    atomic, validate_only = request.atomic, request.validate_only
    if not request.HasField("json"):
        return DecodedBatch(events(request.events, max_events), atomic, validate_only)
    if request.events:
        raise two_encodings()
    if jsonlines.is_lines(request.json.content_type):
        return _lines(request.json.data, max_events)._replace(atomic=atomic, validate_only=validate_only)
    decoded = _json_batch(request.json.data, max_events)
    return decoded._replace(atomic=atomic or decoded.atomic, validate_only=validate_only or decoded.validate_only)


def events(serialized: Sequence[bytes], max_events: int) -> Sequence[Draft | Problem]:
    """Turn serialized Events into drafts, each on its own. Raises `InvalidRequest` if there are none, or too many."""
    check_count(len(serialized), max_events)
    return _events(serialized, validate.salts(len(serialized)))


def _events(serialized: Sequence[bytes], salts: Sequence[Salt]) -> Sequence[Draft | Problem]:
    decoded = compiled.decode_events(serialized, salts)
    if decoded is None:
        return list(map(proto_event, serialized, salts))
    for at in decoded.left:
        decoded.slots[at] = proto_event(serialized[at], salts[at])
    return decoded.slots


def _json_batch(body: bytes, max_events: int) -> DecodedBatch:
    """Decode a body with a list of events, or an object with one."""
    decoded = compiled.decode_body(body, max_events, validate.salts)
    if decoded is None:
        return json_batch(body, max_events)
    for text in decoded.left:
        value = jsonbody.read_one(body[text.start : text.end])
        decoded.slots[text.position] = validate.native_json(value, text.salt)
    return DecodedBatch(decoded.slots, decoded.atomic, decoded.validate_only)


def json_batch(body: bytes, max_events: int) -> DecodedBatch:
    """Decode a body with a list of events, or an object with one, in Python. Raises `InvalidRequest` if it is no
    batch.
    """
    read = jsonbody.read_batch(body, most=max_events, bare=True)
    check_count(len(read.items), max_events)
    options = {"atomic": False, "validate_only": False}
    for name, value in read.members.items():
        option = _OPTIONS.get(name)
        if option is None:
            raise InvalidRequest(f"The field {name[:80]!r} is not known.", reason=Reason.UNKNOWN_FIELD, field=name[:80])
        if value is not None and type(value) is not bool:
            raise InvalidRequest(f"The {option} field must be true or false.", reason=Reason.WRONG_TYPE, field=option)
        options[option] = options[option] or bool(value)
    slots = list(map(validate.native_json, read.items, validate.salts(len(read.items))))
    return DecodedBatch(slots, options["atomic"], options["validate_only"])


def _lines(body: bytes, max_events: int) -> DecodedBatch:
    """Decode a body with one event a line. Its options are in the query."""
    lines = jsonlines.lines_of(body, max_events)
    check_count(len(lines), max_events)
    salts = validate.salts(len(lines))
    numbers = [line.number for line in lines]
    decoded = compiled.decode_texts([body[line.start : line.end] for line in lines], salts)
    if decoded is None:
        slots = [
            validate.native_json(jsonlines.read_line(body, line), salt) for line, salt in zip(lines, salts, strict=True)
        ]
        return DecodedBatch(slots, lines=numbers)
    for at in decoded.left:
        decoded.slots[at] = validate.native_json(jsonlines.read_line(body, lines[at]), salts[at])
    return DecodedBatch(decoded.slots, lines=numbers)


def sent(request: RawBatchIngestRequest | RawIngestRequest, positions: Sequence[int]) -> Sequence[bytes]:
    """Return the events of a request at these positions, which increase, as they were sent."""
    if request.HasField("json"):
        body = request.json.data
        if isinstance(request, RawIngestRequest):
            return jsonscan.sent(body, positions, None)
        if jsonlines.is_lines(request.json.content_type):
            return jsonlines.sent(body, positions)
        return jsonscan.sent(body, positions, "" if jsonscan.is_list(body) else "events")
    if isinstance(request, RawIngestRequest):
        return [request.event]
    return [request.events[position] for position in positions]


def single(request: RawIngestRequest) -> Draft | Problem:
    """Decode a single event in either encoding. Raises `InvalidRequest` if the request has no event."""
    salts = validate.salts(1)
    if not request.HasField("json"):
        if not request.event:
            raise InvalidRequest("The event field is required.", reason=Reason.MISSING_FIELD, field="event")
        return _events([request.event], salts)[0]
    if request.event:
        raise two_encodings()
    decoded = compiled.decode_texts([request.json.data], salts)
    if decoded is not None and not decoded.left:
        slot: Draft = decoded.slots[0]
        return slot
    return validate.native_json(jsonbody.read_one(request.json.data), salts[0])


def proto_event(serialized: bytes, salt: Salt) -> Draft | Problem:
    """Turn one serialized Event into a draft, in Python. `salt` is that of `validate.seal`."""
    try:
        event = Event.FromString(serialized)
    except DecodeError:
        return Problem(
            Reason.MALFORMED_EVENT,
            "",
            "The event is not a valid message: it is malformed, a string is not UTF-8, or a Struct is nested deeper "
            "than protobuf reads (send it as data_json).",
        )
    warnings: tuple[str, ...] = ()
    occurred_at: int | None = None
    if event.HasField("occurred_at"):
        moment = event.occurred_at
        nanos = moment.nanos
        occurred_at = moment.seconds * 1_000_000 + nanos // 1000
        if not (timestamps.MIN <= occurred_at <= timestamps.MAX and 0 <= nanos < 1_000_000_000):
            return Problem(
                Reason.INVALID_TIMESTAMP, "occurred_at", "occurred_at is outside the years 1 to 9999, or its nanos are."
            )
        if nanos % 1000:
            warnings = (validate.FINER_THAN_MICROSECONDS,)
    text = event.data_json
    data: dict[str, Any] | bytes | Problem | None = jsonbody.canonical_object(text) if text else None
    field = None
    if data is None:
        field = event.WhichOneof("payload")
        if field == "data":
            data = members(event.data)
        elif field == "data_json":
            data = _data_json(text)
    if isinstance(data, Problem):
        return data
    draft = validate.native(
        event.type,
        event.source,
        event.subject,
        occurred_at,
        data,
        event.idempotency_key or ("" if event.HasField("idempotency_key") else None),
        salt,
        warnings,
    )
    if field == "data_json" and isinstance(draft, Problem) and draft.field == "data":
        return draft._replace(field=field)
    return draft


def microseconds(moment: Timestamp, field: str) -> int:
    """Return a request's Timestamp in microseconds. Raises `InvalidRequest` if it is outside the years 1 to 9999."""
    value = moment.seconds * 1_000_000 + moment.nanos // 1000
    if not (timestamps.MIN <= value <= timestamps.MAX and 0 <= moment.nanos < 1_000_000_000):
        raise InvalidRequest(f"{field} is outside the years 1 to 9999.", reason=Reason.INVALID_TIMESTAMP, field=field)
    return value


def _data_json(text: bytes) -> dict[str, Any] | Problem:
    """Read a payload that is not an ordinary object."""
    try:
        value = jsonbody.read_one(text)
    except InvalidRequest as error:
        return Problem(Reason.INVALID_JSON, "data_json", error.message.replace("The body", "data_json"))
    if isinstance(value, Problem):
        return value._replace(field="data_json")
    if type(value) is not dict:
        return Problem(
            Reason.WRONG_TYPE, "data_json", f"data_json must be a JSON object, not {validate.json_type(value)}."
        )
    return value


def members(struct: Struct) -> dict[str, Any]:
    """Return a Struct's members."""
    return {name: _value(value) for name, value in struct.fields.items()}


def _value(value: Value) -> Any:
    match value.WhichOneof("kind"):
        case "string_value":
            return value.string_value
        case "number_value":
            number = value.number_value
            # A Struct has no integers. The canonical form of an int is faster to make than that of a float.
            return int(number) if abs(number) < _EXACT and number.is_integer() else number
        case "bool_value":
            return value.bool_value
        case "struct_value":
            return members(value.struct_value)
        case "list_value":
            return [_value(item) for item in value.list_value.values]
        case _:
            # null_value; and a Value with nothing set, which ProtoJSON has no word for and every reader takes for
            # null.
            return None


def check_count(count: int, max_events: int) -> None:
    """Raise `InvalidRequest` if a batch has no events, or more than `max_events`."""
    if count == 0:
        raise InvalidRequest("A batch needs at least one event.", reason=Reason.EMPTY_BATCH, field="events")
    if count > max_events:
        raise InvalidRequest(
            f"A batch has at most {max_events} events; this one has more.",
            reason=Reason.TOO_MANY_EVENTS,
            field="events",
        )


def two_encodings() -> InvalidRequest:
    """Return the error of a request that has both a JSON body and protobuf events."""
    return InvalidRequest("The request has both a JSON body and protobuf events.", reason=Reason.TWO_ENCODINGS)


_EXACT = 2.0**53
_OPTIONS = {"atomic": "atomic", "validate_only": "validate_only", "validateOnly": "validate_only"}
