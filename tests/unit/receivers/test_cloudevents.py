"""CloudEvents to drafts: formats, modes, and what each event alone is refused for."""

import json
from base64 import b64encode
from typing import Any

import orjson
import pytest
from google.api.httpbody_pb2 import HttpBody
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from headgate.third_party.cloudevents.cloudevents_pb2 import CloudEvent, CloudEventBatch
from headgate_server.core import jsonbody
from headgate_server.core.errors import InvalidRequest, UnsupportedMediaType
from headgate_server.core.model import Draft, Mismatch, Problem, StoredEvent
from headgate_server.core.rejections import Encoding
from headgate_server.reading.cloudevents import cloudevent
from headgate_server.receivers import cloudevents
from headgate_server.rpc.cloudevents import Received, as_kept, received
from tests.unit.linking import linked

LEAST = {"specversion": "1.0", "id": "A1", "source": "/sensors/7", "type": "reading"}
STRUCTURED, BATCH = "application/cloudevents+json", "application/cloudevents-batch+json"
PROTOBUF, PROTOBUF_BATCH = "application/cloudevents+protobuf", "application/cloudevents-batch+protobuf"
SALT = bytes(16)


def _received(content_type: str, body: bytes = b"", most: int = 10, **headers: str) -> Received:
    return received(HttpBody(content_type=content_type, data=body), _packed(headers), most)


def _packed(headers: dict[str, str]) -> str:
    escaped = {name: "".join(f"%{byte:02X}" for byte in value.encode()) for name, value in headers.items()}
    return "&".join(f"{name}={value}" for name, value in escaped.items())


def _one(content_type: str, body: bytes = b"", **headers: str) -> Draft | Problem:
    (slot,) = _received(content_type, body, **headers).slots
    return slot


def _draft(slot: Draft | Problem) -> Draft:
    assert isinstance(slot, Draft), slot
    return slot


def _json(**more: Any) -> Draft | Problem:
    return _one(STRUCTURED, json.dumps(LEAST | more).encode())


def _message(data: dict[str, Any] | None = None, **attributes: Any) -> CloudEvent:
    values = {name: CloudEvent.CloudEventAttributeValue(**value) for name, value in attributes.items()}
    return CloudEvent(
        spec_version="1.0", id="A1", source="/sensors/7", type="reading", attributes=values, **(data or {})
    )


def _read(draft: Draft) -> dict[str, Any]:
    """Return the event as a CloudEvent, without what is added to it."""
    (row,), _ = linked("acme", [draft])
    cloud = json.loads(_dumped(row))
    return {name: value for name, value in cloud.items() if name not in _ADDED}


_ADDED = {"recordedtime", "sequence", "receiver", "eventid", "eventhash"}


def _dumped(row: StoredEvent) -> bytes:
    return orjson.dumps(cloudevent(row))


def test_the_members_of_a_draft() -> None:
    draft = _draft(
        _json(
            subject="s", time="2024-01-15T10:30:00.5Z", data={"n": 1.0}, traceparent="00-ab", retries=3, ok=True, a=None
        )
    )
    assert draft[:6] == ("cloudevents", "reading", "/sensors/7", "s", 1705314600500000, b'{"n":1}')
    assert (draft.scope, draft.key) == ("/sensors/7", "A1")
    assert draft.attributes == b'{"ok":true,"retries":3,"traceparent":"00-ab"}'
    assert draft.on_mismatch is Mismatch.CONFLICT_UNLESS_TIME
    assert draft.canonical == (
        b'{"attributes":{"ok":true,"retries":3,"traceparent":"00-ab"},"data":{"n":1},"occurred_at":1705314600500000,'
        b'"source":"/sensors/7","subject":"s","type":"reading"}'
    )


def test_the_example_of_the_specification() -> None:
    """docs/design/canonical.md, Attributes."""
    draft = _draft(_json(time="2024-01-15T10:30:00Z", traceparent="00-ab", data_base64="AQID"))
    assert draft.canonical == (
        b'{"attributes":{"data_base64":true,"traceparent":"00-ab"},"data":"AQID","occurred_at":1705314600000000,'
        b'"source":"/sensors/7","type":"reading"}'
    )


@pytest.mark.parametrize(
    "value", [None, True, 0, -1.5, "text", "", [], [1, [2]], {}, {"a": None}, 12345678901234567890123]
)
def test_data_of_any_json_type(value: Any) -> None:
    draft = _draft(_json(data=value))
    assert json.loads(draft.data or b"") == value
    assert draft.attributes is None
    assert _read(draft) == LEAST | {"datacontenttype": "application/json", "data": value}
    binary = _draft(_one("application/json", json.dumps(value).encode(), **LEAST))
    assert binary.canonical == draft.canonical


def test_an_absent_payload_is_not_null() -> None:
    assert _draft(_json()).data is None
    assert "data" not in _read(_draft(_json()))
    assert _draft(_one("", **LEAST)).canonical == _draft(_json()).canonical


@pytest.mark.parametrize(
    ("content_type", "body", "data", "attributes"),
    [
        ("application/json", b'{"a":1}', b'{"a":1}', None),
        ("Application/JSON", b"5", b"5", None),
        ("application/json; charset=utf-8", b"5", b"5", {"datacontenttype": "application/json; charset=utf-8"}),
        ("application/vnd.x+json", b"[ ]", b"[]", {"datacontenttype": "application/vnd.x+json"}),
        ("text/plain", "größe".encode(), '"größe"'.encode(), {"datacontenttype": "text/plain"}),
        ("text/plain", b"\xff", b'"/w=="', {"datacontenttype": "text/plain", "data_base64": True}),
        (
            "text/plain; charset=latin1",
            b"a",
            b'"YQ=="',
            {"datacontenttype": "text/plain; charset=latin1", "data_base64": True},
        ),
        ("application/xml", b"<a/>", b'"<a/>"', {"datacontenttype": "application/xml"}),
        ("image/png", b"\x01\x02\x03", b'"AQID"', {"datacontenttype": "image/png", "data_base64": True}),
        ("", b'{"a": 1}', b'{"a":1}', None),
        ("", b"\x01\x02\x03", b'"AQID"', {"data_base64": True}),
    ],
)
def test_the_body_of_the_binary_mode(
    content_type: str, body: bytes, data: bytes, attributes: dict[str, Any] | None
) -> None:
    draft = _draft(_one(content_type, body, **LEAST))
    assert draft.data == data
    assert (None if draft.attributes is None else json.loads(draft.attributes)) == attributes
    # The protobuf format has the same bytes.
    kind = {"datacontenttype": {"ce_string": content_type}} if content_type else {}
    assert (
        _draft(_one(PROTOBUF, _message({"binary_data": body}, **kind).SerializeToString())).canonical == draft.canonical
    )


@pytest.mark.parametrize(
    ("header", "text"),
    [
        ("Euro%20%E2%82%AC%20%F0%9F%98%80", "Euro € 😀"),
        ("%2525", "%25"),
        ("100%", "100%"),
        ("%zz", "%zz"),
        ('"a \\" b%20c"', 'a " b c'),
        ('a"b', 'a"b'),
        ("ü", "ü"),
        ("a, b", "a, b"),
    ],
)
def test_one_round_of_percent_decoding(header: str, text: str) -> None:
    draft = _draft(_one("", **LEAST, subject=header, own=header))
    assert draft.subject == text
    assert json.loads(draft.attributes or b"") == {"own": text}


@pytest.mark.parametrize("value", ["%FF", "%C0%A0", "%ED%A0%80", "%c3%28"])
def test_what_is_not_utf8_after_decoding_is_refused(value: str) -> None:
    problem = _one("", **LEAST, subject=value)
    assert isinstance(problem, Problem)
    assert (problem.reason, problem.field) == ("INVALID_UNICODE", "subject")


REFUSED: dict[str, tuple[dict[str, Any], str, str]] = {
    "no specversion": ({"specversion": None}, "MISSING_FIELD", "specversion"),
    "another version": ({"specversion": "0.3"}, "INVALID_FIELD", "specversion"),
    "a number as version": ({"specversion": 1.0}, "INVALID_FIELD", "specversion"),
    "no id": ({"id": ""}, "MISSING_FIELD", "id"),
    "no source": ({"source": ""}, "MISSING_FIELD", "source"),
    "no type": ({"type": None}, "MISSING_FIELD", "type"),
    "a number as id": ({"id": 5}, "WRONG_TYPE", "id"),
    "a long id": ({"id": "x" * 256}, "TOO_LONG", "id"),
    "a line break": ({"source": "a\nb"}, "INVALID_CHARACTER", "source"),
    "U+0000": ({"own": "\0"}, "INVALID_CHARACTER", "own"),
    "a surrogate": ({"own": "\ud800"}, "INVALID_UNICODE", "own"),
    "a time that is none": ({"time": "yesterday"}, "INVALID_TIMESTAMP", "time"),
    "a number as time": ({"time": 5}, "WRONG_TYPE", "time"),
    "a list as subject": ({"subject": []}, "WRONG_TYPE", "subject"),
    "no media type": ({"datacontenttype": "json"}, "INVALID_FIELD", "datacontenttype"),
    "an upper-case name": ({"partitionKey": "a"}, "INVALID_FIELD", "partitionKey"),
    "a name with an underscore": ({"proto_data": "a"}, "INVALID_FIELD", "proto_data"),
    "an empty name": ({"": "a"}, "INVALID_FIELD", ""),
    "an object": ({"own": {}}, "WRONG_TYPE", "own"),
    "a decimal": ({"own": 1.5}, "WRONG_TYPE", "own"),
    "a large integer": ({"own": 2**31}, "NUMBER_OUT_OF_RANGE", "own"),
    "a very large integer": ({"own": 10**30}, "WRONG_TYPE", "own"),
    "large attributes": ({f"own{n}": "x" * 1000 for n in range(17)}, "TOO_LONG", ""),
    "both payloads": ({"data": 1, "data_base64": "AQID"}, "DUPLICATE_FIELD", "data_base64"),
    "no base64": ({"data_base64": "AQI"}, "INVALID_FIELD", "data_base64"),
    "base64 of URLs": ({"data_base64": "_-__"}, "INVALID_FIELD", "data_base64"),
    "a number as base64": ({"data_base64": 5}, "WRONG_TYPE", "data_base64"),
    "base64 beyond ASCII": ({"data_base64": "ü"}, "INVALID_FIELD", "data_base64"),
    "deep data": ({"data": json.loads("[" * 101 + "]" * 101)}, "NESTING_TOO_DEEP", "data"),
    "a surrogate in data": ({"data": "\ud800"}, "INVALID_UNICODE", "data"),
}


@pytest.mark.parametrize(("more", "reason", "field"), REFUSED.values(), ids=REFUSED)
def test_what_is_refused(more: dict[str, Any], reason: str, field: str) -> None:
    slots = _received(BATCH, json.dumps([LEAST, LEAST | more, LEAST]).encode()).slots
    assert [type(slot) for slot in slots] == [Draft, Problem, Draft]
    problem = slots[1]
    assert isinstance(problem, Problem)
    assert (problem.reason, problem.field) == (reason, field)
    assert problem.message.endswith(".")
    problem.message.encode()


@pytest.mark.parametrize(
    ("content_type", "body", "headers", "reason", "field"),
    [
        ("application/json", b"{", LEAST, "INVALID_JSON", "data"),
        ("application/json", b'{"a":1,"a":2}', LEAST, "DUPLICATE_FIELD", "data"),
        ("application/json; charset=utf-16", b"5", LEAST, "INVALID_FIELD", "datacontenttype"),
        ("json", b"5", LEAST, "INVALID_FIELD", "datacontenttype"),
        ("application/json", b"{}", {}, "MISSING_FIELD", "specversion"),
        ("", b"", {**LEAST, "data": "x"}, "INVALID_FIELD", "data"),
        ("", b"", {**LEAST, "a-b": "x"}, "INVALID_FIELD", "a-b"),
        ("", b"", {**LEAST, "": "x"}, "INVALID_FIELD", ""),
    ],
)
def test_what_is_refused_in_the_binary_mode(
    content_type: str, body: bytes, headers: dict[str, str], reason: str, field: str
) -> None:
    problem = _one(content_type, body, **headers)
    assert isinstance(problem, Problem), problem
    assert (problem.reason, problem.field) == (reason, field)


def test_a_header_that_was_sent_twice_is_refused() -> None:
    body = HttpBody()
    (problem,) = received(body, _packed(dict(LEAST)) + "&id=%41", 10).slots
    assert isinstance(problem, Problem)
    assert (problem.reason, problem.field) == ("DUPLICATE_FIELD", "id")


def test_the_header_of_the_content_type_is_ignored() -> None:
    draft = _draft(_one("text/plain", b"a", **LEAST, datacontenttype="application/json"))
    assert draft.attributes == b'{"datacontenttype":"text/plain"}'
    assert draft.warnings == ("The header ce-datacontenttype was ignored: Content-Type is that attribute.",)


def test_a_time_finer_than_microseconds_is_a_warning() -> None:
    moment = Timestamp(seconds=1705314600, nanos=1_500)
    for slot in (
        _json(time="2024-01-15T10:30:00.0000015Z"),
        _one(PROTOBUF, _message(time={"ce_timestamp": moment}).SerializeToString()),
    ):
        draft = _draft(slot)
        assert draft.occurred_at == 1705314600000001
        assert draft.warnings == ("time is finer than a microsecond and was truncated.",)


def test_a_message_of_the_protobuf_format_is_the_same_event() -> None:
    message = _message(
        {"text_data": '{"n": 1.50}'},
        subject={"ce_string": "s"},
        time={"ce_timestamp": Timestamp(seconds=1705314600)},
        flag={"ce_boolean": False},
        count={"ce_integer": -7},
        digest={"ce_bytes": b"\x01\x02\x03"},
        link={"ce_uri": "https://example.com"},
        place={"ce_uri_ref": "/a"},
        at={"ce_timestamp": Timestamp(seconds=1, nanos=5)},
        unset={},
        datacontenttype={"ce_string": "application/json"},
    )
    same = _json(
        subject="s",
        time="2024-01-15T10:30:00Z",
        flag=False,
        count=-7,
        digest="AQID",
        link="https://example.com",
        place="/a",
        at="1970-01-01T00:00:01.000000005Z",
        data={"n": 1.5},
    )
    assert _draft(_one(PROTOBUF, message.SerializeToString())).canonical == _draft(same).canonical


def test_text_without_a_type_is_text() -> None:
    draft = _draft(_one(PROTOBUF, _message({"text_data": "5"}).SerializeToString()))
    assert _read(draft) == LEAST | {"datacontenttype": "text/plain", "data": "5"}


def test_a_payload_that_is_a_message() -> None:
    data = AnyMessage(type_url="type.example/x.Y", value=b"\x01\x02\x03")
    draft = _draft(_one(PROTOBUF, _message({"proto_data": data}).SerializeToString()))
    assert draft.attributes == b'{"data_base64":true,"proto_data":"type.example/x.Y"}'
    assert _read(draft) == LEAST | {
        "datacontenttype": "application/protobuf",
        "dataschema": "type.example/x.Y",
        "data_base64": "AQID",
    }


@pytest.mark.parametrize(
    ("serialized", "reason"),
    [
        (b"\xff", "MALFORMED_EVENT"),
        (b"", "MISSING_FIELD"),
        (_message(id={"ce_string": "other"}).SerializeToString(), "DUPLICATE_FIELD"),
        (_message(at={"ce_timestamp": Timestamp(seconds=-(10**15))}).SerializeToString(), "INVALID_TIMESTAMP"),
        (
            _message({"text_data": "{"}, datacontenttype={"ce_string": "application/json"}).SerializeToString(),
            "INVALID_JSON",
        ),
    ],
)
def test_a_bad_message_touches_its_own_position(serialized: bytes, reason: str) -> None:
    good = _message().SerializeToString()
    batch = b"".join(b"\x0a" + bytes([len(each)]) + each for each in (good, serialized, good))
    slots = _received(PROTOBUF_BATCH, batch).slots
    assert [type(slot) for slot in slots] == [Draft, Problem, Draft]
    assert isinstance(slots[1], Problem)
    assert slots[1].reason == reason


@pytest.mark.parametrize(
    ("content_type", "batched", "encoding"),
    [
        ("Application/CloudEvents+JSON; Charset=UTF-8", False, Encoding.JSON),
        ('application/cloudevents-batch+json;charset="utf-8"', True, Encoding.JSON),
        ("application/cloudevents+protobuf; x=y", False, Encoding.PROTOBUF),
        ("APPLICATION/CLOUDEVENTS-BATCH+PROTOBUF", True, Encoding.PROTOBUF),
        ("text/plain", False, Encoding.HTTP),
        ("", False, Encoding.HTTP),
    ],
)
def test_the_mode_is_that_of_the_media_type(content_type: str, batched: bool, encoding: Encoding) -> None:
    bodies = {
        (False, Encoding.JSON): json.dumps(LEAST).encode(),
        (True, Encoding.JSON): json.dumps([LEAST]).encode(),
        (False, Encoding.PROTOBUF): _message().SerializeToString(),
        (True, Encoding.PROTOBUF): CloudEventBatch(events=[_message()]).SerializeToString(),
        (False, Encoding.HTTP): b"x",
    }
    found = _received(content_type, bodies[batched, encoding], **LEAST)
    assert (found.batched, found.encoding) == (batched, encoding)
    assert [type(slot) for slot in found.slots] == [Draft]


@pytest.mark.parametrize(
    "content_type",
    [
        "application/cloudevents+avro",
        "application/cloudevents",
        "application/cloudevents-batch",
        "application/cloudevents+json; charset=latin1",
        "application/cloudevents-batch+json; charset=utf-16",
    ],
)
def test_a_format_that_is_not_read(content_type: str) -> None:
    with pytest.raises(UnsupportedMediaType):
        _received(content_type, b"{}")


@pytest.mark.parametrize(
    ("content_type", "body", "reason"),
    [
        (STRUCTURED, b"{", "MALFORMED_JSON"),
        (STRUCTURED, b"", "MALFORMED_JSON"),
        (BATCH, b"{}", "WRONG_TYPE"),
        (BATCH, b"[]", "EMPTY_BATCH"),
        (BATCH, b"[1,2,3]", "TOO_MANY_EVENTS"),
        (PROTOBUF_BATCH, b"\xff", "MALFORMED_REQUEST"),
        (PROTOBUF_BATCH, b"", "EMPTY_BATCH"),
        (PROTOBUF_BATCH, b"\x0a\x00" * 3, "TOO_MANY_EVENTS"),
    ],
)
def test_a_body_that_is_no_batch(content_type: str, body: bytes, reason: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        _received(content_type, body, most=2)
    assert refused.value.reason == reason


def _kept(found: Received, position: int = 0) -> tuple[bytes, Draft | Problem]:
    (text,) = found.texts([position])
    return text, as_kept(text, found.encoding, SALT)


def test_what_is_refused_is_kept_as_it_was_sent() -> None:
    bad = dict(LEAST, type="")
    text, again = _kept(_received(BATCH, b'[1, {"specversion" : "1.0"} ]'), 1)
    assert text == b'{"specversion" : "1.0"}'
    assert isinstance(again, Problem)
    text, again = _kept(_received("image/png", b"\xff\x00", **bad, own="%FF"))
    assert json.loads(text) == {
        "headers": [
            ["ce-specversion", "1.0"], ["ce-id", "A1"], ["ce-source", "/sensors/7"], ["ce-type", ""], ["ce-own", "%FF"],
            ["content-type", "image/png"],
        ],
        "body_base64": "/wA=",
    }  # fmt: skip
    assert isinstance(again, Problem)
    serialized = CloudEvent(id="only").SerializeToString()
    assert _kept(_received(PROTOBUF, serialized))[0] == serialized


@pytest.mark.parametrize(
    ("content_type", "body"),
    [("text/plain", "größe\0".encode()), ("image/png", b"\xff\x00"), ("", b""), ("application/json", b"[1]")],
)
def test_an_event_of_the_binary_mode_is_the_same_when_it_is_replayed(content_type: str, body: bytes) -> None:
    found = _received(content_type, body, **LEAST, own="%C3%BC ü")
    draft = _draft(_kept(found)[1])
    assert draft.canonical == _draft(found.slots[0]).canonical
    assert (draft.scope, draft.key) == ("/sensors/7", "A1")


_TEXTS = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=20)
_EXTENSIONS = st.dictionaries(
    st.from_regex("[a-z0-9]{1,20}", fullmatch=True).filter(
        lambda name: name not in {*_ADDED, *cloudevents._OWN, "data"}
    ),
    st.one_of(_TEXTS, st.booleans(), st.integers(-(2**31), 2**31 - 1)),
    max_size=4,
)


@given(
    st.fixed_dictionaries({"id": _TEXTS, "source": _TEXTS, "type": _TEXTS}, optional={"subject": _TEXTS}),
    _EXTENSIONS,
    st.one_of(
        st.just({}),
        st.fixed_dictionaries({"data": st.recursive(st.none() | st.booleans() | _TEXTS, st.lists, max_leaves=4)}),
        st.binary().map(lambda content: {"data_base64": b64encode(content).decode()}),
    ),
)
def test_a_cloudevent_is_read_as_it_was_sent(
    attributes: dict[str, str], extensions: dict[str, Any], payload: dict[str, Any]
) -> None:
    sent = {"specversion": "1.0", **attributes, **extensions, **payload}
    slot = cloudevents.from_json(jsonbody.read_one(json.dumps(sent).encode()))
    implied = {"datacontenttype": "application/json"} if "data" in payload else {}
    assert _read(_draft(slot)) == sent | implied


def test_an_extension_of_the_event_is_not_replaced() -> None:
    (row,), _ = linked("acme", [_draft(_json(sequence="7", receiver="mine"))])
    cloud = cloudevent(row)
    assert (cloud["sequence"], cloud["receiver"]) == ("7", "mine")
    assert cloud["eventid"] != cloud["id"] == "A1"
