"""Time, as a value that tests replace."""

import threading
import time


class Clock:
    """The machine's monotonic clock."""

    def now(self) -> float:
        """Return seconds from some moment."""
        return time.monotonic()

    def wait(self, condition: threading.Condition, seconds: float | None) -> None:
        """Wait until the condition, which the caller holds, is notified; at most so many seconds."""
        condition.wait(seconds)
