"""What comes in and what goes out."""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

Text = Annotated[str, Field(max_length=255)]


class EventIn(BaseModel):
    """One event of a batch."""

    model_config = ConfigDict(strict=False, extra="ignore")

    type: Annotated[str, Field(min_length=1, max_length=255)]
    source: Text = ""
    subject: Text = ""
    occurred_at: datetime | None = None
    data: dict[str, Any] | None = None
    idempotency_key: Annotated[str, Field(min_length=1, max_length=255)] | None = None


EVENT = TypeAdapter(EventIn)


class BatchIn(BaseModel):
    """A request. Its events are validated one by one, so that a bad one spoils nothing but itself."""

    events: Annotated[list[Any], Field(min_length=1, max_length=1000)]


class EventError(BaseModel):
    """Why an event is not stored."""

    reason: str
    field: str = ""
    message: str


class EventResult(BaseModel):
    """What became of the event at one position."""

    index: int
    status: Literal["accepted", "duplicate", "conflict", "rejected"]
    id: int | None = None
    created_at: datetime | None = None
    error: EventError | None = None


class BatchOut(BaseModel):
    """An answer: one result per event, in the order sent."""

    total: int
    success_count: int
    error_count: int
    results: list[EventResult]
