"""Reads JSON bodies so that one bad value spoils only its own element. Pure.

A body is either no JSON (RFC 8259: grammar and UTF-8), then it is refused as a whole, or every element of its list
stands on its own. The ordinary body is read by orjson. What orjson refuses or would change without a word (long
numbers, lone surrogates, infinities, duplicate names, deep nesting) is noticed, and such a body is read again,
exactly, element by element.
"""

import json
import re
import sys
from collections.abc import Callable, Sequence
from json.scanner import make_scanner
from typing import Any, NamedTuple

import orjson

from headgate_server.core import canonical, jsonscan
from headgate_server.core.canonical import MAX_DEPTH, Number, Unrepresentable
from headgate_server.core.errors import InvalidRequest
from headgate_server.core.model import Problem
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
            value = _Reader(body, list_name, most).read()
        except _TooMany:
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
            value = _Reader(body, None, most).read_list()
        except _TooMany:
            return [None] * (most + 1)
    if type(value) is not list:
        raise InvalidRequest("The body must be a JSON list.", reason=Reason.WRONG_TYPE)
    return value


def read_one(body: bytes) -> Any:
    """Read one value: the value, or the `Problem` that makes it none. Raises `InvalidRequest` if the body is no
    JSON.
    """
    value = _read_fast(body)
    return _Reader(body, None).read() if value is None else value


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


class _TooMany(Exception):
    """The list has more elements than are wanted."""


class _NotJson(Exception):
    """A constant that Python's scanner knows and JSON does not: NaN, Infinity, -Infinity."""


class _Reader:
    """Reads one body exactly, with the scanner of the standard library, which yields values one by one.

    `make_scanner` is the C scanner where CPython has it. It reads strictly by the grammar; the hooks see every
    number's text and every object's members before anything is lost.
    """

    def __init__(self, body: bytes, list_name: str | None, most: int = sys.maxsize):
        self._most = most
        try:
            self._text = body.decode()
        except UnicodeDecodeError as error:
            raise InvalidRequest(
                f"The body is not UTF-8: byte {error.start} is 0x{body[error.start]:02x}.", reason=Reason.MALFORMED_JSON
            ) from None
        self._list_name = list_name
        self._flaw: Problem | None = None
        decoder = json.JSONDecoder(
            object_pairs_hook=self._object,
            parse_float=self._decimal,
            parse_int=self._integer,
            parse_constant=self._constant,
        )
        self._scan: Callable[[str, int], tuple[Any, int]] = make_scanner(decoder)  # type: ignore[arg-type]

    def read(self) -> Any:
        """Return the body's value; with `list_name` an object whose list holds a value or `Problem` per element."""
        at = self._skip_space(0)
        if self._list_name is not None and self._text[at : at + 1] == "{":
            return self._whole(*self._members(at))
        return self._whole(*self._element(at))

    def read_list(self) -> Any:
        """Return the body's value; of a list a value or `Problem` per element."""
        at = self._skip_space(0)
        return self._whole(*(self._elements(at) if self._text[at : at + 1] == "[" else self._element(at)))

    def _whole(self, value: Any, end: int) -> Any:
        """Return the body's value, if nothing follows it."""
        end = self._skip_space(end)
        if end != len(self._text):
            raise self._malformed(end)
        return value

    def _members(self, at: int) -> tuple[dict[str, Any], int]:
        members: dict[str, Any] = {}
        at = self._skip_space(at + 1)
        if self._text[at : at + 1] == "}":
            return members, at + 1
        while True:
            if self._text[at : at + 1] != '"':
                raise self._malformed(at)
            name, at = self._element(at)
            if not isinstance(name, str) or name in members:
                raise InvalidRequest(
                    f"The body has the member {name!r} twice.", reason=Reason.DUPLICATE_FIELD, field=str(name)
                )
            at = self._skip_space(self._expect(self._skip_space(at), ":"))
            if name == self._list_name and self._text[at : at + 1] == "[":
                members[name], at = self._elements(at)
            else:
                value, at = self._element(at)
                if isinstance(value, Problem):
                    raise InvalidRequest(value.message, reason=value.reason, field=name)
                members[name] = value
            at = self._skip_space(at)
            if self._text[at : at + 1] == "}":
                return members, at + 1
            at = self._skip_space(self._expect(at, ","))

    def _elements(self, at: int) -> tuple[list[Any], int]:
        items: list[Any] = []
        at = self._skip_space(at + 1)
        if self._text[at : at + 1] == "]":
            return items, at + 1
        while True:
            if len(items) == self._most:
                raise _TooMany
            item, at = self._element(at)
            items.append(item)
            at = self._skip_space(at)
            if self._text[at : at + 1] == "]":
                return items, at + 1
            at = self._skip_space(self._expect(at, ","))

    def _element(self, at: int) -> tuple[Any, int]:
        """Return the value, or the first `Problem` in it, and where it ends."""
        self._flaw = None
        try:
            value, end = self._scan(self._text, at)
        except RecursionError:
            return Problem(
                Reason.NESTING_TOO_DEEP, "", f"The event nests deeper than {MAX_DEPTH} levels."
            ), self._skip_nested(at)
        except StopIteration as error:
            raise self._malformed(error.value) from None
        except json.JSONDecodeError as error:
            raise self._malformed(error.pos) from None
        except _NotJson as error:
            raise InvalidRequest(f"The body is not JSON: it holds {error}.", reason=Reason.MALFORMED_JSON) from None
        return (value if self._flaw is None else self._flaw), end

    def _object(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        members = dict(pairs)
        if len(members) != len(pairs):
            seen: set[str] = set()
            twice = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
            self._flaw = self._flaw or Problem(
                Reason.DUPLICATE_FIELD,
                "",
                f"The name {twice[:80]!r} stands twice in one object; which value counts is not defined.",
            )
        return members

    def _integer(self, token: str) -> Any:
        return int(token) if len(token) <= 18 else self._number(token)

    def _decimal(self, token: str) -> Any:
        # A decimal of at most 15 digits in the middle of the range has a double of its own.
        if len(token) <= 16 and 1e-290 < abs(value := float(token)) < 1e290:
            return value
        return self._number(token)

    def _number(self, token: str) -> Any:
        try:
            return Number.parse(token)
        except Unrepresentable as error:
            self._flaw = self._flaw or Problem(error.reason, "", error.message)
            return None

    def _constant(self, name: str) -> Any:
        raise _NotJson(name)

    def _skip_space(self, at: int) -> int:
        match = _SPACE.match(self._text, at)
        return match.end() if match else at

    def _expect(self, at: int, mark: str) -> int:
        if self._text[at : at + 1] != mark:
            raise self._malformed(at)
        return at + 1

    def _skip_nested(self, at: int) -> int:
        """Return where a value ends that is too deep for the scanner, by a walk over its tokens that keeps its own
        stack.

        Every token is matched by the grammar, so that what is too deep and also malformed is found malformed.
        """
        closers: list[str] = []
        # What may come next: a value, a value or the end of an empty list, a name, a name or the end of an empty
        # object, a colon, or a comma or closer.
        state = "value"
        while True:
            match = _TOKEN.match(self._text, at)
            if match is None or (state := self._next_state(state, match, closers)) == "error":
                raise self._malformed(self._skip_space(at))
            at = match.end()
            if state == "end":
                return at

    @staticmethod
    def _next_state(state: str, match: re.Match[str], closers: list[str]) -> str:
        mark = match[1]
        if state in ("value", "value or ]") and mark in "[{":
            closers.append("]" if mark == "[" else "}")
            return "value or ]" if mark == "[" else "name or }"
        if state in ("value", "value or ]") and (match["scalar"] or match["string"]):
            return "comma"  # never the whole value: a scalar is not deep
        if state in ("name", "name or }") and match["string"]:
            return "colon"
        if state == "colon" and mark == ":":
            return "value"
        if state == "comma" and mark == ",":
            return "value" if closers[-1] == "]" else "name"
        if state in ("comma", f"value or {mark}", f"name or {mark}") and mark == closers[-1]:
            closers.pop()
            return "comma" if closers else "end"
        return "error"

    def _malformed(self, at: int) -> InvalidRequest:
        line = self._text.count("\n", 0, at) + 1
        column = at - self._text.rfind("\n", 0, at)
        found = repr(self._text[at]) if at < len(self._text) else "the end"
        return InvalidRequest(
            f"The body is not JSON: {found} at line {line}, column {column} is not expected.",
            reason=Reason.MALFORMED_JSON,
        )


_SPACE = re.compile(r"[ \t\n\r]*")
_TOKEN = re.compile(
    r"[ \t\n\r]*("
    r"[\[\]{},:]"
    r'|(?P<string>"(?:[^"\\\x00-\x1f]|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*")'
    r"|(?P<scalar>-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?|true|false|null)"
    r")"
)
