"""The data of a CloudEvent, in the form in which it is stored. Pure."""

from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from collections.abc import Mapping
from typing import Any, NamedTuple

from headgate_server.core import canonical, jsonbody, validate
from headgate_server.core.canonical import Unrepresentable
from headgate_server.core.errors import InvalidRequest
from headgate_server.core.mediatypes import MediaType
from headgate_server.core.model import Problem
from headgate_server.core.reasons import Reason
from headgate_server.receivers.common import Invalid

DATA = "data"
BYTES = "data_base64"
"""The member of `attributes` that marks a payload of bytes. No attribute has this name."""
MESSAGE = "proto_data"
"""The member of `attributes` with the type of a payload that is a protobuf message. No attribute has this name."""


class Payload(NamedTuple):
    """An event's payload as it is stored."""

    data: bytes
    """Canonical JSON; the base64 of bytes is a string."""
    marks: Mapping[str, Any] = {}
    """Members of `attributes` that say what the payload is."""


def of_body(body: bytes, media: MediaType | None) -> Payload:
    """Return a payload that came as bytes of a media type: JSON as its value, text as a string, all else as bytes.
    Without a media type it is JSON if it can be read as JSON, because SDKs write JSON then.

    Raises `Invalid` if JSON cannot be read.
    """
    if media is None:
        try:
            return _read_json(body)
        except Invalid:
            return of_bytes(body)
    if media.is_json:
        if not media.is_utf8:
            raise Invalid(Reason.INVALID_FIELD, "datacontenttype", "JSON data must be UTF-8.")
        return _read_json(body)
    if media.is_text and media.is_utf8:
        try:
            return _json(body.decode())
        except UnicodeDecodeError:
            pass
    return of_bytes(body)


def of_bytes(content: bytes, **marks: Any) -> Payload:
    """Return a payload of bytes."""
    return Payload(_json(b64encode(content).decode()).data, {BYTES: True, **marks})


def of_text(content: str) -> Payload:
    """Return a payload of text. Raises `Invalid` if it has no UTF-8."""
    return _json(content)


def _json(value: Any) -> Payload:
    try:
        return Payload(canonical.encode(value))
    except Unrepresentable as error:
        raise Invalid(error.reason, DATA, error.message) from None


def _read_json(body: bytes) -> Payload:
    try:
        value = jsonbody.read_one(body)
    except InvalidRequest as error:
        raise Invalid(Reason.INVALID_JSON, DATA, error.message.replace("The body", "The data")) from None
    if isinstance(value, Problem):
        raise Invalid(value.reason, DATA, value.message)
    return _json(value)


def of_json(event: Mapping[str, Any]) -> Payload | None:
    """Return the payload of an event of the JSON format; None if it has none. `null` is a payload."""
    encoded = event.get(BYTES)
    if encoded is None:
        return _json(event[DATA]) if DATA in event else None
    if DATA in event:
        raise Invalid(Reason.DUPLICATE_FIELD, BYTES, "An event has data or data_base64, not both.")
    if type(encoded) is not str:
        raise Invalid(
            Reason.WRONG_TYPE, BYTES, f"The data_base64 field must be a string, not {validate.json_type(encoded)}."
        )
    try:
        return of_bytes(b64decode(encoded, validate=True))
    except (Base64Error, ValueError):  # ValueError: a character beyond ASCII
        raise Invalid(Reason.INVALID_FIELD, BYTES, "The data_base64 field is not base64.") from None
