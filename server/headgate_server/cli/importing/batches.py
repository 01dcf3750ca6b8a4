"""The batches of an import: records as events with keys, in the file's order."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, NamedTuple

from headgate_client import Event
from headgate_server.cli.importing.records import Place, Record
from headgate_server.core import timestamps, validate
from headgate_server.core.model import Draft, Problem

MOST_BYTES = 2 * 1024 * 1024
"""Bytes of the records of one batch, unless a single record is larger."""


class Item(NamedTuple):
    """A record, and the event that it is or the problem that it has."""

    record: Record
    slot: Event | Problem


@dataclass(slots=True)
class Batch:
    """Some records in a row."""

    items: list[Item] = field(default_factory=list)
    bytes: int = 0

    @property
    def after(self) -> Place:
        """Where the next batch begins."""
        return self.items[-1].record.after

    @property
    def events(self) -> Sequence[Event]:
        """The events to send."""
        return [item.slot for item in self.items if isinstance(item.slot, Event)]

    def request_key(self, attempt: str) -> str:
        """Return a key that is the same whenever the same events are sent in the same attempt."""
        said = sha256(attempt.encode())
        for event in self.events:
            parts = (event.type, event.source, event.subject, str(event.occurred_at), event.key or "")
            for part in (*(text.encode() for text in parts), event.data or b""):
                assert isinstance(part, bytes)  # noqa: S101 - `_event` makes no other data
                said.update(len(part).to_bytes(8))
                said.update(part)
        return f"import-{said.hexdigest()[:40]}"


def batches(
    records: Iterator[Record], event_of: Callable[[Any], Any], prefix: str | None, most: int
) -> Iterator[Batch]:
    """Yield batches of at most `most` records.

    `event_of` turns a record's value into an event, as JSON values. A record without a key gets one that consists of
    the prefix and its line, so that it is the same in every run. Without a prefix the client draws a random one.
    """
    batch = Batch()
    for record in records:
        batch.items.append(Item(record, _slot(record, event_of, prefix)))
        batch.bytes += len(record.text)
        if len(batch.items) >= most or batch.bytes >= MOST_BYTES:
            yield batch
            batch = Batch()
    if batch.items:
        yield batch


def _slot(record: Record, event_of: Callable[[Any], Any], prefix: str | None) -> Event | Problem:
    """Check a record as the server does, so that a dry run needs none."""
    value = record.value if isinstance(record.value, Problem) else event_of(record.value)
    draft = validate.native_json(value)
    if isinstance(draft, Problem):
        return draft
    return _event(draft, None if prefix is None else f"{prefix}-{record.line}")


def _event(draft: Draft, key: str | None) -> Event:
    return Event(
        type=draft.type,
        data=draft.data,
        source=draft.source,
        subject=draft.subject,
        occurred_at=None if draft.occurred_at is None else timestamps.format(draft.occurred_at),
        key=key if draft.key is None else draft.key,
    )
