"""The one place where errors of PostgreSQL, asyncpg and SQLAlchemy become those of the `Store` promise."""

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
"""All that a database operation may raise, beside a cancellation. TimeoutError and ConnectionError are OSErrors."""

_READ_ONLY = "25006"
_UNIQUE_VIOLATION = "23505"
_EXCLUSION_VIOLATION = "23P01"
_LOCK_NOT_AVAILABLE = "55P03"

# Data exceptions, violated constraints, and limits of the program such as a value beyond 1 GB.
_DATA_CLASSES = ("22", "23", "54")

# Serialization failure and deadlock: the other transaction went ahead, this one may now. An identity that is taken
# after all (exclusion) can only come from a writer that does not take the head's lock; by the second attempt the probe
# sees what it wrote. An id that is taken (unique) is drawn anew.
_TRANSIENT = ("40001", "40P01", _EXCLUSION_VIOLATION, _UNIQUE_VIOLATION)


class Transient(Unavailable):
    """Nothing was stored, and another attempt at once may succeed."""


def translate(error: BaseException) -> Exception:
    """Return what a store raises for `error`, which came before COMMIT was sent: nothing was stored."""
    error = _driver_error(error)
    state = _state(error)
    if state in _TRANSIENT:
        return Transient("Another transaction came in between.")
    if (
        state[:2] in _DATA_CLASSES
        or isinstance(error, (UnicodeEncodeError, OverflowError))
        or _refused_by_driver(error)
    ):
        return DataRefused(str(error))
    if state == _LOCK_NOT_AVAILABLE:
        return Unavailable("The ledger is locked by another process that does not let go of it.")
    if state == _READ_ONLY:
        return Unavailable("The store's database is read-only at the moment.")
    if isinstance(error, TimeoutError):
        return Transient("The store's database did not answer in time.")
    if is_disconnect(error):
        return Transient("The store's database cannot be reached.")
    return Unavailable("The store's database failed.")


def is_disconnect(error: BaseException) -> bool:
    """Whether the connection is gone, so that what it was asked to do may or may not be done."""
    error = _driver_error(error)
    state = _state(error)
    # Connection exceptions, and shutdown, crash or start-up of the server; without a state, what asyncpg says of a
    # closed socket, or of one that has said its last word and is not closed yet.
    return state[:2] in ("08", "57") or (
        not state and isinstance(error, (OSError, InterfaceError, InternalClientError))
    )


def is_read_only(error: BaseException) -> bool:
    """Whether the server refuses to write: it is no primary, or not any more."""
    return _state(_driver_error(error)) == _READ_ONLY


def describe(error: BaseException) -> str:
    """Return the error's own words in one line."""
    error = _driver_error(error)
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__


def _driver_error(error: BaseException) -> BaseException:
    """Return asyncpg's own error of one that SQLAlchemy wrapped, twice: as DB-API's and as its own."""
    if isinstance(error, DBAPIError) and error.orig is not None:
        return error.orig.__cause__ or error.orig
    return error


def _state(error: BaseException) -> str:
    return getattr(error, "sqlstate", None) or ""


def _refused_by_driver(error: BaseException) -> bool:
    # asyncpg's client-side DataError is an InterfaceError and a ValueError; so it says that it cannot encode a value.
    return isinstance(error, InterfaceError) and isinstance(error, ValueError)
