"""The canonical form: one text per value, one value per text."""

import json
import struct
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from headgate_server.core import canonical, jsonbody
from headgate_server.core.canonical import MAX_DEPTH, Number, Unrepresentable
from headgate_server.core.model import Problem
from tests.unit.numbers import ecmascript, exact, exactly, number_tokens

VECTORS = json.loads((Path(__file__).parent.parent / "vectors" / "canonical.json").read_text())

_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
_SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | number_tokens().map(Number.parse)
    | _TEXT
)
VALUES = st.recursive(_SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_TEXT, inner, max_size=4))


def nested(levels: int, leaf: Any = None) -> Any:
    """Return lists and objects in turn, `levels` of them, around a leaf."""
    value = leaf
    for level in range(levels):
        value = [value] if level % 2 else {"a": value}
    return value


@pytest.mark.parametrize("vector", VECTORS["values"], ids=lambda vector: vector["name"])
def test_golden_values(vector: dict[str, str]) -> None:
    value = jsonbody.read_one(vector["json"].encode())
    assert canonical.encode(value).hex() == vector["canonical_hex"]


@pytest.mark.parametrize("vector", VECTORS["numbers"], ids=lambda vector: vector["json"][:30])
def test_golden_numbers(vector: dict[str, str]) -> None:
    assert Number.parse(vector["json"]) == vector["canonical"]
    assert (
        canonical.encode(jsonbody.read_one(b"[" + vector["json"].encode() + b"]"))
        == f"[{vector['canonical']}]".encode()
    )


@pytest.mark.parametrize("vector", VECTORS["doubles"], ids=lambda vector: vector["ieee754_hex"])
def test_golden_doubles(vector: dict[str, str]) -> None:
    (value,) = struct.unpack(">d", bytes.fromhex(vector["ieee754_hex"]))
    assert canonical.encode(value).decode() == vector["canonical"]


@pytest.mark.parametrize("vector", VECTORS["rejected"], ids=lambda vector: vector["name"])
def test_golden_rejections(vector: dict[str, Any]) -> None:
    text = vector["json"] if "json" in vector else "[" * vector["levels"] + "]" * vector["levels"]
    value = jsonbody.read_one(text.encode())
    if isinstance(value, Problem):  # already found while reading
        assert value.reason == vector["reason"]
        return
    with pytest.raises(Unrepresentable) as refused:
        canonical.encode(value)
    assert refused.value.reason == vector["reason"]


@pytest.mark.parametrize("vector", VECTORS["contents"], ids=lambda vector: vector["name"])
def test_golden_contents(vector: dict[str, Any]) -> None:
    encoded = [
        None if text is None else canonical.encode(jsonbody.read_one(text.encode()))
        for text in (vector["data_json"], vector.get("attributes_json"))
    ]
    content = canonical.content(vector["type"], vector["source"], vector["subject"], vector["occurred_at_us"], *encoded)
    assert content.hex() == vector["canonical_hex"]


@given(VALUES)
def test_encoding_what_was_encoded_changes_nothing(value: Any) -> None:
    text = canonical.encode(value)
    assert canonical.encode(jsonbody.read_exact(text)) == text
    assert canonical.encode(jsonbody.read_one(b"[" + text + b"]")) == b"[" + text + b"]"


@given(VALUES)
def test_canonical_text_is_json_of_the_same_value_without_space(value: Any) -> None:
    text = canonical.encode(value).decode()
    again = json.loads(text, parse_float=exact, parse_int=exact)
    assert again == exactly(value)
    assert not set(_without_strings(text)) & set(" \t\r\n")


@given(number_tokens(), number_tokens())
@example("1E400", "1e400")
@example("-1e-400", "0")
@example("1e23", "9.999999999999999e22")
@example("100000000000000000000e-20", "1")
@example("0.000000000000000000001", "1e-21")
@example("9007199254740993", "9007199254740992")
@example("0.1", "0.1000000000000000055511151231257827")
def test_two_tokens_have_one_text_exactly_if_they_are_one_number(one: str, other: str) -> None:
    assert (Number.parse(one) == Number.parse(other)) == (exact(one) == exact(other))


@given(number_tokens(), st.integers(0, 30), st.integers(-20, 20))
def test_another_spelling_of_a_number_has_the_same_text(token: str, zeros: int, shift: int) -> None:
    value = exact(token) / 10**shift if shift >= 0 else exact(token) * 10**-shift
    mantissa, _, exponent = token.lower().partition("e")
    padded = mantissa + ("0" * zeros if "." in mantissa else "." + "0" * (zeros + 1))
    respelled = f"{padded}E{int(exponent or 0) - shift:+d}"
    assert exact(respelled) == value
    assert exact(Number.parse(respelled)) == value
    assert Number.parse(Number.parse(respelled)) == Number.parse(respelled)
    if shift == 0:
        assert Number.parse(respelled) == Number.parse(token)


@given(st.floats(allow_nan=False, allow_infinity=False))
@example(1e21)
@example(1e-7)
@example(5e-324)
@example(1.7976931348623157e308)
@example(-0.0)
@example(2.0**53)
@example(123456789012345680000.0)
def test_a_double_is_written_as_ecmascript_writes_it(value: float) -> None:
    assert canonical.encode(value).decode() == ecmascript(value)
    assert canonical.encode([value]).decode() == f"[{ecmascript(value)}]"


@given(st.integers(-(2**63), 2**63 - 1))
def test_an_integer_is_written_as_the_same_number_token(value: int) -> None:
    assert canonical.encode([value, Number.parse("1")]) == canonical.encode([Number.parse(str(value)), 1])


@given(number_tokens())
def test_an_exact_double_is_one_that_prints_as_the_number(token: str) -> None:
    number = Number.parse(token)
    nearest = float(number)
    assert canonical.is_exact_double(number) == (abs(nearest) != float("inf") and ecmascript(nearest) == number)


@given(st.dictionaries(_TEXT, _SCALARS, max_size=6), st.randoms(use_true_random=False))
def test_the_order_of_members_does_not_matter(members: dict[str, Any], random: Any) -> None:
    shuffled = list(members.items())
    random.shuffle(shuffled)
    text = canonical.encode(members)
    assert canonical.encode(dict(shuffled)) == text
    assert list(json.loads(text)) == sorted(members)


def test_members_are_sorted_by_code_points_and_not_by_utf16() -> None:
    # In UTF-16 the emoji's surrogates sort before U+FB01; by code points, and in UTF-8, the emoji sorts after it.
    names = ["\U0001f600", "\ufb01", "a", "A", "", "é"]
    expected = ["", "A", "a", "é", "\ufb01", "\U0001f600"]
    for value in (1, Number.parse("1e400")):  # both writers
        assert list(json.loads(canonical.encode(dict.fromkeys(names, value)), parse_int=str)) == expected


@given(_TEXT)
def test_both_writers_escape_strings_in_the_same_way(text: str) -> None:
    fast = canonical.encode({text: text})
    slow = canonical.encode({text: text, text + "n": 1.0})
    assert slow == fast[:-1] + b"," + canonical.encode(text + "n") + b":1}"


@pytest.mark.parametrize("leaf", [None, 1, 1.0, Number("1e+400")])
def test_a_hundred_levels_have_a_canonical_form_and_no_more(leaf: Any) -> None:
    assert canonical.encode(nested(MAX_DEPTH, leaf)).startswith(b"[{")
    for levels in (MAX_DEPTH + 1, 200, 900):
        with pytest.raises(Unrepresentable) as refused:
            canonical.encode(nested(levels, leaf))
        assert refused.value.reason == "NESTING_TOO_DEEP"


def test_an_empty_object_on_level_101_is_too_deep_as_well() -> None:
    with pytest.raises(Unrepresentable):
        canonical.encode(nested(MAX_DEPTH, {}))


@pytest.mark.parametrize(
    "value", ["\ud800", ["\udfff"], {"\ud800": 1}, {"\ud800": 1.0}, {"a": {"b": "x\udc00"}}, [1.0, "\ud83d"]]
)
def test_a_lone_surrogate_has_no_canonical_form(value: Any) -> None:
    with pytest.raises(Unrepresentable) as refused:
        canonical.encode(value)
    assert refused.value.reason == "INVALID_UNICODE"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_nan_and_infinities_have_no_canonical_form(value: float) -> None:
    for wrapped in (value, [value], {"a": {"b": value}}):
        with pytest.raises(Unrepresentable) as refused:
            canonical.encode(wrapped)
        assert refused.value.reason == "INVALID_NUMBER"


@pytest.mark.parametrize("token", ["1e1000000000", "1e-1000000001", "-1E+99999999999999999999", "0.1e-9999999999"])
def test_an_exponent_out_of_bounds_is_refused(token: str) -> None:
    with pytest.raises(Unrepresentable) as refused:
        Number.parse(token)
    assert refused.value.reason == "NUMBER_OUT_OF_RANGE"


@pytest.mark.parametrize(
    ("token", "text"),
    [
        ("1e999999998", "1e+999999998"),
        ("1e-1000000000", "1e-1000000000"),
        ("0e99999999999999999999", "0"),
        ("-0.000e-7", "0"),
        ("1e" + "0" * 10_000 + "5", "100000"),
        ("1e-" + "0" * 10_000 + "5", "0.00001"),
        ("1" + "0" * 10_000, "1e+10000"),
    ],
)
def test_numbers_at_the_edges(token: str, text: str) -> None:
    assert Number.parse(token) == text


@pytest.mark.parametrize("token", ["", "-", "1.", ".5", "+1", "0x1", "1e", "NaN", "\u0661", "1 "])
def test_what_is_no_number_token_is_refused(token: str) -> None:
    with pytest.raises(Unrepresentable) as refused:
        Number.parse(token)
    assert refused.value.reason == "INVALID_NUMBER"


def _without_strings(text: str) -> str:
    """Return JSON text without its strings."""
    kept, inside, escaped = [], False, False
    for character in text:
        if inside:
            inside = escaped or character != '"'
            escaped = not escaped and character == "\\"
        elif character == '"':
            inside = True
        else:
            kept.append(character)
    return "".join(kept)


def test_no_more_memory_than_bytes() -> None:
    """orjson's own bytes may take sixteen times their length, and canonical data is kept until it is stored."""
    value = {"text": "x" * 8_000}
    tracemalloc.start()
    try:
        encoded = [canonical.encode(value) for _ in range(100)]
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 1.5 * sum(map(len, encoded))
