"""Reads server-sent events as a browser's EventSource does (HTML, 9.2.6)."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple


class ServerSentEvent(NamedTuple):
    """One event: its own id (None if it has none), its name, its data."""

    id: str | None
    name: str
    data: str


def events(lines: Iterable[str]) -> Iterator[ServerSentEvent]:
    """Yield the events of a stream's lines, each as soon as its empty line has come."""
    event_id: str | None = None
    name, data = "message", list[str]()
    for line in lines:
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if not line:
            if data:
                yield ServerSentEvent(event_id, name, "\n".join(data))
            event_id, name, data = None, "message", []
        elif field == "id":
            event_id = value
        elif field == "event":
            name = value
        elif field == "data":
            data.append(value)


def parse(stream: bytes) -> list[ServerSentEvent]:
    """Return the events of a whole stream."""
    return list(events(stream.decode().split("\n")))
