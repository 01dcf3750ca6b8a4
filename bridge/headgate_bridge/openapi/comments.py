"""The comments of the protos, as OpenAPI needs them: descriptions in Markdown, examples, and who sets a field."""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from google.protobuf.descriptor_pb2 import DescriptorProto, FileDescriptorProto, FileDescriptorSet

_EXAMPLE = re.compile(r"\s*\bExample: (?P<value>.+?)\.?$", re.DOTALL)
_WHO = re.compile(r"^(?:Required|Optional)\.\s*")
_ITEM_INDENT = 2

# The numbers of fields in descriptor.proto, from which the paths of source locations are made.
_MESSAGES, _NESTED, _FIELDS, _ONEOFS, _SERVICES, _METHODS, _ENUMS = 4, 3, 2, 8, 6, 2, 5


class Comment(NamedTuple):
    """One comment of a proto."""

    text: str = ""
    """Markdown, without the example and without "Required" and "Optional", which OpenAPI says in its own way."""
    example: Any = None
    """The value after "Example:", read as JSON."""
    required: bool = False
    output_only: bool = False
    input_only: bool = False


def comments(image: FileDescriptorSet) -> Mapping[str, Comment]:
    """Return the comments by full name: of messages, fields, oneofs, services and methods.

    Raises `ValueError` for an example that is not JSON.
    """
    return {name: read(name, text) for file in image.file for name, text in _texts(file)}


def read(name: str, text: str) -> Comment:
    """Return a comment that has this text. Raises `ValueError`."""
    markdown = _markdown(text)
    example = None
    if found := _EXAMPLE.search(markdown):
        example = _value(name, found["value"])
        markdown = markdown[: found.start()]
    return Comment(
        text=_WHO.sub("", markdown.removeprefix("Input only. ")).strip(),
        example=example,
        required=markdown.startswith("Required."),
        output_only=markdown.startswith("Output only"),
        input_only=markdown.startswith("Input only"),
    )


def _value(name: str, written: str) -> Any:
    try:
        return json.loads(written.strip("`"))
    except ValueError:
        raise ValueError(f"{name}: the example is not JSON: {written}") from None


def _markdown(text: str) -> str:
    """Return a comment's lines as Markdown: paragraphs on one line, and indented lines as the items of a list."""
    blocks: list[str] = []
    open_block = False
    for line in text.splitlines():
        indent = len(line) - len(line.lstrip())
        words = re.sub(r"(?<=\S)\s{2,}", ": ", line.strip(), count=1)
        if not words:
            open_block = False
        elif indent == _ITEM_INDENT + 1:
            blocks.append(f"- {words}")
            open_block = True
        elif open_block and (indent > 1) == blocks[-1].startswith("- "):
            blocks[-1] += f" {words}"
        else:
            blocks.append(words)
            open_block = True
    return "\n\n".join(blocks).replace("\n\n- ", "\n- ")


def _texts(file: FileDescriptorProto) -> Iterator[tuple[str, str]]:
    by_path = {tuple(place.path): place.leading_comments for place in file.source_code_info.location}
    for index, message in enumerate(file.message_type):
        yield from _of_message(f"{file.package}.{message.name}", message, (_MESSAGES, index), by_path)
    for index, enum in enumerate(file.enum_type):
        yield f"{file.package}.{enum.name}", by_path.get((_ENUMS, index), "")
    for index, service in enumerate(file.service):
        name = f"{file.package}.{service.name}"
        yield name, by_path.get((_SERVICES, index), "")
        for number, method in enumerate(service.method):
            yield f"{name}.{method.name}", by_path.get((_SERVICES, index, _METHODS, number), "")


def _of_message(
    name: str, message: DescriptorProto, path: tuple[int, ...], by_path: Mapping[tuple[int, ...], str]
) -> Iterator[tuple[str, str]]:
    yield name, by_path.get(path, "")
    for index, field in enumerate(message.field):
        yield f"{name}.{field.name}", by_path.get((*path, _FIELDS, index), "")
    for index, oneof in enumerate(message.oneof_decl):
        yield f"{name}.{oneof.name}", by_path.get((*path, _ONEOFS, index), "")
    for index, nested in enumerate(message.nested_type):
        yield from _of_message(f"{name}.{nested.name}", nested, (*path, _NESTED, index), by_path)
