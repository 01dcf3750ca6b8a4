"""Random bytes of the system, in small pieces.

A call to the system takes longer than the hash of an event, and it gives the interpreter's lock to another thread. So
the bytes for single events and calls are drawn for hundreds of them at once.
"""

import os
from collections import deque

LARGEST = 16
"""The most bytes of a piece: a salt, and the random part of an id."""
_PIECES = 256

_pieces: deque[bytes] = deque()
# A forked child must not draw the same bytes as its parent.
os.register_at_fork(after_in_child=_pieces.clear)


def draw(count: int) -> bytes:
    """Return so many random bytes, which are returned only once. Any thread may call this."""
    if count > LARGEST:
        return os.urandom(count)
    while True:
        try:
            # One step of the interpreter: no two threads get the same piece.
            return _pieces.popleft()[:count]
        except IndexError:
            drawn = os.urandom(LARGEST * _PIECES)
            _pieces.extend(drawn[at : at + LARGEST] for at in range(0, len(drawn), LARGEST))
