"""Vendors' rules for events as data: JSON Schemas (2020-12) in schemas/<vendor>/<name>.json beside this file.

jsonschema-rs checks an event in a few hundred nanoseconds. The receiver words the violations.
"""

import json
from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Any, NamedTuple

from jsonschema_rs import Draft202012Validator

from headgate_server.core.canonical import Number


class Violation(NamedTuple):
    """One rule that a value breaks: the schema's keyword ("required", "type", "enum" …), its place and its value."""

    keyword: str
    path: tuple[str | int, ...]
    """The path to the wrong value; for "required" to the missing member."""
    rule: Any
    """The keyword's value in the schema."""


@cache
def validators(vendor: str) -> Mapping[str, Draft202012Validator]:
    """Return a vendor's validators by name."""
    folder = resources.files(__package__) / "schemas" / vendor
    return {
        entry.name.removesuffix(".json"): Draft202012Validator(json.loads(entry.read_bytes()))
        for entry in folder.iterdir()
        if entry.name.endswith(".json")
    }


def violations(validator: Draft202012Validator, value: Any) -> list[Violation]:
    """Return the violations of the schema, in the schema's order; an empty list for a valid value."""
    if _holds_number(value):
        value = _plain(value)
    if validator.is_valid(value):
        return []
    return [_violation(error) for error in validator.iter_errors(value)]


def _violation(error: Any) -> Violation:
    keyword = str(error.schema_path[-1])
    path = tuple(error.instance_path)
    kind = error.kind
    if keyword == "required":
        return Violation(keyword, (*path, kind.property), None)
    return Violation(keyword, path, getattr(kind, "options", getattr(kind, "types", getattr(kind, "limit", None))))


def _holds_number(value: Any) -> bool:
    if type(value) is dict:
        return any(map(_holds_number, value.values()))
    if type(value) is list:
        return any(map(_holds_number, value))
    return type(value) is Number


def _plain(value: Any) -> Any:
    """Return the value with doubles in place of `Number`s. They are exact enough for a check, and never stored."""
    if type(value) is dict:
        return {name: _plain(member) for name, member in value.items()}
    if type(value) is list:
        return [_plain(member) for member in value]
    # The validator would read an infinity as null.
    return max(-_LARGEST, min(_LARGEST, float(value))) if type(value) is Number else value


_LARGEST = 1.7976931348623157e308
"""The largest double."""
