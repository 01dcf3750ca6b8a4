"""The canonical form of JSON, by which contents are compared and to which the ledger commits. Pure.

docs/design/canonical.md is the specification and tests/vectors/canonical.json its golden vectors. In short: UTF-8
without white space; members sorted by the code points of their names; strings escaped as in RFC 8785; numbers as
exact decimals, written as RFC 8785 writes a double of that value, so that `1`, `1.0` and `1.00` are one number, and
integers and decimals of any length keep every digit.

orjson does nearly all of it at the speed of C. What it would write otherwise is found by one walk over the values,
which also bounds the nesting, and is then written by the slower `_write`.
"""

import json
import re
from typing import Any

import orjson

from headgate_server.core.reasons import Reason

MAX_DEPTH = 100
"""Levels of nesting: more than any ordinary event has, and far fewer than would exhaust a stack."""

MAX_EXPONENT = 999_999_999
"""The largest decimal exponent that is accepted. No real quantity is beyond it, and a reader could need a lot of memory
to compute with such a number.
"""

_SAFE_INTEGER = 2**53
_DOUBLE_DIGITS = 17
"""The most significant digits with which a double is printed."""
_NUMBER = re.compile(r"(-?)([0-9]+)(?:\.([0-9]+))?(?:[eE]([+-]?[0-9]+))?")


class Unrepresentable(ValueError):
    """The value has no canonical form: the reason's constant and a sentence."""

    def __init__(self, reason: Reason, message: str):
        super().__init__(message)
        self.reason = reason
        self.message = message


class Number(str):
    """A number that neither int64 nor a double holds exactly, as its canonical text."""

    __slots__ = ()

    @classmethod
    def parse(cls, token: str) -> "Number":
        """Return the canonical text of a JSON number token of any length. Raises `Unrepresentable` past
        `MAX_EXPONENT`.
        """
        match = _NUMBER.fullmatch(token)
        if match is None:
            raise Unrepresentable(Reason.INVALID_NUMBER, f"{token[:40]!r} is not a JSON number.")
        sign, whole, fraction, exponent = match.groups()
        fraction = fraction or ""
        digits = (whole + fraction).lstrip("0")
        if not digits:
            return cls("0")
        power = (exponent or "").lstrip("+-0")
        if len(power) > 10:
            raise _exponent_too_large()
        # The value is 0.DIGITS x 10^point. The exponent's leading zeros are left out: int() refuses thousands of
        # them.
        shift = -int(power or 0) if exponent and exponent[0] == "-" else int(power or 0)
        point = len(digits) - len(fraction) + shift
        if abs(point) > MAX_EXPONENT:
            raise _exponent_too_large()
        return cls(sign + _positional(digits.rstrip("0"), point))


def encode(value: Any) -> bytes:
    """Return the canonical JSON of a value made of dict, list, str, int (of 64 bits), float, bool, None and
    `Number`.

    Raises `Unrepresentable` for a lone surrogate, NaN, an infinity, more than `MAX_DEPTH` levels, or a member name
    that is not a string.
    """
    try:
        if _is_plain(value, 1):
            # A copy, of just its size: orjson's own bytes may take sixteen times as much memory as they say.
            return bytes(memoryview(orjson.dumps(value, option=orjson.OPT_SORT_KEYS)))
        parts: list[str] = []
        _write(value, parts.append)
        return "".join(parts).encode()
    except (TypeError, UnicodeEncodeError) as error:
        # A parser of JSON or protobuf yields one thing that has no UTF-8: a lone surrogate (RFC 8259, 8.2; RFC 7493,
        # 2.1).
        raise Unrepresentable(
            Reason.INVALID_UNICODE, "A string contains a lone surrogate, which is not Unicode text."
        ) from error


def is_exact_double(number: Number) -> bool:
    """Whether the double nearest to a canonical number prints as that number: a Struct, or JavaScript, would not
    change it.
    """
    value = float(number)
    return value - value == 0.0 and _float(value) == number


def is_value(text: bytes) -> bool:
    """Whether the bytes are one JSON value and nothing else."""
    try:
        orjson.loads(text)
        return True
    except orjson.JSONDecodeError:
        pass
    try:  # numbers beyond a double are JSON too
        json.loads(text, parse_float=str, parse_int=str, parse_constant=_refuse_constant)
        return True
    except (ValueError, RecursionError):
        return False


def is_object(text: bytes) -> bool:
    """Whether the bytes are one JSON object and nothing else, without white space around it."""
    return text[:1] == b"{" and is_value(text)


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def content(
    type_: str,
    source: str,
    subject: str,
    occurred_at: int | None,
    data: bytes | None,
    attributes: bytes | None = None,
) -> bytes:
    """Return the canonical content of an event: one canonical JSON object of what was sent, except the identity.

    `data` and `attributes` are canonical JSON already. Members: attributes, data, occurred_at (microseconds since the
    epoch), source, subject, type; what was not sent is left out.
    """
    members: dict[str, Any] = {}
    if occurred_at is not None:
        members["occurred_at"] = occurred_at
    if source:
        members["source"] = source
    if subject:
        members["subject"] = subject
    members["type"] = type_
    rest = orjson.dumps(members)
    if data is not None:
        rest = b'{"data":' + data + b"," + rest[1:]
    return rest if attributes is None else b'{"attributes":' + attributes + b"," + rest[1:]


def _is_plain(value: Any, depth: int) -> bool:
    """Whether orjson writes `value` canonically as it is. Raises `Unrepresentable` for what has no canonical form."""
    if depth > MAX_DEPTH:
        raise Unrepresentable(Reason.NESTING_TOO_DEEP, f"The event nests deeper than {MAX_DEPTH} levels.")
    plain = True
    kind = type(value)
    if kind is dict:
        children = value.values()
    elif kind is list:
        children = value
    else:
        children = (value,)
    for child in children:
        kind = type(child)
        if kind is str or kind is int:
            continue
        if kind is dict or kind is list:
            plain = _is_plain(child, depth + 1) and plain
        elif kind is float:
            if child - child != 0.0:
                raise Unrepresentable(Reason.INVALID_NUMBER, "A number is NaN or infinite.")
            # Where orjson's text is RFC 8785's: not integral, and neither of the two uses an exponent.
            plain = plain and 1e-5 <= abs(child) < 1e15 and not child.is_integer()
        elif kind is Number:
            plain = False
    return plain


def _write(value: Any, emit: Any) -> None:
    kind = type(value)
    if kind is dict:
        separator = "{"
        # Python orders strings by code point, as orjson does by UTF-8.
        for name in sorted(value):
            emit(separator + _text(name) + ":")
            _write(value[name], emit)
            separator = ","
        emit("}" if value else "{}")
    elif kind is list:
        separator = "["
        for child in value:
            emit(separator)
            _write(child, emit)
            separator = ","
        emit("]" if value else "[]")
    elif kind is float:
        emit(_float(value))
    elif kind is Number:
        emit(value)
    else:
        emit(_text(value))


def _text(value: Any) -> str:
    return orjson.dumps(value).decode()


def _float(value: float) -> str:
    if value.is_integer() and abs(value) < _SAFE_INTEGER:
        return str(int(value))
    return Number.parse(repr(value))


def _positional(digits: str, point: int) -> str:
    """Write 0.DIGITS x 10^point as RFC 8785, 3.2.2.3 (ECMA-262, Number::toString) writes a double of that value.

    An integer of more digits than any double prints with is written out, so that readers take it for an integer.
    """
    count = len(digits)
    if count <= point and (point <= 21 or (count > _DOUBLE_DIGITS and point - count <= 21)):
        return digits + "0" * (point - count)
    if 0 < point <= 21:
        return f"{digits[:point]}.{digits[point:]}"
    if -6 < point <= 0:
        return f"0.{'0' * -point}{digits}"
    exponent = point - 1
    mantissa = digits if count == 1 else f"{digits[0]}.{digits[1:]}"
    return f"{mantissa}e{'+' if exponent >= 0 else '-'}{abs(exponent)}"


def _exponent_too_large() -> Unrepresentable:
    return Unrepresentable(Reason.NUMBER_OUT_OF_RANGE, f"A number's exponent is beyond {MAX_EXPONENT}.")
