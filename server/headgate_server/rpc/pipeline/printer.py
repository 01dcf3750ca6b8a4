"""Messages as REST's JSON, from their descriptors: the only place that decides how a field is written.

It is ProtoJSON with these differences. Names are the proto's own (snake_case). A 64-bit integer is a number. A field
without presence is written even if it is empty, except those of `LEFT_OUT_EMPTY`. A map is an object. A field of
bytes whose name ends in `_json` holds JSON: it is written unchanged, under the name without that ending.
generated/openapi.json describes what is written here: `headgate_bridge/openapi/schemas.py` has the same rules.
"""

from base64 import b64encode
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import orjson
from google.api import annotations_pb2
from google.protobuf import descriptor_pool
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from headgate_server.core import canonical, timestamps
from headgate_server.rpc import decode
from headgate_server.rpc.pipeline.leftout import LEFT_OUT_EMPTY

_RAW_ENDING = "_json"
_Writer = Callable[[Any], Any]


class _Field(NamedTuple):
    """How one field is written."""

    name: str
    """The name of the message's attribute."""
    member: str
    """The name in the JSON object."""
    presence: bool
    """Whether the message records if the field is set. Then an unset field is left out."""
    left_out_empty: bool
    write: _Writer


def print_json(message: Message) -> bytes:
    """Return a message as JSON text."""
    return orjson.dumps(as_json(message))


def as_json(message: Message) -> Any:
    """Return a message as a value for orjson. Raises like `check`."""
    members: dict[str, Any] = {}
    for name, member, presence, left_out_empty, write in _fields(message.DESCRIPTOR):
        if presence:
            if message.HasField(name):
                members[member] = write(getattr(message, name))
        else:
            value = getattr(message, name)
            if value or not left_out_empty:
                members[member] = write(value)
    return members


def unwrapped(service: str, method: str) -> str:
    """Return the method's `response_body`: the only field of the response that REST shows. Empty if REST shows the
    whole response.
    """
    try:
        found = descriptor_pool.Default().FindServiceByName(service).methods_by_name[method]
    except KeyError:
        return ""
    return str(found.GetOptions().Extensions[annotations_pb2.http].response_body)


def check(descriptor: Descriptor) -> None:
    """Raise `TypeError` if a message of this kind, or one within it, has a field that cannot be written."""
    _check(descriptor, set())


def _check(descriptor: Descriptor, seen: set[str]) -> None:
    if descriptor.full_name in seen:
        return
    seen.add(descriptor.full_name)
    for field in descriptor.fields:
        _writer(field)
        if field.message_type is not None and field.message_type.full_name not in _WELL_KNOWN:
            _check(field.message_type, seen)


@cache
def _fields(descriptor: Descriptor) -> tuple[_Field, ...]:
    left_out = LEFT_OUT_EMPTY.get(descriptor.full_name, set())
    return tuple(
        _Field(field.name, _member(field), field.has_presence, field.name in left_out, _writer(field))
        for field in descriptor.fields
    )


def _member(field: FieldDescriptor) -> str:
    return field.name.removesuffix(_RAW_ENDING) if field.type == FieldDescriptor.TYPE_BYTES else field.name


def _writer(field: FieldDescriptor) -> _Writer:
    """Return the function that writes the value of a field. Raises `TypeError` if there is none."""
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        value = _one(field.message_type.fields_by_name["value"])
        return lambda entries: {str(key): value(entries[key]) for key in sorted(entries)}
    one = _one(field)
    return (lambda values: list(map(one, values))) if field.is_repeated else one


def _one(field: FieldDescriptor) -> _Writer:
    """Return the function that writes a single value of a field."""
    kind = field.message_type
    if kind is not None:
        if kind.full_name in _WELL_KNOWN:
            return _WELL_KNOWN[kind.full_name]
        if kind.file.package.startswith("google."):
            raise TypeError(f"{field.full_name} is a {kind.full_name}, which REST's JSON has no form for")
        return as_json
    if field.type == FieldDescriptor.TYPE_BYTES:
        return orjson.Fragment if field.name.endswith(_RAW_ENDING) else lambda value: b64encode(value).decode()
    if field.enum_type is not None:
        names = field.enum_type.values_by_number
        return lambda number: names[number].name if number in names else number
    if field.type in (FieldDescriptor.TYPE_DOUBLE, FieldDescriptor.TYPE_FLOAT):
        raise TypeError(f"{field.full_name} is a floating-point number, which JSON cannot always write")
    return _as_it_is


def _as_it_is(value: Any) -> Any:
    return value


def _timestamp(moment: Any) -> str:
    return timestamps.format(moment.seconds * 1_000_000 + moment.nanos // 1000)


def _struct(struct: Any) -> orjson.Fragment:
    return orjson.Fragment(canonical.encode(decode.members(struct)))


_WELL_KNOWN: dict[str, _Writer] = {"google.protobuf.Timestamp": _timestamp, "google.protobuf.Struct": _struct}
