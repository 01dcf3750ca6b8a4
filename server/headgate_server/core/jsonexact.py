"""Reads a JSON body exactly, element by element. `jsonbody` uses it for bodies that orjson refuses or changes. Pure."""

import json
import re
import sys
from collections.abc import Callable
from json.scanner import make_scanner
from typing import Any

from headgate_server.core.canonical import MAX_DEPTH, Number, Unrepresentable
from headgate_server.core.errors import InvalidRequest
from headgate_server.core.model import Problem
from headgate_server.core.reasons import Reason


class TooMany(Exception):
    """The list has more elements than the caller takes."""


class _NotJson(Exception):
    """A constant that Python's scanner accepts and JSON does not have: NaN, Infinity, -Infinity."""


class ExactReader:
    """Reads one body exactly, with the scanner of the standard library, which yields values one by one.

    `make_scanner` is the C scanner where CPython has it. It follows the grammar strictly. The hooks get every number's
    text and every object's members before any information is lost.
    """

    def __init__(self, body: bytes, list_name: str | None, most: int = sys.maxsize):
        """`list_name` names the member of the body whose list is read element by element; None means no such member.
        Raises `InvalidRequest` if the body is not UTF-8.
        """
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
        """Return the body's value. With `list_name`, the object's list has a value or a `Problem` for each element.

        Raises `InvalidRequest` if the body is not JSON, and `TooMany` if the list has more than `most` elements.
        """
        at = self._skip_space(0)
        if self._list_name is not None and self._text[at : at + 1] == "{":
            return self._whole(*self._members(at))
        return self._whole(*self._element(at))

    def read_list(self) -> Any:
        """Return the body's value. A list has a value or a `Problem` for each element. Raises what `read` raises."""
        at = self._skip_space(0)
        return self._whole(*(self._elements(at) if self._text[at : at + 1] == "[" else self._element(at)))

    def _whole(self, value: Any, end: int) -> Any:
        """Return the body's value. Raises `InvalidRequest` if anything follows it."""
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
                raise TooMany
            item, at = self._element(at)
            items.append(item)
            at = self._skip_space(at)
            if self._text[at : at + 1] == "]":
                return items, at + 1
            at = self._skip_space(self._expect(at, ","))

    def _element(self, at: int) -> tuple[Any, int]:
        """Return the value, or the first `Problem` in it, and the position of its end."""
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
            raise InvalidRequest(f"The body is not JSON: it contains {error}.", reason=Reason.MALFORMED_JSON) from None
        return (value if self._flaw is None else self._flaw), end

    def _object(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        members = dict(pairs)
        if len(members) != len(pairs):
            earlier: set[str] = set()
            twice = next(name for name, _ in pairs if name in earlier or earlier.add(name))  # type: ignore[func-returns-value]
            self._flaw = self._flaw or Problem(
                Reason.DUPLICATE_FIELD,
                "",
                f"The name {twice[:80]!r} occurs twice in one object; it is not defined which value counts.",
            )
        return members

    def _integer(self, token: str) -> Any:
        return int(token) if len(token) <= 18 else self._number(token)

    def _decimal(self, token: str) -> Any:
        # A decimal of at most 15 digits in the middle of the range keeps its value as a double.
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
        """Return the position of the end of a value that is too deep for the scanner. This walks over the value's
        tokens with a stack of its own.

        It checks every token against the grammar: a value that is too deep and also malformed is reported as malformed.
        """
        closers: list[str] = []
        # The state names what may come next: a value, a value or the end of an empty list, a name, a name or the end
        # of an empty object, a colon, or a comma or the end of a list or object.
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
            return "comma"  # a scalar is never the whole value here: it is not deep
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
