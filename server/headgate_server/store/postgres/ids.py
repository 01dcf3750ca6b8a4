"""The type of an event's id in PostgreSQL. It imports no table and no driver, so that `schema` can import it."""

from typing import Any
from uuid import UUID

from sqlalchemy import Dialect, TypeDecorator
from sqlalchemy.dialects import postgresql


class UuidBytes(TypeDecorator[bytes]):
    """16 bytes as a `uuid`: one byte shorter than bytea, and readable in psql."""

    impl = postgresql.UUID
    cache_ok = True

    def process_bind_param(self, value: bytes | None, dialect: Dialect) -> UUID | None:
        """Turn 16 bytes into the driver's value."""
        return None if value is None else UUID(bytes=value)

    def process_result_value(self, value: Any, dialect: Dialect) -> bytes | None:
        """Turn the driver's value into 16 bytes."""
        return None if value is None else bytes(value.bytes)
