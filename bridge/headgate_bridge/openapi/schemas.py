"""JSON Schemas (2020-12) of messages, as REST reads and prints them: the rules of `rpc/pipeline/printer.py`."""

import re
from collections.abc import Collection, Mapping
from enum import Enum
from typing import Any

from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto

from headgate_bridge.openapi.protos import Protos, bindings, type_of
from headgate_bridge.openapi.tables import PRINTED_AS, READ_AS
from headgate_server.rpc.pipeline.leftout import LEFT_OUT_EMPTY

Json = dict[str, Any]

_F = FieldDescriptorProto
_INT32 = {"type": "integer", "format": "int32"}
_INT64 = {"type": "integer", "format": "int64"}
_UNSIGNED = {"minimum": 0}
_SCALARS: Mapping[int, Json] = {
    _F.TYPE_BOOL: {"type": "boolean"},
    _F.TYPE_STRING: {"type": "string"},
    _F.TYPE_BYTES: {"type": "string", "contentEncoding": "base64"},
    _F.TYPE_INT32: _INT32,
    _F.TYPE_SINT32: _INT32,
    _F.TYPE_SFIXED32: _INT32,
    _F.TYPE_INT64: _INT64,
    _F.TYPE_SINT64: _INT64,
    _F.TYPE_SFIXED64: _INT64,
    _F.TYPE_UINT32: _INT64 | _UNSIGNED,
    _F.TYPE_FIXED32: _INT64 | _UNSIGNED,
    _F.TYPE_UINT64: _INT64 | _UNSIGNED,
    _F.TYPE_FIXED64: _INT64 | _UNSIGNED,
}
_WELL_KNOWN: Mapping[str, Json] = {
    "google.protobuf.Timestamp": {"type": "string", "format": "date-time"},
    "google.protobuf.FieldMask": {"type": "string"},
    "google.protobuf.Struct": {"type": "object", "additionalProperties": True},
    "google.protobuf.Value": {},
    "google.api.HttpBody": {},
}
_LENGTH = re.compile(r"\b(?:(?P<least>\d+) to|at most) (?P<most>[\d,]+) characters")
_NOT_NEGATIVE = "negative is an error"
_RAW_ENDING = "_json"


class Side(Enum):
    """Who writes a message, and so which of its fields it has. The value ends the name of its schema if both do."""

    ANSWER = ""
    REQUEST = "Input"
    PATCH = "Patch"


class Schemas:
    """Makes the schemas of messages, and collects them as components."""

    def __init__(self, protos: Protos):
        self._protos = protos
        self._answered: set[str] = set()
        for method in (method for service in protos.services for method in service.method if bindings(method)):
            self._note_answered(type_of(method, "output_type"))
        self.components: dict[str, Json] = {}

    def reference(self, message: str, side: Side, without: Collection[str] = ()) -> Json:
        """Return a reference to the schema of a message, which `without` keeps some fields out of."""
        if message in _WELL_KNOWN:
            return dict(_WELL_KNOWN[message])
        name = message.rpartition(".")[2]
        if message in self._answered or side is Side.PATCH:
            name += side.value
        if name not in self.components:
            self.components[name] = {}
            self.components[name] = self._object(message, side, without)
        return {"$ref": f"#/components/schemas/{name}"}

    def of_field(self, message: str, field: FieldDescriptorProto, side: Side) -> Json:
        """Return the schema of a field, with its description and its examples."""
        comment = self._protos.comment(message, field.name)
        entry = self._map_entry(field)
        schema = self._one(entry.field[1] if entry else field, side)
        if entry:
            schema = {"type": "object", "additionalProperties": schema}
        elif field.label == _F.LABEL_REPEATED:
            schema = {"type": "array", "items": schema}
        elif side is not Side.ANSWER:
            schema = _bounded(schema | dict(READ_AS.get(f"{message}.{field.name}", {})), comment.text)
        elif printed := PRINTED_AS.get(f"{message}.{field.name}"):
            return dict(printed)
        if comment.text:
            schema = {**schema, "description": comment.text}
        if comment.example is not None:
            schema["examples"] = [
                [comment.example] if field.label == _F.LABEL_REPEATED and not entry else comment.example
            ]
        return schema

    def _note_answered(self, message: str) -> None:
        """Note that answers have a message. What requests send then needs a schema of another name."""
        if message in self._answered or message in _WELL_KNOWN:
            return
        self._answered.add(message)
        for field in self._protos.fields(message).values():
            if field.type == _F.TYPE_MESSAGE:
                self._note_answered(type_of(field))

    def _object(self, message: str, side: Side, without: Collection[str]) -> Json:
        descriptor = self._protos.messages[message]
        properties: dict[str, Json] = {}
        required: list[str] = []
        for field in descriptor.field:
            comment = self._protos.comment(message, field.name)
            hidden = comment.output_only if side is not Side.ANSWER else comment.input_only
            member = member_of(field)
            if hidden or field.name in without or member in properties:
                continue
            if member != field.name:
                properties[member] = {"type": "object", "description": comment.text}
            else:
                properties[member] = self.of_field(message, field, side)
            if (side is Side.REQUEST and comment.required) or (
                side is Side.ANSWER and is_always_printed(message, field)
            ):
                required.append(member)
        schema: Json = {"type": "object", "properties": properties}
        if description := self._protos.comment(message).text:
            schema["description"] = description
        if required:
            schema["required"] = required
        if side is Side.REQUEST:
            schema |= self._choice(message, descriptor)
        return schema

    def _choice(self, message: str, descriptor: DescriptorProto) -> Json:
        """Return what says that exactly one field of a required oneof is needed."""
        for index, oneof in enumerate(descriptor.oneof_decl):
            if self._protos.comment(message, oneof.name).required:
                fields = [
                    each for each in descriptor.field if each.HasField("oneof_index") and each.oneof_index == index
                ]
                return {"oneOf": [{"required": [member_of(field)]} for field in fields]}
        return {}

    def _one(self, field: FieldDescriptorProto, side: Side) -> Json:
        if field.type == _F.TYPE_MESSAGE:
            return self.reference(type_of(field), side)
        if field.type == _F.TYPE_ENUM:
            return {"type": "string", "enum": [value.name for value in self._protos.enums[type_of(field)].value]}
        return dict(_SCALARS[field.type])

    def _map_entry(self, field: FieldDescriptorProto) -> DescriptorProto | None:
        message = self._protos.messages.get(type_of(field))
        return message if message is not None and message.options.map_entry else None


def _bounded(schema: Json, comment: str) -> Json:
    """Return the schema of a value in a request with the bounds that its comment names."""
    if schema.get("type") == "integer" and _NOT_NEGATIVE in comment:
        return schema | {"minimum": 0}
    length = _LENGTH.search(comment)
    if schema != {"type": "string"} or length is None:
        return schema
    least = {"minLength": int(length["least"])} if length["least"] else {}
    return schema | least | {"maxLength": int(length["most"].replace(",", ""))}


def member_of(field: FieldDescriptorProto) -> str:
    """Return the name of a field in JSON."""
    return field.name.removesuffix(_RAW_ENDING) if field.type == _F.TYPE_BYTES else field.name


def is_always_printed(message: str, field: FieldDescriptorProto) -> bool:
    """Whether every answer with the message has the field."""
    has_presence = field.HasField("oneof_index") or (field.type == _F.TYPE_MESSAGE and field.label != _F.LABEL_REPEATED)
    return not has_presence and field.name not in LEFT_OUT_EMPTY.get(message, ())
