"""Counts the elements of a list in a JSON body, or cuts out their texts, without reading their values. Pure."""

import re
from collections.abc import Sequence

import orjson

_SPACE = b" \t\n\r"

_STRING = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"'
_TOKEN = re.compile(rb'[^"\[\]{},:]*+(?:(?P<string>' + _STRING + rb")|(?P<mark>[\[\]{},:]))", re.DOTALL)
_TO_MARK = re.compile(rb'(?:[^"\[\]{},]++|' + _STRING + rb")*+", re.DOTALL)
"""To the next bracket, brace or comma."""
_TO_BRACKET = re.compile(rb'(?:[^"\[\]{}]++|' + _STRING + rb")*+", re.DOTALL)
"""To the next bracket or brace. Both patterns are possessive, so the matcher keeps nothing for backtracking."""


def is_list(body: bytes) -> bool:
    """Whether a body is a list, if it is JSON at all."""
    first = _TOKEN.match(body)
    return first is not None and first["mark"] == b"["


def holds_more(body: bytes, most: int, list_name: str | None) -> bool:
    """Whether the list has more than `most` elements: the member `list_name` of the body, or the body itself.

    It reads at most to the first element past `most`. If the body is not JSON, the answer may be either.
    """
    at = _list_start(body, list_name)
    if at is None:
        return False
    for _ in range(most):
        at = _element_end(body, at)
        if body[at : at + 1] != b",":
            return False
        at += 1
    return True


def sent(body: bytes, positions: Sequence[int], list_name: str | None) -> list[bytes]:
    """Return the exact texts of the events at these positions, which increase, without the white space around them.

    They are the elements of the member `list_name`; with the empty name of the body itself, which is a list. Without a
    name the body is the only one. The body is JSON; what is not there is empty.
    """
    if list_name is None:
        return [body.strip(_SPACE)] * len(positions)
    found: list[bytes] = []
    at = _list_start(body, list_name or None)
    position = 0
    for wanted in positions:
        while at is not None and position < wanted:
            end = _element_end(body, at)
            at = end + 1 if body[end : end + 1] == b"," else None
            position += 1
        found.append(b"" if at is None else body[at : _element_end(body, at)].strip(_SPACE))
    return found


def _list_start(body: bytes, list_name: str | None) -> int | None:
    """Return where the list's first element may begin, None if there is no such list."""
    first = _TOKEN.match(body)
    if first is None or first["mark"] != (b"[" if list_name is None else b"{"):
        return None
    at = first.end()
    if list_name is None:
        return at
    name = b""
    while (token := _TOKEN.match(body, at)) is not None:
        at = token.end()
        mark = token["mark"]
        if mark is None:
            name = token["string"]
        elif mark == b"[" and _is(name, list_name):
            return at
        elif mark in b"[{":
            at = _nested_end(body, at)
        elif mark == b",":
            name = b""
    return None


def _element_end(body: bytes, at: int) -> int:
    """Return the position of the comma or bracket after an element, the body's end if there is none."""
    while True:
        match = _TO_MARK.match(body, at)
        assert match is not None  # noqa: S101 - it matches nothing, too
        at = match.end()
        if body[at : at + 1] not in (b"[", b"{"):
            return at
        at = _nested_end(body, at + 1)


def _nested_end(body: bytes, at: int) -> int:
    """Return the end of the list or object whose first bracket is before `at`, the body's end if it is not closed."""
    depth = 1
    while depth:
        match = _TO_BRACKET.match(body, at)
        assert match is not None  # noqa: S101 - it matches nothing, too
        mark = body[match.end() : match.end() + 1]
        if mark not in (b"[", b"{", b"]", b"}"):
            return len(body)
        depth += 1 if mark in b"[{" else -1
        at = match.end() + 1
    return at


def _is(token: bytes, name: str) -> bool:
    """Whether a string of the body is this name."""
    if b"\\" not in token:
        return token[1:-1] == name.encode()
    try:
        return bool(orjson.loads(token) == name)
    except orjson.JSONDecodeError:
        return False
