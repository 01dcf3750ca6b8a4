"""The type and length that each cell of a stored row must have. Pure.

SQLite keeps any type in any column, and neither database bounds the length of bytes. A hash does not see types, so a
check of a ledger tests the shapes first.
"""

from collections.abc import Iterator, Mapping
from itertools import product
from typing import Any, NamedTuple

from headgate_server.core.checked_rows import StoredHead
from headgate_server.core.model import StoredEvent


class Shape(NamedTuple):
    """A cell's type, its number of bytes if that is fixed, and whether it may be NULL."""

    kind: type
    length: int | None = None
    nullable: bool = False


class Misshapen(NamedTuple):
    """A cell of a wrong shape: the wanted and the found shape, never its value."""

    column: str
    wanted: str
    found: str


_EVENT: Mapping[str, Shape] = {
    "workspace_id": Shape(int),
    "id": Shape(bytes, 16),
    "sequence": Shape(int),
    "created_at": Shape(int),
    "receiver": Shape(str),
    "type": Shape(str),
    "source": Shape(str),
    "subject": Shape(str),
    "occurred_at": Shape(int, nullable=True),
    "data": Shape(bytes, nullable=True),
    "scope": Shape(str, nullable=True),
    "key": Shape(str, nullable=True),
    "dedupe": Shape(bytes, 16, nullable=True),
    "salt": Shape(bytes, 16),
    "commitment": Shape(bytes, 32),
    "event_hash": Shape(bytes, 32),
    "attributes": Shape(bytes, nullable=True),
}
_HEAD: Mapping[str, Shape] = {
    "sequence": Shape(int),
    "hash": Shape(bytes, 32),
    "created_at": Shape(int),
    "month": Shape(int),
    "month_events": Shape(int),
}
_TYPES = frozenset(product(*((s.kind, type(None)) if s.nullable else (s.kind,) for s in _EVENT.values())))
"""The types that a row of `events` may have: one look-up checks a whole row."""
_NAMES = {int: "integer", float: "number", str: "text", bytes: "bytes", type(None): "NULL"}


def is_event_id(cell: Any) -> bool:
    """Whether a stored id has an id's type and length."""
    return type(cell) is bytes and len(cell) == 16


def misshapen_event(event: StoredEvent) -> list[Misshapen]:
    """Return the cells of an event's row that have a wrong shape."""
    if (
        tuple(map(type, event)) in _TYPES
        and len(event.id) == len(event.salt) == 16
        and len(event.commitment) == len(event.event_hash) == 32
        and (event.dedupe is None or len(event.dedupe) == 16)
    ):
        return []
    return list(_misshapen(_EVENT, event))


def misshapen_head(head: StoredHead) -> list[Misshapen]:
    """Return the cells of a head's row that have a wrong shape."""
    return list(_misshapen(_HEAD, head))


def _misshapen(shapes: Mapping[str, Shape], row: tuple[Any, ...]) -> Iterator[Misshapen]:
    for (column, shape), value in zip(shapes.items(), row, strict=True):
        if value is None and shape.nullable:
            continue
        right_length = shape.length is None or (type(value) is bytes and len(value) == shape.length)
        if type(value) is not shape.kind or not right_length:
            yield Misshapen(column, f"{column}: {_name(shape.kind, shape.length)}", f"{column}: {name_of(value)}")


def name_of(value: Any) -> str:
    """Return a value's type and length in words."""
    return _name(type(value), len(value) if isinstance(value, (str, bytes)) else None)


def _name(kind: type, length: int | None) -> str:
    name = _NAMES.get(kind, kind.__name__)
    if length is None:
        return name
    return f"{length} bytes" if kind is bytes else f"{name} of {length} characters"
