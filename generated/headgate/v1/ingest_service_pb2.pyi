from google.api import annotations_pb2 as _annotations_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from headgate.v1 import event_pb2 as _event_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class IngestRequest(_message.Message):
    __slots__ = ("event", "validate_only")
    EVENT_FIELD_NUMBER: _ClassVar[int]
    VALIDATE_ONLY_FIELD_NUMBER: _ClassVar[int]
    event: _event_pb2.Event
    validate_only: bool
    def __init__(self, event: _Optional[_Union[_event_pb2.Event, _Mapping]] = ..., validate_only: bool = ...) -> None: ...

class IngestResponse(_message.Message):
    __slots__ = ("result",)
    RESULT_FIELD_NUMBER: _ClassVar[int]
    result: EventResult
    def __init__(self, result: _Optional[_Union[EventResult, _Mapping]] = ...) -> None: ...

class BatchIngestRequest(_message.Message):
    __slots__ = ("events", "atomic", "validate_only")
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    ATOMIC_FIELD_NUMBER: _ClassVar[int]
    VALIDATE_ONLY_FIELD_NUMBER: _ClassVar[int]
    events: _containers.RepeatedCompositeFieldContainer[_event_pb2.Event]
    atomic: bool
    validate_only: bool
    def __init__(self, events: _Optional[_Iterable[_Union[_event_pb2.Event, _Mapping]]] = ..., atomic: bool = ..., validate_only: bool = ...) -> None: ...

class BatchIngestResponse(_message.Message):
    __slots__ = ("total", "success_count", "error_count", "results")
    TOTAL_FIELD_NUMBER: _ClassVar[int]
    SUCCESS_COUNT_FIELD_NUMBER: _ClassVar[int]
    ERROR_COUNT_FIELD_NUMBER: _ClassVar[int]
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    total: int
    success_count: int
    error_count: int
    results: _containers.RepeatedCompositeFieldContainer[EventResult]
    def __init__(self, total: _Optional[int] = ..., success_count: _Optional[int] = ..., error_count: _Optional[int] = ..., results: _Optional[_Iterable[_Union[EventResult, _Mapping]]] = ...) -> None: ...

class StreamIngestRequest(_message.Message):
    __slots__ = ("id", "events")
    ID_FIELD_NUMBER: _ClassVar[int]
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    id: str
    events: _containers.RepeatedCompositeFieldContainer[_event_pb2.Event]
    def __init__(self, id: _Optional[str] = ..., events: _Optional[_Iterable[_Union[_event_pb2.Event, _Mapping]]] = ...) -> None: ...

class StreamIngestResponse(_message.Message):
    __slots__ = ("id", "results", "requests", "error")
    ID_FIELD_NUMBER: _ClassVar[int]
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    REQUESTS_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    id: str
    results: _containers.RepeatedCompositeFieldContainer[EventResult]
    requests: int
    error: StreamIngestError
    def __init__(self, id: _Optional[str] = ..., results: _Optional[_Iterable[_Union[EventResult, _Mapping]]] = ..., requests: _Optional[int] = ..., error: _Optional[_Union[StreamIngestError, _Mapping]] = ...) -> None: ...

class StreamIngestError(_message.Message):
    __slots__ = ("reason", "message", "retryable", "retry_after")
    REASON_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    RETRYABLE_FIELD_NUMBER: _ClassVar[int]
    RETRY_AFTER_FIELD_NUMBER: _ClassVar[int]
    reason: str
    message: str
    retryable: bool
    retry_after: int
    def __init__(self, reason: _Optional[str] = ..., message: _Optional[str] = ..., retryable: bool = ..., retry_after: _Optional[int] = ...) -> None: ...

class EventResult(_message.Message):
    __slots__ = ("index", "status", "id", "sequence", "created_at", "event_hash", "error", "warnings", "line")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    CREATED_AT_FIELD_NUMBER: _ClassVar[int]
    EVENT_HASH_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    WARNINGS_FIELD_NUMBER: _ClassVar[int]
    LINE_FIELD_NUMBER: _ClassVar[int]
    index: int
    status: str
    id: str
    sequence: int
    created_at: _timestamp_pb2.Timestamp
    event_hash: str
    error: EventError
    warnings: _containers.RepeatedScalarFieldContainer[str]
    line: int
    def __init__(self, index: _Optional[int] = ..., status: _Optional[str] = ..., id: _Optional[str] = ..., sequence: _Optional[int] = ..., created_at: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., event_hash: _Optional[str] = ..., error: _Optional[_Union[EventError, _Mapping]] = ..., warnings: _Optional[_Iterable[str]] = ..., line: _Optional[int] = ...) -> None: ...

class EventError(_message.Message):
    __slots__ = ("reason", "field", "message", "retryable", "differing_fields")
    REASON_FIELD_NUMBER: _ClassVar[int]
    FIELD_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    RETRYABLE_FIELD_NUMBER: _ClassVar[int]
    DIFFERING_FIELDS_FIELD_NUMBER: _ClassVar[int]
    reason: str
    field: str
    message: str
    retryable: bool
    differing_fields: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, reason: _Optional[str] = ..., field: _Optional[str] = ..., message: _Optional[str] = ..., retryable: bool = ..., differing_fields: _Optional[_Iterable[str]] = ...) -> None: ...
