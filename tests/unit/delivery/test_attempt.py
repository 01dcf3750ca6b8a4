"""The detail of an attempt is a short text on one line."""

import pytest

from headgate_server.delivery.attempt import DETAIL_CHARACTERS, printable


@pytest.mark.parametrize(
    ("text", "detail"),
    [
        ("", ""),
        ("Bad Request", "Bad Request"),
        ("<h1>no</h1>\r\n\r\n  <p>at all</p>\n", "<h1>no</h1> <p>at all</p>"),
        ("a\x1b[31mred\x00\x7f", "a [31mred"),
        ("a\u202eb\u2028c", "a b c"),
        ("\ud800", ""),
        ("größer 漢字", "größer 漢字"),
    ],
)
def test_a_detail_is_one_printable_line(text: str, detail: str) -> None:
    assert printable(text) == detail


def test_a_detail_is_short() -> None:
    assert printable("é" * 10_000_000) == "é" * DETAIL_CHARACTERS
    assert len(printable(" \n" * 350 + "x" * 1000)) <= DETAIL_CHARACTERS
