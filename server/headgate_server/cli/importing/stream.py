"""A stream that another thread can end: standard input, or a pipe."""

import contextlib
import io
import os
import select
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer


class Stream(io.RawIOBase):
    """Reads a descriptor. Each reading waits for bytes, for the stream's end, or for `stop`.

    A descriptor that does not wait itself, such as a terminal that a program before left so, is no stream at its end.
    """

    def __init__(self, descriptor: int, *, closes: bool):
        """`closes`: the descriptor is closed with the stream."""
        super().__init__()
        self._descriptor = descriptor
        self._closes = closes
        self._stopped, self._stop = os.pipe()

    def readable(self) -> bool:
        """Return True."""
        return True

    def fileno(self) -> int:
        """Return the descriptor."""
        return self._descriptor

    def readinto(self, buffer: "WriteableBuffer", /) -> int:
        """Read some bytes, and return their number; 0 is the end."""
        poll = select.poll()
        for descriptor in (self._descriptor, self._stopped):
            poll.register(descriptor, select.POLLIN)
        while True:
            ready = {descriptor for descriptor, _ in poll.poll()}
            if self._stopped in ready:
                return 0
            with contextlib.suppress(BlockingIOError):
                return os.readv(self._descriptor, [buffer])

    def stop(self) -> None:
        """End the stream for every reading, also for one that waits in another thread."""
        os.write(self._stop, b"-")

    def close(self) -> None:
        """Close the stream. No other thread reads it."""
        if not self.closed:
            super().close()
            for descriptor in (self._stopped, self._stop, *((self._descriptor,) if self._closes else ())):
                os.close(descriptor)
