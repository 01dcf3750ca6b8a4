"""The use case of checking a ledger: it reads a range page by page, and recomputes each page on a thread."""

import asyncio
from collections.abc import Sequence
from typing import Any, NamedTuple

from headgate_server.core import ledger, shapes, timestamps
from headgate_server.core.checked_rows import LedgerEnd, LedgerRange, StoredHead
from headgate_server.core.errors import InvalidRequest
from headgate_server.core.ledger import Break, Checker
from headgate_server.core.model import Head, StoredEvent, Workspace
from headgate_server.core.reasons import Reason
from headgate_server.core.types import EventHash, EventId
from headgate_server.store import Proof

_PAGE_EVENTS = 1_000
"""Events that are read and recomputed at once: some milliseconds of work on a thread."""


class Verification(NamedTuple):
    """The result of a check. `resume` is the id of the last event if the limit ended the check; None at the end of the
    range.
    """

    events_checked: int
    breaks: Sequence[Break]
    resume: EventId | None


async def verify(
    proof: Proof,
    workspace: Workspace,
    *,
    created_from: int | None = None,
    created_to: int | None = None,
    limit: int,
    after: EventId | None = None,
    expected: Head | None = None,
) -> Verification:
    """Check about `limit` events of the range [created_from, created_to), beginning after the event `after`.

    Without `created_to` the range ends at the last id, and the head must be there. The last id and the head are read
    once, at one moment, so events that are appended during the check are not checked. A page ends only at an event
    whose id is valid, so rows with an invalid id are checked beyond the limit.

    Raises `InvalidRequest` if `expected` is outside the range, and what the store raises.
    """
    end = await proof.end(workspace.id)
    id_range = _range(workspace, created_from, created_to, end)
    previous = await _link_before(proof, workspace, id_range, after)
    checker = Checker(previous, expected)
    if expected is not None:
        _check_start(checker, previous, expected, resumed=after is not None)
    resume = None
    if id_range is not None:
        guarded = await proof.is_guarded()
        resume = await _run(proof, id_range, checker, limit, after, guarded=guarded)
    if expected is not None and expected.sequence > previous.sequence and not checker.passed_expected:
        _check_unpassed(checker, expected, ended=resume is None, bounded=created_to is not None)
    if resume is None and created_to is None:
        await _check_end(proof, workspace, checker, end.head)
    return Verification(checker.checked, checker.breaks, resume)


def _range(
    workspace: Workspace, created_from: int | None, created_to: int | None, end: LedgerEnd
) -> LedgerRange | None:
    """Return the range of ids to read, None if it is empty."""
    id_range = LedgerRange(workspace.id, None if created_from is None else ledger.first_id(created_from))
    if created_to is not None:
        return id_range._replace(before=ledger.first_id(created_to))
    return None if end.newest is None else id_range._replace(last=end.newest.id)


async def _run(
    proof: Proof, id_range: LedgerRange, checker: Checker, limit: int, after: Any, *, guarded: bool
) -> EventId | None:
    """Check events up to the limit or the end of the range. Return the id after which the check continues. Where the
    database is no guard of identities, look for events that share one.
    """
    while True:
        left = limit - checker.checked
        page = await proof.page(id_range, min(_PAGE_EVENTS, left) if left > 0 else _PAGE_EVENTS, after)
        await asyncio.to_thread(checker.add, page.events)
        if checker.released:
            checker.holds(await proof.holders(id_range.workspace_id, sorted(checker.released)))
        if checker.held and not guarded:
            identities = [event.dedupe for event in checker.held if event.dedupe is not None]
            checker.shares(await proof.shared(id_range.workspace_id, identities))
        after = resume = page.resume
        if resume is None or (checker.checked >= limit and shapes.is_event_id(resume)):
            return resume


async def _link_before(proof: Proof, workspace: Workspace, id_range: LedgerRange | None, after: EventId | None) -> Head:
    """Return the link before the first event of the range."""
    before: StoredEvent | None = None
    if after is not None:
        before = await proof.event(workspace.id, after)
        if before is None:
            raise InvalidRequest(
                "The page_token names an event that does not exist.",
                reason=Reason.INVALID_PAGE_TOKEN,
                field="page_token",
            )
    elif id_range is not None and id_range.first is not None:
        before = await proof.event_before(workspace.id, id_range.first)
    if before is None:
        return ledger.genesis(workspace.name)
    return Head(
        before.sequence if type(before.sequence) is int else 0,
        before.event_hash if type(before.event_hash) is bytes else EventHash(b""),
        before.created_at if type(before.created_at) is int else 0,
    )


def _check_start(checker: Checker, previous: Head, expected: Head, *, resumed: bool) -> None:
    if expected.sequence == previous.sequence:
        checker.expect_head(expected)
    elif expected.sequence < previous.sequence and not resumed:
        raise InvalidRequest(
            f"The expected head {expected.sequence} is before the range, which begins after {previous.sequence}.",
            reason=Reason.EXPECTED_HEAD_OUT_OF_RANGE,
            field="expected_sequence",
        )


def _check_unpassed(checker: Checker, expected: Head, *, ended: bool, bounded: bool) -> None:
    """Check an expected head that the run did not reach: it may be further on, or not exist."""
    if ended and bounded and expected.sequence > checker.last.sequence:
        raise InvalidRequest(
            f"The expected head {expected.sequence} is beyond the range, which ends at {checker.last.sequence}.",
            reason=Reason.EXPECTED_HEAD_OUT_OF_RANGE,
            field="expected_sequence",
        )
    if ended or expected.sequence < checker.last.sequence:
        checker.expect_head(expected)


async def _check_end(proof: Proof, workspace: Workspace, checker: Checker, head: StoredHead | None) -> None:
    """Compare the head's row with the last event of the run, and its count with the sequences of its month."""
    month_start = None
    if head is not None and not shapes.misshapen_head(head) and head.sequence == checker.last.sequence:
        month = ledger.counted_month(head)
        before = None
        if month:
            first = ledger.first_id(timestamps.month_start(month))
            before = await proof.event_before(workspace.id, first)
        month_start = 0 if before is None else before.sequence
    checker.expect_stored_head(head, month_start if type(month_start) is int else None)
