"""Checks that acknowledged events are on disk, by the pragmas of the connection that writes."""

from sqlalchemy import Connection

from headgate_server.store.database import not_durable
from headgate_server.store.sqlite.connection import raw_cursor


def check(connection: Connection) -> None:
    """Raise `errors.Unavailable` unless commits are synced."""
    with raw_cursor(connection) as cursor:
        for pragma, required in (("synchronous", 2), ("journal_mode", "wal")):
            value = cursor.execute(f"PRAGMA {pragma}").fetchone()[0]
            if value != required:
                raise not_durable(f"The store's database runs with {pragma}={value}")
