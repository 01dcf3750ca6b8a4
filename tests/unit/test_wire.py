"""Results and events: the message and the JSON of a value have the same content."""

import json
from typing import Any

import orjson
import pytest
from google.protobuf import json_format
from google.protobuf.struct_pb2 import Struct
from hypothesis import given
from hypothesis import strategies as st

from headgate.v1.event_pb2 import StoredEvent as StoredEventMessage
from headgate.v1.event_service_pb2 import ListEventsResponse
from headgate.v1.ingest_service_pb2 import BatchIngestResponse, IngestResponse
from headgate_server.core import canonical, jsonbody, timestamps
from headgate_server.core.model import Link, Outcome, Problem, Status, StoredEvent
from headgate_server.core.reasons import Reason
from headgate_server.rpc import wire
from headgate_server.rpc.pipeline import printer
from tests.unit.numbers import exact, exactly, number_tokens

_TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
_LINKS = st.builds(
    Link,
    id=st.binary(min_size=16, max_size=16),
    sequence=st.integers(1, 2**63 - 1),
    created_at=st.integers(0, timestamps.MAX),
    event_hash=st.binary(min_size=32, max_size=32),
    salt=st.just(b""),
    commitment=st.just(b""),
)
_PROBLEMS = st.builds(
    Problem,
    reason=st.sampled_from(Reason),
    field=_TEXTS,
    message=_TEXTS,
    retryable=st.booleans(),
    differing_fields=st.lists(_TEXTS, max_size=3).map(tuple),
)
OUTCOMES = st.builds(
    Outcome,
    status=st.sampled_from(Status),
    link=st.none() | _LINKS,
    problem=st.none() | _PROBLEMS,
    warnings=st.lists(_TEXTS, max_size=2).map(tuple),
)


def printed(message: Any) -> Any:
    """Return a message as ProtoJSON prints it, except that an int64 is a number."""
    fields: Any = json_format.MessageToDict(message, preserving_proto_field_name=True)
    for part in (fields, *fields.get("results", ())):
        if "sequence" in part:
            part["sequence"] = int(part["sequence"])
    return fields


def without_defaults(value: Any) -> Any:
    """Return JSON without the members that ProtoJSON leaves out: 0, "", false, nothing."""
    if isinstance(value, dict):
        return {name: without_defaults(inner) for name, inner in value.items() if inner or name == "error"}
    return [without_defaults(inner) for inner in value] if isinstance(value, list) else value


@given(st.integers(0, 1000), OUTCOMES)
def test_a_result_says_the_same_as_json_and_as_message(index: int, outcome: Outcome) -> None:
    as_json = json.loads(orjson.dumps(wire.result_json(index, outcome)))
    assert without_defaults(as_json) == printed(wire.result_message(index, outcome))
    assert {"index", "status"} <= as_json.keys()


@given(OUTCOMES)
def test_a_single_result_is_written_as_its_message_is(outcome: Outcome) -> None:
    message = IngestResponse(result=wire.result_message(0, outcome))
    assert wire.single_bytes(outcome) == message.SerializeToString()


@given(st.lists(OUTCOMES, max_size=5))
def test_a_batch_says_the_same_as_json_and_as_message(outcomes: list[Outcome]) -> None:
    as_json = json.loads(orjson.dumps(wire.batch_json(outcomes)))
    message = wire.batch_message(outcomes)
    assert without_defaults({**as_json, "results": []}) == printed(
        type(message)(total=message.total, success_count=message.success_count, error_count=message.error_count)
    )
    assert list(map(without_defaults, as_json["results"])) == printed(message).get("results", [])
    assert as_json["total"] == as_json["success_count"] + as_json["error_count"] == len(outcomes)
    assert [result["index"] for result in as_json["results"]] == list(range(len(outcomes)))


def test_counts_and_index_zero_are_printed() -> None:
    assert wire.batch_json([Outcome(Status.ABORTED)]) == {
        "total": 1,
        "success_count": 0,
        "error_count": 1,
        "results": [{"index": 0, "status": "aborted"}],
    }


def test_what_is_stored_counts_as_success_and_nothing_else() -> None:
    counted = {status.value: wire.batch_json([Outcome(status)])["success_count"] for status in Status}
    assert counted == {"accepted": 1, "replaced": 1, "duplicate": 1, "conflict": 0, "rejected": 0, "aborted": 0}


@given(st.lists(OUTCOMES, max_size=5), st.booleans())
def test_a_stored_answer_is_replayed_as_it_was_given(outcomes: list[Outcome], one_a_line: bool) -> None:
    lines = range(2, 2 * len(outcomes) + 2, 2) if one_a_line else ()
    replayed = BatchIngestResponse.FromString(wire.stored_answer(outcomes, lines))
    assert replayed == wire.batch_message(outcomes, lines)
    assert printer.print_json(replayed) == wire.batch_answer(outcomes, lines).data
    shown = [result.get("line") for result in json.loads(wire.batch_answer(outcomes, lines).data)["results"]]
    assert shown == (list(lines) if one_a_line else [None] * len(outcomes))


@given(st.lists(OUTCOMES, max_size=5))
def test_a_stored_answer_tells_what_its_conflicts_are_with(outcomes: list[Outcome]) -> None:
    assert wire.conflicts(wire.batch_message(outcomes).results) == {
        index: outcome.link.id
        for index, outcome in enumerate(outcomes)
        if outcome.status is Status.CONFLICT and outcome.link is not None
    }


def stored(**changes: Any) -> StoredEvent:
    """Return a stored event with all fields set; `changes` replaces some of them."""
    event = StoredEvent(
        workspace_id=1,
        id=bytes.fromhex("0190a6f25a3c7d218f003b1c5a7e9d42"),
        sequence=2**53 + 1,
        created_at=1_705_314_600_123_456,
        receiver="native",
        type="order.completed",
        source="shop",
        subject="user",
        occurred_at=1_705_314_600_000_000,
        data=b'{"amount":49.99}',
        scope="shop",
        key="k",
        dedupe=bytes(16),
        salt=bytes(16),
        commitment=bytes(32),
        event_hash=bytes(32),
    )
    return event._replace(**changes)


def test_an_event_as_json() -> None:
    assert printer.print_json(wire.event_message(stored(), as_text=True)) == (
        b'{"id":"0190a6f2-5a3c-7d21-8f00-3b1c5a7e9d42","sequence":9007199254740993,'
        b'"created_at":"2024-01-15T10:30:00.123456Z","event_hash":"' + b"00" * 32 + b'","receiver":"native",'
        b'"type":"order.completed","source":"shop","subject":"user","occurred_at":"2024-01-15T10:30:00Z",'
        b'"data":{"amount":49.99},"idempotency_key":"k"}'
    )


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"source": "", "subject": "", "occurred_at": None, "data": None, "scope": None, "key": None},
        {"occurred_at": timestamps.MIN},
        {"data": b"{}"},
        {"data": b'{"a":{},"b":[],"c":null,"d":[{}],"e":"","f":false,"g":0}'},
    ],
)
def test_an_event_says_the_same_as_json_and_as_message(changes: dict[str, Any]) -> None:
    event = stored(**changes)
    as_json = json.loads(printer.print_json(wire.event_message(event, as_text=True)))
    assert as_json == printed(wire.event_message(event))


_OBJECTS = st.dictionaries(_TEXTS, _TEXTS, max_size=3).map(canonical.encode)
_VALUES = {
    "id": st.binary(min_size=16, max_size=16),
    "sequence": st.integers(1, 2**63 - 1),
    "created_at": st.integers(timestamps.MIN, timestamps.MAX),
    "receiver": _TEXTS,
    "type": _TEXTS,
    "source": _TEXTS,
    "subject": _TEXTS,
    "occurred_at": st.none() | st.integers(timestamps.MIN, timestamps.MAX),
    "data": st.none() | _OBJECTS,
    "key": st.none() | _TEXTS,
    "event_hash": st.binary(min_size=32, max_size=32),
    "attributes": st.none() | _OBJECTS,
}
_NEVER_SHOWN = {"workspace_id", "scope", "dedupe", "salt", "commitment"}


def test_every_field_of_an_event_is_compared() -> None:
    assert {*_VALUES} | _NEVER_SHOWN == {*StoredEvent._fields}


@given(st.builds(stored, **_VALUES))
def test_the_fast_json_of_an_event_is_the_printers(event: StoredEvent) -> None:
    assert wire.event_json(event) == printer.print_json(wire.event_message(event, as_text=True))


@given(number_tokens())
def test_a_number_that_a_struct_would_change_travels_as_text(token: str) -> None:
    data = canonical.encode({"n": canonical.Number.parse(token)})
    message = wire.event_message(stored(data=data))
    again = StoredEventMessage.FromString(message.SerializeToString())
    if again.WhichOneof("payload") == "data":
        assert exactly(again.data.fields["n"].number_value) == exact(token)
    else:
        assert again.data_json == data


@pytest.mark.parametrize(
    ("number", "is_exact"),
    [
        ("1", True),
        ("49.99", True),
        ("0.30000000000000004", True),
        ("9007199254740992", True),
        ("9007199254740993", False),
        ("12345678901234567890", False),
        ("0.1000000000000000055511151231257827", False),
        ("1e+308", True),
        ("1e+309", False),
        ("5e-324", True),
        ("1e-400", False),
    ],
)
def test_a_struct_is_used_where_it_is_exact(number: str, is_exact: bool) -> None:
    assert (wire.exact_struct(f'{{"a":[{{"n":{number}}}]}}'.encode()) is not None) == is_exact


def test_a_struct_is_used_to_the_depth_that_protobuf_reads_back() -> None:
    for opened, closed in (('{"a":', "}"), ('{"a":[', "]}")):
        per_round = len(closed)
        deepest = (opened * (30 // per_round) + "1" + closed * (30 // per_round)).encode()
        message = wire.event_message(stored(data=deepest))
        assert message.WhichOneof("payload") == "data"
        page = ListEventsResponse(events=[message])
        (again,) = ListEventsResponse.FromString(page.SerializeToString()).events
        assert again == message
        deeper = (opened * 16 + opened * 15 + "1" + closed * 31).encode()
        assert wire.event_message(stored(data=deeper)).data_json == deeper


def test_an_exact_struct_holds_what_the_text_holds() -> None:
    text = b'{"a":{},"b":[],"c":null,"d":[[1.5,"1",true]],"e":""}'
    struct = wire.exact_struct(text)
    assert isinstance(struct, Struct)
    assert json_format.MessageToDict(struct) == json.loads(text)
    assert canonical.encode(jsonbody.read_exact(text)) == text
