"""The compiled protos, indexed by name."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from google.api import annotations_pb2
from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorSet,
    MethodDescriptorProto,
    ServiceDescriptorProto,
)

from headgate_bridge.descriptor import PACKAGE
from headgate_bridge.openapi.comments import Comment, comments


class Binding(NamedTuple):
    """One HTTP binding of a method."""

    verb: str
    path: str
    body: str
    response_body: str


class Protos:
    """Messages, enums and comments by their full names, without a leading dot."""

    def __init__(self, image: FileDescriptorSet):
        self.messages: dict[str, DescriptorProto] = {}
        self.enums: dict[str, EnumDescriptorProto] = {}
        self.services: list[ServiceDescriptorProto] = []
        self.comments: Mapping[str, Comment] = comments(image)
        for file in image.file:
            for enum in file.enum_type:
                self.enums[f"{file.package}.{enum.name}"] = enum
            for message in file.message_type:
                self._add(f"{file.package}.{message.name}", message)
            if file.package == PACKAGE:
                self.services += file.service

    def _add(self, name: str, message: DescriptorProto) -> None:
        self.messages[name] = message
        for nested in message.nested_type:
            self._add(f"{name}.{nested.name}", nested)

    def comment(self, *names: str) -> Comment:
        """Return the comment of the thing with this name; an empty one if it has none."""
        return self.comments.get(".".join(names), Comment())

    def fields(self, message: str) -> Mapping[str, FieldDescriptorProto]:
        """Return the fields of a message by name."""
        return {field.name: field for field in self.messages[message].field}


def type_of(field: FieldDescriptorProto | MethodDescriptorProto, attribute: str = "type_name") -> str:
    """Return the full name of a field's message or enum, or of a method's `input_type` or `output_type`."""
    return str(getattr(field, attribute)).removeprefix(".")


def bindings(method: MethodDescriptorProto) -> list[Binding]:
    """Return the HTTP bindings of a method, the main one first."""
    if not method.options.HasExtension(annotations_pb2.http):
        return []
    rule = method.options.Extensions[annotations_pb2.http]
    return [_binding(each) for each in (rule, *rule.additional_bindings)]


def _binding(rule: Any) -> Binding:
    kind = rule.WhichOneof("pattern")
    if kind == "custom":
        return Binding(rule.custom.kind.lower(), rule.custom.path, rule.body, rule.response_body)
    return Binding(kind, getattr(rule, kind), rule.body, rule.response_body)
