"""Makes rejections for tests, like the ingest."""

from typing import Any

from headgate_server.core import ledger
from headgate_server.core.rejections import Rejection

MINUTE = 60_000_000
DAY = 24 * 60 * MINUTE


def rejection(workspace_id: int, received_at: int, event: bytes = b'{"source":"shop"}', **fields: Any) -> Rejection:
    """Return a rejection of that time."""
    usual: dict[str, Any] = {
        "reason": "MISSING_FIELD",
        "field": "type",
        "message": "The type field is required.",
        "receiver": "native",
        "endpoint": "",
        "key_id": "key_1",
        "request_id": "r-1",
        "encoding": "json",
        "size": len(event),
        "replayed_at": None,
        "event_id": None,
    }
    rejection_id = ledger.event_id(received_at, b"\0\0\0\0\0\0\0\1")
    return Rejection(workspace_id=workspace_id, id=rejection_id, received_at=received_at, event=event, **usual | fields)
