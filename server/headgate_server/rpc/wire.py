"""Results and events as messages; results and events also as JSON, for speed. `decode.py` is the other direction."""

from collections.abc import Iterable, Sequence
from typing import Any
from uuid import UUID

import orjson
from google.api.httpbody_pb2 import HttpBody
from google.protobuf.struct_pb2 import ListValue, Struct, Value
from google.protobuf.timestamp_pb2 import Timestamp

from headgate.v1.event_pb2 import StoredEvent as StoredEventMessage
from headgate.v1.ingest_service_pb2 import (
    BatchIngestResponse,
    EventError,
    EventResult,
    IngestResponse,
    StreamIngestResponse,
)
from headgate.v1.rejection_service_pb2 import Rejection as RejectionMessage
from headgate_server.core import canonical, compiled, jsonbody, timestamps
from headgate_server.core.model import STORED, Outcome, Status, StoredEvent
from headgate_server.core.rejections import TEXTS, Rejection
from headgate_server.core.types import EventId

_RESULT = b"\x0a"
"""The tag of IngestResponse.result. StreamIngestResponse.results has one that is as long."""

_STRUCT_DEPTH = 30
"""The most levels of a Struct that is written. A protobuf parser stops at 100 nested messages, and a level of a Struct
takes three.
"""


_STRUCT_BYTES = 64 * 1024
"""The most bytes of JSON that are written as a Struct. Each member takes a microsecond to write and to read, so larger
JSON stays JSON.
"""


def result_message(index: int, outcome: Outcome) -> EventResult:
    """Return one outcome as a message."""
    result = EventResult()
    _fill_result(result, index, outcome)
    return result


def _fill_result(result: EventResult, index: int, outcome: Outcome) -> None:
    """Fill a message in place. A message that the list makes itself costs half as much as one copied into the list."""
    status, link, problem, warnings = outcome
    result.index = index
    result.status = status.value
    if warnings:
        result.warnings.extend(warnings)
    if link is not None:
        result.id = id_text(link.id)
        result.sequence = link.sequence
        set_timestamp(result.created_at, link.created_at)
        result.event_hash = link.event_hash.hex()
    if problem is not None:
        result.error.CopyFrom(
            EventError(
                reason=problem.reason,
                field=problem.field,
                message=problem.message,
                retryable=problem.retryable,
                differing_fields=problem.differing_fields,
            )
        )


def single_bytes(outcome: Outcome) -> bytes:
    """Return one outcome as a serialized IngestResponse."""
    written = compiled.stream_results([outcome])
    if written is None:
        return IngestResponse(result=result_message(0, outcome)).SerializeToString()
    # The same message in the same bytes, as a field with another number.
    return _RESULT + written[len(_RESULT) :]


def batch_message(outcomes: Sequence[Outcome], lines: Sequence[int] = ()) -> BatchIngestResponse:
    """Return the outcomes of a batch as a message. `lines` has the number of each event's line, if the body had one
    event a line.
    """
    stored = sum(outcome.status in STORED for outcome in outcomes)
    response = BatchIngestResponse(total=len(outcomes), success_count=stored, error_count=len(outcomes) - stored)
    add = response.results.add
    for index, outcome in enumerate(outcomes):
        _fill_result(add(), index, outcome)
    if lines:
        for result, line in zip(response.results, lines, strict=True):
            result.line = line
    return response


def batch_bytes(outcomes: Sequence[Outcome], lines: Sequence[int] = ()) -> bytes:
    """Return the outcomes of a batch as a serialized BatchIngestResponse."""
    written = compiled.batch_message(outcomes, lines)
    return batch_message(outcomes, lines).SerializeToString() if written is None else written


def add_results(response: StreamIngestResponse, outcomes: Sequence[Outcome]) -> StreamIngestResponse:
    """Add the outcomes of a stream's request to an answer, and return it. If it fails, the answer is as before."""
    written = compiled.stream_results(outcomes)
    if written is not None:
        response.MergeFromString(written)
        return response
    results = response.results
    before = len(results)
    try:
        for index, outcome in enumerate(outcomes):
            _fill_result(results.add(), index, outcome)
    except BaseException:
        del results[before:]
        raise
    return response


def batch_answer(outcomes: Sequence[Outcome], lines: Sequence[int] = ()) -> HttpBody:
    """Return the outcomes of a batch as REST's answer: the same as `printer` makes from `batch_message`, but faster."""
    written = compiled.batch_json(outcomes, lines)
    data = orjson.dumps(batch_json(outcomes, lines)) if written is None else written
    return HttpBody(content_type="application/json", data=data)


def result_json(index: int, outcome: Outcome) -> dict[str, Any]:
    """Return one outcome as a JSON object: the message's fields, without empty ones."""
    status, link, problem, warnings = outcome
    result: dict[str, Any] = {"index": index, "status": status.value}
    if link is not None:
        result["id"] = id_text(link.id)
        result["sequence"] = link.sequence
        result["created_at"] = timestamps.format(link.created_at)
        result["event_hash"] = link.event_hash.hex()
    if problem is not None:
        error: dict[str, Any] = {
            "reason": problem.reason,
            "field": problem.field,
            "message": problem.message,
            "retryable": problem.retryable,
        }
        if problem.differing_fields:
            error["differing_fields"] = problem.differing_fields
        result["error"] = error
    if warnings:
        result["warnings"] = warnings
    return result


def batch_json(outcomes: Sequence[Outcome], lines: Sequence[int] = ()) -> dict[str, Any]:
    """Return the outcomes of a batch as a JSON object. The counts are always present, also 0."""
    stored = sum(outcome.status in STORED for outcome in outcomes)
    results = [result_json(index, outcome) for index, outcome in enumerate(outcomes)]
    if lines:
        for result, line in zip(results, lines, strict=True):
            result["line"] = line
    return {
        "total": len(outcomes),
        "success_count": stored,
        "error_count": len(outcomes) - stored,
        "results": results,
    }


def stored_answer(outcomes: Sequence[Outcome], lines: Sequence[int] = ()) -> bytes:
    """Return the answer to store under a request key of the native API: a BatchIngestResponse; with one result for a
    single event.
    """
    return batch_bytes(outcomes, lines)


def conflicts(results: Sequence[EventResult]) -> dict[int, EventId]:
    """Return, by position, the ids of the stored events with which the results conflict."""
    refused = (result for result in results if result.status == Status.CONFLICT and result.id)
    return {result.index: EventId(UUID(result.id).bytes) for result in refused}


def event_message(event: StoredEvent, *, as_text: bool = False) -> StoredEventMessage:
    """Return a stored event as a message. Its payload is `data` if a Struct holds it exactly, otherwise `data_json`.
    With `as_text` it is always `data_json`, for printing.
    """
    message = StoredEventMessage(
        id=id_text(event.id),
        sequence=event.sequence,
        event_hash=event.event_hash.hex(),
        receiver=event.receiver,
        type=event.type,
        source=event.source,
        subject=event.subject,
        idempotency_key=event.key,
        attributes_json=event.attributes or b"",
    )
    set_timestamp(message.created_at, event.created_at)
    if event.occurred_at is not None:
        set_timestamp(message.occurred_at, event.occurred_at)
    if event.data is not None:
        struct = None if as_text else exact_struct(event.data)
        if struct is None:
            message.data_json = event.data
        else:
            message.data.CopyFrom(struct)
    return message


def event_json(event: StoredEvent) -> bytes:
    """Return a stored event as REST's JSON: the same as `printer` makes from `event_message`, but faster."""
    members: dict[str, Any] = {
        "id": id_text(event.id),
        "sequence": event.sequence,
        "created_at": timestamps.format(event.created_at),
        "event_hash": event.event_hash.hex(),
        "receiver": event.receiver,
        "type": event.type,
    }
    if event.source:
        members["source"] = event.source
    if event.subject:
        members["subject"] = event.subject
    if event.occurred_at is not None:
        members["occurred_at"] = timestamps.format(event.occurred_at)
    if event.data is not None:
        members["data"] = orjson.Fragment(event.data)
    if event.key is not None:
        members["idempotency_key"] = event.key
    if event.attributes:
        members["attributes"] = orjson.Fragment(event.attributes)
    return orjson.dumps(members)


def rejection_message(rejection: Rejection) -> RejectionMessage:
    """Return a rejection as a message. What was sent is a text if it came as JSON."""
    message = RejectionMessage(
        id=id_text(rejection.id),
        reason=rejection.reason,
        field=rejection.field,
        message=rejection.message,
        receiver=rejection.receiver,
        key_id=rejection.key_id,
        request_id=rejection.request_id,
        event_size=rejection.size,
        cut=rejection.is_cut,
        event_id="" if rejection.event_id is None else id_text(rejection.event_id),
    )
    set_timestamp(message.received_at, rejection.received_at)
    if rejection.replayed_at is not None:
        set_timestamp(message.replayed_at, rejection.replayed_at)
    if rejection.encoding in TEXTS:
        message.event = rejection.event.decode()
    else:
        message.event_base64 = rejection.event
    return message


def exact_struct(data: bytes) -> Struct | None:
    """Return canonical JSON as a Struct; None if it is no object, or if a Struct would change a number or nest too deep
    for a parser.
    """
    if len(data) > _STRUCT_BYTES:
        return None
    members = jsonbody.read_exact(data)
    struct = Struct()
    return struct if isinstance(members, dict) and _fill_struct(struct, members, 1) else None


def _fill_struct(struct: Struct, members: dict[str, Any], depth: int) -> bool:
    struct.SetInParent()
    return depth <= _STRUCT_DEPTH and all(
        _fill_value(struct.fields[name], value, depth) for name, value in members.items()
    )


def _fill_list(values: ListValue, items: Iterable[Any], depth: int) -> bool:
    values.SetInParent()
    return depth <= _STRUCT_DEPTH and all(_fill_value(values.values.add(), value, depth) for value in items)


def _fill_value(target: Value, value: Any, depth: int) -> bool:
    if isinstance(value, dict):
        return _fill_struct(target.struct_value, value, depth + 1)
    if isinstance(value, list):
        return _fill_list(target.list_value, value, depth + 1)
    if isinstance(value, canonical.Number):
        target.number_value = float(value)
        return canonical.is_exact_double(value)
    if isinstance(value, bool):
        target.bool_value = value
    elif value is None:
        target.null_value = 0  # type: ignore[assignment]
    else:
        target.string_value = value
    return True


def id_text(event_id: EventId) -> str:
    """Return a UUID's 16 bytes as text."""
    digits = event_id.hex()
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def set_timestamp(target: Timestamp, microseconds: int) -> None:
    """Set a Timestamp, in place, to microseconds since the epoch."""
    seconds, rest = divmod(microseconds, 1_000_000)
    target.seconds = seconds
    target.nanos = rest * 1000
