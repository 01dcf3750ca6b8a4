"""The text of heads that are kept elsewhere."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate_server.core import heads, timestamps
from headgate_server.core.model import Head
from headgate_server.core.types import EventHash

_HEADS = st.builds(
    Head,
    st.integers(1, 2**63 - 1),
    st.binary(min_size=32, max_size=32).map(EventHash),
    st.integers(timestamps.MIN, timestamps.MAX),
)


@given(st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=20), _HEADS, max_size=5))
def test_heads_are_read_as_they_were_written(given_heads: dict[str, Head]) -> None:
    assert heads.of_text(heads.to_text(given_heads)) == given_heads


def test_an_empty_ledger_has_a_head_too() -> None:
    empty = {"acme": Head(0, EventHash(bytes(32)), 0)}
    assert "created_at" not in heads.to_text(empty)
    assert heads.of_text(heads.to_text(empty)) == empty


def _text(**entry: Any) -> str:
    whole = {"workspace": "acme", "sequence": 1, "hash": "ab" * 32, "created_at": "2026-11-30T12:00:00Z"} | entry
    return json.dumps({"format": "headgate-heads/1", "heads": [whole]})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        pytest.param("", "not JSON", id="empty"),
        pytest.param("[" * 100_000, "not JSON", id="too deep"),
        pytest.param("[]", "headgate-heads/1", id="a list"),
        pytest.param('{"format": "headgate-heads/2", "heads": []}', "headgate-heads/1", id="another format"),
        pytest.param('{"format": "headgate-heads/1"}', "headgate-heads/1", id="no heads"),
        pytest.param('{"format": "headgate-heads/1", "heads": [3]}', "no workspace", id="a number for a head"),
        pytest.param(_text(workspace=None), "no workspace", id="no workspace"),
        pytest.param(_text(sequence="1"), "sequence", id="a text for the sequence"),
        pytest.param(_text(sequence=True), "sequence", id="a boolean for the sequence"),
        pytest.param(_text(sequence=-1), "sequence", id="a negative sequence"),
        pytest.param(_text(sequence=2**63), "sequence", id="a huge sequence"),
        pytest.param(_text(hash="ab" * 31), "64 hexadecimal digits", id="a short hash"),
        pytest.param(_text(hash="zz" * 32), "64 hexadecimal digits", id="no hexadecimal digits"),
        pytest.param(_text(hash=None), "64 hexadecimal digits", id="no hash"),
        pytest.param(_text(created_at="yesterday"), "RFC 3339", id="no time"),
        pytest.param(_text(created_at=5), "created_at", id="a number for the time"),
    ],
)
def test_a_text_that_has_no_heads(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        heads.of_text(text)


def test_two_heads_of_one_workspace() -> None:
    value = json.loads(_text())
    value["heads"] *= 2
    with pytest.raises(ValueError, match="two heads of the workspace 'acme'"):
        heads.of_text(json.dumps(value))


def test_one_head() -> None:
    assert heads.of_pair(f"7:{'ab' * 32}") == Head(7, EventHash(b"\xab" * 32), 0)


@pytest.mark.parametrize("text", ["", ":", "7", "7:", "7:ab", f"-1:{'ab' * 32}", f"٣:{'ab' * 32}", "9" * 30 + ":"])
def test_a_text_that_is_no_head(text: str) -> None:
    with pytest.raises(ValueError, match=r"SEQUENCE:HASH|64 hexadecimal digits|a number of events"):
        heads.of_pair(text)
