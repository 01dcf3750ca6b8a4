"""Reads bodies with one JSON value on each line, as log shippers send them. Pure.

A line ends with a line feed; the last one may end without. Lines of white space alone have no value, but they count
when lines are numbered. JSON has no line feed inside a string, so a line that cannot be read does not affect others.
"""

import re
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

from headgate_server.core import jsonbody, mediatypes
from headgate_server.core.errors import InvalidRequest
from headgate_server.core.model import Problem

MEDIA_TYPES = frozenset(
    {
        "application/x-ndjson",
        "application/ndjson",
        "application/json-lines",
        "application/jsonl",
        "application/x-jsonlines",
    }
)
"""The names that senders use for this format. None is registered."""

_SPACE = re.compile(rb"[ \t\r\n]*+")
_AROUND = b" \t\r"


class Line(NamedTuple):
    """A line with a value: its number, from 1, and its place in the body."""

    number: int
    start: int
    end: int


def is_lines(content_type: str) -> bool:
    """Whether a `Content-Type` says that a body has one value a line. Its parameters do not matter: JSON is UTF-8."""
    if content_type == "application/json":  # nearly every body
        return False
    media = mediatypes.parse(content_type)
    return media is not None and media.name in MEDIA_TYPES


def lines_of(body: bytes, most: int = sys.maxsize) -> Sequence[Line]:
    """Return the lines with a value. At most `most` + 1 are looked for."""
    found: list[Line] = []
    number, at = 1, 0
    while len(found) <= most:
        space = _SPACE.match(body, at)
        assert space is not None  # noqa: S101 - it matches nothing, too
        first = space.end()
        if first == len(body):
            break
        number += body.count(b"\n", at, first)
        start = max(at, body.rfind(b"\n", at, first) + 1)
        end = body.find(b"\n", first)
        if end < 0:
            end = len(body)
        found.append(Line(number, start, end))
        number += 1
        at = end + 1
    return found


def read_line(body: bytes, line: Line) -> Any:
    """Return the value of a line, or the `Problem` that made it unreadable."""
    try:
        return jsonbody.read_one(body[line.start : line.end])
    except InvalidRequest as error:
        message = error.message.replace("The body", "The line", 1).replace(" at line 1, column", " at column", 1)
        return Problem(error.reason, error.field, message)


def sent(body: bytes, positions: Sequence[int]) -> list[bytes]:
    """Return the exact texts of the values at these positions, which increase, without the white space around them."""
    lines = lines_of(body, positions[-1]) if positions else ()
    return [body[lines[position].start : lines[position].end].strip(_AROUND) for position in positions]
