"""Watches what this process connects to, and what it looks up, at the lowest level that Python shows.

An event loop of asyncio's own is needed: uvloop connects in C, unseen.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_watching: list["Connections"] = []


class Connections:
    """The connections and look-ups that were made during a block."""

    def __init__(self) -> None:
        self.made: list[tuple[str, int]] = []
        """The address and port of each connection that was begun over IP."""
        self.looked_up: list[str] = []
        """The hosts that the system's resolver was asked for, without addresses."""


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if not _watching:
        return
    if event == "socket.connect" and isinstance(arguments[1], tuple):
        for one in _watching:
            one.made.append(arguments[1][:2])
    elif event == "socket.getaddrinfo":
        for one in _watching:
            one.looked_up.append(str(arguments[0]))


@contextmanager
def watched() -> Iterator[Connections]:
    """Watch during a block."""
    if not hasattr(sys, "_headgate_audit"):
        # A hook of the interpreter cannot be removed, so there is one, which does nothing outside of the blocks.
        sys.addaudithook(_audit)
        sys._headgate_audit = True  # type: ignore[attr-defined]
    connections = Connections()
    _watching.append(connections)
    try:
        yield connections
    finally:
        _watching.remove(connections)
