"""Differences of two contents: bounded paths, never a value."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate_server.core import jsonbody
from headgate_server.core.differ import MAX_PATH, MAX_PATHS, differing_paths
from headgate_server.core.model import Draft
from tests.support.drafts import draft
from tests.unit.linking import linked


def paths(old: Draft, new: Draft) -> tuple[str, ...]:
    """Return the paths at which `new` differs from the stored `old`."""
    (row,), _ = linked("acme", [old])
    return differing_paths(new, row)


def data_paths(old: str, new: str) -> tuple[str, ...]:
    """Return the paths at which two JSON texts differ as data."""
    return paths(*(draft("k", jsonbody.read_one(text.encode())) for text in (old, new)))


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ('{"amount":1}', '{"amount":2}', ["/data/amount"]),
        ('{"a":{"b":{"c":1}},"x":1}', '{"a":{"b":{"c":2}},"x":1}', ["/data/a/b/c"]),
        ('{"a":1}', "{}", ["/data/a"]),
        ("{}", '{"a":null}', ["/data/a"]),
        ('{"a":[1,2,3]}', '{"a":[1,5,6]}', ["/data/a/1", "/data/a/2"]),
        ('{"a":[1,2,3]}', '{"a":[1,2]}', ["/data/a"]),
        ('{"a":{}}', '{"a":[]}', ["/data/a"]),
        ('{"a":1}', '{"a":"1"}', ["/data/a"]),
        ('{"a":{"b":[1]}}', '{"a":{"b":["1"]}}', ["/data/a/b/0"]),
        ('{"a":1}', '{"a":true}', ["/data/a"]),
        ('{"a":0}', '{"a":false}', ["/data/a"]),
        ('{"a":0}', '{"a":null}', ["/data/a"]),
        ('{"a":9007199254740992}', '{"a":9007199254740993}', ["/data/a"]),
        ('{"a":1e400}', '{"a":1e401}', ["/data/a"]),
        ('{"a/b":1,"c~d":1}', '{"a/b":2,"c~d":2}', ["/data/a~1b", "/data/c~0d"]),
        ('{"~1":1}', '{"~1":2}', ["/data/~01"]),
        ('{"":{"":1}}', '{"":{"":2}}', ["/data//"]),
        ('{"a":1,"b":2}', '{"b":2.0,"a":1.00}', []),
    ],
)
def test_paths_to_what_differs_in_data(old: str, new: str, expected: list[str]) -> None:
    assert list(data_paths(old, new)) == expected
    assert list(data_paths(new, old)) == expected


def test_fields_of_the_event_are_named_as_the_content_names_them() -> None:
    old = draft("k", {"n": 1}, type="a", subject="s", occurred_at=1)
    new = draft("k", None, type="b", subject="", occurred_at=2)
    assert paths(old, new) == ("/data", "/occurred_at", "/subject", "/type")


def test_no_more_than_twenty_paths_are_named() -> None:
    old, new = ({f"f{n:03}": {"v": n * factor} for n in range(100)} for factor in (1, 1000))
    found = paths(draft("k", old), draft("k", new))
    assert len(found) == MAX_PATHS
    assert found[0] == "/data/f001/v"


def test_a_long_path_is_cut_at_the_last_step_that_fits() -> None:
    deep = {"a": {"x" * 200: {"b": 1}, "y" * 200: 1}}
    assert paths(draft("k", deep), draft("k", {"a": {"x" * 200: {"b": 2}, "y" * 200: 2}})) == ("/data/a",)
    assert paths(draft("k", deep), draft("k", {"a": {"x" * 200: {"b": 1}, "y" * 200: "1"}})) == ("/data/a",)
    assert paths(draft("k", deep), draft("k", deep)) == ()


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(0, 3) | st.sampled_from(["0", "1", "/", "~", "x" * 100]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "b/", "~", "x" * 60]), inner, max_size=3)
    ),
    max_leaves=15,
)
_OBJECTS = st.dictionaries(st.sampled_from(["a", "b", "secret"]), _JSON, max_size=3)


@given(_OBJECTS, _OBJECTS)
def test_a_path_is_named_exactly_if_the_contents_differ(old: dict[str, Any], new: dict[str, Any]) -> None:
    one, other = draft("k", old), draft("k", new)
    found = paths(one, other)
    assert bool(found) == (one.canonical != other.canonical)
    assert len(set(found)) == len(found) <= MAX_PATHS
    assert all(len(path) <= MAX_PATH and (path + "/").startswith("/data/") for path in found)


def test_no_value_is_ever_named() -> None:
    found = data_paths(
        '{"a":"secret-1","b":["secret-2",{"c":"secret-3"}]}', '{"a":"secret-4","b":["secret-5",{"c":"secret-6"}]}'
    )
    assert found == ("/data/a", "/data/b/0", "/data/b/1/c")
