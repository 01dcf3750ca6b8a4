"""Stored events for tests of delivery, and how a receiver verifies what it got."""

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from headgate_server.core import ledger, timestamps
from headgate_server.core.model import StoredEvent
from tests.support.drafts import draft

CREATED = timestamps.parse("2026-11-30T06:00:00.123456Z")[0]
_CLIENTS = Path(__file__).parents[1] / "clients"


def stored(sequence: int = 1, data: Any = None, **more: Any) -> StoredEvent:
    """Return a stored event. Two of the same sequence have the same id."""
    created = CREATED + sequence
    event_id = ledger.event_id(created, sequence.to_bytes(8))
    return draft(data=data, **more).stored(1, event_id, sequence, created, b"\x01" * 32)


def verified_in_javascript(secret: str, headers: Mapping[str, str], body: bytes) -> Any:
    """Return the payload of a webhook after the JavaScript library has verified it. Fails if it does not verify."""
    assert (_CLIENTS / "node_modules").is_dir(), "`make clients` installs what this needs"
    request = {"secret": secret, "headers": dict(headers), "body": body.decode()}
    ran = subprocess.run(
        ["node", _CLIENTS / "verify.mjs"], input=json.dumps(request).encode(), capture_output=True, check=True
    )
    answer = json.loads(ran.stdout)
    assert "error" not in answer, answer["error"]
    return answer["payload"]
