"""CloudEvents to drafts and back, and what each event alone is refused for."""

import json
from base64 import b64encode
from typing import Any

import pytest
from google.api.httpbody_pb2 import HttpBody
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from headgate_server.core import jsonbody
from headgate_server.core.model import Draft, Mismatch, Problem
from headgate_server.reading.cloudevents import cloudevent
from headgate_server.receivers import cloudevents
from headgate_server.rpc.cloudevents import received
from tests.unit.linking import linked
from tests.unit.receivers.clouds import (
    ADDED,
    BATCH,
    LEAST,
    PROTOBUF,
    message,
    one,
    packed,
    read_back,
    requested,
    sealed,
    structured,
)


def test_the_members_of_a_draft() -> None:
    draft = sealed(
        structured(
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
    draft = sealed(structured(time="2024-01-15T10:30:00Z", traceparent="00-ab", data_base64="AQID"))
    assert draft.canonical == (
        b'{"attributes":{"data_base64":true,"traceparent":"00-ab"},"data":"AQID","occurred_at":1705314600000000,'
        b'"source":"/sensors/7","type":"reading"}'
    )


@pytest.mark.parametrize(
    "value", [None, True, 0, -1.5, "text", "", [], [1, [2]], {}, {"a": None}, 12345678901234567890123]
)
def test_data_of_any_json_type(value: Any) -> None:
    draft = sealed(structured(data=value))
    assert json.loads(draft.data or b"") == value
    assert draft.attributes is None
    assert read_back(draft) == LEAST | {"datacontenttype": "application/json", "data": value}
    binary = sealed(one("application/json", json.dumps(value).encode(), **LEAST))
    assert binary.canonical == draft.canonical


def test_an_absent_payload_is_not_null() -> None:
    assert sealed(structured()).data is None
    assert "data" not in read_back(sealed(structured()))
    assert sealed(one("", **LEAST)).canonical == sealed(structured()).canonical


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
    draft = sealed(one(content_type, body, **LEAST))
    assert draft.data == data
    assert (None if draft.attributes is None else json.loads(draft.attributes)) == attributes
    # The protobuf format has the same bytes.
    kind = {"datacontenttype": {"ce_string": content_type}} if content_type else {}
    assert (
        sealed(one(PROTOBUF, message({"binary_data": body}, **kind).SerializeToString())).canonical == draft.canonical
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
    draft = sealed(one("", **LEAST, subject=header, own=header))
    assert draft.subject == text
    assert json.loads(draft.attributes or b"") == {"own": text}


@pytest.mark.parametrize("value", ["%FF", "%C0%A0", "%ED%A0%80", "%c3%28"])
def test_what_is_not_utf8_after_decoding_is_refused(value: str) -> None:
    problem = one("", **LEAST, subject=value)
    assert isinstance(problem, Problem)
    assert (problem.reason, problem.field) == ("INVALID_UNICODE", "subject")


REFUSED: dict[str, tuple[dict[str, Any], str, str]] = {
    "no specversion": ({"specversion": None}, "MISSING_FIELD", "specversion"),
    "another version": ({"specversion": "0.3"}, "INVALID_FIELD", "specversion"),
    "a number as version": ({"specversion": 1.0}, "WRONG_TYPE", "specversion"),
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
    slots = requested(BATCH, json.dumps([LEAST, LEAST | more, LEAST]).encode()).slots
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
    problem = one(content_type, body, **headers)
    assert isinstance(problem, Problem), problem
    assert (problem.reason, problem.field) == (reason, field)


def test_a_header_that_was_sent_twice_is_refused() -> None:
    body = HttpBody()
    (problem,) = received(body, packed(dict(LEAST)) + "&id=%41", 10).slots
    assert isinstance(problem, Problem)
    assert (problem.reason, problem.field) == ("DUPLICATE_FIELD", "id")


def test_the_header_of_the_content_type_is_ignored() -> None:
    draft = sealed(one("text/plain", b"a", **LEAST, datacontenttype="application/json"))
    assert draft.attributes == b'{"datacontenttype":"text/plain"}'
    assert draft.warnings == ("The header ce-datacontenttype was ignored: Content-Type is that attribute.",)


def test_a_time_finer_than_microseconds_is_a_warning() -> None:
    moment = Timestamp(seconds=1705314600, nanos=1_500)
    for slot in (
        structured(time="2024-01-15T10:30:00.0000015Z"),
        one(PROTOBUF, message(time={"ce_timestamp": moment}).SerializeToString()),
    ):
        draft = sealed(slot)
        assert draft.occurred_at == 1705314600000001
        assert draft.warnings == ("time is finer than a microsecond and was truncated.",)


_TEXTS = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=20)
_EXTENSIONS = st.dictionaries(
    st.from_regex("[a-z0-9]{1,20}", fullmatch=True).filter(
        lambda name: name not in {*ADDED, *cloudevents._OWN, "data"}
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
    assert read_back(sealed(slot)) == sent | implied


def test_an_extension_of_the_event_is_not_replaced() -> None:
    (row,), _ = linked("acme", [sealed(structured(sequence="7", receiver="mine"))])
    cloud = cloudevent(row)
    assert (cloud["sequence"], cloud["receiver"]) == ("7", "mine")
    assert cloud["eventid"] != cloud["id"] == "A1"
