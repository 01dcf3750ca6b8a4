"""What happens to open clients when the process forks (`os.fork`, gunicorn, Celery, `multiprocessing`).

Before the fork no call runs and no lock is held by another thread. After it the parent goes on, and the child has the
same clients without a connection, with empty queues. So has a child of a fork in C, which runs no hook before it.
"""

import os
import weakref
from typing import Protocol

from headgate_client import exits, ticket


class Forkable(Protocol):
    """Something with a lock or a connection."""

    def before_fork(self) -> None:
        """Stand still."""

    def after_fork_in_parent(self) -> None:
        """Go on."""

    def after_fork_in_child(self) -> None:
        """Begin anew."""


_queues: "weakref.WeakSet[Forkable]" = weakref.WeakSet()
_transports: "weakref.WeakSet[Forkable]" = weakref.WeakSet()
_still: list[Forkable] = []


def register_queue(queue: Forkable) -> None:
    """Take care of a queue. Queues stand still before the transports that they use."""
    _queues.add(queue)


def register_transport(transport: Forkable) -> None:
    """Take care of a transport."""
    _transports.add(transport)


def unregister_transport(transport: Forkable) -> None:
    """Forget a transport that is closed: its calls are cancelled, and it makes no new ones."""
    _transports.discard(transport)


def _before() -> None:
    _still[:] = [*_queues, *_transports]
    for part in _still:
        part.before_fork()
    ticket.before_fork()


def _in_parent() -> None:
    ticket.after_fork_in_parent()
    for part in reversed(_still):
        part.after_fork_in_parent()
    _still.clear()


def _in_child() -> None:
    exits.after_fork_in_child()
    ticket.after_fork_in_child()
    for part in _still or [*_queues, *_transports]:
        part.after_fork_in_child()
    _still.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before, after_in_parent=_in_parent, after_in_child=_in_child)
