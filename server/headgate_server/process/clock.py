"""The process's clock. It is passed to code that needs the time, so that a test can stop or move it."""

import time
from collections.abc import Callable

Clock = Callable[[], int]
"""Microseconds since the epoch."""


def system_clock() -> int:
    """Return the machine's time. The `created_at` of events comes from the database, never from here."""
    return time.time_ns() // 1000
