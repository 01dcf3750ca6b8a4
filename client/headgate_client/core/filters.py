"""The requests of reads."""

from datetime import datetime

from headgate.v1.event_service_pb2 import ListEventsRequest
from headgate.v1.ledger_service_pb2 import VerifyLedgerRequest
from headgate_client.core.model import Head
from headgate_client.core.requests import timestamp_of


def list_request(
    *,
    type: str,  # noqa: A002 - the field's name
    source: str,
    subject: str,
    key: str,
    start: datetime | None,
    end: datetime | None,
    newest_first: bool,
    view: str,
    page_size: int,
) -> ListEventsRequest:
    """Return the request of a list."""
    request = ListEventsRequest(
        type=type,
        source=source,
        subject=subject,
        idempotency_key=key,
        newest_first=newest_first,
        view=view,
        page_size=page_size,
    )
    _set_range(request, start, end)
    return request


def verify_request(start: datetime | None, end: datetime | None, expected: Head | None) -> VerifyLedgerRequest:
    """Return the request of a check."""
    request = VerifyLedgerRequest()
    if expected is not None:
        request.expected_sequence = expected.sequence
        request.expected_hash = expected.hash
    _set_range(request, start, end)
    return request


def _set_range(request: ListEventsRequest | VerifyLedgerRequest, start: datetime | None, end: datetime | None) -> None:
    for name, time in (("from", start), ("to", end)):
        if (stamp := timestamp_of(time)) is not None:
            getattr(request, name).CopyFrom(stamp)
