"""Requests as bytes, and answers as values."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from google.protobuf import json_format
from google.protobuf.timestamp_pb2 import Timestamp

from headgate.v1 import event_pb2, event_service_pb2, ingest_service_pb2, ledger_service_pb2
from headgate_client.core.errors import Problem
from headgate_client.core.model import (
    UNANSWERED,
    Break,
    EventError,
    Head,
    Page,
    Result,
    StoredEvent,
    Verification,
)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def batch_request(events: Iterable[bytes], *, atomic: bool = False, validate_only: bool = False) -> bytes:
    """Return a serialized `BatchIngestRequest` of serialized events. They are not read again for it."""
    parts: list[bytes] = []
    for event in events:
        parts += (b"\x0a", _varint(len(event)), event)
    if atomic:
        parts.append(b"\x10\x01")
    if validate_only:
        parts.append(b"\x18\x01")
    return b"".join(parts)


def _varint(number: int) -> bytes:
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


def results_of(answer: ingest_service_pb2.BatchIngestResponse, keys: Sequence[str]) -> list[Result]:
    """Return the results of a batch, one for each key.

    Raises `ValueError` if the answer has another number of results, or a time that is none.
    """
    if len(answer.results) != len(keys):
        raise ValueError("The answer has another number of results than the request has events.")
    return [_result(result, key) for result, key in zip(answer.results, keys, strict=True)]


def _result(result: ingest_service_pb2.EventResult, key: str) -> Result:
    error = None
    if result.HasField("error"):
        told = result.error
        error = EventError(told.reason, told.message, told.field, told.retryable, tuple(told.differing_fields))
    created_at = time_of(result.created_at) if result.HasField("created_at") else None
    warnings = tuple(result.warnings)
    # By position, which is the faster way: there is one for each event.
    return Result(
        result.index, result.status, key, result.id, result.sequence, created_at, result.event_hash, error, warnings
    )


def unanswered(key: str, index: int, problem: Problem) -> Result:
    """Return the result of an event whose call failed."""
    error = EventError(problem.reason or problem.code, problem.message, problem.field, retryable=True)
    return Result(index, UNANSWERED, key, error=error)


def at(index: int, result: Result) -> Result:
    """Return the result at another position."""
    return result if result.index == index else replace(result, index=index)


def time_of(stamp: Timestamp) -> datetime:
    """Return a time in UTC. Raises `ValueError` if it is outside of the years 1 to 9999."""
    try:
        return _EPOCH + timedelta(0, stamp.seconds, stamp.nanos // 1_000)
    except OverflowError as error:
        raise ValueError("The answer has a time outside of the years 1 to 9999.") from error


def timestamp_of(time: datetime | None) -> Timestamp | None:
    """Return a filter's time. Raises `ValueError` if it has no time zone."""
    if time is None:
        return None
    if time.utcoffset() is None:
        raise ValueError("a time needs a time zone")
    stamp = Timestamp()
    stamp.FromDatetime(time)
    return stamp


def stored_event(event: event_pb2.StoredEvent) -> StoredEvent:
    """Return an event as it is in the ledger."""
    return StoredEvent(
        id=event.id,
        sequence=event.sequence,
        created_at=time_of(event.created_at),
        event_hash=event.event_hash,
        receiver=event.receiver,
        type=event.type,
        source=event.source,
        subject=event.subject,
        occurred_at=time_of(event.occurred_at) if event.HasField("occurred_at") else None,
        data=_data(event),
        key=event.idempotency_key if event.HasField("idempotency_key") else None,
        attributes=json.loads(event.attributes_json) if event.attributes_json else {},
        delivery=event.delivery,
    )


def _data(event: event_pb2.StoredEvent) -> Any:
    if event.HasField("data_json"):
        return json.loads(event.data_json, parse_float=_number, parse_int=_integer)
    if event.HasField("data"):
        return {name: _whole(value) for name, value in json_format.MessageToDict(event.data).items()}
    return None


def _number(text: str) -> float | Decimal:
    """Return a float if it is exactly the number that was sent, and the number itself otherwise."""
    number = float(text)
    return number if Decimal(repr(number)) == Decimal(text) else Decimal(text)


def _integer(text: str) -> int:
    """Return an integer of any length. By default Python reads no text of more than 4,300 digits as one."""
    try:
        return int(text)
    except ValueError:
        return int(Decimal(text))


def _whole(value: Any) -> Any:
    """Return a Struct's value with whole numbers as integers: its numbers are all doubles."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, dict):
        return {name: _whole(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_whole(inner) for inner in value]
    return value


def page_of(answer: event_service_pb2.ListEventsResponse) -> Page:
    """Return a page of a list."""
    return Page(tuple(map(stored_event, answer.events)), answer.next_page_token)


def head_of(answer: ledger_service_pb2.GetHeadResponse) -> Head:
    """Return the ledger's head."""
    return Head(answer.sequence, answer.hash, time_of(answer.created_at) if answer.HasField("created_at") else None)


def verification_of(answers: Sequence[ledger_service_pb2.VerifyLedgerResponse]) -> Verification:
    """Return the sum of the answers to a check's pages."""
    breaks = tuple(
        Break(found.event_id, found.sequence, found.type, found.expected_hash, found.actual_hash)
        for answer in answers
        for found in answer.breaks
    )
    valid = not breaks and all(answer.valid for answer in answers)
    return Verification(valid, sum(answer.events_checked for answer in answers), breaks)
