"""A body with one value a line: which lines have a value, what each says, and the exact text of each."""

import json
import tracemalloc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate_server.core.jsonlines import MEDIA_TYPES, Line, is_lines, lines_of, read_line, sent
from headgate_server.core.model import Problem
from headgate_server.core.reasons import Reason

_LINES = st.lists(st.sampled_from([b"", b" ", b"\r", b"\t \r", b"{}", b" 1\r", b'"\xff"', b"{", b"1 2"]), max_size=12)


@pytest.mark.parametrize("name", sorted(MEDIA_TYPES))
def test_media_types_are_parsed(name: str) -> None:
    for sent_type in (name, name.upper(), f"{name};charset=utf-8", f" {name} ; charset=UTF-8; x=y"):
        assert is_lines(sent_type)
    for other in ("", ";", f"{name}x", f"x/{name}", "application/json", f"text/plain; was={name}", "application/x"):
        assert not is_lines(other)


@given(_LINES, st.booleans(), st.integers(0, 13))
def test_lines_are_numbered_and_blank_ones_have_no_value(texts: list[bytes], ended: bool, most: int) -> None:
    body = b"\n".join(texts) + (b"\n" if ended else b"")
    expected = [(number, text.strip(b" \t\r")) for number, text in enumerate(texts, 1) if text.strip(b" \t\r")]
    found = lines_of(body)
    assert [(line.number, body[line.start : line.end].strip(b" \t\r")) for line in found] == expected
    assert lines_of(body, most) == found[: most + 1]
    every = range(len(expected))
    assert sent(body, every) == [text for _, text in expected]
    assert sent(body, every[1::2]) == [text for _, text in expected][1::2]


@given(
    st.lists(
        st.dictionaries(st.text(max_size=3), st.text() | st.integers(-999, 999) | st.none(), max_size=3), max_size=5
    )
)
def test_every_value_is_read_as_it_is(values: list[Any]) -> None:
    body = "\n".join(json.dumps(value, ensure_ascii=False) for value in values).encode()
    assert [read_line(body, line) for line in lines_of(body)] == values


@pytest.mark.parametrize(
    ("text", "reason", "message"),
    [
        (b'{"type": x}', Reason.MALFORMED_JSON, "The line is not JSON: 'x' at column 10 is not expected."),
        (b'{"type":', Reason.MALFORMED_JSON, "The line is not JSON: the end at column 9 is not expected."),
        (b'{"a":1}{"a":1}', Reason.MALFORMED_JSON, "The line is not JSON: '{' at column 8 is not expected."),
        (b'{"type":"\xff"}', Reason.MALFORMED_JSON, "The line is not UTF-8: byte 9 is 0xff."),
        (b"NaN", Reason.MALFORMED_JSON, "The line is not JSON: it contains NaN."),
        (b'{"a":1,"a":2}', Reason.DUPLICATE_FIELD, "The name 'a' occurs twice in one object; "),
        (b"[" * 100_000 + b"]" * 100_000, Reason.NESTING_TOO_DEEP, "The event nests deeper than "),
    ],
)
def test_a_line_that_cannot_be_read(text: bytes, reason: Reason, message: str) -> None:
    body = b'{"n": 12345678901234567890}\n' + text + b"\n{}"
    before, line, after = lines_of(body)
    problem = read_line(body, line)
    assert isinstance(problem, Problem)
    assert problem.reason is reason
    assert problem.message.startswith(message)
    assert str(read_line(body, before)["n"]) == "12345678901234567890"
    assert read_line(body, after) == {}
    assert sent(body, [1]) == [text]


@pytest.mark.parametrize(
    "body",
    [b"\n" * 8_000_000, b" " * 8_000_000, b" \r\n" * 2_700_000, b"0\n" * 4_000_000],
    ids=lambda body: repr(body[:3]),
)
def test_a_hostile_body_takes_no_memory(body: bytes) -> None:
    tracemalloc.start()
    try:
        found = lines_of(body, 1_000)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()
    assert len(found) == (1_001 if body[:1] == b"0" else 0)


def test_a_line_is_a_number_and_a_place() -> None:
    assert lines_of(b'\n\n  {"a":\t1}\r\n') == [Line(3, 2, 13)]
