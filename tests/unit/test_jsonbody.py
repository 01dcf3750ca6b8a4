"""Reading JSON bodies: each element is read exactly or becomes a problem; a body that is not JSON is one error."""

import json
from typing import Any

import orjson
import pytest
from hypothesis import assume, example, given, reject
from hypothesis import strategies as st

from headgate_server.core import canonical, jsonbody, validate
from headgate_server.core.errors import InvalidRequest
from headgate_server.core.model import Problem
from tests.unit.jsontexts import OBJECTS, VALUES, DuplicateError, is_json, oracle
from tests.unit.numbers import exact, exactly, number_tokens

no_cover = pytest.mark.no_cover
"""Coverage is not measured in tests of very many values, which it makes four times as long."""


def batch(*elements: str | bytes) -> bytes:
    """Return the body of a batch of these JSON texts."""
    texts = [element.encode() if isinstance(element, str) else element for element in elements]
    return b'{"events":[' + b",".join(texts) + b"]}"


def read(*elements: str | bytes) -> list[Any]:
    """Return the values read at each position of a batch of these JSON texts."""
    return list(jsonbody.read_batch(batch(*elements)).items)


def data(value: str) -> str:
    """Return an event with this JSON text in its data."""
    return '{"type":"t","data":{"v":' + value + "}}"


@no_cover
@given(st.lists(VALUES | OBJECTS, max_size=5))
@example(['{"a:":1,"a\\u003a":2}', '{"x":"::"}'])
@example(['{"a":":","a":""}'])
@example(['{"a":{"a":1,"\\u0061":1}}', '{"a":1}'])
@example(["[1E400]", "[-1e-400]", "[100000000000000000000e-20]", "[0.000000000000000000001]", "[1e23]"])
@example(['{"type":1e-999}', '{"type":"e-999"}', '{"type":"550e8400-e29b-41d4-a716-446655440000"}'])
@example(['"12345678901234567890"', "12345678901234567", "-1234567890123456e0", "-1.23456789012345e-101"])
def test_every_position_is_read_exactly_or_is_the_problem_it_has(elements: list[str]) -> None:
    items = read(*elements)
    assert len(items) == len(elements)
    for element, item in zip(elements, items, strict=True):
        try:
            expected = oracle(element)
        except DuplicateError:
            assert isinstance(item, Problem)
            assert item.reason == "DUPLICATE_FIELD"
        else:
            assert exactly(item) == expected


@given(VALUES)
def test_a_single_value_is_read_as_an_element_is(text: str) -> None:
    assert jsonbody.read_one(text.encode()) == read(text)[0]


@given(VALUES | OBJECTS)
@example('{"a":1.0,"b":[1e5,-0.0,0.000001]}')
@example('{"b":"550e8400-e29b-41d4-a716-446655440000","a":{"d":null,"c":[true,49.99]}}')
@example('{"a":12345678901234567890}')
@example("{" + '"a":{' * 100 + "}" * 101)
def test_an_object_in_one_step_is_the_same_as_in_two(text: str) -> None:
    written = jsonbody.canonical_object(text.encode())
    if written is None:
        return
    value = jsonbody.read_one(text.encode())
    assert type(value) is dict
    assert written == canonical.encode(value)


def test_an_ordinary_object_takes_one_step() -> None:
    text = b'{"b": 49.99, "a": [1, "1.0", {"id": "550e8400-e29b-41d4-a716-446655440000"}]}'
    assert jsonbody.canonical_object(text) == b'{"a":[1,"1.0",{"id":"550e8400-e29b-41d4-a716-446655440000"}],"b":49.99}'


@no_cover
@given(OBJECTS)
def test_the_fast_reading_agrees_with_the_exact_one(text: str) -> None:
    fast = jsonbody._read_fast(text.encode())
    assume(fast is not None)
    assert exactly(fast) == oracle(text)


@given(st.lists(VALUES, min_size=1, max_size=3).map(lambda elements: batch(*elements)), st.data())
def test_a_damaged_body_is_refused_exactly_if_it_is_no_json(body: bytes, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(body) - 1))
    patch = data.draw(
        st.sampled_from([b"", b'"', b"\\", b",", b":", b"]", b"}", b"{", b"0", b"-", b".", b"e", b"\x00", b"\xff"])
    )
    damaged = body[:at] + patch + body[at + data.draw(st.integers(0, 2)) :]
    try:
        readable = is_json(damaged.decode())
    except UnicodeDecodeError:
        readable = False
    if readable:
        jsonbody.read_one(damaged)
    else:
        with pytest.raises(InvalidRequest) as refused:
            jsonbody.read_one(damaged)
        assert refused.value.reason == "MALFORMED_JSON"


@given(number_tokens(), number_tokens())
@example("1e23", "9.999999999999999e22")
@example("9007199254740993", "9007199254740992")
@example("18446744073709551616", "18446744073709551615")
@example("1e-400", "0")
@example("2e-324", "3e-324")
@example("0.30000000000000004", "0.3000000000000000444")
def test_two_numbers_are_the_same_content_exactly_if_they_are_equal(one: str, other: str) -> None:
    texts = [canonical.encode(item["data"]) for item in read(data(one), data(other))]
    assert (texts[0] == texts[1]) == (exact(one) == exact(other))
    alone = [canonical.encode(jsonbody.read_one(data(token).encode())["data"]) for token in (one, other)]
    assert alone == texts


@given(number_tokens(), st.integers(0, 60), st.sampled_from("0123456789"))
def test_changing_one_digit_changes_the_content_unless_it_is_the_same_number(token: str, at: int, digit: str) -> None:
    digits = [index for index, character in enumerate(token.lower().partition("e")[0]) if character.isdigit()]
    place = digits[at % len(digits)]
    changed = token[:place] + digit + token[place + 1 :]
    assume(is_json(changed))
    first, second = (canonical.encode(item["data"]) for item in read(data(token), data(changed)))
    assert (first == second) == (exact(token) == exact(changed))


@pytest.mark.parametrize(
    "poison",
    [
        pytest.param(data('"\\u0000"'), id="NUL in data"),
        pytest.param('{"type":"\\u0000"}', id="NUL in a field"),
        pytest.param(data('"\\ud800"'), id="lone surrogate"),
        pytest.param('{"type":"t","\\udc00":1}', id="lone surrogate in a name"),
        pytest.param(data("1e999"), id="1e999"),
        pytest.param(data("1e9999999999"), id="exponent without bounds"),
        pytest.param(data("1e" + "0" * 9000 + "1"), id="exponent of many zeros"),
        pytest.param(data("1" * 5000), id="long integer"),
        pytest.param(data("0." + "1" * 5000), id="long decimal"),
        pytest.param(data("[" * 200 + "]" * 200), id="200 levels"),
        pytest.param(data("[" * 2_000 + "]" * 2_000), id="2,000 levels"),
        pytest.param(data('{"a":[' * 50_000 + "]}" * 50_000), id="100,000 levels"),
        pytest.param(data('"' + "x" * 1_000_000 + '"'), id="1 MB string"),
        pytest.param(data('{"' + "x" * 1_000_000 + '":1}'), id="1 MB name"),
        pytest.param('{"type":"t","type":"u"}', id="duplicate name"),
        pytest.param(data('{"a":1,"a":1}'), id="duplicate name in data"),
        pytest.param("5", id="5"),
        pytest.param("null", id="null"),
        pytest.param('"event"', id="string"),
        pytest.param("[]", id="list"),
        pytest.param("[" * 2_000 + "]" * 2_000, id="a deep list for an event"),
    ],
)
def test_a_poisoned_event_touches_only_its_own_position(poison: str) -> None:
    before, item, after = read(data("1"), poison, data("2"))
    assert (before, after) == (json.loads(data("1")), json.loads(data("2")))
    slot = validate.native_json(item)
    if isinstance(slot, Problem):
        assert slot.reason.isupper()
        assert len(slot.message) < 300


@pytest.mark.parametrize(
    ("event", "reason"),
    [
        (data("[" * 99 + "]" * 99), None),
        (data("[" * 100 + "]" * 100), "NESTING_TOO_DEEP"),
        (data("[" * 300 + "]" * 300), "NESTING_TOO_DEEP"),
        (data("[" * 2_000 + "]" * 2_000), "NESTING_TOO_DEEP"),
        (data("[" * 100_000 + "]" * 100_000), "NESTING_TOO_DEEP"),
        (data('"\\ud800"'), "INVALID_UNICODE"),
        (data("1e9999999999"), "NUMBER_OUT_OF_RANGE"),
        (data("1e999"), None),
        (data('{"a":1,"\\u0061":1}'), "DUPLICATE_FIELD"),
        ("null", "WRONG_TYPE"),
    ],
)
def test_reasons_of_poisoned_events(event: str, reason: str | None) -> None:
    (item,) = read(event)
    slot = validate.native_json(item)
    assert (slot.reason if isinstance(slot, Problem) else None) == reason


@pytest.mark.parametrize(
    "element",
    [
        '{"a":1,"a":1}',
        '{"a":1,"\\u0061":2}',
        '{"a:":1,"a\\u003a":2}',
        '{"a:":1,"a\\u003A":2}',
        '{"a":":::","a":":"}',
        '{"a":"\\u003a\\u003a","a":""}',
        '[[{"b":{"a":[],"a":{"x":":"}}}]]',
        '{"":1,"":2}',
        '{"a":{"b":1,"c":2},"a":3,"d":"::::"}',
        '{"a":1,"b":2,"c":3,"b":4}',
    ],
)
def test_a_name_that_stands_twice_is_found_however_it_is_spelled(element: str) -> None:
    (item,) = read(element)
    assert isinstance(item, Problem)
    assert item.reason == "DUPLICATE_FIELD"


@pytest.mark.parametrize(
    "element", ['{"a":":","b":"a\\":"}', '{"a\\u003a":1}', '{"a":{"a":{"a":1}},"b":{"a":1}}', '["a","a"]']
)
def test_no_duplicate_is_seen_where_there_is_none(element: str) -> None:
    assert read(element) == [json.loads(element)]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" ",
        b"{",
        b'{"events":[1,]}',
        b'{"events":[1 2]}',
        b'{"events":[NaN]}',
        b'{"events":[Infinity]}',
        b'{"events":[-Infinity]}',
        b'{"events":[01]}',
        b'{"events":[.5]}',
        b'{"events":[1.]}',
        b'{"events":[+1]}',
        b'{"events":["\t"]}',
        b'{"events":["\\x"]}',
        b'{"events":["\\u12"]}',
        b"{'events':[]}",
        b'{"events":[]}x',
        b'{"events":[]}{}',
        b'{"events":["\xff"]}',
        b'{"events":["\xed\xa0\x80"]}',
        b'\xef\xbb\xbf{"events":[]}',
        b'{"events" []}',
        b'{"events":[],}',
        b"{1:[]}",
        b'{"events":[' + b"[" * 5000 + b"]" * 4999 + b"]}",
        b'{"events":[' + b"[" * 5000 + b"NaN" + b"]" * 5000 + b"]}",
        b'{"events":[' + b"[" * 5000 + b'"\t"' + b"]" * 5000 + b"]}",
        b'{"events":[' + b"[" * 5000 + b"}" * 5000 + b"]}",
        b'{"events":[' + b'{"a":' * 5000 + b"1" + b",}" * 5000 + b"]}",
        b'{"events":[' + b'{"a" ' * 5000 + b"1" + b"}" * 5000 + b"]}",
        b'{"events":[' + b"[1e400," * 5000 + b"1 1" + b"]" * 5000 + b"]}",
        "[1]".encode("utf-16"),
    ],
)
def test_what_is_no_json_is_refused_as_a_whole(body: bytes) -> None:
    with pytest.raises(InvalidRequest) as refused:
        jsonbody.read_batch(body)
    assert refused.value.reason == "MALFORMED_JSON"


def test_the_error_says_where() -> None:
    with pytest.raises(InvalidRequest, match=r"'x' at line 2, column 12 is not expected"):
        jsonbody.read_batch(b'{"events":\n[1,      2,x]}')
    with pytest.raises(InvalidRequest, match="the end at line 1, column 13 is not expected"):
        jsonbody.read_batch(b'{"events":[1')
    with pytest.raises(InvalidRequest, match="not UTF-8: byte 12 is 0xff"):
        jsonbody.read_batch(b'{"events":["\xff"]}')


@pytest.mark.parametrize(
    ("body", "reason", "field"),
    [
        (b"5", "NOT_AN_OBJECT", ""),
        (b"null", "NOT_AN_OBJECT", ""),
        (b"[]", "NOT_AN_OBJECT", ""),
        (b"[" * 5000 + b"]" * 5000, "NOT_AN_OBJECT", ""),
        (b"{}", "MISSING_FIELD", "events"),
        (b'{"events":null}', "MISSING_FIELD", "events"),
        (b'{"events":{}}', "WRONG_TYPE", "events"),
        (b'{"events":1e999}', "WRONG_TYPE", "events"),
        (b'{"events":[],"events":[]}', "DUPLICATE_FIELD", "events"),
        (b'{"events":[1],"\\u0065vents":[2]}', "DUPLICATE_FIELD", "events"),
        (b'{"atomic":true,"events":[1],"atomic":false}', "DUPLICATE_FIELD", "atomic"),
        (b'{"events":[1],"x":{"a":1,"a":2}}', "DUPLICATE_FIELD", "x"),
        (b'{"events":[1],"x":' + b"[" * 5000 + b"]" * 5000 + b"}", "NESTING_TOO_DEEP", "x"),
    ],
)
def test_a_body_that_is_no_batch_is_refused_as_a_whole(body: bytes, reason: str, field: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        jsonbody.read_batch(body)
    assert (refused.value.reason, refused.value.field) == (reason, field)


def test_the_other_members_come_along_on_both_ways_of_reading() -> None:
    for element in ("1", "1e400"):
        found = jsonbody.read_batch(b'{"atomic": true, "events": [' + element.encode() + b'], "n": {"a": [0.5]}}')
        assert len(found.items) == 1
        assert found.members == {"atomic": True, "n": {"a": [0.5]}}


@pytest.mark.parametrize(
    "event",
    [
        {"type": "t", "data": {"amount": 49.99, "count": 3, "at": 1705314600123456}},
        {"type": "t", "data": {"id": "123456789012345678901234567890", "uuid": "550e8400-e29b-41d4-a716-44665544000e"}},
        {"type": "t", "data": {"time": "2024-01-15T10:30:00.123456Z", "url": "http://a:8080/?q=1:2", "text": 'a\n"b"'}},
        {
            "type": "t",
            "data": {"uuids": ["0000000e-1234-4123-8123-123456789012", "1234567e-1234-4123-8123-12345678901e"]},
        },
    ],
)
def test_an_ordinary_body_is_read_but_once(event: dict[str, Any]) -> None:
    assert jsonbody._read_fast(orjson.dumps({"events": [event] * 3})) is not None


_LIMIT = 8 * 1024 * 1024


@no_cover
@pytest.mark.parametrize(
    "element",
    [
        pytest.param(b"[" * (_LIMIT // 2) + b"]" * (_LIMIT // 2), id="one deep list"),
        pytest.param(b",".join([b"[" * 1500 + b"]" * 1500] * (_LIMIT // 3001)), id="many deep lists"),
        pytest.param(b"1e400," + b"1," * (_LIMIT // 2) + b"1", id="four million elements"),
        pytest.param(b"1" * _LIMIT, id="one integer"),
        pytest.param(b"0." + b"0" * _LIMIT + b"1", id="one decimal"),
        pytest.param(b"1e" + b"0" * _LIMIT + b"1", id="one exponent"),
        pytest.param(b'"' + b"e-" * (_LIMIT // 2) + b'"', id="what looks like exponents"),
        pytest.param(b'"' + b"x1234567890.123456" * (_LIMIT // 18) + b'"', id="what looks like long numbers"),
        pytest.param(b'"\\ud800' + b"\\n" * (_LIMIT // 2) + b'"', id="one string"),
        pytest.param(b"{" + b",".join(b'"%d":1' % n for n in range(_LIMIT // 12)) + b',"1":1}', id="many names"),
    ],
)
def test_the_worst_bodies_of_eight_megabytes_are_read_to_their_end(element: bytes) -> None:
    items = read(element, b'"last"')
    assert items[-1] == "last"


@no_cover
@pytest.mark.parametrize("opened", [b"[", b'[{"a":', b'{"a":['])
def test_eight_megabytes_that_are_never_closed_are_refused(opened: bytes) -> None:
    with pytest.raises(InvalidRequest, match="the end"):
        jsonbody.read_batch(b'{"events":[' + opened * (_LIMIT // len(opened)))


@given(VALUES)
def test_what_was_written_canonically_reads_back_to_the_same_text(text: str) -> None:
    value = jsonbody.read_one(text.encode())
    assume(not isinstance(value, Problem))
    try:
        written = canonical.encode(value)
    except canonical.Unrepresentable:
        reject()
    assert canonical.encode(jsonbody.read_exact(written)) == written
