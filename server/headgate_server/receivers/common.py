"""What receivers share in reading requests and their fields; `answers.py` is the other direction. Pure.

A field that is not as the vendor asks raises `Invalid`, which `decode_event` turns into the slot's problem. So a
receiver reads an event from top to bottom and says nothing twice.
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

_WITHOUT_OFFSET = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}([Tt][0-9:.]+)?")


class Invalid(Exception):
    """One event cannot be taken; carries the problem."""

    def __init__(self, reason: Reason, field: str, message: str):
        super().__init__(message)
        self.problem = Problem(reason, field, message)


def read_list(request: HttpRequest, most: int, name: str = "events") -> Sequence[Any]:
    """Return the elements of a list, each a JSON value or the `Problem` found in reading it. The list is the member
    `name` of the body, whose other members are ignored; with the empty name it is the body itself.

    Raises `InvalidRequest`: MALFORMED_JSON, NOT_AN_OBJECT, MISSING_FIELD, WRONG_TYPE, EMPTY_BATCH, TOO_MANY_EVENTS.
    """
    items = jsonbody.read_batch(request.body, name, most).items if name else jsonbody.read_list(request.body, most)
    if not items:
        raise InvalidRequest("A batch needs at least one event.", reason=Reason.EMPTY_BATCH, field=name)
    if len(items) > most:
        raise InvalidRequest(f"Batch size exceeds maximum of {most} events", reason=Reason.TOO_MANY_EVENTS, field=name)
    return items


def decode_event(event: Any, draft: Callable[[Json], Draft | Problem]) -> Draft | Problem:
    """Judge one element: `draft` sees only objects, and may raise `Invalid`."""
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
    """Return a member that is a string of 1 to `most` characters; None where it is absent, null or empty and not
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
    """Return a member that is an RFC 3339 timestamp in microseconds, and a warning if it was changed for that."""
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
    """Return the page size that was asked for: a whole number from 1 to `most`, as text or number. Raises
    `InvalidRequest`.
    """
    asked = query.get(name)
    if asked is None or asked == "":
        return default
    digits = str(asked) if type(asked) in (int, str) else ""
    if not (digits.isascii() and digits.isdigit() and len(digits) < 10 and 1 <= int(digits) <= most):
        raise InvalidRequest(
            f"{name} must be a whole number from 1 to {most}.", reason=Reason.INVALID_LIMIT, field=name
        )
    return int(digits)


def instant(query: Mapping[str, Any], name: str) -> int | None:
    """Return a time that was asked for, in microseconds: RFC 3339, or a date alone, which is its first moment in
    UTC.

    Raises `InvalidRequest`.
    """
    asked = query.get(name)
    if asked is None or asked == "":
        return None
    value = str(asked).replace(" ", "+")  # a bare plus of an offset, which a query turns into a space
    try:
        return timestamps.parse(value if "T" in value.upper() else value + "T00:00:00Z")[0]
    except ValueError as error:
        raise InvalidRequest(f"{name}: {error}.", reason=Reason.INVALID_TIMESTAMP, field=name) from None


def asked_id(request: HttpRequest) -> EventId:
    """Return the event id that the path ends in. Raises `NotFound` for what is no UUID: no event is called that."""
    try:
        return EventId(UUID(request.path.rpartition("/")[2]).bytes)
    except ValueError:
        raise NotFound("There is no such event.", reason=Reason.EVENT_NOT_FOUND) from None


def iso_moment(event: Json, name: str, *, required: bool = True) -> tuple[int | None, tuple[str, ...]]:
    """Return a member as `moment` does, of a vendor that says "ISO 8601": without an offset it is taken to be UTC.

    A date alone is its first moment.
    """
    value = event.get(name)
    if type(value) is str and (match := _WITHOUT_OFFSET.fullmatch(value)):
        event = {name: value + ("Z" if match[1] else "T00:00:00Z")}
    return moment(event, name, required=required)


def asked_text(query: Mapping[str, Any], name: str) -> str | None:
    """Return a text to look for, None where it is absent or empty. Raises `InvalidRequest` if no store can look for
    it.
    """
    asked = query.get(name)
    if asked is None or asked == "":
        return None
    problem = validate.text_problem(name, asked)
    if problem is not None:
        raise InvalidRequest(problem.message, reason=problem.reason, field=name)
    return str(asked)


def is_larger(draft: Draft, event: Json, name: str, most: int) -> bool:
    """Whether a member of an event is more than `most` bytes of canonical JSON; `draft` is the event's, sealed."""
    # The member is part of the data, so it is measured by itself only where the whole is too large for it.
    return len(draft.data or b"") > most and len(canonical.encode(event.get(name))) > most


def instant_after(query: Mapping[str, Any], name: str) -> int | None:
    """Return the end of a range that was asked for, as `instant` does, of a vendor that counts the end itself in."""
    last = instant(query, name)
    return None if last is None else last + 1


def read_object(request: HttpRequest) -> Json:
    """Return the body of a request that is one JSON object and no event, such as a query. Raises `InvalidRequest`."""
    value = jsonbody.read_one(request.body)
    if isinstance(value, Problem):
        raise InvalidRequest(value.message, reason=value.reason, field=value.field)
    if type(value) is not dict:
        raise InvalidRequest("The body must be a JSON object.", reason=Reason.NOT_AN_OBJECT)
    return value
