"""Reads JSON bodies so that a bad value affects only its own element. Pure.

A body that is not JSON (RFC 8259: grammar and UTF-8) is refused as a whole. In any other body each element of the list
is read on its own. orjson reads the ordinary body. Some values orjson refuses or changes silently: long numbers, lone
surrogates, infinities, duplicate names and deep nesting. They are detected, and such a body is read again, exactly,
element by element (`jsonexact`).
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
"""A larger body is read on a thread, so that it does not delay other calls. It takes milliseconds; a body made to be
slow takes seconds.
"""


_MANY_VALUES = 50_000
"""A body with this many commas has its list counted before it is read. Fewer values take about 5 MB at most."""


class Body(NamedTuple):
    """A JSON object with one list: the list's elements and the object's other members. An element is a value, or the
    `Problem` that made it unreadable.
    """

    items: Sequence[Any]
    members: dict[str, Any]


def read_batch(body: bytes, list_name: str = "events", most: int = sys.maxsize, *, bare: bool = False) -> Body:
    """Read an object whose member `list_name` is a list of elements. Each element is read on its own. With `bare` the
    body may also be the list itself.

    If the list has more than `most` elements, its rest and the rest of the body are not read, and the result has
    `most` + 1 elements. Raises `InvalidRequest` if the body is not JSON or not an object, if the member is missing or
    not a list, or if the object has a member twice.
    """
    if bare and not body.startswith(b"{") and jsonscan.is_list(body):
        return Body(read_list(body, most), {})
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
    """Read a list of elements. They are read on their own and at most `most` + 1, as in `read_batch`. Raises
    `InvalidRequest` if the body is not JSON or not a list.
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
    """Read one value. Return it, or the `Problem` that made it unreadable. Raises `InvalidRequest` if the body is not
    JSON.
    """
    value = _read_fast(body)
    return ExactReader(body, None).read() if value is None else value


def canonical_object(text: bytes) -> bytes | None:
    """Return the canonical form of JSON text that is one ordinary object, as most texts are. The result is what
    `read_one` and then `canonical.encode` return. None means that the caller has to use those two.
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
    """Read JSON that this program wrote. Every number becomes a `Number`, which keeps its text."""
    return json.loads(text, parse_float=Number, parse_int=Number)


def _holds_more(body: bytes, most: int, list_name: str | None) -> bool:
    """Whether a list has more than `most` elements. A body with few commas is not examined: the answer is no."""
    return body.count(b",") >= max(_MANY_VALUES, most) and jsonscan.holds_more(body, most, list_name)


# The class of each byte in the search for numbers: a digit or point, an exponent's letter, a minus, anything else.
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
    """Return what orjson reads if that is certainly exact. None means that the body has to be read again exactly, or
    is `null`.

    A decimal of at most 15 significant digits within the range of a double keeps its value as a double. A number of
    more digits may lose its value, and so may one that is so small that it underflows. orjson itself refuses overflow,
    surrogates and too much depth. The count of colons shows duplicate names: it is the same before and after, unless a
    name was dropped with its colon.
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
    """Whether orjson changes no number of a body, and the body has no escaped colon."""
    shape = body.translate(_SHAPE)
    if _PERHAPS_LONG in shape and (
        _holds_long_number(_LONG, shape, body) or _holds_long_number(_LONG_WITH_EXPONENT, shape, body)
    ):
        return False
    if _PERHAPS_TINY in shape and (_holds_tiny_number(b"e-", body) or _holds_tiny_number(b"E-", body)):
        return False
    # This may be an escaped colon, which would make the count of colons wrong.
    return not (b"\\" in body and b"\\u003" in body)


def _holds_long_number(pattern: bytes, shape: bytes, body: bytes) -> bool:
    """Whether `pattern` occurs in `shape` where a number may begin. Ids of 17 and more digits are common, and most of
    them are strings.

    Digits behind a colon or a space inside a string count too. The only cost of that is a second reading.
    """
    at = shape.find(pattern)
    while at >= 0:
        if _may_begin_number(body, at):
            return True
        at = shape.find(pattern, shape.find(b" ", at))
    return False


def _holds_tiny_number(mark: bytes, body: bytes) -> bool:
    """Whether `mark`, a negative exponent, has three digits and may belong to a number. UUIDs often contain such text.

    The number has at most 15 characters before the mark; `_holds_long_number` finds the longer ones.
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
    """Whether a number, with or without a sign, may begin at `at`, judging by the byte before it."""
    before = at - 1
    if before >= 0 and body[before] == ord("-"):
        before -= 1
    return before < 0 or body[before] in _BEFORE_A_NUMBER
