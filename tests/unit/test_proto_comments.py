"""Every field that a client may send says Required or Optional, what its absence means, and an example.

The messages of the bridge (`Raw…`) refer to those of the API, and the vendored protos of CloudEvents have comments of
their own.
"""

from collections.abc import Iterator, Mapping

import pytest
from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto, FileDescriptorSet

from headgate_bridge import generate
from headgate_bridge.descriptor import PACKAGE
from headgate_bridge.openapi.comments import Comment, comments

_MOMENT = ".google.protobuf.Timestamp"
_SCHEMA = f"{PACKAGE}.PutEventTypeRequest.schema_json"


@pytest.fixture(scope="module")
def image() -> FileDescriptorSet:
    """Return our compiled protos, with their comments."""
    return FileDescriptorSet.FromString(generate.compile_image(comments=True))


def _messages(image: FileDescriptorSet) -> Mapping[str, DescriptorProto]:
    ours = [file for file in image.file if file.package == PACKAGE]
    return {f".{PACKAGE}.{message.name}": message for file in ours for message in file.message_type}


def _sent(image: FileDescriptorSet) -> Iterator[tuple[str, DescriptorProto, FieldDescriptorProto, Comment]]:
    """Yield the fields of requests and of the messages in them, without those that only the service sets."""
    of, messages = comments(image), _messages(image)
    open_ = [name for name in messages if name.endswith("Request") and not name.startswith(f".{PACKAGE}.Raw")]
    seen = set(open_)
    while open_:
        name = open_.pop()
        for field in messages[name].field:
            comment = of[f"{name[1:]}.{field.name}"]
            if comment.output_only:
                continue
            yield f"{name[1:]}.{field.name}", messages[name], field, comment
            if field.type_name in messages and field.type_name not in seen:
                seen.add(field.type_name)
                open_.append(field.type_name)


def _raw(image: FileDescriptorSet) -> Mapping[str, str]:
    """Return each comment as it stands in the proto, on one line."""
    found = {}
    for file in image.file:
        for place in file.source_code_info.location:
            if len(place.path) == 4 and place.path[0] == 4 and place.path[2] in (2, 8):
                message = file.message_type[place.path[1]]
                each = (message.field if place.path[2] == 2 else message.oneof_decl)[place.path[3]]
                found[f"{file.package}.{message.name}.{each.name}"] = " ".join(place.leading_comments.split())
    return found


def test_every_field_says_whether_it_is_required(image: FileDescriptorSet) -> None:
    raw = _raw(image)
    silent = []
    for name, message, field, _ in _sent(image):
        one = field.HasField("oneof_index") and not field.proto3_optional
        # The comment of a oneof speaks for its fields.
        said = raw[f"{name.rpartition('.')[0]}.{message.oneof_decl[field.oneof_index].name}"] if one else raw[name]
        if not any(word in said for word in ("Required", "Optional")):
            silent.append(name)
    assert silent == []


def test_every_optional_field_says_what_its_absence_means(image: FileDescriptorSet) -> None:
    raw = _raw(image)
    words = ("Absent", "absent", "Empty", "Without", "without")
    fields = [name for name, *_ in _sent(image) if "Optional." in raw[name]]
    assert len(fields) > 50
    assert [name for name in fields if not any(word in raw[name] for word in words)] == []


def test_every_text_number_and_time_has_an_example(image: FileDescriptorSet) -> None:
    """A page's token has none, because only an answer has one. The example of a schema is in `examples.yaml`."""
    without = {
        name
        for name, _, field, comment in _sent(image)
        if field.type not in (field.TYPE_BOOL, field.TYPE_MESSAGE) or field.type_name == _MOMENT
        if comment.example is None and field.name != "page_token"
    }
    assert without == {_SCHEMA}
