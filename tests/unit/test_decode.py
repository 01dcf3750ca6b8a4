"""Both encodings of an event give the same draft, and a bad event does not affect the others."""

import json
from typing import Any

import pytest
from google.api.httpbody_pb2 import HttpBody
from google.protobuf import json_format
from google.protobuf.struct_pb2 import ListValue, Struct, Value
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from headgate.v1.bridge_view_pb2 import RawBatchIngestRequest, RawIngestRequest
from headgate.v1.event_pb2 import Event
from headgate.v1.ingest_service_pb2 import BatchIngestRequest, IngestRequest
from headgate_server.core import timestamps, validate
from headgate_server.core.errors import InvalidRequest
from headgate_server.core.model import Draft, Problem
from headgate_server.rpc import decode

LIMIT = 1_000

_NAMES = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.integers(-(2**53), 2**53)
    | _NAMES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_NAMES, inner, max_size=3),
    max_leaves=10,
)
_TEXTS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=10)
_EVENTS = st.fixed_dictionaries(
    {"type": _TEXTS.filter(bool)},
    optional={
        "source": _TEXTS,
        "subject": _TEXTS,
        "occurred_at": st.integers(timestamps.MIN, timestamps.MAX).map(timestamps.format),
        "data": st.dictionaries(_NAMES, _VALUES, max_size=3),
        "idempotency_key": _TEXTS.filter(bool),
    },
)


def json_body(events: list[Any], **options: Any) -> RawBatchIngestRequest:
    """Return a batch as the bridge sends it."""
    body = json.dumps({"events": events, **options}).encode()
    return RawBatchIngestRequest(json=HttpBody(data=body))


def proto_body(*events: Event, **options: Any) -> RawBatchIngestRequest:
    """Return a batch as a stub sends it, read as the server reads it."""
    return RawBatchIngestRequest.FromString(BatchIngestRequest(events=events, **options).SerializeToString())


def event_of(members: dict[str, Any]) -> Event:
    """Return an event with `data` as a Struct."""
    event: Event = json_format.ParseDict({name: value for name, value in members.items() if name != "data"}, Event())
    if "data" in members:
        event.data.SetInParent()
        fill(event.data, members["data"])
    return event


def fill(struct: Struct, members: dict[str, Any]) -> None:
    """Set a Struct's fields. Not by `update`: it writes an empty list or object as nothing."""
    for name, value in members.items():
        struct.fields[name].CopyFrom(value_of(value))


def value_of(value: Any) -> Value:
    if isinstance(value, dict):
        struct = Struct()
        fill(struct, value)
        return Value(struct_value=struct)
    if isinstance(value, list):
        return Value(list_value=ListValue(values=map(value_of, value)))
    if value is None:
        return Value(null_value=0)  # type: ignore[arg-type]
    if isinstance(value, bool):
        return Value(bool_value=value)
    return Value(string_value=value) if isinstance(value, str) else Value(number_value=value)


def sealed(slot: Draft | Problem) -> Any:
    """Return the parts that must not depend on the encoding: a draft without its salt, or a whole problem."""
    return slot._replace(salt=b"", commitment=b"") if isinstance(slot, Draft) else slot


@given(_EVENTS)
def test_an_event_is_the_same_draft_whichever_encoding_brought_it(members: dict[str, Any]) -> None:
    as_struct = event_of(members)
    as_text = Event.FromString(as_struct.SerializeToString())
    if "data" in members:
        as_text.data_json = json.dumps(members["data"], indent=1).encode()
    slots = [
        *decode.batch(json_body([members]), LIMIT).slots,
        *decode.batch(proto_body(as_struct, as_text), LIMIT).slots,
        decode.single(RawIngestRequest(json=HttpBody(data=json.dumps(members).encode()))),
        decode.single(RawIngestRequest.FromString(IngestRequest(event=as_struct).SerializeToString())),
    ]
    assert all(isinstance(slot, Draft) for slot in slots)
    assert all(sealed(slot) == sealed(slots[0]) for slot in slots)


@pytest.mark.parametrize(
    ("members", "event"),
    [
        ({}, Event()),
        ({"type": ""}, Event(type="")),
        ({"type": "t" * 256}, Event(type="t" * 256)),
        ({"type": "t\0"}, Event(type="t\0")),
        ({"type": "t", "source": "s" * 256}, Event(type="t", source="s" * 256)),
        ({"type": "t", "idempotency_key": ""}, Event(type="t", idempotency_key="")),
    ],
)
def test_an_invalid_event_has_the_same_problem_whichever_encoding_brought_it(
    members: dict[str, Any], event: Event
) -> None:
    (of_json,) = decode.batch(json_body([members]), LIMIT).slots
    (of_proto,) = decode.batch(proto_body(event), LIMIT).slots
    assert isinstance(of_json, Problem)
    assert of_proto == of_json


def test_a_finer_time_is_cut_off_in_both_encodings() -> None:
    event = Event(type="t", occurred_at=Timestamp(seconds=1, nanos=1_999))
    (of_proto,) = decode.batch(proto_body(event), LIMIT).slots
    (of_json,) = decode.batch(json_body([{"type": "t", "occurred_at": "1970-01-01T00:00:01.000001999Z"}]), LIMIT).slots
    assert isinstance(of_proto, Draft)
    assert of_proto.warnings == (validate.FINER_THAN_MICROSECONDS,)
    assert sealed(of_proto) == sealed(of_json)


def nested(levels: int) -> bytes:
    """Return a serialized event whose Struct has so many levels."""
    value = Value(bool_value=True)
    for _ in range(levels - 1):
        outer = Value()
        outer.struct_value.fields["a"].CopyFrom(value)
        value = outer
    event = Event(type="t")
    event.data.fields["a"].CopyFrom(value)
    return event.SerializeToString()


@pytest.mark.parametrize(
    ("serialized", "reason", "field"),
    [
        (b"\xff", "MALFORMED_EVENT", ""),
        (b"\x0a\x01\xff", "MALFORMED_EVENT", ""),
        (nested(90), "MALFORMED_EVENT", ""),
        (event_of({"type": "t", "data": {"a": [float("nan")]}}).SerializeToString(), "INVALID_NUMBER", "data"),
        (event_of({"type": "t", "data": {"a": float("-inf")}}).SerializeToString(), "INVALID_NUMBER", "data"),
        (
            Event(type="t", occurred_at=Timestamp(seconds=-(10**15))).SerializeToString(),
            "INVALID_TIMESTAMP",
            "occurred_at",
        ),
        (
            Event(type="t", occurred_at=Timestamp(seconds=253402300800)).SerializeToString(),
            "INVALID_TIMESTAMP",
            "occurred_at",
        ),
        (Event(type="t", occurred_at=Timestamp(nanos=-1)).SerializeToString(), "INVALID_TIMESTAMP", "occurred_at"),
        (Event(type="t", occurred_at=Timestamp(nanos=10**9)).SerializeToString(), "INVALID_TIMESTAMP", "occurred_at"),
        (Event(type="t", data_json=b"").SerializeToString(), "INVALID_JSON", "data_json"),
        (Event(type="t", data_json=b"{").SerializeToString(), "INVALID_JSON", "data_json"),
        (Event(type="t", data_json=b"\xff").SerializeToString(), "INVALID_JSON", "data_json"),
        (Event(type="t", data_json=b'{"a":NaN}').SerializeToString(), "INVALID_JSON", "data_json"),
        (Event(type="t", data_json=b"5").SerializeToString(), "WRONG_TYPE", "data_json"),
        (Event(type="t", data_json=b"null").SerializeToString(), "WRONG_TYPE", "data_json"),
        (Event(type="t", data_json=b'{"a":1,"a":2}').SerializeToString(), "DUPLICATE_FIELD", "data_json"),
        (
            Event(type="t", data_json=b'{"a":' + b"[" * 2000 + b"]" * 2000 + b"}").SerializeToString(),
            "NESTING_TOO_DEEP",
            "data_json",
        ),
        (
            Event(type="t", data_json=b'{"a":' + b"[" * 200 + b"]" * 200 + b"}").SerializeToString(),
            "NESTING_TOO_DEEP",
            "data_json",
        ),
    ],
)
def test_a_poisoned_message_touches_only_its_own_position(serialized: bytes, reason: str, field: str) -> None:
    good = Event(type="t").SerializeToString()
    before, poisoned, after = decode.batch(RawBatchIngestRequest(events=[good, serialized, good]), LIMIT).slots
    assert isinstance(before, Draft)
    assert isinstance(after, Draft)
    assert isinstance(poisoned, Problem)
    assert (poisoned.reason, poisoned.field) == (reason, field)
    assert "The body" not in poisoned.message


def test_the_raw_view_reads_what_public_stubs_send() -> None:
    request = proto_body(Event(type="a"), Event(type="b"), atomic=True, validate_only=True)
    batch = decode.batch(request, LIMIT)
    assert [slot.type for slot in batch.slots if isinstance(slot, Draft)] == ["a", "b"]
    assert (batch.atomic, batch.validate_only) == (True, True)


@pytest.mark.parametrize(
    ("options", "atomic", "validate_only"),
    [
        ({}, False, False),
        ({"atomic": True}, True, False),
        ({"validate_only": True}, False, True),
        ({"validateOnly": True, "atomic": None}, False, True),
        ({"validate_only": False, "validateOnly": True}, False, True),
    ],
)
def test_options_of_a_json_body(options: dict[str, Any], atomic: bool, validate_only: bool) -> None:
    batch = decode.batch(json_body([{"type": "t"}], **options), LIMIT)
    assert (batch.atomic, batch.validate_only) == (atomic, validate_only)


def test_options_of_the_query_count_beside_those_of_the_body() -> None:
    request = json_body([{"type": "t"}], validate_only=False)
    request.atomic = request.validate_only = True  # the bridge binds query parameters to these
    assert decode.batch(request, LIMIT)[1:3] == (True, True)


@pytest.mark.parametrize(
    ("request_", "reason", "field"),
    [
        (RawBatchIngestRequest(), "EMPTY_BATCH", "events"),
        (json_body([]), "EMPTY_BATCH", "events"),
        (RawBatchIngestRequest(events=[b""] * 11), "TOO_MANY_EVENTS", "events"),
        (json_body([None] * 11), "TOO_MANY_EVENTS", "events"),
        (json_body([{}], atomic="yes"), "WRONG_TYPE", "atomic"),
        (json_body([{}], validateOnly=1), "WRONG_TYPE", "validate_only"),
        (json_body([{}], colour=1), "UNKNOWN_FIELD", "colour"),
        (json_body([{}], **{"x" * 1000: 1}), "UNKNOWN_FIELD", "x" * 80),
        (RawBatchIngestRequest(json=HttpBody()), "MALFORMED_JSON", ""),
        (RawBatchIngestRequest(events=[b""], json=HttpBody(data=b"{}")), "TWO_ENCODINGS", ""),
    ],
)
def test_what_is_no_batch_is_refused_as_a_whole(request_: RawBatchIngestRequest, reason: str, field: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        decode.batch(request_, 10)
    assert (refused.value.reason, refused.value.field) == (reason, field)


def test_as_many_events_as_the_limit_are_taken() -> None:
    assert len(decode.batch(RawBatchIngestRequest(events=[b""] * 10), 10).slots) == 10
    assert len(decode.batch(json_body([None] * 10), 10).slots) == 10


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        (RawIngestRequest(), "MISSING_FIELD"),
        (RawIngestRequest(json=HttpBody()), "MALFORMED_JSON"),
        (RawIngestRequest(event=b"x", json=HttpBody(data=b"{}")), "TWO_ENCODINGS"),
    ],
)
def test_what_is_no_single_event_is_refused(request_: RawIngestRequest, reason: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        decode.single(request_)
    assert refused.value.reason == reason


@given(st.integers(timestamps.MIN, timestamps.MAX), st.integers(0, 999))
def test_a_timestamp_of_a_request_in_microseconds(microseconds: int, finer: int) -> None:
    seconds, rest = divmod(microseconds, 1_000_000)
    assert decode.microseconds(Timestamp(seconds=seconds, nanos=rest * 1000 + finer), "from") == microseconds


@pytest.mark.parametrize("moment", [Timestamp(seconds=-(10**12)), Timestamp(seconds=10**12), Timestamp(nanos=-1)])
def test_a_timestamp_of_a_request_out_of_bounds_is_refused(moment: Timestamp) -> None:
    with pytest.raises(InvalidRequest) as refused:
        decode.microseconds(moment, "from")
    assert (refused.value.reason, refused.value.field) == ("INVALID_TIMESTAMP", "from")


def lines_body(*texts: bytes, content_type: str = "application/x-ndjson", **options: Any) -> RawBatchIngestRequest:
    """Return a batch with one event a line as the bridge sends it."""
    return RawBatchIngestRequest(json=HttpBody(content_type=content_type, data=b"\n".join(texts)), **options)


@given(st.lists(_EVENTS, min_size=1, max_size=4))
def test_all_forms_of_a_json_batch_give_the_same_drafts(events: list[dict[str, Any]]) -> None:
    expected = [sealed(slot) for slot in decode.batch(json_body(events), LIMIT).slots]
    texts = [json.dumps(event).encode() for event in events]
    bare = RawBatchIngestRequest(json=HttpBody(data=b" [" + b",".join(texts) + b"]"), atomic=True)
    for request, lines in ((bare, []), (lines_body(*texts, atomic=True), list(range(1, len(events) + 1)))):
        batch = decode.batch(request, LIMIT)
        assert [sealed(slot) for slot in batch.slots] == expected
        assert (batch.atomic, batch.validate_only, list(batch.lines)) == (True, False, lines)
        assert decode.sent(request, range(len(texts))) == texts


def test_a_bad_line_affects_only_itself() -> None:
    texts = [b'{"type":"a"}', b"", b'{"type":', b'{"type":"\xff"}\r', b"5", b"\r", b'{"type":"%s"}' % (b"x" * 256)]
    request = lines_body(*texts, b'{"type":"z"}', content_type="Application/JSONL; charset=utf-8", validate_only=True)
    batch = decode.batch(request, LIMIT)
    assert list(batch.lines) == [1, 3, 4, 5, 7, 8]
    assert batch.validate_only
    reasons = [slot.reason if isinstance(slot, Problem) else slot.type for slot in batch.slots]
    assert reasons == ["a", "MALFORMED_JSON", "MALFORMED_JSON", "WRONG_TYPE", "TOO_LONG", "z"]
    assert decode.sent(request, [1, 2, 4]) == [texts[2], texts[3].rstrip(), texts[6]]


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        (lines_body(), "EMPTY_BATCH"),
        (lines_body(b" ", b"\r", b""), "EMPTY_BATCH"),
        (lines_body(*[b"{}"] * 4), "TOO_MANY_EVENTS"),
        (lines_body(b"{}", events=[b""]), "TWO_ENCODINGS"),
        (lines_body(b"[]", content_type="application/json"), "EMPTY_BATCH"),
        (lines_body(b"[{},{},{},{}]", content_type=""), "TOO_MANY_EVENTS"),
        (lines_body(b"[1e400,{},{},{}]", content_type=""), "TOO_MANY_EVENTS"),
        (lines_body(b"[{}", content_type=""), "MALFORMED_JSON"),
        (lines_body(b"{}", b"{}", content_type="application/json"), "MALFORMED_JSON"),
    ],
)
def test_what_is_no_batch(request_: RawBatchIngestRequest, reason: str) -> None:
    with pytest.raises(InvalidRequest) as refusal:
        decode.batch(request_, 3)
    assert refusal.value.reason == reason
