"""Looks up the addresses of a host without delaying other work."""

import asyncio
import socket
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_address
from typing import Protocol

from headgate_server.delivery.networks import Address

_THREADS = 32
"""The most look-ups at once. There is one for each host. A look-up blocks its thread for half a minute if the name
server does not answer.
"""


class Resolver(Protocol):
    """Finds the addresses of a host."""

    async def resolve(self, host: str) -> Sequence[Address]:
        """Return the addresses of a host, the preferred first. For an address return itself. Raises `OSError`."""
        ...


class SystemResolver:
    """The system's resolver, in threads of its own. The event loop has few threads, and other work needs them.

    A look-up cannot be cancelled. So there is at most one for a host, and further callers wait for the same look-up.
    """

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="resolver")
        self._running: dict[str, asyncio.Future[Sequence[Address]]] = {}

    async def resolve(self, host: str) -> Sequence[Address]:
        """Return the addresses of a host, the preferred first. For an address return itself. Raises `OSError`."""
        running = self._running.get(host)
        if running is None:
            running = asyncio.get_running_loop().run_in_executor(self._threads, _look_up, host)
            self._running[host] = running
            running.add_done_callback(lambda done: self._forget(host, done))
        # Shield the look-up, because other callers may wait for it too.
        return await asyncio.shield(running)

    def close(self) -> None:
        """Release the threads without waiting for running look-ups."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _forget(self, host: str, done: asyncio.Future[Sequence[Address]]) -> None:
        del self._running[host]
        if not done.cancelled():
            # If no caller waits any more, asyncio would log the error as never retrieved.
            done.exception()


def _look_up(host: str) -> Sequence[Address]:
    try:
        results = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except UnicodeError as error:
        raise OSError(str(error)) from error
    return list(dict.fromkeys(ip_address(address[0]) for *_, address in results))
