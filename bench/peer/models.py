"""The tables."""

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, String, UniqueConstraint
from sqlalchemy.dialects.postgresql import BYTEA, JSONB, TIMESTAMP
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Base(DeclarativeBase):
    """What all tables have in common."""


class ApiKey(Base):
    """A client's key, by its hash."""

    __tablename__ = "peer_api_keys"

    digest: Mapped[bytes] = mapped_column(BYTEA, primary_key=True)
    tenant_id: Mapped[int] = mapped_column(BigInteger)


class Event(Base):
    """A stored event."""

    __tablename__ = "peer_events"
    __table_args__ = (UniqueConstraint("tenant_id", "source", "idempotency_key"),)

    id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    tenant_id: Mapped[int] = mapped_column(BigInteger)
    type: Mapped[str] = mapped_column(String(255))
    source: Mapped[str] = mapped_column(String(255))
    subject: Mapped[str] = mapped_column(String(255))
    occurred_at: Mapped[datetime | None] = mapped_column(TIMESTAMP(timezone=True))
    data: Mapped[dict[str, Any] | None] = mapped_column(JSONB)
    idempotency_key: Mapped[str | None] = mapped_column(String(255))
    content_hash: Mapped[bytes] = mapped_column(BYTEA)
    """SHA-256 of what was sent: tells a duplicate from a conflict."""
    created_at: Mapped[datetime] = mapped_column(TIMESTAMP(timezone=True))
