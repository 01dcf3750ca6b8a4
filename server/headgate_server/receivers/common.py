"""The common parts of receivers that read requests and their fields; `answers.py` is the other direction. Pure.

A field that violates the vendor's rules raises `Invalid`, and `decode_event` turns that into the slot's problem. So a
receiver reads an event from top to bottom, without checks of each result.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, overload
from uuid import UUID

from headgate_server.core import canonical, jsonbody, timestamps, validate
from headgate_server.core.errors import InvalidRequest, NotFound
from headgate_server.core.model import Draft, Problem
from headgate_server.core.reasons import Reason
from headgate_server.core.types import EventId
from headgate_server.receivers import HttpRequest

Json = dict[str, Any]

_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_WITHOUT_OFFSET = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}([Tt][0-9:.]+)?")


class Invalid(Exception):
    """One event cannot be stored. `problem` says why."""

    def __init__(self, reason: Reason, field: str, message: str):
        super().__init__(message)
        self.problem = Problem(reason, field, message)


EVENTS = "events"
"""The member that lists the events of a batch, for most vendors."""


def read_list(request: HttpRequest, most: int, name: str = EVENTS) -> Sequence[Any]:
    """Return the elements of a list, each a JSON value or the `Problem` that made it unreadable. The list is the member
    `name` of the body; other members are ignored. With an empty name the list is the body itself.

    Raises `InvalidRequest`: MALFORMED_JSON, NOT_AN_OBJECT, MISSING_FIELD, WRONG_TYPE, EMPTY_BATCH, TOO_MANY_EVENTS.
    """
    items = jsonbody.read_batch(request.body, name, most).items if name else jsonbody.read_list(request.body, most)
    if not items:
        raise InvalidRequest("A batch needs at least one event.", reason=Reason.EMPTY_BATCH, field=name)
    if len(items) > most:
        raise InvalidRequest(f"Batch size exceeds maximum of {most} events", reason=Reason.TOO_MANY_EVENTS, field=name)
    return items


def decode_event(event: Any, draft: Callable[[Json], Draft | Problem]) -> Draft | Problem:
    """Turn one element into a slot. `draft` gets only objects, and may raise `Invalid`."""
    if isinstance(event, Problem):
        return event
    if type(event) is not dict:
        return Problem(Reason.WRONG_TYPE, "", f"An event must be a JSON object, not {validate.json_type(event)}.")
    try:
        return draft(event)
    except Invalid as error:
        return error.problem


@overload
def text(event: Json, name: str, *, required: Literal[True], most: int = validate.MAX_TEXT) -> str: ...
@overload
def text(event: Json, name: str, *, required: bool = False, most: int = validate.MAX_TEXT) -> str | None: ...
def text(event: Json, name: str, *, required: bool = False, most: int = validate.MAX_TEXT) -> str | None:
    """Return a member that is a string of 1 to `most` characters, None if it is absent, null or empty and not
    required.
    """
    value = event.get(name)
    if value is None or value == "":
        if required:
            raise Invalid(Reason.MISSING_FIELD, name, f"The {name} field is required.")
        return None
    problem = validate.text_problem(name, value, most)
    if problem is not None:
        raise Invalid(problem.reason, problem.field, problem.message)
    return str(value)


def moment(event: Json, name: str, *, required: bool = False) -> tuple[int | None, tuple[str, ...]]:
    """Return a member that is an RFC 3339 timestamp, in microseconds, and a warning if that changed its value."""
    value = event.get(name)
    if value is None:
        if required:
            raise Invalid(Reason.MISSING_FIELD, name, f"The {name} field is required.")
        return None, ()
    if type(value) is not str:
        raise Invalid(
            Reason.WRONG_TYPE, name, f"The {name} field must be an RFC 3339 string, not {validate.json_type(value)}."
        )
    try:
        instant, change = timestamps.parse(value)
    except ValueError as error:
        raise Invalid(Reason.INVALID_TIMESTAMP, name, f"{error}.") from None
    return instant, () if change is None else (f"{name} {change}.",)


@overload
def an_object(event: Json, name: str, *, required: Literal[True]) -> Json: ...
@overload
def an_object(event: Json, name: str, *, required: bool = False) -> Json | None: ...
def an_object(event: Json, name: str, *, required: bool = False) -> Json | None:
    """Return a member that is a JSON object."""
    value = event.get(name)
    if value is None:
        if required:
            raise Invalid(Reason.MISSING_FIELD, name, f"The {name} field is required.")
        return None
    if type(value) is not dict:
        raise Invalid(Reason.WRONG_TYPE, name, f"The {name} field must be an object, not {validate.json_type(value)}.")
    return value


def a_list(event: Json, name: str) -> list[Any] | None:
    """Return a member that is a JSON array."""
    value = event.get(name)
    if value is not None and type(value) is not list:
        raise Invalid(Reason.WRONG_TYPE, name, f"The {name} field must be a list, not {validate.json_type(value)}.")
    return value


def page_limit(query: Mapping[str, Any], default: int, most: int, name: str = "limit") -> int:
    """Return the requested page size: a whole number from 1 to `most`, as text or number. Raises `InvalidRequest`."""
    value = query.get(name)
    if value is None or value == "":
        return default
    digits = str(value) if type(value) in (int, str) else ""
    if not (digits.isascii() and digits.isdigit() and len(digits) < 10 and 1 <= int(digits) <= most):
        raise InvalidRequest(
            f"{name} must be a whole number from 1 to {most}.", reason=Reason.INVALID_LIMIT, field=name
        )
    return int(digits)


def instant(query: Mapping[str, Any], name: str) -> int | None:
    """Return a requested time in microseconds. It is RFC 3339, or a date alone, which means its first moment in UTC.

    Raises `InvalidRequest`.
    """
    value = query.get(name)
    if value is None or value == "":
        return None
    time = str(value).replace(" ", "+")  # a query turns the plus sign of an offset into a space
    try:
        return timestamps.parse(time if "T" in time.upper() else time + "T00:00:00Z")[0]
    except ValueError as error:
        raise InvalidRequest(f"{name}: {error}.", reason=Reason.INVALID_TIMESTAMP, field=name) from None


def a_uuid(name: str, value: str) -> str:
    """Return a UUID in lower case: upper and lower case mean the same. Raises `Invalid`."""
    if not _UUID.fullmatch(value.lower()):
        raise Invalid(Reason.INVALID_UUID, name, f"The {name} field must be a UUID.")
    return value.lower()


def filter_uuid(query: Mapping[str, str], name: str) -> str | None:
    """Return a UUID of a query in lower case, None if there is none. Raises `InvalidRequest`."""
    value = query.get(name, "").lower() or None
    if value is not None and not _UUID.fullmatch(value):
        raise InvalidRequest(f"invalid {name}", reason=Reason.INVALID_FILTER, field=name)
    return value


def id_in_path(request: HttpRequest) -> EventId:
    """Return the event id at the end of the path. Raises `NotFound` if it is not a UUID: no event has such an id."""
    return _event_id(request.path)


def id_before_verb(request: HttpRequest) -> EventId:
    """Return the event id before the last segment of the path, as `id_in_path` does."""
    return _event_id(request.path.rpartition("/")[0])


def _event_id(path: str) -> EventId:
    try:
        return EventId(UUID(path.rpartition("/")[2]).bytes)
    except ValueError:
        raise NotFound("There is no such event.", reason=Reason.EVENT_NOT_FOUND) from None


def iso_moment(event: Json, name: str, *, required: bool = True) -> tuple[int | None, tuple[str, ...]]:
    """Return a member as `moment` does, for a vendor that asks for "ISO 8601". Without an offset the time is UTC.

    A date alone means its first moment.
    """
    value = event.get(name)
    if type(value) is str and (match := _WITHOUT_OFFSET.fullmatch(value)):
        event = {name: value + ("Z" if match[1] else "T00:00:00Z")}
    return moment(event, name, required=required)


def filter_text(query: Mapping[str, Any], name: str) -> str | None:
    """Return the text of a filter, None if it is absent or empty. Raises `InvalidRequest` if a store cannot search for
    the text.
    """
    value = query.get(name)
    if value is None or value == "":
        return None
    problem = validate.text_problem(name, value)
    if problem is not None:
        raise InvalidRequest(problem.message, reason=problem.reason, field=name)
    return str(value)


def is_larger(draft: Draft, event: Json, name: str, most: int) -> bool:
    """Whether a member of an event has more than `most` bytes of canonical JSON. `draft` is made from the event."""
    # The member is part of the data, so it is measured alone only if the whole data has more bytes.
    return len(draft.data or b"") > most and len(canonical.encode(event.get(name))) > most


def instant_after(query: Mapping[str, Any], name: str) -> int | None:
    """Return the requested end of a range as `instant` does, for a vendor whose range includes its end."""
    last = instant(query, name)
    return None if last is None else last + 1


def read_object(request: HttpRequest) -> Json:
    """Return the body of a request that is one JSON object but not an event, such as a query. Raises
    `InvalidRequest`.
    """
    value = jsonbody.read_one(request.body)
    if isinstance(value, Problem):
        raise InvalidRequest(value.message, reason=value.reason, field=value.field)
    if type(value) is not dict:
        raise InvalidRequest("The body must be a JSON object.", reason=Reason.NOT_AN_OBJECT)
    return value
