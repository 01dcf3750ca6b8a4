"""Finds where two contents differ: paths, never values. Pure."""

import json
from typing import Any, NamedTuple

from headgate_server.core import canonical
from headgate_server.core.model import Draft, Mismatch, StoredEvent

MAX_PATHS = 20
_TIME = "/occurred_at"
MAX_PATH = 128
"""The most characters of one path; a longer one is cut at the last whole step that fits."""


def differing_paths(draft: Draft, stored: StoredEvent) -> tuple[str, ...]:
    """Return JSON Pointers (RFC 6901) to the differences between a draft and the stored event of the same identity."""
    old = canonical.content(
        stored.type, stored.source, stored.subject, stored.occurred_at, stored.data, stored.attributes
    )
    paths: list[str] = []
    _compare(_read(old), _read(draft.canonical), "", paths)
    if draft.on_mismatch is Mismatch.CONFLICT_UNLESS_TIME and _TIME in paths:
        paths.remove(_TIME)  # it makes no conflict
    return tuple(paths)


class _Number(NamedTuple):
    """A number as its canonical text: exact, and never equal to the string of the same characters."""

    text: str


def _read(canonical_json: bytes) -> Any:
    return json.loads(canonical_json, parse_float=_Number, parse_int=_Number)


def _compare(old: Any, new: Any, path: str, paths: list[str]) -> None:
    if len(paths) >= MAX_PATHS or (type(old) is type(new) and old == new):
        return
    if isinstance(old, dict) and isinstance(new, dict):
        steps = [(name, old.get(name, _ABSENT), new.get(name, _ABSENT)) for name in sorted(old.keys() | new.keys())]
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        steps = [(str(index), *pair) for index, pair in enumerate(zip(old, new, strict=True))]
    else:
        paths.append(path)
        return
    for name, one, other in steps:
        deeper = f"{path}/{name.replace('~', '~0').replace('/', '~1')}"
        if len(deeper) > MAX_PATH:
            if one != other:
                if path not in paths:
                    paths.append(path)
                return
        else:
            _compare(one, other, deeper, paths)


_ABSENT = object()
