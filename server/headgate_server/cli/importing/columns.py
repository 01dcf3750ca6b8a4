"""Which column of a record becomes which field of an event."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from headgate_server.core import jsonbody
from headgate_server.core.errors import InvalidRequest, SetupError
from headgate_server.core.model import Problem
from headgate_server.core.reasons import Reason
from headgate_server.core.validate import json_type

FIELDS = ("type", "source", "subject", "occurred_at", "idempotency_key", "data")
_TYPES = frozenset({"string", "integer", "number", "boolean", "object", "array", "null"})
_INTEGER = re.compile(r"-?(0|[1-9][0-9]*)")
_BOOLEANS = {"true": True, "false": False}


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """How a record becomes an event."""

    fields: Mapping[str, str] = field(default_factory=dict)
    """From an event's field to the record's column."""
    data: Sequence[str] | None = None
    """The columns that become `data`; None: all that are no other field."""
    constants: Mapping[str, str] = field(default_factory=dict)
    """Values of fields that a record does not have itself."""
    types: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """The JSON types of columns whose cells are not text."""

    @property
    def apply(self) -> bool:
        """Whether records are to be changed. A record of a file of JSON is an event itself otherwise."""
        return bool(self.fields) or self.data is not None

    def of(self, names: Sequence[str], where: str) -> "Columns":
        """Return the same for a file that has these columns. A column with the name of a field is that field.

        Raises `SetupError` if the file lacks a column.
        """
        for name in (*self.fields.values(), *(self.data or ()), *self.types):
            if name not in names:
                raise SetupError(f"{where} has no column {name!r}; it has {', '.join(map(repr, names)) or 'none'}")
        own = {name: name for name in FIELDS if name in names and name not in self.fields.values()}
        if self.data is not None:
            own = {name: column for name, column in own.items() if column not in self.data}
        fields = own | dict(self.fields)
        data = self.data
        if data is None:
            data = [name for name in names if name not in fields.values()]
        if data and "data" in fields:
            raise SetupError(
                f"the column {fields['data']!r} is the data, and so are {', '.join(map(repr, data))}; "
                "choose with --data-columns, or --map data=COLUMN and --data-columns ''"
            )
        return Columns(fields=fields, data=data, constants=self.constants, types=self.types)

    def event_of_row(self, row: Mapping[str, str]) -> dict[str, Any] | Problem:
        """Return the event of a row of texts, as JSON values. An empty cell is absent, unless it is a text of the data
        by `types`.
        """
        event: dict[str, Any] = dict(self.constants)
        for name, column in self.fields.items():
            if cell := row[column]:
                event[name] = cell
        if "data" in event:
            value = _typed(event["data"], frozenset({"object"}), "data")
            if isinstance(value, Problem):
                return value
            event["data"] = value
        data: dict[str, Any] = {}
        for column in self.data or ():
            types = self.types.get(column, frozenset())
            if row[column] or "string" in types:
                value = _typed(row[column], types, f"data.{column}")
                if isinstance(value, Problem):
                    return value
                data[column] = value
        if data:
            event["data"] = data
        return event

    def event_of_object(self, record: Any) -> Any:
        """Return the event of a JSON object. What is not an object stays as it is."""
        if type(record) is not dict:
            return record
        if not self.apply:
            return {**self.constants, **record}
        event: dict[str, Any] = dict(self.constants)
        taken = set(self.fields.values())
        for name in FIELDS:
            column = self.fields.get(name, name)
            if column in record and (name in self.fields or column not in taken):
                event[name] = record[column]
                taken.add(column)
        if "data" not in event:
            names: Iterable[str] = record.keys() - taken if self.data is None else self.data
            data = {name: record[name] for name in record if name in set(names)}
            if data:
                event["data"] = data
        return event


def _typed(cell: str, types: frozenset[str], path: str) -> Any:
    """Return the value of a cell, or the problem that it has another type."""
    if not types or "string" in types:
        return cell
    if "boolean" in types and cell.lower() in _BOOLEANS:
        return _BOOLEANS[cell.lower()]
    try:
        value = jsonbody.read_one(cell.encode())
    except InvalidRequest:
        return _other_type(path, types, "a text")
    if isinstance(value, Problem):
        return value._replace(field=path)
    told = json_type(value)
    kind = told.rpartition(" ")[2]
    if kind in types or (kind == "number" and "integer" in types and _INTEGER.fullmatch(cell.strip())):
        return value
    return _other_type(path, types, told)


def _other_type(path: str, types: frozenset[str], told: str) -> Problem:
    return Problem(Reason.WRONG_TYPE, path, f"{path} must be {' or '.join(sorted(types))}, not {told}.")


def pairs_of(texts: Iterable[str]) -> dict[str, str]:
    """Return the mapping of texts FIELD=COLUMN. Raises `SetupError`."""
    fields: dict[str, str] = {}
    for text in texts:
        name, equals, column = text.partition("=")
        if not equals or not column or name not in FIELDS:
            raise SetupError(f"{text!r} is not FIELD=COLUMN; the fields are {', '.join(FIELDS)}")
        if name in fields:
            raise SetupError(f"the field {name} has two columns, {fields[name]!r} and {column!r}")
        fields[name] = column
    return fields


def types_of(schema: bytes, name: str) -> dict[str, frozenset[str]]:
    """Return the types of columns from a JSON Schema of the data: its `properties`, each with a `type`.

    Raises `SetupError` if it says no types. Nothing else of the schema is used.
    """
    try:
        properties = orjson.loads(schema)["properties"]
        types = {column: _type_names(said["type"]) for column, said in properties.items() if "type" in said}
    except (ValueError, TypeError, KeyError, AttributeError):
        raise SetupError(f"{name} is not a JSON Schema of an object with properties and their types") from None
    for column, names in types.items():
        if unknown := names - _TYPES:
            raise SetupError(f"{name}: the property {column!r} has the unknown type {min(unknown)!r}")
    return types


def _type_names(said: Any) -> frozenset[str]:
    return frozenset([said] if isinstance(said, str) else map(str, said))
