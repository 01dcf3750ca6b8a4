"""An attempt to deliver events, and the promise of whatever makes one."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from headgate_server.core.model import StoredEvent

DETAIL_CHARACTERS = 200
"""The longest detail: enough of an error page to recognise it, and too little to fill a log or a table."""


class Verdict(Enum):
    """What an attempt means for its events."""

    DELIVERED = "delivered"
    FAILED = "failed"
    """Try again by the schedule."""
    GONE = "gone"
    """The receiver said that it is gone for good (HTTP 410): disable the destination."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt to deliver events, and what came of it."""

    verdict: Verdict
    status: int | None
    """The HTTP status; None: there was no answer, or the destination does not speak HTTP."""
    detail: str
    """What the receiver answered, or why there was no answer: printable, at most `DETAIL_CHARACTERS`."""
    retry_after: float | None
    """How many seconds the receiver asks to wait before the next attempt; None: it asked for nothing."""
    seconds: float
    """How long the attempt took."""


class Sender(Protocol):
    """Delivers to one destination. Lives on one event loop."""

    async def send(self, events: Sequence[StoredEvent], attempt: int) -> Attempt:
        """Deliver these events, at least one, all in one attempt. `attempt` is 1 for their first.

        DELIVERED MUST mean that the receiver confirmed all of them. Whatever the receiver or the network does, it MUST
        be an `Attempt` and not an exception. A cancelled call may have delivered.
        """
        ...

    async def close(self) -> None:
        """Let go of all connections. No call follows."""
        ...


def printable(text: str) -> str:
    """Return a text as a detail: on one line, without control characters, at most `DETAIL_CHARACTERS`."""
    # The slice first: what a receiver sends may be long, and only the beginning is kept.
    words = "".join(mark if mark.isprintable() else " " for mark in text[: 4 * DETAIL_CHARACTERS]).split()
    return " ".join(words)[:DETAIL_CHARACTERS]
