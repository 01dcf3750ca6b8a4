"""The request, the response, and the table."""

from datetime import datetime
from typing import Annotated, Any

from pydantic import BaseModel, Field, TypeAdapter
from sqlalchemy import BigInteger, String, UniqueConstraint
from sqlalchemy.dialects.postgresql import BYTEA, JSONB, TIMESTAMP
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

Text = Annotated[str, Field(max_length=255)]
Required = Annotated[str, Field(min_length=1, max_length=255)]


class EventIn(BaseModel):
    """One event of a batch; its idempotency key is unique within tenant and source."""

    type: Required
    source: Text = ""
    subject: Text = ""
    occurred_at: datetime | None = None
    data: dict[str, Any] | None = None
    idempotency_key: Required | None = None


EVENT = TypeAdapter(EventIn)


class BatchIn(BaseModel):
    """A request. Its events are validated one by one, so that a bad event affects no other."""

    events: Annotated[list[Any], Field(min_length=1, max_length=1000)]


class EventResult(BaseModel):
    """What became of the event at one position."""

    index: int
    status: str
    id: int | None = None
    created_at: datetime | None = None
    error: str | None = None


class BatchOut(BaseModel):
    """An answer: one result per event, in the order sent."""

    total: int
    success_count: int
    error_count: int
    results: list[EventResult]


class Base(DeclarativeBase):
    """The base of all tables."""


class Event(Base):
    """A stored event. `content_hash` is SHA-256 of the sent content: it distinguishes a duplicate from a conflict."""

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
    created_at: Mapped[datetime] = mapped_column(TIMESTAMP(timezone=True))
