"""An assignment as calls that are ready to be sent, and what their answers must say."""

from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

from bench import workload
from bench.lockstep import Assignment
from bench.wires import Wire

ORIGINALS_PER_CALL = 100
"""Events of one call that stores what later calls send again."""


class Call(NamedTuple):
    """One call."""

    body: bytes
    workspace: int
    """Which of the keys it is made with."""
    statuses: Sequence[str]
    """What its answer must say of each event."""


class Plan(NamedTuple):
    """All calls of an assignment."""

    originals: Sequence[Call]
    """What is stored before the clock starts, so that it is a duplicate afterwards."""
    calls: Sequence[Call]


def plan(assignment: Assignment, wire: Wire, original_wire: Wire) -> Plan:
    """Encode an assignment. `original_wire` is the one for batches: originals are not sent one by one."""
    group, share, workspaces = assignment.group, assignment.duplicates, assignment.workspaces
    if assignment.events % group:
        raise ValueError(f"{assignment.events} events are no whole number of calls of {group}")
    events = list(map(wire.event, workload.orders(assignment.events)))
    # Spread evenly: the n-th event is a duplicate where the count of them grows by one.
    statuses = [
        "duplicate" if int((number + 1) * share) > int(number * share) else "accepted" for number in range(len(events))
    ]
    calls = []
    stored: dict[int, list[bytes]] = defaultdict(list)
    for index, first in enumerate(range(0, len(events), group)):
        workspace = index % workspaces
        batch, wanted = events[first : first + group], statuses[first : first + group]
        calls.append(Call(wire.request(batch), workspace, wanted))
        stored[workspace] += [event for event, status in zip(batch, wanted, strict=True) if status == "duplicate"]
    return Plan(_originals(stored, original_wire), calls)


def _originals(stored: dict[int, list[bytes]], wire: Wire) -> list[Call]:
    calls = []
    for workspace, events in stored.items():
        for first in range(0, len(events), ORIGINALS_PER_CALL):
            batch = events[first : first + ORIGINALS_PER_CALL]
            calls.append(Call(wire.request(batch), workspace, ["accepted"] * len(batch)))
    return calls


def check(call: Call, answer: bytes, wire: Wire) -> int:
    """Return how many events this answer says were newly stored.

    Raises `RuntimeError` if it says anything but what it must.
    """
    statuses = wire.statuses(answer)
    if list(statuses) != list(call.statuses):
        raise RuntimeError(
            f"a call of {len(call.statuses)} events, {set(call.statuses)} as they had to be, was answered by "
            f"{len(statuses)} of {set(statuses)}"
        )
    return statuses.count("accepted")
