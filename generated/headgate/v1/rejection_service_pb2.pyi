from google.api import annotations_pb2 as _annotations_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from headgate.v1 import event_pb2 as _event_pb2
from headgate.v1 import ingest_service_pb2 as _ingest_service_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Rejection(_message.Message):
    __slots__ = ("id", "received_at", "reason", "field", "message", "receiver", "key_id", "request_id", "event", "event_base64", "event_size", "cut", "replayed_at", "event_id")
    ID_FIELD_NUMBER: _ClassVar[int]
    RECEIVED_AT_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    FIELD_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    RECEIVER_FIELD_NUMBER: _ClassVar[int]
    KEY_ID_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    EVENT_FIELD_NUMBER: _ClassVar[int]
    EVENT_BASE64_FIELD_NUMBER: _ClassVar[int]
    EVENT_SIZE_FIELD_NUMBER: _ClassVar[int]
    CUT_FIELD_NUMBER: _ClassVar[int]
    REPLAYED_AT_FIELD_NUMBER: _ClassVar[int]
    EVENT_ID_FIELD_NUMBER: _ClassVar[int]
    id: str
    received_at: _timestamp_pb2.Timestamp
    reason: str
    field: str
    message: str
    receiver: str
    key_id: str
    request_id: str
    event: str
    event_base64: bytes
    event_size: int
    cut: bool
    replayed_at: _timestamp_pb2.Timestamp
    event_id: str
    def __init__(self, id: _Optional[str] = ..., received_at: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., reason: _Optional[str] = ..., field: _Optional[str] = ..., message: _Optional[str] = ..., receiver: _Optional[str] = ..., key_id: _Optional[str] = ..., request_id: _Optional[str] = ..., event: _Optional[str] = ..., event_base64: _Optional[bytes] = ..., event_size: _Optional[int] = ..., cut: bool = ..., replayed_at: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., event_id: _Optional[str] = ...) -> None: ...

class GetRejectionRequest(_message.Message):
    __slots__ = ("id",)
    ID_FIELD_NUMBER: _ClassVar[int]
    id: str
    def __init__(self, id: _Optional[str] = ...) -> None: ...

class GetRejectionResponse(_message.Message):
    __slots__ = ("rejection",)
    REJECTION_FIELD_NUMBER: _ClassVar[int]
    rejection: Rejection
    def __init__(self, rejection: _Optional[_Union[Rejection, _Mapping]] = ...) -> None: ...

class ListRejectionsRequest(_message.Message):
    __slots__ = ("page_size", "page_token", "reason", "receiver", "key_id", "to", "replayed")
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    RECEIVER_FIELD_NUMBER: _ClassVar[int]
    KEY_ID_FIELD_NUMBER: _ClassVar[int]
    FROM_FIELD_NUMBER: _ClassVar[int]
    TO_FIELD_NUMBER: _ClassVar[int]
    REPLAYED_FIELD_NUMBER: _ClassVar[int]
    page_size: int
    page_token: str
    reason: str
    receiver: str
    key_id: str
    to: _timestamp_pb2.Timestamp
    replayed: bool
    def __init__(self, page_size: _Optional[int] = ..., page_token: _Optional[str] = ..., reason: _Optional[str] = ..., receiver: _Optional[str] = ..., key_id: _Optional[str] = ..., to: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., replayed: bool = ..., **kwargs) -> None: ...

class ListRejectionsResponse(_message.Message):
    __slots__ = ("rejections", "next_page_token", "omitted")
    REJECTIONS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    OMITTED_FIELD_NUMBER: _ClassVar[int]
    rejections: _containers.RepeatedCompositeFieldContainer[Rejection]
    next_page_token: str
    omitted: int
    def __init__(self, rejections: _Optional[_Iterable[_Union[Rejection, _Mapping]]] = ..., next_page_token: _Optional[str] = ..., omitted: _Optional[int] = ...) -> None: ...

class ReplayRejectionRequest(_message.Message):
    __slots__ = ("id", "event", "validate_only")
    ID_FIELD_NUMBER: _ClassVar[int]
    EVENT_FIELD_NUMBER: _ClassVar[int]
    VALIDATE_ONLY_FIELD_NUMBER: _ClassVar[int]
    id: str
    event: _event_pb2.Event
    validate_only: bool
    def __init__(self, id: _Optional[str] = ..., event: _Optional[_Union[_event_pb2.Event, _Mapping]] = ..., validate_only: bool = ...) -> None: ...

class ReplayRejectionResponse(_message.Message):
    __slots__ = ("result",)
    RESULT_FIELD_NUMBER: _ClassVar[int]
    result: _ingest_service_pb2.EventResult
    def __init__(self, result: _Optional[_Union[_ingest_service_pb2.EventResult, _Mapping]] = ...) -> None: ...

class ReplayRejectionsRequest(_message.Message):
    __slots__ = ("reason", "receiver", "key_id", "to", "page_size", "page_token", "validate_only")
    REASON_FIELD_NUMBER: _ClassVar[int]
    RECEIVER_FIELD_NUMBER: _ClassVar[int]
    KEY_ID_FIELD_NUMBER: _ClassVar[int]
    FROM_FIELD_NUMBER: _ClassVar[int]
    TO_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    VALIDATE_ONLY_FIELD_NUMBER: _ClassVar[int]
    reason: str
    receiver: str
    key_id: str
    to: _timestamp_pb2.Timestamp
    page_size: int
    page_token: str
    validate_only: bool
    def __init__(self, reason: _Optional[str] = ..., receiver: _Optional[str] = ..., key_id: _Optional[str] = ..., to: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ..., validate_only: bool = ..., **kwargs) -> None: ...

class ReplayRejectionsResponse(_message.Message):
    __slots__ = ("total", "success_count", "error_count", "results", "next_page_token")
    TOTAL_FIELD_NUMBER: _ClassVar[int]
    SUCCESS_COUNT_FIELD_NUMBER: _ClassVar[int]
    ERROR_COUNT_FIELD_NUMBER: _ClassVar[int]
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    total: int
    success_count: int
    error_count: int
    results: _containers.RepeatedCompositeFieldContainer[RejectionReplay]
    next_page_token: str
    def __init__(self, total: _Optional[int] = ..., success_count: _Optional[int] = ..., error_count: _Optional[int] = ..., results: _Optional[_Iterable[_Union[RejectionReplay, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class RejectionReplay(_message.Message):
    __slots__ = ("rejection_id", "result")
    REJECTION_ID_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    rejection_id: str
    result: _ingest_service_pb2.EventResult
    def __init__(self, rejection_id: _Optional[str] = ..., result: _Optional[_Union[_ingest_service_pb2.EventResult, _Mapping]] = ...) -> None: ...
