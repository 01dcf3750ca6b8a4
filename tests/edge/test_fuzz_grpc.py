"""gRPC fuzzed by reflection: the server describes its services, and messages are made from these descriptors.

No answer is INTERNAL, UNKNOWN or DATA_LOSS, and each error has a reason of the catalogue. `make fuzz` sends many more.
"""

import os
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import grpc
from google.protobuf import message_factory
from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from headgate_server.core.audit import RESERVED
from headgate_server.core.reasons import Reason
from tests.edge.conftest import MakeEdge

EXAMPLES = int(os.environ.get("HEADGATE_FUZZ", "15"))
"""Requests of each method."""
SECONDS = 10.0
"""For one answer. A stream that does not end is ended by the client after its first messages."""

SERVICES = ("headgate.v1.", "grpc.health.v1.")
_NUMBERS = st.one_of(st.sampled_from((0, 1, -1, 50, 2**31 - 1, -(2**31))), st.integers(-(2**31), 2**31 - 1))
_LONG_NUMBERS = st.one_of(_NUMBERS, st.sampled_from((2**63 - 1, -(2**63))))
_UNSIGNED = st.integers(0, 2**32 - 1)
_WORDS = (
    "type",
    "order.*",
    "BASIC",
    "FULL",
    "2024-01-15T10:30:00Z",
    "0190a6f2-5a3c-7d21-8f00-3b1c5a7e9d42",
    "admin",
    "\0",
)
_TEXTS = st.one_of(st.sampled_from(_WORDS), st.text(st.characters(exclude_categories=("Cs",)), max_size=300))
_BYTES = st.one_of(st.sampled_from((b"{}", b'{"amount":49.99}', b"[", b"\xff")), st.binary(max_size=200))
_F = FieldDescriptor
_SCALARS: dict[int, st.SearchStrategy[Any]] = {
    _F.TYPE_BOOL: st.booleans(),
    _F.TYPE_STRING: _TEXTS,
    _F.TYPE_BYTES: _BYTES,
    _F.TYPE_DOUBLE: st.floats(),
    _F.TYPE_FLOAT: st.floats(width=32),
    **dict.fromkeys((_F.TYPE_INT32, _F.TYPE_SINT32, _F.TYPE_SFIXED32, _F.TYPE_ENUM), _NUMBERS),
    **dict.fromkeys((_F.TYPE_INT64, _F.TYPE_SINT64, _F.TYPE_SFIXED64), _LONG_NUMBERS),
    **dict.fromkeys((_F.TYPE_UINT32, _F.TYPE_FIXED32, _F.TYPE_UINT64, _F.TYPE_FIXED64), _UNSIGNED),
}
_MOST_LEVELS = 4


@st.composite
def messages(draw: st.DrawFn, descriptor: Descriptor, level: int = 0) -> Message:
    """Make a message of this kind: any of its fields, each with any value that its type allows."""
    message: Any = message_factory.GetMessageClass(descriptor)()
    for field in descriptor.fields:
        if not draw(st.booleans()) or (field.message_type is not None and level == _MOST_LEVELS):
            continue
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            _fill_map(draw, getattr(message, field.name), field, level)
        elif field.is_repeated:
            values = draw(st.lists(_value(field, level), max_size=3))
            getattr(message, field.name).extend(values)
        elif field.message_type is not None:
            getattr(message, field.name).CopyFrom(draw(_value(field, level)))
        else:
            setattr(message, field.name, draw(_value(field, level)))
    return message


def _value(field: FieldDescriptor, level: int) -> st.SearchStrategy[Any]:
    return _SCALARS[field.type] if field.message_type is None else messages(field.message_type, level + 1)


def _fill_map(draw: st.DrawFn, target: Any, field: FieldDescriptor, level: int) -> None:
    key, value = (field.message_type.fields_by_name[name] for name in ("key", "value"))
    for name in draw(st.lists(_value(key, level), max_size=2)):
        if value.message_type is None:
            target[name] = draw(_value(value, level))
        else:
            target[name].CopyFrom(draw(_value(value, level)))


def _methods(port: str) -> Iterator[MethodDescriptor]:
    with closing(grpc.insecure_channel(port)) as channel:
        database = ProtoReflectionDescriptorDatabase(channel)
        pool = DescriptorPool(database)
        for name in sorted(database.get_services()):
            if name.startswith(SERVICES):
                yield from pool.FindServiceByName(name).methods


def _check(error: grpc.RpcError, method: MethodDescriptor) -> None:
    """Fail for an error that a client could not explain."""
    code = error.code()
    where = f"{method.full_name}: {code.name} {error.details()}"
    assert code not in (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.DATA_LOSS), where
    trailers = dict(error.trailing_metadata() or ())
    if not method.full_name.startswith("headgate."):
        return
    assert code not in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED), where
    status = status_pb2.Status.FromString(trailers["grpc-status-details-bin"])
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info), where
    assert Reason(info.reason), where


def _called(channel: grpc.Channel, method: MethodDescriptor, request: bytes, metadata: Any) -> None:
    """Call a method, and read the first messages of its answer."""
    path = f"/{method.containing_service.full_name}/{method.name}"
    read = message_factory.GetMessageClass(method.output_type).FromString
    more = {"metadata": metadata, "timeout": SECONDS}
    if not method.server_streaming:
        channel.unary_unary(path, response_deserializer=read)(request, **more)
        return
    # On the wire one request is a stream of one.
    call = channel.stream_stream(path, response_deserializer=read)(iter([request]), **more)
    with closing(_Stream(call)) as stream:
        for _ in zip(range(1), stream.call, strict=False):
            pass


class _Stream:
    """A stream that is cancelled when it is closed."""

    def __init__(self, call: Any):
        self.call = call

    def close(self) -> None:
        self.call.cancel()


def test_no_method_of_the_server_fails_without_a_reason(make_edge: MakeEdge) -> None:
    edge, operator = make_edge(), make_edge(workspace=RESERVED)
    # The server's own port: the bridge would hide what reflection finds there.
    methods = list(_methods(edge.up.grpc))
    assert {"headgate.v1.IngestService.BatchIngest", "grpc.health.v1.Health.Check"} <= {
        method.full_name for method in methods
    }
    with grpc.insecure_channel(edge.up.grpc) as channel:
        for method in methods:
            of_operators = method.containing_service.name == "AdminService"
            _fuzz(channel, method, (operator if of_operators else edge).metadata)


def _fuzz(channel: grpc.Channel, method: MethodDescriptor, metadata: Any) -> None:
    @settings(
        max_examples=EXAMPLES,
        database=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )
    @given(
        request=messages(method.input_type), noise=st.binary(max_size=20), garbled=st.sampled_from((False, False, True))
    )
    def answered(request: Message, noise: bytes, garbled: bool) -> None:
        try:
            _called(channel, method, request.SerializeToString() + (noise if garbled else b""), metadata)
        except grpc.RpcError as error:
            _check(error, method)

    answered()
