"""Requests that come as a query: the bridge hands on their times as they were written."""

from collections.abc import Mapping
from typing import Any

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from headgate.v1.bridge_view_pb2 import (
    RawListEventsRequest,
    RawListRejectionsRequest,
    RawSubscribeRequest,
    RawVerifyLedgerRequest,
)
from headgate.v1.event_service_pb2 import ListEventsRequest, SubscribeRequest
from headgate.v1.ledger_service_pb2 import VerifyLedgerRequest
from headgate.v1.rejection_service_pb2 import ListRejectionsRequest
from headgate_server.core import timestamps
from headgate_server.core.errors import InvalidRequest
from headgate_server.core.reasons import Reason

_VIEWS: Mapping[type[Message], type[Message]] = {
    ListEventsRequest: RawListEventsRequest,
    ListRejectionsRequest: RawListRejectionsRequest,
    SubscribeRequest: RawSubscribeRequest,
    VerifyLedgerRequest: RawVerifyLedgerRequest,
}


def read(kind: type[Message], serialized: bytes) -> Any:
    """Parse a request of the bridge's. Raises `InvalidRequest` for a time that is none, and `DecodeError`."""
    view = _VIEWS.get(kind)
    if view is None:
        return kind.FromString(serialized)
    request = kind()
    for field, value in view.FromString(serialized).ListFields():
        if request.DESCRIPTOR.fields_by_name[field.name].message_type is Timestamp.DESCRIPTOR:
            getattr(request, field.name).FromMicroseconds(instant(field.name, value))
        else:
            setattr(request, field.name, value)
    return request


def instant(field: str, text: str) -> int:
    """Return the time of a text in microseconds. Raises `InvalidRequest` for a time that is none."""
    try:
        # A form's space is the plus of an offset: no RFC 3339 time holds a space.
        return timestamps.parse(text.replace(" ", "+"))[0]
    except ValueError as error:
        raise InvalidRequest(f"{field}: {error}.", reason=Reason.INVALID_TIMESTAMP, field=field) from None
