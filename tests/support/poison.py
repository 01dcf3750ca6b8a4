"""Values that broke some program: each must affect only its own position.

Three tables by name, ready for `pytest.param`: gRPC events that are rejected, payloads that are accepted, and JSON
events with their outcome. A rejection is (reason, field); None means accepted.
"""

import math

from google.protobuf.timestamp_pb2 import Timestamp

from headgate.v1.event_pb2 import Event
from tests.support.calls import event

MEGABYTE = 1_000_000

Rejection = tuple[str, str]


def field(number: int, payload: bytes) -> bytes:
    """Return a length-delimited field of a protobuf message."""
    size, length = len(payload), b""
    while size >= 0x80:
        length += bytes([size & 0x7F | 0x80])
        size >>= 7
    return bytes([number << 3 | 2]) + length + bytes([size]) + payload


def struct_nested(depth: int) -> bytes:
    """Return a serialized Struct of so many levels. protobuf's writers stop at fewer levels than its readers."""
    struct = b""
    for _ in range(depth):
        value = field(5, struct)
        struct = field(1, field(1, b"a") + field(2, value))
    return struct


def struct_number(value: float) -> Event:
    """Return an event whose Struct holds this number."""
    made = event()
    made.data["n"] = value
    return made


def at(**moment: int) -> Event:
    """Return an event with this Timestamp."""
    return event(occurred_at=Timestamp(**moment))


def nested(depth: int) -> bytes:
    """Return nested JSON objects of so many levels."""
    return b'{"a":' * depth + b"1" + b"}" * depth


_TYPE = field(1, b"order.completed")
_MALFORMED = ("MALFORMED_EVENT", "")
_NOT_JSON = ("INVALID_JSON", "data_json")
_NO_TIME = ("INVALID_TIMESTAMP", "occurred_at")

PROTO_REJECTED: dict[str, tuple[Event | bytes, Rejection]] = {
    "an empty message": (b"", ("MISSING_FIELD", "type")),
    "no type": (event(type=""), ("MISSING_FIELD", "type")),
    "no protobuf": (b"\xff\xff\xff", _MALFORMED),
    "protobuf cut off": (event("key").SerializeToString()[:-1], _MALFORMED),
    "a type that is not UTF-8": (field(1, b"\xff\xfe"), _MALFORMED),
    "a name in a Struct that is not UTF-8": (_TYPE + field(5, field(1, field(1, b"\xff") + field(2, b""))), _MALFORMED),
    "a Struct nested 90 deep": (_TYPE + field(5, struct_nested(90)), _MALFORMED),
    "NaN": (struct_number(math.nan), ("INVALID_NUMBER", "data")),
    "infinity": (struct_number(-math.inf), ("INVALID_NUMBER", "data")),
    "NUL in type": (event(type="a\0b"), ("INVALID_CHARACTER", "type")),
    "NUL in source": (event(source="a\0b"), ("INVALID_CHARACTER", "source")),
    "NUL in subject": (event(subject="\0"), ("INVALID_CHARACTER", "subject")),
    "NUL in the key": (event("\0"), ("INVALID_CHARACTER", "idempotency_key")),
    "a type of 256 characters": (event(type="x" * 256), ("TOO_LONG", "type")),
    "a key of a megabyte": (event("k" * MEGABYTE), ("TOO_LONG", "idempotency_key")),
    "an empty key": (event(""), ("EMPTY_FIELD", "idempotency_key")),
    "a time past year 9999": (at(seconds=10**15), _NO_TIME),
    "a time before year 1": (at(seconds=-62_135_596_801), _NO_TIME),
    "negative nanos": (at(nanos=-1), _NO_TIME),
    "a billion nanos": (at(nanos=10**9), _NO_TIME),
    "a lone surrogate": (event(data=b'{"a":"\\ud800"}'), ("INVALID_UNICODE", "data_json")),
    "a lone surrogate in a name": (event(data=b'{"\\udc00":1}'), ("INVALID_UNICODE", "data_json")),
    "an exponent of ten digits": (event(data=b'{"a":1e9999999999}'), ("NUMBER_OUT_OF_RANGE", "data_json")),
    "nesting 200": (event(data=nested(200)), ("NESTING_TOO_DEEP", "data_json")),
    "nesting 2,000": (event(data=nested(2_000)), ("NESTING_TOO_DEEP", "data_json")),
    "nesting 100,000": (event(data=nested(100_000)), ("NESTING_TOO_DEEP", "data_json")),
    "nesting 100,000, never closed": (event(data=b'{"a":' * 100_000), _NOT_JSON),
    "a name twice": (event(data=b'{"a":1,"a":1}'), ("DUPLICATE_FIELD", "data_json")),
    "a name twice, deeper": (event(data=b'{"b":[{"a":1,"a":2}]}'), ("DUPLICATE_FIELD", "data_json")),
    "a number for an object": (event(data=b"5"), ("WRONG_TYPE", "data_json")),
    "null for an object": (event(data=b"null"), ("WRONG_TYPE", "data_json")),
    "a list for an object": (event(data=b"[]"), ("WRONG_TYPE", "data_json")),
    "data_json of no bytes": (event(data=b""), _NOT_JSON),
    "malformed JSON": (event(data=b"{"), _NOT_JSON),
    "JSON that is not UTF-8": (event(data=b'{"a":"\xff"}'), _NOT_JSON),
    "NaN in JSON": (event(data=b'{"a":NaN}'), _NOT_JSON),
    "something after the JSON": (event(data=b"{} x"), _NOT_JSON),
}

TAKEN: dict[str, bytes] = {
    "NUL in a string": b'{"a":"\\u0000"}',
    "a pair of surrogates": b'{"a":"\\ud83d\\ude00"}',
    "1e999": b'{"a":1e999}',
    "1e-999": b'{"a":1e-999}',
    "an integer of 5,000 digits": b'{"a":%s}' % (b"9" * 5_000),
    "an integer of a million digits": b'{"a":%s}' % (b"9" * MEGABYTE),
    "a decimal of 5,000 digits": b'{"a":0.%s}' % (b"9" * 5_000),
    "nesting 100": nested(100),
    "a string of a megabyte": b'{"a":"%s"}' % (b"x" * MEGABYTE),
    "a name of a megabyte": b'{"%s":1}' % (b"x" * MEGABYTE),
}
"""Payloads that look bad and are valid: both stores hold them exactly."""


def json_event(payload: bytes) -> bytes:
    """Return the JSON text of an event with this payload."""
    return b'{"type":"order.completed","data":%s}' % payload


_DEEP = ("NESTING_TOO_DEEP", "")

JSON: dict[str, tuple[bytes, Rejection | None]] = {
    "5": (b"5", ("WRONG_TYPE", "")),
    "null": (b"null", ("WRONG_TYPE", "")),
    "a string": (b'"x"', ("WRONG_TYPE", "")),
    "a list": (b"[]", ("WRONG_TYPE", "")),
    "an empty object": (b"{}", ("MISSING_FIELD", "type")),
    "a type that is a number": (b'{"type":5}', ("WRONG_TYPE", "type")),
    "a type that is null": (b'{"type":null}', ("MISSING_FIELD", "type")),
    "a source that is an object": (b'{"type":"t","source":{}}', ("WRONG_TYPE", "source")),
    "a key that is a boolean": (b'{"type":"t","idempotency_key":true}', ("WRONG_TYPE", "idempotency_key")),
    "a time that is not a time": (b'{"type":"t","occurred_at":"yesterday"}', _NO_TIME),
    "a time that is a number": (b'{"type":"t","occurred_at":1705314600}', ("WRONG_TYPE", "occurred_at")),
    "data that is a list": (b'{"type":"t","data":[1]}', ("WRONG_TYPE", "data")),
    "a type of 256 characters": (b'{"type":"%s"}' % (b"x" * 256), ("TOO_LONG", "type")),
    "NUL in type": (b'{"type":"a\\u0000"}', ("INVALID_CHARACTER", "type")),
    "a lone surrogate in type": (b'{"type":"\\ud800"}', ("INVALID_UNICODE", "type")),
    "a lone surrogate": (json_event(b'{"a":"\\ud800"}'), ("INVALID_UNICODE", "data")),
    "an exponent of ten digits": (json_event(b'{"a":1e9999999999}'), ("NUMBER_OUT_OF_RANGE", "")),
    "nesting 200": (json_event(nested(200)), ("NESTING_TOO_DEEP", "data")),
    "nesting 2,000": (json_event(nested(2_000)), _DEEP),
    "nesting 100,000": (json_event(nested(100_000)), _DEEP),
    "a name twice": (b'{"type":"t","type":"t"}', ("DUPLICATE_FIELD", "")),
    "a name twice in data": (json_event(b'{"a":1,"a":1}'), ("DUPLICATE_FIELD", "")),
    "a field in two spellings": (
        b'{"type":"t","idempotency_key":"a","idempotencyKey":"a"}',
        ("DUPLICATE_FIELD", "idempotency_key"),
    ),
    "data_json": (b'{"type":"t","data_json":"e30="}', ("UNKNOWN_FIELD", "data_json")),
    **{name: (json_event(payload), None) for name, payload in TAKEN.items()},
}


def json_batch(*events: bytes) -> bytes:
    """Return the JSON text of a batch."""
    return b'{"events":[%s]}' % b",".join(events)
