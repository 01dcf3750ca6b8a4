"""The signals of a process that serves."""

import asyncio
import signal

import structlog

log = structlog.get_logger(__name__)

_ENDING = (signal.SIGINT, signal.SIGTERM)
_IGNORED = (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
"""By default these end a process at once. Operators and log rotation send them to make a service reload its settings or
reopen its log. Our settings cannot be reloaded while it runs, and the log is not a file.
"""


def stop_signal() -> asyncio.Event:
    """Return an event that SIGINT and SIGTERM set, from now on. SIGHUP, SIGUSR1 and SIGUSR2 change nothing."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in _ENDING:
        loop.add_signal_handler(number, stop.set)
    for number in _IGNORED:
        loop.add_signal_handler(number, _ignore, number.name)
    return stop


def _ignore(name: str) -> None:
    log.warning("signal_ignored", signal=name)
