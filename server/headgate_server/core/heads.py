"""Heads of ledgers as a text that is kept elsewhere, to show later that nothing was changed or cut off. Pure."""

import json
from collections.abc import Mapping

from headgate_server.core import timestamps
from headgate_server.core.model import Head
from headgate_server.core.types import EventHash

_FORMAT = "headgate-heads/1"

_MOST_SEQUENCE = 2**63 - 1


def to_text(heads: Mapping[str, Head]) -> str:
    """Return the heads of workspaces' ledgers, by the workspaces' names, as JSON with one head a line."""
    lines = ",\n".join(f"  {json.dumps(_shown(name, heads[name]))}" for name in sorted(heads))
    return f'{{"format": "{_FORMAT}", "heads": [\n{lines}\n]}}\n'


def of_text(text: str) -> dict[str, Head]:
    """Return the heads of a text, by the workspaces' names. Raises `ValueError` with a sentence about the fault."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"it is not JSON: {error}") from None
    if not isinstance(value, dict) or value.get("format") != _FORMAT or not isinstance(value.get("heads"), list):
        raise ValueError(f'it is not an object of the format "{_FORMAT}"')
    heads: dict[str, Head] = {}
    for entry in value["heads"]:
        name, head = _read(entry)
        if name in heads:
            raise ValueError(f"it has two heads of the workspace {name!r}")
        heads[name] = head
    return heads


def of_pair(text: str) -> Head:
    """Return the head of `SEQUENCE:HASH`. Raises `ValueError` with a sentence about the fault."""
    sequence, _, digest = text.partition(":")
    if not sequence.isascii() or not sequence.isdigit():
        raise ValueError(f"{text[:80]!r} is not SEQUENCE:HASH")
    return _head(int(sequence[:20]), digest, 0)


def _shown(name: str, head: Head) -> dict[str, object]:
    shown: dict[str, object] = {"workspace": name, "sequence": head.sequence, "hash": head.hash.hex()}
    if head.sequence:
        shown["created_at"] = timestamps.format(head.created_at)
    return shown


def _read(entry: object) -> tuple[str, Head]:
    if not isinstance(entry, dict) or not isinstance(entry.get("workspace"), str):
        raise ValueError("one of its heads names no workspace")
    name, sequence, created_at = entry["workspace"], entry.get("sequence"), entry.get("created_at")
    try:
        if created_at is not None and not isinstance(created_at, str):
            raise ValueError("created_at is not a text")
        return name, _head(sequence, entry.get("hash"), timestamps.parse(created_at)[0] if created_at else 0)
    except ValueError as error:
        raise ValueError(f"the head of the workspace {name!r} is not valid: {error}") from None


def _head(sequence: object, digest: object, created_at: int) -> Head:
    if type(sequence) is not int or not 0 <= sequence <= _MOST_SEQUENCE:
        raise ValueError("the sequence is not a number of events")
    if not isinstance(digest, str) or len(digest) != 64:
        raise ValueError("the hash has not 64 hexadecimal digits")
    try:
        return Head(sequence, EventHash(bytes.fromhex(digest)), created_at)
    except ValueError:
        raise ValueError("the hash has not 64 hexadecimal digits") from None
