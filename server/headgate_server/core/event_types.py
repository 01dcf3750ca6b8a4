"""Event types: names that have a JSON Schema in a workspace. Pure: values, their checks, and the bounds."""

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Any, NamedTuple

from headgate_server.core import canonical, validate
from headgate_server.core.errors import InvalidRequest
from headgate_server.core.model import CLOUDEVENTS, NATIVE, Problem
from headgate_server.core.reasons import Reason

MOST_TYPES = 1_000
"""The most event types of a workspace. A server keeps an index of them in memory."""
MOST_BYTES = 64 * 1024
"""The most bytes of a schema's canonical JSON. Schemas that people write have some kilobytes."""

CHECKED_RECEIVERS = frozenset({NATIVE, CLOUDEVENTS})
"""The receivers whose events are checked. A vendor's events have the vendor's own schemas."""


class Mode(StrEnum):
    """What is done with an event whose data does not match the schema of its type."""

    STRICT = "strict"
    """It is rejected."""
    PERMISSIVE = "permissive"
    """It is stored, and its result has a warning."""


class Unknown(StrEnum):
    """What a workspace does with an event whose type is none of its event types."""

    ACCEPT = "accept"
    WARN = "warn"
    REJECT = "reject"


class EventType(NamedTuple):
    """An event type as stored."""

    type: str
    schema: bytes
    """Canonical JSON."""
    mode: Mode
    revision: int
    """The revision of the workspace's event types that this one was last put with."""
    created_at: int
    updated_at: int


class TypeIndex(NamedTuple):
    """The event types of a workspace at one revision: which there are, without their schemas."""

    revision: int
    """Grows with every change of an event type and of `unknown`. 0: none was ever made."""
    unknown: Unknown
    revisions: Mapping[str, int] = MappingProxyType({})
    """The revision of each event type."""


def type_of(value: Any) -> str:
    """Return the name of an event type: what an event's `type` may be. Raises `InvalidRequest`."""
    if value is None or value == "":
        raise InvalidRequest("The type of the event type is required.", reason=Reason.MISSING_FIELD, field="event_type")
    problem = validate.text_problem("event_type", value)
    if problem is not None:
        raise InvalidRequest(problem.message, reason=problem.reason, field=problem.field)
    return str(value)


def mode_of(value: Any) -> Mode:
    """Return a mode; `strict` if there is none. Raises `InvalidRequest`."""
    if value is None or value == "":
        return Mode.STRICT
    return Mode(_one_of("mode", value, tuple(Mode)))


def unknown_of(value: Any) -> Unknown:
    """Return what is done with unknown types. Raises `InvalidRequest`."""
    if value is None or value == "":
        raise InvalidRequest(
            "The unknown_event_types field is required.", reason=Reason.MISSING_FIELD, field="unknown_event_types"
        )
    return Unknown(_one_of("unknown_event_types", value, tuple(Unknown)))


def schema_of(value: Any) -> bytes:
    """Return the canonical JSON of a schema as a client sent it, a value from `jsonbody`. Raises `InvalidRequest` if it
    is not an object, has no canonical form, or is too large. Whether it is a schema is not checked here.
    """
    if value is None:
        raise InvalidRequest("The schema field is required.", reason=Reason.MISSING_FIELD, field="schema")
    if isinstance(value, Problem):
        raise InvalidRequest(value.message, reason=value.reason, field="schema")
    if type(value) is not dict:
        raise InvalidRequest(
            f"The schema must be a JSON object, not {validate.json_type(value)}.",
            reason=Reason.WRONG_TYPE,
            field="schema",
        )
    try:
        schema = canonical.encode(value)
    except canonical.Unrepresentable as error:
        raise InvalidRequest(error.message, reason=error.reason, field="schema") from None
    if len(schema) > MOST_BYTES:
        raise InvalidRequest(
            f"The schema is larger than {MOST_BYTES} bytes: it has {len(schema)} without white space.",
            reason=Reason.TOO_LONG,
            field="schema",
        )
    return schema


def _one_of(field: str, value: Any, allowed: tuple[str, ...]) -> str:
    if type(value) is not str or value not in allowed:
        names = ", ".join(f'"{name}"' for name in allowed)
        raise InvalidRequest(f"The {field} field must be one of {names}.", reason=Reason.INVALID_FIELD, field=field)
    return value
