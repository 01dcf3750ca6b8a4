"""Turns CloudEvents into drafts, each event on its own, whatever format and content mode they come in."""

from base64 import b64decode, b64encode
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple
from urllib.parse import unquote_to_bytes

import orjson
from google.api.httpbody_pb2 import HttpBody
from google.protobuf.message import DecodeError

from headgate.third_party.cloudevents.cloudevents_pb2 import CloudEvent
from headgate.v1.bridge_view_pb2 import RawBatchPublishRequest
from headgate_server.core import jsonbody, jsonscan, mediatypes, timestamps, validate
from headgate_server.core.errors import InvalidRequest, UnsupportedMediaType
from headgate_server.core.model import Draft, Problem
from headgate_server.core.reasons import Reason
from headgate_server.core.rejections import Encoding
from headgate_server.core.types import Salt
from headgate_server.receivers import cloudevent_data, cloudevents
from headgate_server.receivers.cloudevent_data import MESSAGE, Payload
from headgate_server.receivers.common import Invalid
from headgate_server.rpc.decode import check_count

_EVENTS = "application/cloudevents"
_FORMATS = (f"{_EVENTS}+json", f"{_EVENTS}-batch+json", f"{_EVENTS}+protobuf", f"{_EVENTS}-batch+protobuf")
_TEXT = "text/plain"
_PREFIX = "ce-"

_Headers = Sequence[tuple[str, bytes]]


class Received(NamedTuple):
    """The events of an HTTP request, one slot for each."""

    slots: Sequence[Draft | Problem]
    batched: bool
    encoding: Encoding
    texts: Callable[[Sequence[int]], Sequence[bytes]]
    """Returns the events at these positions, which increase, as they were sent."""


def received(body: HttpBody, packed: str, most: int) -> Received:
    """Decode an HTTP request in any content mode. `packed` has the headers that begin with `ce-`: see `unpacked`.

    Raises `UnsupportedMediaType`, and `InvalidRequest` if the body as a whole cannot be read, or has no events or more
    than `most`.
    """
    media = mediatypes.parse(body.content_type)
    if media is None or not media.name.startswith(_EVENTS):
        return _binary(body, unpacked(packed))
    if media.name not in _FORMATS:
        raise UnsupportedMediaType(f"{media.name[:80]!r} is not one of {', '.join(_FORMATS)}.")
    if media.name.endswith("+protobuf"):
        return _protobuf(body.data, most) if "-batch" in media.name else _one_message(body.data)
    if not media.is_utf8:
        raise UnsupportedMediaType(f"The charset must be utf-8, not {media.parameters['charset'][:40]!r}.")
    return _batch(body.data, most) if "-batch" in media.name else _structured(body.data)


def _binary(body: HttpBody, headers: _Headers) -> Received:
    (salt,) = validate.salts(1)
    slot: Draft | Problem = Problem(
        Reason.MISSING_FIELD,
        "specversion",
        f"The request is no CloudEvent: it has neither headers ce-… nor a Content-Type such as {_FORMATS[0]}.",
    )
    if headers:
        slot = cloudevents.from_binary(headers, body.content_type, body.data, salt)
    content_type, data = body.content_type, body.data
    return Received([slot], False, Encoding.HTTP, lambda at: [as_text(headers, content_type, data)] * len(at))


def _structured(data: bytes) -> Received:
    (salt,) = validate.salts(1)
    slot = cloudevents.from_json(jsonbody.read_one(data), salt)
    return Received([slot], False, Encoding.JSON, lambda positions: jsonscan.sent(data, positions, None))


def _batch(data: bytes, most: int) -> Received:
    items = jsonbody.read_list(data, most)
    check_count(len(items), most)
    slots = list(map(cloudevents.from_json, items, validate.salts(len(items))))
    return Received(slots, True, Encoding.JSON, lambda positions: jsonscan.sent(data, positions, ""))


def _one_message(data: bytes) -> Received:
    (salt,) = validate.salts(1)
    return Received([from_message(data, salt)], False, Encoding.PROTOBUF, lambda positions: [data] * len(positions))


def _protobuf(data: bytes, most: int) -> Received:
    try:
        events = RawBatchPublishRequest.FromString(data).events
    except DecodeError:
        raise InvalidRequest(
            "The body is not a serialized io.cloudevents.v1.CloudEventBatch.", reason=Reason.MALFORMED_REQUEST
        ) from None
    check_count(len(events), most)
    return Received(from_messages(events), True, Encoding.PROTOBUF, lambda at: [events[each] for each in at])


def from_messages(events: Sequence[bytes]) -> Sequence[Draft | Problem]:
    """Check and seal serialized events, each on its own."""
    return list(map(from_message, events, validate.salts(len(events))))


def from_message(serialized: bytes, salt: Salt) -> Draft | Problem:
    """Check and seal a serialized `io.cloudevents.v1.CloudEvent`."""
    try:
        event = CloudEvent.FromString(serialized)
    except DecodeError:
        return Problem(
            Reason.MALFORMED_EVENT, "", "The event is not a valid CloudEvent message, or a string is not UTF-8."
        )
    try:
        attributes: dict[str, Any] = {
            "specversion": event.spec_version,
            "id": event.id,
            "source": event.source,
            "type": event.type,
        }
        for name, value in event.attributes.items():
            if name in attributes:
                raise Invalid(Reason.DUPLICATE_FIELD, name, f"The {name} attribute occurs twice.")
            if (plain := _plain(name, value)) is not None:
                attributes[name] = plain
        return cloudevents.sealed(attributes, _payload(event, attributes), salt)
    except Invalid as error:
        return error.problem


def _plain(name: str, value: CloudEvent.CloudEventAttributeValue) -> str | int | bool | None:
    """Return an attribute's value as the JSON format writes it; None if none is set."""
    kind = value.WhichOneof("attr")
    if kind is None:
        return None
    if kind == "ce_bytes":
        return b64encode(value.ce_bytes).decode()
    if kind != "ce_timestamp":
        plain: str | int | bool = getattr(value, kind)
        return plain
    moment = value.ce_timestamp
    microseconds = moment.seconds * 1_000_000 + moment.nanos // 1000
    if not (timestamps.MIN <= microseconds <= timestamps.MAX and 0 <= moment.nanos < 1_000_000_000):
        raise Invalid(Reason.INVALID_TIMESTAMP, name, f"{name} is outside the years 1 to 9999, or its nanos are.")
    text = timestamps.format(microseconds)
    finer = moment.nanos % 1000
    if not finer:
        return text
    # The nanoseconds stay in the text: the time is truncated with a warning, and an extension keeps them.
    return f"{text.rstrip('Z').partition('.')[0]}.{moment.nanos:09}Z"


def _payload(event: CloudEvent, attributes: dict[str, Any]) -> Payload | None:
    kind = event.WhichOneof("data")
    if kind is None:
        return None
    if kind == "proto_data":
        return cloudevent_data.of_bytes(event.proto_data.value, **{MESSAGE: event.proto_data.type_url})
    content_type = attributes.get("datacontenttype")
    if kind == "text_data" and content_type is None:
        content_type = attributes["datacontenttype"] = _TEXT  # without a type, text would be taken for JSON
    media = mediatypes.parse(content_type) if isinstance(content_type, str) else None
    if kind == "binary_data":
        return cloudevent_data.of_body(event.binary_data, media)
    if media is not None and media.is_json:
        return cloudevent_data.of_body(event.text_data.encode(), media._replace(parameters={}))
    return cloudevent_data.of_text(event.text_data)


def unpacked(packed: str) -> _Headers:
    """Return the headers that the bridge packed: pairs of a name and a value with `=` between and `&` after, both
    percent-encoded. gRPC itself would refuse some of them, and take others for its own.
    """
    pairs = (pair.partition("=") for pair in packed.split("&") if pair)
    return [(unquote_to_bytes(name).decode("latin-1"), unquote_to_bytes(value)) for name, _, value in pairs]


def as_text(headers: _Headers, content_type: str, body: bytes) -> bytes:
    """Return an event of the binary content mode as the JSON text in which it is kept if it is refused."""
    named = [[_PREFIX + name, value.decode("latin-1")] for name, value in headers]
    if content_type:
        named.append(["content-type", content_type])
    kept: dict[str, Any] = {"headers": named}
    try:
        kept["body"] = body.decode()
    except UnicodeDecodeError:
        kept["body_base64"] = b64encode(body).decode()
    return orjson.dumps(kept)


def as_kept(event: bytes, encoding: str, salt: Salt) -> Draft | Problem:
    """Check and seal an event as a rejection keeps it. Raises `InvalidRequest` if it is not JSON."""
    if encoding == Encoding.PROTOBUF:
        return from_message(event, salt)
    if encoding != Encoding.HTTP:
        return cloudevents.from_json(jsonbody.read_one(event), salt)
    kept = orjson.loads(event)
    body = kept["body"].encode() if "body" in kept else b64decode(kept["body_base64"])
    headers = [(name, value) for name, value in kept["headers"] if name.startswith(_PREFIX)]
    content_type = next((value for name, value in kept["headers"] if not name.startswith(_PREFIX)), "")
    pairs = [(name.removeprefix(_PREFIX), value.encode("latin-1")) for name, value in headers]
    return _binary(HttpBody(content_type=content_type, data=body), pairs).slots[0]
