"""Checks data against a caller's JSON Schema with jsonschema-rs. Pure.

Numbers are compared as doubles, which is exact for all but very long ones. `format` and `content…` are annotations, as
the specification has them by default: they are not checked.
"""

from typing import Any, NamedTuple

import orjson
from jsonschema_rs import Draft202012Validator, RegexOptions, ValidationError

from headgate_server.core import jsonbody
from headgate_server.core.canonical import Number
from headgate_server.core.errors import InvalidRequest
from headgate_server.core.schemas import invalid

_PATTERNS = RegexOptions(size_limit=1024 * 1024, dfa_size_limit=1024 * 1024)
"""The engine whose time grows linearly with the text: no lookaround, no backreferences. The size bounds its memory and
its time for each character; `.{1,1000}` fits.
"""
_LARGEST = 1.7976931348623157e308
"""The largest double."""
_MOST_STEPS = 20
_MOST_PATH = 200
_MOST_MESSAGE = 300
_MASK = "the value"


class Violation(NamedTuple):
    """The first rule that data breaks: the path into the data, and a sentence without the data's values. The sentence
    begins with a small letter.
    """

    path: str
    message: str


class Validator:
    """A compiled schema."""

    def __init__(self, schema: bytes):
        """Compile a schema's canonical JSON. Raises `InvalidRequest` if it is not a schema."""
        try:
            self._validator = Draft202012Validator(
                plain(schema), pattern_options=_PATTERNS, validate_formats=False, offline=True, mask=_MASK
            )
        except ValidationError as error:
            place = ".".join(map(str, error.instance_path))
            raise _not_a_schema(error, place) from None
        except ValueError as error:
            raise invalid(f"This is not a schema: {_short(str(error), _MOST_MESSAGE)}.") from None

    def check(self, data: bytes) -> Violation | None:
        """Return the first violation of canonical JSON, None if it matches."""
        value = plain(data)
        try:
            if not self._validator.is_valid(value):
                self._validator.validate(value)
        except ValidationError as error:
            return _violation(error)
        except Exception as error:
            # Such as a part that nests too deep for the library.
            return Violation("", f"it cannot be checked: {_short(str(error), _MOST_MESSAGE)}.")
        return None


def plain(text: bytes) -> Any:
    """Return the value of canonical JSON with every number as an integer or a double."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:  # a number beyond a double
        return _clamped(jsonbody.read_exact(text))


def _clamped(value: Any) -> Any:
    if type(value) is dict:
        return {name: _clamped(member) for name, member in value.items()}
    if type(value) is list:
        return [_clamped(item) for item in value]
    if type(value) is Number:
        # The library would read an infinity as null.
        return max(-_LARGEST, min(_LARGEST, float(value))) if not value.lstrip("-").isdigit() else _integer(value)
    return value


def _integer(number: Number) -> int | float:
    return int(number) if len(number) < 19 else max(-_LARGEST, min(_LARGEST, float(number)))


def _violation(error: ValidationError) -> Violation:
    steps = list(map(str, error.instance_path))
    path = ".".join(steps[:_MOST_STEPS]) + ("…" if len(steps) > _MOST_STEPS else "")
    message = _short(error.message, _MOST_MESSAGE).rstrip(".")
    return Violation(_short(path, _MOST_PATH), f"{message}.")


def _not_a_schema(error: ValidationError, place: str) -> InvalidRequest:
    if error.kind.name == "format" and error.kind.value == "regex":
        return invalid(
            "This is not a regular expression that can be checked in bounded time: it is not valid, it is too large, "
            "or it has lookaround or backreferences.",
            _short(place, _MOST_PATH),
        )
    message = _short(error.message, _MOST_MESSAGE).rstrip(".")
    return invalid(f"This is not a schema of JSON Schema 2020-12: {message}.", _short(place, _MOST_PATH))


def _short(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"
