"""Numbers for tests, checked by exact arithmetic, not by Headgate's code."""

import re
from decimal import Decimal
from fractions import Fraction
from typing import Any

from hypothesis import strategies as st

from headgate_server.core.canonical import Number

_DIGITS = st.text("0123456789", min_size=1, max_size=40)
_EDGE_DIGITS = st.sampled_from(
    ["0", "1", "5", "9", "00", "10", "999999999999999", "9999999999999999", "9007199254740993"]
)


@st.composite
def number_tokens(draw: st.DrawFn, exponents: int = 420) -> str:
    """Draw a JSON number token of any shape: signs, leading zeros of the fraction, exponents in all spellings."""
    whole = draw(_DIGITS | _EDGE_DIGITS).lstrip("0") or "0"
    token = draw(st.sampled_from(["", "-"])) + whole
    if draw(st.booleans()):
        token += "." + "0" * draw(st.integers(0, 25)) + draw(_DIGITS | _EDGE_DIGITS)
    if draw(st.booleans()):
        exponent = draw(st.integers(0, exponents))
        zeros = "0" * draw(st.sampled_from([0, 0, 1, 3]))
        token += draw(st.sampled_from("eE")) + draw(st.sampled_from(["", "+", "-"])) + zeros + str(exponent)
    return token


def exact(token: str) -> Fraction:
    """Return the value of a decimal token."""
    return Fraction(Decimal(token))


def ecmascript(value: float) -> str:
    """Write a finite double as ECMA-262 does, from the shortest digits that Python's `repr` finds.

    Written from the standard (Number::toString), deliberately in another way than `canonical.py`.
    """
    if value == 0:
        return "0"
    match = re.fullmatch(r"(-?)(\d+)(?:\.(\d+))?(?:e([+-]\d+))?", repr(value))
    assert match is not None
    sign, whole, fraction, exponent = match[1], match[2], match[3] or "", int(match[4] or 0)
    n = len(whole) + exponent  # the point's place after the first digit of `digits`
    digits = whole + fraction
    stripped = digits.lstrip("0")
    n -= len(digits) - len(stripped)
    digits = stripped.rstrip("0")
    k = len(digits)
    if k <= n <= 21:
        text = digits.ljust(n, "0")
    elif 0 < n <= 21:
        text = digits[:n] + "." + digits[n:]
    elif -6 < n <= 0:
        text = "0." + digits.rjust(k - n, "0")
    else:
        text = digits[0] + ("." + digits[1:] if k > 1 else "") + f"e{n - 1:+d}"
    return sign + text


def exactly(value: Any) -> Any:
    """Return a JSON value with every number as a `Fraction`; a double counts as the decimal that it prints as."""
    if isinstance(value, dict):
        return {name: exactly(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [exactly(inner) for inner in value]
    if isinstance(value, (Number, int)) and not isinstance(value, bool):
        return exact(str(value))
    return exact(repr(value)) if isinstance(value, float) else value
