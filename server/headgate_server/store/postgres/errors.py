"""Turns errors of PostgreSQL, asyncpg and SQLAlchemy into those of the `Database` promise. No other module does it."""

from asyncpg import InterfaceError, InternalClientError, PostgresError
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from headgate_server.core.errors import Unavailable
from headgate_server.store.database import DataRefused

DRIVER_ERRORS = (
    PostgresError,
    InterfaceError,
    InternalClientError,
    SQLAlchemyError,
    OSError,
    TimeoutError,
    UnicodeEncodeError,
    OverflowError,
)
"""All errors that a database operation may raise, except a cancellation. TimeoutError and ConnectionError are OSErrors.
"""

_READ_ONLY = "25006"
_UNIQUE_VIOLATION = "23505"
_EXCLUSION_VIOLATION = "23P01"
_LOCK_NOT_AVAILABLE = "55P03"
_IDLE_TOO_LONG = "25P03"

# Data exceptions, violated constraints, and limits of PostgreSQL such as a value beyond 1 GB.
_DATA_CLASSES = ("22", "23", "54")

# Serialization failure and deadlock: the other transaction is done, and this one may succeed now. If an identity is
# used although the probe did not find it (exclusion), it was stored after an early look-up, or the other writer did not
# take the head's lock; in the second attempt the probe sees its row. If an id is already used (unique), the second
# attempt makes another. If this process stood still for so long within a transaction that the server ended it, the
# second attempt is in time.
_TRANSIENT = ("40001", "40P01", _EXCLUSION_VIOLATION, _UNIQUE_VIOLATION, _IDLE_TOO_LONG)


class Transient(Unavailable):
    """Nothing was stored, and another attempt at once may succeed."""


def translate(error: BaseException) -> Exception:
    """Return the error that a store raises for `error`. It came before COMMIT was sent, so nothing was stored."""
    error = _driver_error(error)
    state = _state(error)
    if state in _TRANSIENT:
        return Transient("Another transaction came in between.")
    if (
        state[:2] in _DATA_CLASSES
        or isinstance(error, (UnicodeEncodeError, OverflowError))
        or _refused_by_driver(error)
    ):
        return DataRefused(type(error).__name__)  # its message quotes the value
    if state == _LOCK_NOT_AVAILABLE:
        return Unavailable("Another process has locked the ledger and does not release it.")
    if state == _READ_ONLY:
        return Unavailable("The store's database is read-only at the moment.")
    if isinstance(error, TimeoutError):
        return Transient("The store's database did not answer in time.")
    if is_disconnect(error):
        return Transient("The store's database cannot be reached.")
    return Unavailable("The store's database failed.")


def is_disconnect(error: BaseException) -> bool:
    """Whether the connection was lost, so that it is unknown whether its last statement was executed."""
    error = _driver_error(error)
    state = _state(error)
    # Connection exceptions, and shutdown, crash or start-up of the server. Without a state, the error is asyncpg's,
    # about a socket that is closed or that the server is about to close.
    return state[:2] in ("08", "57") or (
        not state and isinstance(error, (OSError, InterfaceError, InternalClientError))
    )


def is_read_only(error: BaseException) -> bool:
    """Whether the server refuses to write: it is not a primary, or not any more."""
    return _state(_driver_error(error)) == _READ_ONLY


def describe(error: BaseException) -> str:
    """Return the error's own message in one line."""
    error = _driver_error(error)
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__


def _driver_error(error: BaseException) -> BaseException:
    """Return asyncpg's own error. SQLAlchemy wraps it twice: as a DB-API error and as its own."""
    if isinstance(error, DBAPIError) and error.orig is not None:
        return error.orig.__cause__ or error.orig
    return error


def _state(error: BaseException) -> str:
    return getattr(error, "sqlstate", None) or ""


def _refused_by_driver(error: BaseException) -> bool:
    # If asyncpg cannot encode a value, its error is both an InterfaceError and a ValueError.
    return isinstance(error, InterfaceError) and isinstance(error, ValueError)
