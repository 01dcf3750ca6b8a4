"""Logs why a store failed: by class and code, never in the driver's words, which may quote a value."""

import errno
import re
import time
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import structlog

from headgate_server.core.errors import HeadgateError, Unavailable

log = structlog.get_logger(__name__)

_QUIET_SECONDS = 10.0
"""A logged cause is only counted for this time: an unreachable database fails every call."""
_KINDS = 100
"""The most causes that are remembered; in practice there are fewer."""
_FRAMES = 10
_LAST_WORD = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


class Causes:
    """Logs each cause at once, and then, every `_QUIET_SECONDS`, how often it came again."""

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self._clock = clock
        self._logged: dict[tuple[str, ...], tuple[float, int]] = {}

    def tell(self, event: str, error: BaseException) -> None:
        """Log `event` with the known cause of an error. An error that many calls share is logged once."""
        if getattr(error, "cause_logged", False):
            return
        if isinstance(error, HeadgateError):
            error.cause_logged = True
        fields = cause_of(error)
        kind = (event, *fields.values())
        now = self._clock()
        since, repeats = self._logged.get(kind, (None, 0))
        if since is not None and now - since < _QUIET_SECONDS:
            self._logged[kind] = (since, repeats + 1)
            return
        if len(self._logged) >= _KINDS:
            self._logged.clear()
        self._logged[kind] = (now, 0)
        log.error(event, **fields, **({"repeats": repeats} if repeats else {}))


def cause_of(error: BaseException) -> dict[str, str]:
    """Return `error` (its class), and for its innermost cause `cause` (its class) and, if it has one, its code:
    `sqlite`, `sqlstate` with `condition`, or `errno`. For a `HeadgateError` also `reason`.
    """
    chain = list(_chain(error))
    fields = {"error": type(error).__name__}
    if isinstance(error, HeadgateError):
        fields["reason"] = error.reason
    if len(chain) > 1:
        fields["cause"] = type(chain[-1]).__name__
    for one in reversed(chain):
        if codes := _codes(one):
            return {**fields, "cause": type(one).__name__, **codes}
    return fields


def told(error: BaseException) -> dict[str, Any]:
    """Return the fields that explain why background work stopped: the cause if the store is away, since that is one
    line for an operator and says all. Any other error may be a bug, and needs its traceback.
    """
    if isinstance(error, Unavailable):
        return dict(cause_of(error))
    return {"error": type(error).__name__, "exc_info": error}


def where(error: BaseException) -> list[str]:
    """Return the innermost calls in which an error was raised, without any value."""
    frames = traceback.extract_tb(error.__traceback__)[-_FRAMES:]
    return [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames]


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and its causes; SQLAlchemy keeps the driver's error in `orig`."""
    seen: set[int] = set()
    current: Any = error
    while isinstance(current, BaseException) and id(current) not in seen:
        seen.add(id(current))
        yield current
        current = getattr(current, "orig", None) or current.__cause__


def _codes(error: BaseException) -> dict[str, str]:
    """Return the code of an error of SQLite, PostgreSQL, or the operating system."""
    if name := getattr(error, "sqlite_errorname", None):
        return {"sqlite": str(name)}
    if state := getattr(error, "sqlstate", None):
        return {"sqlstate": str(state), "condition": _condition(type(error).__name__)}
    if isinstance(error, OSError) and error.errno is not None:
        return {"errno": errno.errorcode.get(error.errno, str(error.errno))}
    return {}


def _condition(name: str) -> str:
    """Return PostgreSQL's name of a condition. asyncpg names its classes after it: DiskFullError is disk_full."""
    return _LAST_WORD.sub("_", name.removesuffix("Error")).lower()
