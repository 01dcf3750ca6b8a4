"""The headers with which the receiver of a request continues our trace."""

from contextvars import ContextVar

OUTGOING: ContextVar[tuple[tuple[str, str], ...]] = ContextVar("outgoing", default=())
"""Those of the running code's span."""


def outgoing() -> tuple[tuple[str, str], ...]:
    """Return the headers that let a receiver continue the running code's trace; none if there is no trace."""
    return OUTGOING.get()
