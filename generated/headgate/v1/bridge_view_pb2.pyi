from google.api import annotations_pb2 as _annotations_pb2
from google.api import httpbody_pb2 as _httpbody_pb2
from google.protobuf import field_mask_pb2 as _field_mask_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from headgate.v1 import admin_service_pb2 as _admin_service_pb2
from headgate.v1 import destination_pb2 as _destination_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class RawBatchIngestRequest(_message.Message):
    __slots__ = ("events", "atomic", "validate_only", "json")
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    ATOMIC_FIELD_NUMBER: _ClassVar[int]
    VALIDATE_ONLY_FIELD_NUMBER: _ClassVar[int]
    JSON_FIELD_NUMBER: _ClassVar[int]
    events: _containers.RepeatedScalarFieldContainer[bytes]
    atomic: bool
    validate_only: bool
    json: _httpbody_pb2.HttpBody
    def __init__(self, events: _Optional[_Iterable[bytes]] = ..., atomic: bool = ..., validate_only: bool = ..., json: _Optional[_Union[_httpbody_pb2.HttpBody, _Mapping]] = ...) -> None: ...

class RawIngestRequest(_message.Message):
    __slots__ = ("event", "validate_only", "json")
    EVENT_FIELD_NUMBER: _ClassVar[int]
    VALIDATE_ONLY_FIELD_NUMBER: _ClassVar[int]
    JSON_FIELD_NUMBER: _ClassVar[int]
    event: bytes
    validate_only: bool
    json: _httpbody_pb2.HttpBody
    def __init__(self, event: _Optional[bytes] = ..., validate_only: bool = ..., json: _Optional[_Union[_httpbody_pb2.HttpBody, _Mapping]] = ...) -> None: ...

class RawStreamIngestRequest(_message.Message):
    __slots__ = ("id", "events")
    ID_FIELD_NUMBER: _ClassVar[int]
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    id: str
    events: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, id: _Optional[str] = ..., events: _Optional[_Iterable[bytes]] = ...) -> None: ...

class RawCreateDestinationRequest(_message.Message):
    __slots__ = ("destination", "json")
    DESTINATION_FIELD_NUMBER: _ClassVar[int]
    JSON_FIELD_NUMBER: _ClassVar[int]
    destination: _destination_pb2.Destination
    json: _httpbody_pb2.HttpBody
    def __init__(self, destination: _Optional[_Union[_destination_pb2.Destination, _Mapping]] = ..., json: _Optional[_Union[_httpbody_pb2.HttpBody, _Mapping]] = ...) -> None: ...

class RawUpdateDestinationRequest(_message.Message):
    __slots__ = ("id", "destination", "update_mask", "json")
    ID_FIELD_NUMBER: _ClassVar[int]
    DESTINATION_FIELD_NUMBER: _ClassVar[int]
    UPDATE_MASK_FIELD_NUMBER: _ClassVar[int]
    JSON_FIELD_NUMBER: _ClassVar[int]
    id: str
    destination: _destination_pb2.Destination
    update_mask: _field_mask_pb2.FieldMask
    json: _httpbody_pb2.HttpBody
    def __init__(self, id: _Optional[str] = ..., destination: _Optional[_Union[_destination_pb2.Destination, _Mapping]] = ..., update_mask: _Optional[_Union[_field_mask_pb2.FieldMask, _Mapping]] = ..., json: _Optional[_Union[_httpbody_pb2.HttpBody, _Mapping]] = ...) -> None: ...

class RawReplayDestinationRequest(_message.Message):
    __slots__ = ("id", "set_aside", "after_sequence", "json")
    ID_FIELD_NUMBER: _ClassVar[int]
    SET_ASIDE_FIELD_NUMBER: _ClassVar[int]
    AFTER_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    FROM_FIELD_NUMBER: _ClassVar[int]
    JSON_FIELD_NUMBER: _ClassVar[int]
    id: str
    set_aside: bool
    after_sequence: int
    json: _httpbody_pb2.HttpBody
    def __init__(self, id: _Optional[str] = ..., set_aside: bool = ..., after_sequence: _Optional[int] = ..., json: _Optional[_Union[_httpbody_pb2.HttpBody, _Mapping]] = ..., **kwargs) -> None: ...

class RawListEventsRequest(_message.Message):
    __slots__ = ("page_size", "page_token", "type", "source", "subject", "idempotency_key", "to", "newest_first", "view")
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    SUBJECT_FIELD_NUMBER: _ClassVar[int]
    IDEMPOTENCY_KEY_FIELD_NUMBER: _ClassVar[int]
    FROM_FIELD_NUMBER: _ClassVar[int]
    TO_FIELD_NUMBER: _ClassVar[int]
    NEWEST_FIRST_FIELD_NUMBER: _ClassVar[int]
    VIEW_FIELD_NUMBER: _ClassVar[int]
    page_size: int
    page_token: str
    type: str
    source: str
    subject: str
    idempotency_key: str
    to: str
    newest_first: bool
    view: str
    def __init__(self, page_size: _Optional[int] = ..., page_token: _Optional[str] = ..., type: _Optional[str] = ..., source: _Optional[str] = ..., subject: _Optional[str] = ..., idempotency_key: _Optional[str] = ..., to: _Optional[str] = ..., newest_first: bool = ..., view: _Optional[str] = ..., **kwargs) -> None: ...

class RawSubscribeRequest(_message.Message):
    __slots__ = ("type", "source", "subject", "after_sequence", "after_id")
    TYPE_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    SUBJECT_FIELD_NUMBER: _ClassVar[int]
    AFTER_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    AFTER_ID_FIELD_NUMBER: _ClassVar[int]
    FROM_FIELD_NUMBER: _ClassVar[int]
    type: str
    source: str
    subject: str
    after_sequence: int
    after_id: str
    def __init__(self, type: _Optional[str] = ..., source: _Optional[str] = ..., subject: _Optional[str] = ..., after_sequence: _Optional[int] = ..., after_id: _Optional[str] = ..., **kwargs) -> None: ...

class RawVerifyLedgerRequest(_message.Message):
    __slots__ = ("to", "limit", "page_token", "expected_sequence", "expected_hash")
    FROM_FIELD_NUMBER: _ClassVar[int]
    TO_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_HASH_FIELD_NUMBER: _ClassVar[int]
    to: str
    limit: int
    page_token: str
    expected_sequence: int
    expected_hash: str
    def __init__(self, to: _Optional[str] = ..., limit: _Optional[int] = ..., page_token: _Optional[str] = ..., expected_sequence: _Optional[int] = ..., expected_hash: _Optional[str] = ..., **kwargs) -> None: ...

class RawPublishRequest(_message.Message):
    __slots__ = ("event", "validate_only")
    EVENT_FIELD_NUMBER: _ClassVar[int]
    VALIDATE_ONLY_FIELD_NUMBER: _ClassVar[int]
    event: bytes
    validate_only: bool
    def __init__(self, event: _Optional[bytes] = ..., validate_only: bool = ...) -> None: ...

class RawBatchPublishRequest(_message.Message):
    __slots__ = ("events", "atomic", "validate_only")
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    ATOMIC_FIELD_NUMBER: _ClassVar[int]
    VALIDATE_ONLY_FIELD_NUMBER: _ClassVar[int]
    events: _containers.RepeatedScalarFieldContainer[bytes]
    atomic: bool
    validate_only: bool
    def __init__(self, events: _Optional[_Iterable[bytes]] = ..., atomic: bool = ..., validate_only: bool = ...) -> None: ...

class RawListRejectionsRequest(_message.Message):
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
    to: str
    replayed: bool
    def __init__(self, page_size: _Optional[int] = ..., page_token: _Optional[str] = ..., reason: _Optional[str] = ..., receiver: _Optional[str] = ..., key_id: _Optional[str] = ..., to: _Optional[str] = ..., replayed: bool = ..., **kwargs) -> None: ...

class RawReplayRejectionRequest(_message.Message):
    __slots__ = ("id", "event", "validate_only", "json")
    ID_FIELD_NUMBER: _ClassVar[int]
    EVENT_FIELD_NUMBER: _ClassVar[int]
    VALIDATE_ONLY_FIELD_NUMBER: _ClassVar[int]
    JSON_FIELD_NUMBER: _ClassVar[int]
    id: str
    event: bytes
    validate_only: bool
    json: _httpbody_pb2.HttpBody
    def __init__(self, id: _Optional[str] = ..., event: _Optional[bytes] = ..., validate_only: bool = ..., json: _Optional[_Union[_httpbody_pb2.HttpBody, _Mapping]] = ...) -> None: ...

class RawReplayRejectionsRequest(_message.Message):
    __slots__ = ("reason", "receiver", "key_id", "to", "page_size", "page_token", "validate_only", "json")
    REASON_FIELD_NUMBER: _ClassVar[int]
    RECEIVER_FIELD_NUMBER: _ClassVar[int]
    KEY_ID_FIELD_NUMBER: _ClassVar[int]
    FROM_FIELD_NUMBER: _ClassVar[int]
    TO_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    VALIDATE_ONLY_FIELD_NUMBER: _ClassVar[int]
    JSON_FIELD_NUMBER: _ClassVar[int]
    reason: str
    receiver: str
    key_id: str
    to: _timestamp_pb2.Timestamp
    page_size: int
    page_token: str
    validate_only: bool
    json: _httpbody_pb2.HttpBody
    def __init__(self, reason: _Optional[str] = ..., receiver: _Optional[str] = ..., key_id: _Optional[str] = ..., to: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ..., validate_only: bool = ..., json: _Optional[_Union[_httpbody_pb2.HttpBody, _Mapping]] = ..., **kwargs) -> None: ...

class RawPutEventTypeRequest(_message.Message):
    __slots__ = ("event_type", "schema_json", "mode", "json")
    EVENT_TYPE_FIELD_NUMBER: _ClassVar[int]
    SCHEMA_JSON_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    JSON_FIELD_NUMBER: _ClassVar[int]
    event_type: str
    schema_json: bytes
    mode: str
    json: _httpbody_pb2.HttpBody
    def __init__(self, event_type: _Optional[str] = ..., schema_json: _Optional[bytes] = ..., mode: _Optional[str] = ..., json: _Optional[_Union[_httpbody_pb2.HttpBody, _Mapping]] = ...) -> None: ...

class RawUpdateWorkspaceRequest(_message.Message):
    __slots__ = ("unknown_event_types", "json")
    UNKNOWN_EVENT_TYPES_FIELD_NUMBER: _ClassVar[int]
    JSON_FIELD_NUMBER: _ClassVar[int]
    unknown_event_types: str
    json: _httpbody_pb2.HttpBody
    def __init__(self, unknown_event_types: _Optional[str] = ..., json: _Optional[_Union[_httpbody_pb2.HttpBody, _Mapping]] = ...) -> None: ...

class RawCreateManagedWorkspaceRequest(_message.Message):
    __slots__ = ("workspace", "json")
    WORKSPACE_FIELD_NUMBER: _ClassVar[int]
    JSON_FIELD_NUMBER: _ClassVar[int]
    workspace: _admin_service_pb2.ManagedWorkspace
    json: _httpbody_pb2.HttpBody
    def __init__(self, workspace: _Optional[_Union[_admin_service_pb2.ManagedWorkspace, _Mapping]] = ..., json: _Optional[_Union[_httpbody_pb2.HttpBody, _Mapping]] = ...) -> None: ...

class RawUpdateManagedWorkspaceRequest(_message.Message):
    __slots__ = ("workspace_name", "workspace", "update_mask", "json")
    WORKSPACE_NAME_FIELD_NUMBER: _ClassVar[int]
    WORKSPACE_FIELD_NUMBER: _ClassVar[int]
    UPDATE_MASK_FIELD_NUMBER: _ClassVar[int]
    JSON_FIELD_NUMBER: _ClassVar[int]
    workspace_name: str
    workspace: _admin_service_pb2.ManagedWorkspace
    update_mask: _field_mask_pb2.FieldMask
    json: _httpbody_pb2.HttpBody
    def __init__(self, workspace_name: _Optional[str] = ..., workspace: _Optional[_Union[_admin_service_pb2.ManagedWorkspace, _Mapping]] = ..., update_mask: _Optional[_Union[_field_mask_pb2.FieldMask, _Mapping]] = ..., json: _Optional[_Union[_httpbody_pb2.HttpBody, _Mapping]] = ...) -> None: ...

class RawCreateKeyRequest(_message.Message):
    __slots__ = ("key", "request_id", "json")
    KEY_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    JSON_FIELD_NUMBER: _ClassVar[int]
    key: _admin_service_pb2.ApiKey
    request_id: str
    json: _httpbody_pb2.HttpBody
    def __init__(self, key: _Optional[_Union[_admin_service_pb2.ApiKey, _Mapping]] = ..., request_id: _Optional[str] = ..., json: _Optional[_Union[_httpbody_pb2.HttpBody, _Mapping]] = ...) -> None: ...

class RawUpdateKeyRequest(_message.Message):
    __slots__ = ("id", "key", "update_mask", "json")
    ID_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    UPDATE_MASK_FIELD_NUMBER: _ClassVar[int]
    JSON_FIELD_NUMBER: _ClassVar[int]
    id: str
    key: _admin_service_pb2.ApiKey
    update_mask: _field_mask_pb2.FieldMask
    json: _httpbody_pb2.HttpBody
    def __init__(self, id: _Optional[str] = ..., key: _Optional[_Union[_admin_service_pb2.ApiKey, _Mapping]] = ..., update_mask: _Optional[_Union[_field_mask_pb2.FieldMask, _Mapping]] = ..., json: _Optional[_Union[_httpbody_pb2.HttpBody, _Mapping]] = ...) -> None: ...

class RawRotateKeyRequest(_message.Message):
    __slots__ = ("id", "overlap_seconds", "expires_at", "json")
    ID_FIELD_NUMBER: _ClassVar[int]
    OVERLAP_SECONDS_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_AT_FIELD_NUMBER: _ClassVar[int]
    JSON_FIELD_NUMBER: _ClassVar[int]
    id: str
    overlap_seconds: int
    expires_at: _timestamp_pb2.Timestamp
    json: _httpbody_pb2.HttpBody
    def __init__(self, id: _Optional[str] = ..., overlap_seconds: _Optional[int] = ..., expires_at: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., json: _Optional[_Union[_httpbody_pb2.HttpBody, _Mapping]] = ...) -> None: ...

class GetOpenApiRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetReferenceRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetReferenceScriptRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetHealthRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetHealthResponse(_message.Message):
    __slots__ = ("status",)
    STATUS_FIELD_NUMBER: _ClassVar[int]
    status: str
    def __init__(self, status: _Optional[str] = ...) -> None: ...

class GetReadinessRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetReadinessResponse(_message.Message):
    __slots__ = ("status", "jobs", "parts")
    STATUS_FIELD_NUMBER: _ClassVar[int]
    JOBS_FIELD_NUMBER: _ClassVar[int]
    PARTS_FIELD_NUMBER: _ClassVar[int]
    status: str
    jobs: _containers.RepeatedCompositeFieldContainer[JobHealth]
    parts: _containers.RepeatedCompositeFieldContainer[PartHealth]
    def __init__(self, status: _Optional[str] = ..., jobs: _Optional[_Iterable[_Union[JobHealth, _Mapping]]] = ..., parts: _Optional[_Iterable[_Union[PartHealth, _Mapping]]] = ...) -> None: ...

class PartHealth(_message.Message):
    __slots__ = ("name", "state", "detail")
    NAME_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    name: str
    state: str
    detail: str
    def __init__(self, name: _Optional[str] = ..., state: _Optional[str] = ..., detail: _Optional[str] = ...) -> None: ...

class JobHealth(_message.Message):
    __slots__ = ("name", "state", "failures", "last_error")
    NAME_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    FAILURES_FIELD_NUMBER: _ClassVar[int]
    LAST_ERROR_FIELD_NUMBER: _ClassVar[int]
    name: str
    state: str
    failures: int
    last_error: str
    def __init__(self, name: _Optional[str] = ..., state: _Optional[str] = ..., failures: _Optional[int] = ..., last_error: _Optional[str] = ...) -> None: ...

class CheckKeyRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class CheckKeyResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...
