"""Reads JSON bodies so that one bad value spoils only its own element. Pure.

A body is either no JSON (RFC 8259: grammar and UTF-8), then it is refused as a whole, or every element of its list
stands on its own. The ordinary body is read by orjson. What orjson refuses or would change without a word (long
numbers, lone surrogates, infinities, duplicate names, deep nesting) is noticed, and such a body is read again,
exactly, element by element (`jsonexact`).
"""

import json
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

import orjson

from headgate_server.core import canonical, jsonscan
from headgate_server.core.canonical import Number, Unrepresentable
from headgate_server.core.errors import InvalidRequest
from headgate_server.core.jsonexact import ExactReader, TooMany
from headgate_server.core.reasons import Reason

INLINE_BYTES = 256 * 1024
"""A larger body is read on a thread, so that other calls are not held up: it takes milliseconds, a poisoned one
seconds.
"""


_MANY_VALUES = 50_000
"""Commas from which on a list is counted before it is read. Fewer values take some 5 MB, whatever they are."""


class Body(NamedTuple):
    """A JSON object with one list: the list's elements, each a value or why it is none, and the object's other
    members.
    """

    items: Sequence[Any]
    members: dict[str, Any]


def read_batch(body: bytes, list_name: str = "events", most: int = sys.maxsize) -> Body:
    """Read an object whose member `list_name` is a list of elements that are read on their own.

    A list of more than `most` elements is not read to its end, nor is what follows it: it has `most` + 1 elements then.
    Raises `InvalidRequest`: no JSON, no object, no such member, no list, or a member of the object twice.
    """
    if _holds_more(body, most, list_name):
        return Body([None] * (most + 1), {})
    value = _read_fast(body)
    if value is None:
        try:
            value = ExactReader(body, list_name, most).read()
        except TooMany:
            return Body([None] * (most + 1), {})
    if type(value) is not dict:
        raise InvalidRequest(f'The body must be a JSON object with a list "{list_name}".', reason=Reason.NOT_AN_OBJECT)
    items = value.pop(list_name, None)
    if items is None:
        raise InvalidRequest(f'The "{list_name}" field is required.', reason=Reason.MISSING_FIELD, field=list_name)
    if type(items) is not list:
        raise InvalidRequest(f'The "{list_name}" field must be a list.', reason=Reason.WRONG_TYPE, field=list_name)
    return Body(items, value)


def read_list(body: bytes, most: int = sys.maxsize) -> Sequence[Any]:
    """Read a list of elements that are read on their own, as those of `read_batch` are, and no more of them. Raises
    `InvalidRequest`: no JSON, or no list.
    """
    if _holds_more(body, most, None):
        return [None] * (most + 1)
    value = _read_fast(body)
    if value is None:
        try:
            value = ExactReader(body, None, most).read_list()
        except TooMany:
            return [None] * (most + 1)
    if type(value) is not list:
        raise InvalidRequest("The body must be a JSON list.", reason=Reason.WRONG_TYPE)
    return value


def read_one(body: bytes) -> Any:
    """Read one value: the value, or the `Problem` that makes it none. Raises `InvalidRequest` if the body is no
    JSON.
    """
    value = _read_fast(body)
    return ExactReader(body, None).read() if value is None else value


def canonical_object(text: bytes) -> bytes | None:
    """Return the canonical form of JSON text that holds one ordinary object, as most do, in one step: what `read_one`
    and `canonical.encode` return. None where it takes those two, or the text is no such thing.
    """
    if not _is_ordinary(text):
        return None
    try:
        value = orjson.loads(text)
        if type(value) is not dict:
            return None
        written = canonical.encode(value)
    except (orjson.JSONDecodeError, Unrepresentable):
        return None
    return written if text.count(b":") == written.count(b":") else None


def read_exact(text: bytes) -> Any:
    """Read JSON that this program wrote itself, every number as its `Number`, the text that it has there."""
    return json.loads(text, parse_float=Number, parse_int=Number)


def _holds_more(body: bytes, most: int, list_name: str | None) -> bool:
    """Whether a list has more than `most` elements, where it matters to know that before it is read."""
    return body.count(b",") >= max(_MANY_VALUES, most) and jsonscan.holds_more(body, most, list_name)


# What matters of each byte when looking for numbers: a digit or point, an exponent's letter, a minus, anything else.
_SHAPE = bytes(
    0x30 if chr(byte) in "0123456789." else 0x65 if chr(byte) in "eE" else 0x2D if chr(byte) == "-" else 0x20
    for byte in range(256)
)
_LONG = b"0" * 17
_LONG_WITH_EXPONENT = b"0" * 16 + b"e"
_PERHAPS_LONG = b"0" * 16
_PERHAPS_TINY = b"0e-000"
_BEFORE_A_NUMBER = b":,[ \t\n\r"


def _read_fast(body: bytes) -> Any:
    """Return what orjson reads if it is sure to be exact, None if the body has to be read again exactly (or is
    `null`).

    A decimal of at most 15 significant digits within the range of a double has a double of its own, and so survives;
    a number of more digits, or so small that it may underflow, need not. Overflow, surrogates and depth orjson
    refuses by itself. Duplicate names show in the count of colons, which is the same before and after unless a name,
    with its colon, was dropped.
    """
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    if not _is_ordinary(body):
        return None
    try:
        again = orjson.dumps(value)
    except orjson.JSONEncodeError:  # more than 254 levels
        return None
    return value if body.count(b":") == again.count(b":") else None


def _is_ordinary(body: bytes) -> bool:
    """Whether orjson changes no number of a body, and no colon is hidden by an escape."""
    shape = body.translate(_SHAPE)
    if _PERHAPS_LONG in shape and (
        _holds_long_number(_LONG, shape, body) or _holds_long_number(_LONG_WITH_EXPONENT, shape, body)
    ):
        return False
    if _PERHAPS_TINY in shape and (_holds_tiny_number(b"e-", body) or _holds_tiny_number(b"E-", body)):
        return False
    # Perhaps an escaped colon, which would spoil the count.
    return not (b"\\" in body and b"\\u003" in body)


def _holds_long_number(pattern: bytes, shape: bytes, body: bytes) -> bool:
    """Whether `pattern` occurs in `shape` where a number may begin: ids of 17 and more digits are ordinary, and
    mostly strings.

    What a string holds behind a colon or a space counts too; that costs a second reading and no more.
    """
    at = shape.find(pattern)
    while at >= 0:
        if _may_begin_number(body, at):
            return True
        at = shape.find(pattern, shape.find(b" ", at))
    return False


def _holds_tiny_number(mark: bytes, body: bytes) -> bool:
    """Whether `mark`, a negative exponent, has three digits and may belong to a number: UUIDs are full of the like.

    The number has at most 15 characters before the mark; those with more are found by `_holds_long_number`.
    """
    at = body.find(mark)
    while at >= 0:
        if body[at + 2 : at + 5].isdigit():
            start = max(0, at - 17)
            if _may_begin_number(body, start + len(body[start:at].rstrip(b"0123456789."))):
                return True
        at = body.find(mark, at + 2)
    return False


def _may_begin_number(body: bytes, at: int) -> bool:
    """Whether what stands before `at` is what stands before a number, its sign left aside."""
    before = at - 1
    if before >= 0 and body[before] == ord("-"):
        before -= 1
    return before < 0 or body[before] in _BEFORE_A_NUMBER
