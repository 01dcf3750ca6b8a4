"""CloudEvents 1.0: an event in any of its formats becomes a draft. Pure.

docs/cloudevents.md describes the mapping. `reading/cloudevents.py` is the other direction.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import unquote_to_bytes

from headgate_server.core import canonical, mediatypes, timestamps, validate
from headgate_server.core.mediatypes import MediaType
from headgate_server.core.model import CLOUDEVENTS, Draft, Mismatch, Problem
from headgate_server.core.reasons import Reason
from headgate_server.core.types import Salt
from headgate_server.receivers import cloudevent_data
from headgate_server.receivers.cloudevent_data import BYTES, DATA, Payload
from headgate_server.receivers.common import Invalid

SPECVERSION = "1.0"
JSON = "application/json"

MAX_ATTRIBUTES = 16 * 1024
"""The most bytes of an event's attributes, without those that have columns: a quarter of the largest headers of an HTTP
request.
"""

_REQUIRED = ("specversion", "id", "source", "type")
_OWN = frozenset({*_REQUIRED, "subject", "time", "datacontenttype", "dataschema"})
_NAME = re.compile("[a-z0-9]+")
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")
_INTEGERS = range(-(2**31), 2**31)
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"')
_ESCAPED = re.compile(r"\\(.)")


def from_json(event: Any, salt: Salt | None = None) -> Draft | Problem:
    """Check and seal an event of the JSON format: a value from `jsonbody`, which may be the `Problem` found while
    reading it. `salt` is as in `validate.seal`.
    """
    if isinstance(event, Problem):
        return event
    if type(event) is not dict:
        return Problem(Reason.WRONG_TYPE, "", f"An event must be a JSON object, not {validate.json_type(event)}.")
    try:
        attributes = {name: value for name, value in event.items() if name not in (DATA, BYTES) and value is not None}
        return sealed(attributes, cloudevent_data.of_json(event), salt)
    except Invalid as error:
        return error.problem


def from_binary(headers: Iterable[tuple[str, bytes]], content_type: str, body: bytes, salt: Salt) -> Draft | Problem:
    """Check and seal an event of the binary content mode. `headers` are those whose names begin with `ce-`, without
    that beginning.
    """
    try:
        attributes, warnings = _attributes_of_headers(headers)
        media = _media_type(content_type) if content_type else None
        if content_type:
            attributes["datacontenttype"] = content_type
        return sealed(attributes, cloudevent_data.of_body(body, media) if body else None, salt, warnings)
    except Invalid as error:
        return error.problem


def sealed(
    attributes: Mapping[str, Any],
    data: Payload | None,
    salt: Salt | None = None,
    warnings: tuple[str, ...] = (),
) -> Draft | Problem:
    """Check and seal an event's context attributes: texts, integers and booleans by name. Raises `Invalid`."""
    for name in _REQUIRED:
        _check_required(attributes, name)
    for name, value in attributes.items():
        _check_value(name, value)
    version = attributes["specversion"]
    if version != SPECVERSION:
        raise Invalid(Reason.INVALID_FIELD, "specversion", f"The specversion must be 1.0, not {version[:40]!r}.")
    occurred_at, changes = _time(attributes)
    return validate.seal(
        CLOUDEVENTS,
        attributes["type"],
        attributes["source"],
        attributes.get("subject", ""),
        occurred_at,
        None if data is None else data.data,
        (attributes["source"], attributes["id"]),
        on_mismatch=Mismatch.CONFLICT_UNLESS_TIME,
        warnings=warnings + changes,
        salt=salt,
        attributes=_others(attributes, data),
    )


def _attributes_of_headers(headers: Iterable[tuple[str, bytes]]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Return the attributes of headers, and warnings."""
    attributes: dict[str, Any] = {}
    warnings: tuple[str, ...] = ()
    for name, value in headers:
        if name in attributes:
            raise Invalid(Reason.DUPLICATE_FIELD, name, f"The header ce-{name} was sent more than once.")
        if name == "datacontenttype":
            warnings = ("The header ce-datacontenttype was ignored: Content-Type is that attribute.",)
            continue
        attributes[name] = _unescaped(name, value)
    return attributes, warnings


def _unescaped(name: str, value: bytes) -> str:
    """Return the text of a header: its quotes removed, and then percent-decoded once."""
    text = value.decode("latin-1")
    quoted = _QUOTED.fullmatch(text)
    if quoted is not None:
        text = _ESCAPED.sub(r"\1", quoted[1])
    try:
        return unquote_to_bytes(text.encode("latin-1")).decode()
    except UnicodeDecodeError:
        raise Invalid(
            Reason.INVALID_UNICODE, name, f"The header ce-{name} is not UTF-8 after percent-decoding."
        ) from None


def _check_required(attributes: Mapping[str, Any], name: str) -> None:
    if attributes.get(name) in (None, ""):
        raise Invalid(Reason.MISSING_FIELD, name, f"The {name} attribute is required.")


def _check_value(name: str, value: Any) -> None:
    """Raise `Invalid` if an attribute may not have this name or value."""
    if name in _OWN:
        _check_text(name, value, validate.MAX_TEXT if name != "dataschema" else MAX_ATTRIBUTES)
        return
    if not _NAME.fullmatch(name) or name == DATA:
        shown = name[:80].encode("ascii", "backslashreplace").decode()
        raise Invalid(
            Reason.INVALID_FIELD, shown, f"{shown!r} is no name of an attribute: use lower-case letters and digits."
        )
    if type(value) is bool:
        return
    if type(value) is int:
        if value not in _INTEGERS:
            raise Invalid(Reason.NUMBER_OUT_OF_RANGE, name, f"The {name} attribute is no integer of 32 bits.")
        return
    _check_text(name, value, MAX_ATTRIBUTES, "a string, an integer or a boolean")


def _check_text(name: str, value: Any, most: int, kinds: str = "a string") -> None:
    if type(value) is not str:
        raise Invalid(
            Reason.WRONG_TYPE, name, f"The {name} attribute must be {kinds}, not {validate.json_type(value)}."
        )
    problem = validate.text_problem(name, value, most)
    if problem is not None:
        raise Invalid(problem.reason, problem.field, problem.message)
    if _CONTROL.search(value):
        raise Invalid(Reason.INVALID_CHARACTER, name, f"The {name} attribute contains a control character.")


def _time(attributes: Mapping[str, Any]) -> tuple[int | None, tuple[str, ...]]:
    text = attributes.get("time")
    if text is None:
        return None, ()
    try:
        instant, change = timestamps.parse(text)
    except ValueError as error:
        raise Invalid(Reason.INVALID_TIMESTAMP, "time", f"{error}.") from None
    return instant, () if change is None else (f"time {change}.",)


def _others(attributes: Mapping[str, Any], data: Payload | None) -> bytes | None:
    """Return the canonical JSON of the attributes that have no column, with the payload's marks; None if there are
    none.
    """
    others = {name: value for name, value in attributes.items() if name not in _OWN}
    if "dataschema" in attributes:
        others["dataschema"] = attributes["dataschema"]
    content_type = attributes.get("datacontenttype")
    if content_type is not None:
        media = _media_type(content_type)
        implied = data is not None and BYTES not in data.marks and media == MediaType(JSON, {})
        if not implied:
            others["datacontenttype"] = content_type
    if data is not None:
        others.update(data.marks)
    if not others:
        return None
    encoded = canonical.encode(others)
    if len(encoded) > MAX_ATTRIBUTES:
        raise Invalid(Reason.TOO_LONG, "", f"The attributes have more than {MAX_ATTRIBUTES} bytes.")
    return encoded


def _media_type(text: str) -> MediaType:
    media = mediatypes.parse(text)
    if media is None:
        shown = text[:80].encode("ascii", "backslashreplace").decode()
        raise Invalid(Reason.INVALID_FIELD, "datacontenttype", f"{shown!r} is not a media type.")
    return media
