"""An event's id as PostgreSQL keeps it. It knows no table and no driver, so that `schema` can name it."""

from typing import Any
from uuid import UUID

from sqlalchemy import Dialect, TypeDecorator
from sqlalchemy.dialects import postgresql


class UuidBytes(TypeDecorator[bytes]):
    """16 bytes as a `uuid`: one byte shorter than bytea, and readable in psql."""

    impl = postgresql.UUID
    cache_ok = True

    def process_bind_param(self, value: bytes | None, dialect: Dialect) -> UUID | None:
        """Turn 16 bytes into what the driver takes."""
        return None if value is None else UUID(bytes=value)

    def process_result_value(self, value: Any, dialect: Dialect) -> bytes | None:
        """Turn what the driver gives into 16 bytes."""
        return None if value is None else bytes(value.bytes)
