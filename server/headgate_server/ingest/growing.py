"""A group that grows until the store begins."""

import threading
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from headgate_server.core.model import Submission
from headgate_server.ingest.lanes import Waiting

W = TypeVar("W", bound=Waiting)


class Growing(Generic[W]):
    """The calls of one transaction. The event loop adds to them until the store begins, perhaps in another thread."""

    def __init__(self, calls: Sequence[W]):
        self.calls = list(calls)
        self._first = len(calls)
        self.submissions: list[Submission] = [call.submission for call in calls]
        self.workspaces = frozenset(submission.workspace_id for submission in self.submissions)
        """The workspaces of the first calls."""
        self.events = sum(call.events for call in calls)
        self.bytes = sum(call.bytes for call in calls)
        self._open = True
        self._lock = threading.Lock()

    def begin(self) -> None:
        """End the growth. The store calls this right before it reads the submissions."""
        with self._lock:
            self._open = False

    def withdraw(self) -> Sequence[W]:
        """End the growth of a group that failed. Return the calls that joined it, which are no longer in it, if the
        store had not begun. Otherwise return none.
        """
        with self._lock:
            joined = self.calls[self._first :] if self._open else []
            self._open = False
            for grown in (self.calls, self.submissions):
                del grown[len(grown) - len(joined) :]
            return joined

    def grow(self, take: Callable[[], Sequence[W]]) -> None:
        """Add the calls that `take` takes from the queue, unless the store has begun: then it is not called."""
        with self._lock:
            if not self._open:
                return
            for call in take():
                self.calls.append(call)
                self.submissions.append(call.submission)
                self.events += call.events
                self.bytes += call.bytes
