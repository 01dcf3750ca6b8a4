"""Ledgers for tests: drafts linked as a store links them."""

from collections.abc import Sequence

from headgate_server.core import ledger
from headgate_server.core.model import Draft, Head, StoredEvent, Submission
from headgate_server.core.settle import Settlement

NOW = 1_705_314_600_000_000
"""2024-01-15T10:30:00Z."""


def linked(workspace: str, drafts: Sequence[Draft]) -> tuple[list[StoredEvent], Head]:
    """Return the rows of a new ledger that holds these drafts, and its head."""
    settlement = Settlement(1, ledger.genesis(workspace), {}, {}, NOW)
    settlement.decide(Submission(workspace_id=1, slots=drafts))
    return settlement.rows, settlement.head
