"""Envoy's copy of the protos: the same services, with bodies that Envoy passes on without parsing them."""

from __future__ import annotations

from collections.abc import Iterator

from google.api import annotations_pb2
from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
    MethodDescriptorProto,
)

PACKAGE = "headgate.v1"
BRIDGE_VIEW = "headgate/v1/bridge_view.proto"
HTTP_BODY_PROTO = "google/api/httpbody.proto"
HTTP_BODY = "google.api.HttpBody"

# From a request message to the message of bridge_view.proto whose fields it gets in Envoy's copy.
RAW_REQUESTS = {
    "BatchIngestRequest": "RawBatchIngestRequest",
    "CreateDestinationRequest": "RawCreateDestinationRequest",
    "CreateKeyRequest": "RawCreateKeyRequest",
    "CreateManagedWorkspaceRequest": "RawCreateManagedWorkspaceRequest",
    "IngestRequest": "RawIngestRequest",
    "PutEventTypeRequest": "RawPutEventTypeRequest",
    "RotateKeyRequest": "RawRotateKeyRequest",
    "UpdateKeyRequest": "RawUpdateKeyRequest",
    "UpdateManagedWorkspaceRequest": "RawUpdateManagedWorkspaceRequest",
    "ReplayDestinationRequest": "RawReplayDestinationRequest",
    "UpdateDestinationRequest": "RawUpdateDestinationRequest",
    "UpdateWorkspaceRequest": "RawUpdateWorkspaceRequest",
    "ReplayRejectionRequest": "RawReplayRejectionRequest",
    "ReplayRejectionsRequest": "RawReplayRejectionsRequest",
}

# The same for requests that are only a query, because Envoy would parse their times by its own rules.
RAW_QUERIES = {
    "ListEventsRequest": "RawListEventsRequest",
    "ListRejectionsRequest": "RawListRejectionsRequest",
    "SubscribeRequest": "RawSubscribeRequest",
    "VerifyLedgerRequest": "RawVerifyLedgerRequest",
}

# The field of a raw request that takes the HTTP body, whole.
BODY = "json"

# envoy.yaml sends every request under /compat/ to this path, and its method and path in headers. So no query and no
# path of a vendor can be read as a field of a proto.
COMPAT_SERVICE = "CompatService"
COMPAT_PATH = "/compat"

# The fields of a raw request that Envoy has: those of the path, those that the query may have, and the body. It
# refuses a query parameter with another name.
SHOWN_FIELDS = frozenset(
    {"id", "event_type", "workspace_name", "request_id", "atomic", "update_mask", "validate_only", BODY}
)


def envoy_view(image: FileDescriptorSet) -> FileDescriptorSet:
    """Return Envoy's copy of `image`, which holds our files and all their imports.

    Each RPC with an HTTP binding answers `google.api.HttpBody`, whose bytes Envoy forwards unchanged: the server writes
    the JSON. The requests in `RAW_REQUESTS` have the fields of their raw messages, so that Envoy does not parse their
    bodies either. Those in `RAW_QUERIES` have raw fields too, so that Envoy does not parse times. All keep their public
    names, which Envoy prints when it refuses a query parameter. The RPC of `COMPAT_SERVICE` is bound to one path.

    Raises `ValueError` if a file that our services now need is not in `image`.
    """
    view = FileDescriptorSet()
    view.CopyFrom(image)
    raw = {message.name: message for file in view.file if file.name == BRIDGE_VIEW for message in file.message_type}
    for file in view.file:
        for message in file.message_type:
            if file.package == PACKAGE and message.name in RAW_REQUESTS:
                _take_fields(message, raw[RAW_REQUESTS[message.name]], SHOWN_FIELDS)
                _need_http_body(file)
            elif file.package == PACKAGE and message.name in RAW_QUERIES:
                _take_fields(message, raw[RAW_QUERIES[message.name]])
        for service in file.service:
            for method in service.method:
                _pass_bodies_through(file, method)
                if service.name == COMPAT_SERVICE:
                    _bind_everything(method)
    ordered = FileDescriptorSet()
    ordered.file.extend(_imports_first(view))
    return ordered


def _take_fields(message: DescriptorProto, raw: DescriptorProto, shown: frozenset[str] | None = None) -> None:
    """Give a message the fields of its raw one, or only those that are shown."""
    fields = [field for field in raw.field if shown is None or field.name in shown]
    del message.field[:]
    message.field.extend(fields)
    # An optional field is in its own oneof. The copy leaves out a oneof whose fields are all hidden.
    kept = sorted({field.oneof_index for field in fields if field.HasField("oneof_index")})
    del message.oneof_decl[:]
    message.oneof_decl.extend(raw.oneof_decl[index] for index in kept)
    for field in message.field:
        if field.HasField("oneof_index"):
            field.oneof_index = kept.index(field.oneof_index)


def _pass_bodies_through(file: FileDescriptorProto, method: MethodDescriptorProto) -> None:
    if not method.options.HasExtension(annotations_pb2.http):
        return
    rule = method.options.Extensions[annotations_pb2.http]
    method.output_type = f".{HTTP_BODY}"
    rule.response_body = ""
    if method.input_type.removeprefix(f".{PACKAGE}.") in RAW_REQUESTS:
        rule.body = BODY
    _need_http_body(file)


def _bind_everything(method: MethodDescriptorProto) -> None:
    rule = method.options.Extensions[annotations_pb2.http]
    rule.Clear()
    rule.post = COMPAT_PATH
    rule.body = "*"


def _need_http_body(file: FileDescriptorProto) -> None:
    if HTTP_BODY_PROTO not in file.dependency:
        file.dependency.append(HTTP_BODY_PROTO)


def _imports_first(files: FileDescriptorSet) -> Iterator[FileDescriptorProto]:
    """Yield each file after the files that it imports: Envoy needs this order."""
    waiting = {file.name: file for file in files.file}
    done: set[str] = set()
    while waiting:
        ready = [file for file in waiting.values() if done.issuperset(file.dependency)]
        if not ready:
            raise ValueError(f"these files need one that is not there: {', '.join(sorted(waiting))}")
        for file in sorted(ready, key=lambda each: each.name):
            yield waiting.pop(file.name)
            done.add(file.name)
