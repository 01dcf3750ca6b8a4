"""The formats and modes of CloudEvents, and what is kept of refused events."""

import json

import pytest
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.timestamp_pb2 import Timestamp

from headgate.third_party.cloudevents.cloudevents_pb2 import CloudEvent, CloudEventBatch
from headgate_server.core.errors import InvalidRequest, UnsupportedMediaType
from headgate_server.core.model import Draft, Problem
from headgate_server.core.rejections import Encoding
from headgate_server.rpc.cloudevents import Received, as_kept
from tests.unit.receivers.clouds import (
    BATCH,
    LEAST,
    PROTOBUF,
    PROTOBUF_BATCH,
    SALT,
    STRUCTURED,
    message,
    one,
    read_back,
    requested,
    sealed,
    structured,
)


def test_a_message_of_the_protobuf_format_is_the_same_event() -> None:
    sent = message(
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
    same = structured(
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
    assert sealed(one(PROTOBUF, sent.SerializeToString())).canonical == sealed(same).canonical


def test_text_without_a_type_is_text() -> None:
    draft = sealed(one(PROTOBUF, message({"text_data": "5"}).SerializeToString()))
    assert read_back(draft) == LEAST | {"datacontenttype": "text/plain", "data": "5"}


def test_a_payload_that_is_a_message() -> None:
    data = AnyMessage(type_url="type.example/x.Y", value=b"\x01\x02\x03")
    draft = sealed(one(PROTOBUF, message({"proto_data": data}).SerializeToString()))
    assert draft.attributes == b'{"data_base64":true,"proto_data":"type.example/x.Y"}'
    assert read_back(draft) == LEAST | {
        "datacontenttype": "application/protobuf",
        "dataschema": "type.example/x.Y",
        "data_base64": "AQID",
    }


@pytest.mark.parametrize(
    ("serialized", "reason"),
    [
        (b"\xff", "MALFORMED_EVENT"),
        (b"", "MISSING_FIELD"),
        (message(id={"ce_string": "other"}).SerializeToString(), "DUPLICATE_FIELD"),
        (message(at={"ce_timestamp": Timestamp(seconds=-(10**15))}).SerializeToString(), "INVALID_TIMESTAMP"),
        (
            message({"text_data": "{"}, datacontenttype={"ce_string": "application/json"}).SerializeToString(),
            "INVALID_JSON",
        ),
    ],
)
def test_a_bad_message_touches_its_own_position(serialized: bytes, reason: str) -> None:
    good = message().SerializeToString()
    batch = b"".join(b"\x0a" + bytes([len(each)]) + each for each in (good, serialized, good))
    slots = requested(PROTOBUF_BATCH, batch).slots
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
        (False, Encoding.PROTOBUF): message().SerializeToString(),
        (True, Encoding.PROTOBUF): CloudEventBatch(events=[message()]).SerializeToString(),
        (False, Encoding.HTTP): b"x",
    }
    found = requested(content_type, bodies[batched, encoding], **LEAST)
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
        requested(content_type, b"{}")


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
        requested(content_type, body, most=2)
    assert refused.value.reason == reason


def _kept(found: Received, position: int = 0) -> tuple[bytes, Draft | Problem]:
    (text,) = found.texts([position])
    return text, as_kept(text, found.encoding, SALT)


def test_what_is_refused_is_kept_as_it_was_sent() -> None:
    bad = dict(LEAST, type="")
    text, again = _kept(requested(BATCH, b'[1, {"specversion" : "1.0"} ]'), 1)
    assert text == b'{"specversion" : "1.0"}'
    assert isinstance(again, Problem)
    text, again = _kept(requested("image/png", b"\xff\x00", **bad, own="%FF"))
    assert json.loads(text) == {
        "headers": [
            ["ce-specversion", "1.0"], ["ce-id", "A1"], ["ce-source", "/sensors/7"], ["ce-type", ""], ["ce-own", "%FF"],
            ["content-type", "image/png"],
        ],
        "body_base64": "/wA=",
    }  # fmt: skip
    assert isinstance(again, Problem)
    serialized = CloudEvent(id="only").SerializeToString()
    assert _kept(requested(PROTOBUF, serialized))[0] == serialized


@pytest.mark.parametrize(
    ("content_type", "body"),
    [("text/plain", "größe\0".encode()), ("image/png", b"\xff\x00"), ("", b""), ("application/json", b"[1]")],
)
def test_an_event_of_the_binary_mode_is_the_same_when_it_is_replayed(content_type: str, body: bytes) -> None:
    found = requested(content_type, body, **LEAST, own="%C3%BC ü")
    draft = sealed(_kept(found)[1])
    assert draft.canonical == sealed(found.slots[0]).canonical
    assert (draft.scope, draft.key) == ("/sensors/7", "A1")
