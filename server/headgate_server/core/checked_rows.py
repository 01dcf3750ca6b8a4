"""What a check of a ledger reads: rows as they are stored, whatever their values and types."""

from typing import Any, NamedTuple

from headgate_server.core.model import StoredEvent
from headgate_server.core.types import EventId, WorkspaceId


class StoredHead(NamedTuple):
    """A row of `heads`, as stored. A check of the ledger reads it and trusts none of its values or types."""

    sequence: Any
    hash: Any
    created_at: Any
    month: Any
    """The month (UTC) of the microsecond after `created_at`, such as 202611; 0 in an empty ledger."""
    month_events: Any
    """The number of events of that month."""


class LedgerEnd(NamedTuple):
    """The end of a ledger, read at one moment: its head, and the event with the highest id. None means that there is
    none.
    """

    head: StoredHead | None
    newest: StoredEvent | None


class StoredLedger(NamedTuple):
    """A ledger that the tables contain. One without a `name` has rows, but its id is not in `workspaces`."""

    workspace_id: Any
    name: Any


class LedgerRange(NamedTuple):
    """Which events of one ledger to check, in the order of their ids. None means no bound."""

    workspace_id: WorkspaceId
    first: EventId | None = None
    """Inclusive."""
    before: EventId | None = None
    """Exclusive."""
    last: Any = None
    """Inclusive: the id of a stored event, whatever its type."""
