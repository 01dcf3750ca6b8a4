from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Destination(_message.Message):
    __slots__ = ("id", "name", "filter", "ordering", "webhook", "jetstream", "start", "state", "state_reason", "cursor", "lag_events", "lag_seconds", "set_aside", "delivered", "failed_attempts", "last_error", "last_error_at", "next_attempt_at", "replay", "created_at", "updated_at", "failing_since")
    ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    FILTER_FIELD_NUMBER: _ClassVar[int]
    ORDERING_FIELD_NUMBER: _ClassVar[int]
    WEBHOOK_FIELD_NUMBER: _ClassVar[int]
    JETSTREAM_FIELD_NUMBER: _ClassVar[int]
    START_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    STATE_REASON_FIELD_NUMBER: _ClassVar[int]
    CURSOR_FIELD_NUMBER: _ClassVar[int]
    LAG_EVENTS_FIELD_NUMBER: _ClassVar[int]
    LAG_SECONDS_FIELD_NUMBER: _ClassVar[int]
    SET_ASIDE_FIELD_NUMBER: _ClassVar[int]
    DELIVERED_FIELD_NUMBER: _ClassVar[int]
    FAILED_ATTEMPTS_FIELD_NUMBER: _ClassVar[int]
    LAST_ERROR_FIELD_NUMBER: _ClassVar[int]
    LAST_ERROR_AT_FIELD_NUMBER: _ClassVar[int]
    NEXT_ATTEMPT_AT_FIELD_NUMBER: _ClassVar[int]
    REPLAY_FIELD_NUMBER: _ClassVar[int]
    CREATED_AT_FIELD_NUMBER: _ClassVar[int]
    UPDATED_AT_FIELD_NUMBER: _ClassVar[int]
    FAILING_SINCE_FIELD_NUMBER: _ClassVar[int]
    id: str
    name: str
    filter: DestinationFilter
    ordering: str
    webhook: Webhook
    jetstream: JetStream
    start: str
    state: str
    state_reason: str
    cursor: int
    lag_events: int
    lag_seconds: int
    set_aside: int
    delivered: int
    failed_attempts: int
    last_error: str
    last_error_at: _timestamp_pb2.Timestamp
    next_attempt_at: _timestamp_pb2.Timestamp
    replay: Replay
    created_at: _timestamp_pb2.Timestamp
    updated_at: _timestamp_pb2.Timestamp
    failing_since: _timestamp_pb2.Timestamp
    def __init__(self, id: _Optional[str] = ..., name: _Optional[str] = ..., filter: _Optional[_Union[DestinationFilter, _Mapping]] = ..., ordering: _Optional[str] = ..., webhook: _Optional[_Union[Webhook, _Mapping]] = ..., jetstream: _Optional[_Union[JetStream, _Mapping]] = ..., start: _Optional[str] = ..., state: _Optional[str] = ..., state_reason: _Optional[str] = ..., cursor: _Optional[int] = ..., lag_events: _Optional[int] = ..., lag_seconds: _Optional[int] = ..., set_aside: _Optional[int] = ..., delivered: _Optional[int] = ..., failed_attempts: _Optional[int] = ..., last_error: _Optional[str] = ..., last_error_at: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., next_attempt_at: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., replay: _Optional[_Union[Replay, _Mapping]] = ..., created_at: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., updated_at: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., failing_since: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class DestinationFilter(_message.Message):
    __slots__ = ("types", "sources", "receivers")
    TYPES_FIELD_NUMBER: _ClassVar[int]
    SOURCES_FIELD_NUMBER: _ClassVar[int]
    RECEIVERS_FIELD_NUMBER: _ClassVar[int]
    types: _containers.RepeatedScalarFieldContainer[str]
    sources: _containers.RepeatedScalarFieldContainer[str]
    receivers: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, types: _Optional[_Iterable[str]] = ..., sources: _Optional[_Iterable[str]] = ..., receivers: _Optional[_Iterable[str]] = ...) -> None: ...

class Webhook(_message.Message):
    __slots__ = ("url", "max_events", "timeout_seconds", "format", "signature", "headers", "secret")
    class HeadersEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    URL_FIELD_NUMBER: _ClassVar[int]
    MAX_EVENTS_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_SECONDS_FIELD_NUMBER: _ClassVar[int]
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    HEADERS_FIELD_NUMBER: _ClassVar[int]
    SECRET_FIELD_NUMBER: _ClassVar[int]
    url: str
    max_events: int
    timeout_seconds: int
    format: str
    signature: str
    headers: _containers.ScalarMap[str, str]
    secret: str
    def __init__(self, url: _Optional[str] = ..., max_events: _Optional[int] = ..., timeout_seconds: _Optional[int] = ..., format: _Optional[str] = ..., signature: _Optional[str] = ..., headers: _Optional[_Mapping[str, str]] = ..., secret: _Optional[str] = ...) -> None: ...

class JetStream(_message.Message):
    __slots__ = ("stream", "subject_prefix")
    STREAM_FIELD_NUMBER: _ClassVar[int]
    SUBJECT_PREFIX_FIELD_NUMBER: _ClassVar[int]
    stream: str
    subject_prefix: str
    def __init__(self, stream: _Optional[str] = ..., subject_prefix: _Optional[str] = ...) -> None: ...

class Replay(_message.Message):
    __slots__ = ("after_sequence", "until_sequence")
    AFTER_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    UNTIL_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    after_sequence: int
    until_sequence: int
    def __init__(self, after_sequence: _Optional[int] = ..., until_sequence: _Optional[int] = ...) -> None: ...

class DeliveryFailure(_message.Message):
    __slots__ = ("sequence", "event_id", "state", "attempts", "first_failed_at", "last_attempt_at", "next_attempt_at", "status", "error")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    EVENT_ID_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    ATTEMPTS_FIELD_NUMBER: _ClassVar[int]
    FIRST_FAILED_AT_FIELD_NUMBER: _ClassVar[int]
    LAST_ATTEMPT_AT_FIELD_NUMBER: _ClassVar[int]
    NEXT_ATTEMPT_AT_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    event_id: str
    state: str
    attempts: int
    first_failed_at: _timestamp_pb2.Timestamp
    last_attempt_at: _timestamp_pb2.Timestamp
    next_attempt_at: _timestamp_pb2.Timestamp
    status: int
    error: str
    def __init__(self, sequence: _Optional[int] = ..., event_id: _Optional[str] = ..., state: _Optional[str] = ..., attempts: _Optional[int] = ..., first_failed_at: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., last_attempt_at: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., next_attempt_at: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., status: _Optional[int] = ..., error: _Optional[str] = ...) -> None: ...
