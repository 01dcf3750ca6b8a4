"""JSON texts for tests, drawn from the grammar, and an oracle that reads them with the standard library alone."""

import json
from typing import Any

from hypothesis import strategies as st

from tests.unit.numbers import exact, number_tokens

_CHARACTERS = st.characters(codec="utf-8") | st.sampled_from(':{}[],"\\/\u2028\0e-0123456789')


@st.composite
def string_texts(draw: st.DrawFn) -> str:
    """Draw a JSON string: each character literal, escaped or, rarely, a lone surrogate."""
    parts = []
    for character in draw(st.lists(_CHARACTERS, max_size=6)):
        as_it_is = character >= " " and character not in '"\\'
        if as_it_is and draw(st.integers(0, 3)):
            parts.append(character)
        else:
            units = character.encode("utf-16-be")
            parts += [f"\\u{units[at]:02x}{units[at + 1]:02X}" for at in range(0, len(units), 2)]
    if draw(st.integers(0, 19)) == 0:
        parts.append("\\ud800")
    return '"' + "".join(parts) + '"'


# Few names, in several spellings, so that one name often occurs twice.
_NAMES = st.sampled_from(['"a"', '"b"', '"a:"', '"\\u0061"', '"a\\u003a"', '"a\\u003A"', '"\\u0061:"', '""', '"type"'])
_SPACE = st.sampled_from(["", "", "", " ", "\n\t\r "])


def _listed(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.tuples(_SPACE, st.lists(inner, max_size=4), _SPACE).map(
        lambda t: "[" + t[0] + ",".join(t[1]) + t[2] + "]"
    )


def _membered(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    member = st.tuples(_SPACE, _NAMES | string_texts(), _SPACE, inner).map(lambda t: f"{t[0]}{t[1]}{t[2]}:{t[3]}")
    return st.lists(member, max_size=4).map(lambda members: "{" + ",".join(members) + "}")


_SCALARS = st.sampled_from(["null", "true", "false", "1e23", "1E400", "-1e-400"]) | number_tokens() | string_texts()
VALUES = st.recursive(
    st.tuples(_SPACE, _SCALARS, _SPACE).map("".join), lambda inner: _listed(inner) | _membered(inner), max_leaves=12
)
OBJECTS = _membered(VALUES)


class DuplicateError(Exception):
    """The oracle found a name twice in one object."""


def oracle(text: str) -> Any:
    """Return the value of a JSON text, with numbers as `Fraction`s. Raises `DuplicateError`, and `ValueError` if it
    is not JSON.
    """
    return json.loads(text, object_pairs_hook=_object, parse_float=exact, parse_int=exact, parse_constant=_constant)


def is_json(text: str) -> bool:
    """Whether the text is JSON by its grammar. Computes no number, because a damaged exponent may have ten digits."""
    try:
        json.loads(text, parse_float=str, parse_int=str, parse_constant=_constant)
    except ValueError:
        return False
    return True


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise DuplicateError
    return members


def _constant(name: str) -> Any:
    raise ValueError(name)
