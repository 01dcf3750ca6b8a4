"""Turns SQLite's errors into those of the `Database` promise."""

from collections.abc import Iterator
from contextlib import contextmanager

from pysqlite3 import dbapi2 as driver
from sqlalchemy.exc import DBAPIError

from headgate_server.core.errors import Unavailable
from headgate_server.store.database import DataRefused


class LockedError(Exception):
    """Another connection holds the write lock."""


@contextmanager
def translated() -> Iterator[None]:
    """Turn the driver's errors, plain or wrapped by SQLAlchemy, into those of the `Database` promise."""
    try:
        yield
    except (driver.DataError, OverflowError, UnicodeEncodeError) as error:
        raise DataRefused(type(error).__name__) from error
    except (DBAPIError, driver.Error) as error:
        if isinstance(error, DBAPIError) and isinstance(error.orig, driver.DataError):
            raise DataRefused(type(error.orig).__name__) from error
        raise Unavailable("The store's database failed.") from error


def result_code(error: BaseException) -> int:
    """Return SQLite's primary result code, 0 if the error does not come from SQLite."""
    original = error.orig if isinstance(error, DBAPIError) else error
    return int(getattr(original, "sqlite_errorcode", 0)) & 0xFF


def cause(error: BaseException) -> str:
    """Return SQLite's own message."""
    return str(error.orig if isinstance(error, DBAPIError) else error)
