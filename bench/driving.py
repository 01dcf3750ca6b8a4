"""What the drivers have in common: an assignment becomes calls, and a loop that makes them."""

import asyncio
import os
from collections.abc import Sequence
from typing import Protocol

from bench import calls
from bench.calls import Plan
from bench.lockstep import Assignment, Work
from bench.loops import ClosedLoop, OpenLoop, Send
from bench.overload import Overload
from bench.wires import Wire

_PREPARING = 8
"""Calls in progress while what is to be sent again is stored."""


class Client(Protocol):
    """A way to reach the server."""

    def wire(self, single: bool) -> Wire:
        """Return the encoding of calls of one event, or of batches."""

    def senders(self, single: bool) -> Sequence[Send]:
        """Return what makes such calls, one for each process of the server."""


def keys() -> list[str]:
    """Return the API keys to call with, each another workspace's: `parts.driver_environment` put them there."""
    return os.environ["HEADGATE_KEYS"].split(",")


async def prepare(assignment: Assignment, client: Client) -> Work:
    """Encode the calls, store what they are to send again, and return them ready to be made."""
    single = assignment.group == 1
    wire, senders = client.wire(single), client.senders(single)
    plan = calls.plan(assignment, wire, client.wire(single=False))
    await _store_originals(plan, client)
    if assignment.patient:
        return Overload(plan, wire, senders, assignment.callers, assignment.seconds)
    if assignment.rate:
        return OpenLoop(plan, wire, senders, assignment.rate / assignment.group)
    return ClosedLoop(plan, wire, senders, assignment.callers)


async def _store_originals(plan: Plan, client: Client) -> None:
    wire, senders = client.wire(single=False), client.senders(single=False)
    for first in range(0, len(plan.originals), _PREPARING):
        some = plan.originals[first : first + _PREPARING]
        answers = await asyncio.gather(*(senders[index % len(senders)](call) for index, call in enumerate(some)))
        for call, answer in zip(some, answers, strict=True):
            calls.check(call, answer, wire)
