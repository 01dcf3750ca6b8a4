"""Looks up the addresses of a host without delaying other work."""

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable, Sequence
from ipaddress import ip_address
from typing import Protocol

from headgate_server.delivery.networks import Address

_QUICK = 32
"""The most look-ups at once of hosts that were answered soon before, or were never looked up."""
_SLOW = 128
"""The most look-ups at once of the other hosts. A look-up takes half a minute if the name server does not answer."""
_SOON = 1.0
"""Seconds for an answer. Most come within a tenth of this; after it the system's resolver asks again only later."""
_MOST_KNOWN = 10_000
"""The most slow hosts that are remembered. The one that was slow longest ago is forgotten first."""


class Resolver(Protocol):
    """Finds the addresses of a host."""

    async def resolve(self, host: str) -> Sequence[Address]:
        """Return the addresses of a host, the preferred first. For an address return itself. Raises `OSError`."""
        ...


class SystemResolver:
    """The system's resolver, in threads of its own. The event loop has few threads, and other work needs them.

    A look-up cannot be cancelled. So there is at most one for a host, and further callers wait for the same look-up.

    A host that was not answered soon is slow from then on, until it is answered soon again. Slow hosts have places of
    their own, so hosts whose name server hangs do not delay the others, however many they are. A new host that hangs
    keeps its quick place only until a slow one is free.
    """

    def __init__(self, *, quick: int = _QUICK, slow: int = _SLOW, soon: float = _SOON) -> None:
        self._quick = asyncio.Semaphore(quick)
        self._slow = asyncio.Semaphore(slow)
        self._soon = soon
        self._slow_hosts: dict[str, None] = {}
        self._running: dict[str, asyncio.Task[Sequence[Address]]] = {}

    async def resolve(self, host: str) -> Sequence[Address]:
        """Return the addresses of a host, the preferred first. For an address return itself. Raises `OSError`."""
        running = self._running.get(host)
        if running is None:
            running = self._running[host] = asyncio.create_task(self._find(host))
            running.add_done_callback(lambda done: self._forget(host, done))
        # Shield the look-up, because other callers may wait for it too.
        return await asyncio.shield(running)

    def close(self) -> None:
        """Give up the running look-ups. Their threads end by themselves, and the process does not wait for them."""
        for running in self._running.values():
            running.cancel()

    async def _find(self, host: str) -> Sequence[Address]:
        place = self._slow if host in self._slow_hosts else self._quick
        await place.acquire()
        try:
            found = _started(host)
            is_soon = await self._is_soon(host, found)
            if not is_soon and place is self._quick and not self._slow.locked():
                await self._slow.acquire()  # at once, since it is not locked
                place.release()
                place = self._slow
            return await found
        finally:
            place.release()

    async def _is_soon(self, host: str, found: "asyncio.Future[Sequence[Address]]") -> bool:
        """Wait for an answer, as long as it may take. Note whether the host is slow, and return whether it is not."""
        await asyncio.wait([found], timeout=self._soon)
        self._slow_hosts.pop(host, None)
        if found.done():
            return True
        self._slow_hosts[host] = None
        if len(self._slow_hosts) > _MOST_KNOWN:
            del self._slow_hosts[next(iter(self._slow_hosts))]
        return False

    def _forget(self, host: str, done: "asyncio.Task[Sequence[Address]]") -> None:
        del self._running[host]
        _retrieve(done)


def _started(host: str) -> "asyncio.Future[Sequence[Address]]":
    """Look up a host in a new thread. It is a daemon: a look-up that hangs must not keep the process from ending.

    Raises `OSError` if there can be no more threads.
    """
    loop = asyncio.get_running_loop()
    found: asyncio.Future[Sequence[Address]] = loop.create_future()
    found.add_done_callback(_retrieve)

    def tell(tell_it: Callable[[], None]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(lambda: None if found.done() else tell_it())

    def work() -> None:
        try:
            addresses = _look_up(host)
        except Exception as error:
            raised = error
            tell(lambda: found.set_exception(raised))
        else:
            tell(lambda: found.set_result(addresses))

    try:
        threading.Thread(target=work, name="resolver", daemon=True).start()
    except RuntimeError as error:
        raise OSError(f"no thread for the look-up: {error}") from error
    return found


def _retrieve(done: "asyncio.Future[Sequence[Address]]") -> None:
    """Mark an error as seen. If no caller waits any more, asyncio would log it as never retrieved."""
    if not done.cancelled():
        done.exception()


def _look_up(host: str) -> Sequence[Address]:
    try:
        results = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except UnicodeError as error:
        raise OSError(str(error)) from error
    return list(dict.fromkeys(ip_address(address[0]) for *_, address in results))
