"""What the limits write: rows as the product makes them, in an unbroken ledger, built before the clock starts."""

import time
from collections.abc import Sequence
from typing import Any, NamedTuple

from bench import workload
from bench.lockstep import Assignment
from headgate_server.core.model import Head, Submission
from headgate_server.core.settle import Settlement


class Group(NamedTuple):
    """One transaction's worth, ready to be written."""

    identities: Sequence[bytes]
    """Sorted, as the product probes them."""
    rows: Sequence[tuple[Any, ...]]
    head: Head


def groups(workspace_id: int, head: Head, assignment: Assignment) -> list[Group]:
    """Build an assignment's rows after the ledger's head, in groups of `assignment.group`."""
    orders = workload.orders(assignment.events)
    built = []
    for first in range(0, assignment.events, assignment.group):
        settlement = Settlement(workspace_id, head, {}, {}, time.time_ns() // 1000)
        drafts = workload.drafts(orders[first : first + assignment.group])
        settlement.decide(Submission(workspace_id=workspace_id, slots=drafts))
        head = settlement.head
        built.append(Group(sorted(draft.identity[:16] for draft in drafts), settlement.rows, head))
    return built
