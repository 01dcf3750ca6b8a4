"""Elements of a list are found without reading them: their count and texts are exact, and it takes no memory."""

import json
import tracemalloc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate_server.core import jsonbody
from headgate_server.core.errors import InvalidRequest
from headgate_server.core.jsonscan import holds_more, sent

TEXT = st.text(alphabet='ab"\\[]{},:é\n')
VALUE = st.recursive(
    st.none() | st.integers(0, 9) | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)


@given(st.lists(VALUE, max_size=6), st.integers(0, 7), st.sampled_from([None, (",", ":"), (" , ", "\n:\t")]))
def test_a_list_by_itself(items: list[Any], most: int, separators: tuple[str, str] | None) -> None:
    body = json.dumps(items, ensure_ascii=False, separators=separators).encode()
    # Only reading distinguishes an empty list from a list of one element.
    assert holds_more(body, most, None) == (max(len(items), 1) > most)


@given(
    st.dictionaries(TEXT.filter(lambda name: name != "events"), VALUE, max_size=3),
    st.lists(VALUE, min_size=1, max_size=6),
    st.dictionaries(TEXT.filter(lambda name: name != "events"), VALUE, max_size=3),
    st.integers(1, 7),
)
def test_a_list_within_an_object(before: Any, items: list[Any], after: Any, most: int) -> None:
    body = json.dumps({**before, "events": items, **after}).encode()
    assert holds_more(body, most, "events") == (len(items) > most)
    assert not holds_more(json.dumps({**before, **after}).encode(), most, "events")


@given(
    st.dictionaries(TEXT.filter(lambda name: name != "events"), VALUE, max_size=3),
    st.lists(VALUE, min_size=1, max_size=6),
    st.sampled_from([b"", b" ", b"\r\n\t"]),
    st.sets(st.integers(0, 5)),
)
def test_each_event_is_cut_out_exactly(before: Any, items: list[Any], space: bytes, wanted: set[int]) -> None:
    texts = [json.dumps(item, ensure_ascii=False).encode() for item in items]
    positions = sorted(position for position in wanted if position < len(items))
    events = b"[" + b",".join(space + text + space for text in texts) + b"]"
    members = json.dumps(before)[1:-1].encode()
    body = b"{" + members + (b"," if before else b"") + b'"events"' + space + b":" + space + events + b"}"
    expected = [texts[position] for position in positions]
    assert sent(body, positions, "events") == expected
    assert sent(space + events, positions, "") == expected
    assert sent(space + texts[0] + space, [0], None) == texts[:1]


def test_an_event_that_is_not_there_has_no_text() -> None:
    assert sent(b'{"events":[1, 2 ]}', [0, 1, 2, 9], "events") == [b"1", b"2", b"", b""]
    assert sent(b'{"events":5}', [0], "events") == [b""]


@pytest.mark.parametrize("name", [b'"events"', b'"\\u0065vents"'])
def test_nothing_is_read_behind_the_first_that_is_too_many(name: bytes) -> None:
    assert holds_more(b"{" + name + b":[1,[2],3, and no JSON", 2, "events")
    assert not holds_more(b"{" + name + b":[1,[2] and no JSON", 2, "events")


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[", b'{"events"', b'{"events":[', b'{"events":["', b'{"events":[[', b"nul"]
)
def test_what_is_no_json_has_no_more(body: bytes) -> None:
    assert not holds_more(body, 1, "events")
    assert not holds_more(body, 1, None)


@pytest.mark.parametrize("element", [b"{}", b'{"a":1e400}', b"1"], ids=["empty", "read again", "no object"])
def test_a_body_of_far_too_many_events_takes_no_memory(element: bytes) -> None:
    many = b",".join([element] * 300_000)
    tracemalloc.start()
    try:
        batch = jsonbody.read_batch(b'{"events":[%b]}' % many, most=1_000)
        alone = jsonbody.read_list(b"[%b]" % many, most=1_000)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(batch.items) == len(alone) == 1_001
    # The two bodies themselves are in it.
    assert peak < 3 * len(many) + (2 << 20)


def test_the_exact_reader_stops_as_well() -> None:
    few = b'{"events":[1e400,1,2,3, and no JSON'
    assert len(jsonbody.read_batch(few, most=3).items) == 4
    with pytest.raises(InvalidRequest, match="not JSON"):
        jsonbody.read_batch(few, most=5)
