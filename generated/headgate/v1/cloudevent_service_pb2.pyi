from google.api import annotations_pb2 as _annotations_pb2
from google.api import httpbody_pb2 as _httpbody_pb2
from headgate.third_party.cloudevents import cloudevents_pb2 as _cloudevents_pb2
from headgate.v1 import ingest_service_pb2 as _ingest_service_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class PublishRequest(_message.Message):
    __slots__ = ("event", "validate_only")
    EVENT_FIELD_NUMBER: _ClassVar[int]
    VALIDATE_ONLY_FIELD_NUMBER: _ClassVar[int]
    event: _cloudevents_pb2.CloudEvent
    validate_only: bool
    def __init__(self, event: _Optional[_Union[_cloudevents_pb2.CloudEvent, _Mapping]] = ..., validate_only: bool = ...) -> None: ...

class BatchPublishRequest(_message.Message):
    __slots__ = ("events", "atomic", "validate_only")
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    ATOMIC_FIELD_NUMBER: _ClassVar[int]
    VALIDATE_ONLY_FIELD_NUMBER: _ClassVar[int]
    events: _containers.RepeatedCompositeFieldContainer[_cloudevents_pb2.CloudEvent]
    atomic: bool
    validate_only: bool
    def __init__(self, events: _Optional[_Iterable[_Union[_cloudevents_pb2.CloudEvent, _Mapping]]] = ..., atomic: bool = ..., validate_only: bool = ...) -> None: ...

class ReceiveRequest(_message.Message):
    __slots__ = ("atomic", "validate_only", "json")
    ATOMIC_FIELD_NUMBER: _ClassVar[int]
    VALIDATE_ONLY_FIELD_NUMBER: _ClassVar[int]
    JSON_FIELD_NUMBER: _ClassVar[int]
    atomic: bool
    validate_only: bool
    json: _httpbody_pb2.HttpBody
    def __init__(self, atomic: bool = ..., validate_only: bool = ..., json: _Optional[_Union[_httpbody_pb2.HttpBody, _Mapping]] = ...) -> None: ...

class HandshakeRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class HandshakeResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...
