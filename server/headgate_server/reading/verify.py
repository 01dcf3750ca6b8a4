"""The use case of checking a ledger: reads a range page by page and recomputes it, off the event loop."""

import asyncio
from collections.abc import Sequence
from typing import NamedTuple

from headgate_server.core import ledger
from headgate_server.core.errors import InvalidRequest
from headgate_server.core.ledger import Break, Checker
from headgate_server.core.model import EventQuery, Head, StoredEvent, Workspace
from headgate_server.store import Store

_PAGE_EVENTS = 1_000
"""Events that are read and recomputed at once: some milliseconds of a thread."""


class Verification(NamedTuple):
    """What a check found, and the id of the event it came to where the limit ended it; None at the end of the range."""

    events_checked: int
    breaks: Sequence[Break]
    resume: bytes | None


async def verify(
    store: Store,
    workspace: Workspace,
    *,
    created_from: int | None = None,
    created_to: int | None = None,
    limit: int,
    after: bytes | None = None,
    expected: Head | None = None,
) -> Verification:
    """Check at most `limit` events of the range [created_from, created_to), going on after the event `after`.

    Without `created_to` the range ends at the head as it is now, and the head is checked too. Raises
    `InvalidRequest` if `expected` lies outside of the range, and what the store raises.
    """
    # The newest event first and the head after it: a head that was read later holds at least that event.
    newest = await _newest(store, workspace)
    head = await store.head(workspace.id)
    until = head.created_at + 1 if created_to is None else created_to
    previous = await _link_before(store, workspace, created_from, after)
    checker = Checker(previous, expected)
    if expected is not None:
        _check_start(checker, previous, expected, resumed=after is not None)
    while checker.checked < limit:
        page = await store.events(
            EventQuery(
                workspace_id=workspace.id,
                limit=min(_PAGE_EVENTS, limit - checker.checked),
                created_from=created_from,
                created_to=until,
                after=after,
            )
        )
        await asyncio.to_thread(checker.add, page.events)
        after = page.resume
        if after is None:
            break
    if after is None:
        _check_end(checker, head, newest, expected, bounded=created_to is not None)
    return Verification(checker.checked, checker.breaks, after)


async def _newest(store: Store, workspace: Workspace) -> Head | None:
    """Return the link of the event with the highest id, be the head behind it or not."""
    events = (await store.events(EventQuery(workspace_id=workspace.id, limit=1, newest_first=True))).events
    return Head(events[0].sequence, events[0].event_hash, events[0].created_at) if events else None


async def _link_before(store: Store, workspace: Workspace, created_from: int | None, after: bytes | None) -> Head:
    """Return the link that the first event of the range hangs on."""
    events: Sequence[StoredEvent] = ()
    if after is not None:
        events = await store.fetch(workspace.id, [after])
        if not events:
            raise InvalidRequest(
                "The page_token names an event that is not there.", reason="INVALID_PAGE_TOKEN", field="page_token"
            )
    elif created_from is not None:
        query = EventQuery(workspace_id=workspace.id, limit=1, created_to=created_from, newest_first=True)
        events = (await store.events(query)).events
    return (
        Head(events[0].sequence, events[0].event_hash, events[0].created_at)
        if events
        else ledger.genesis(workspace.name)
    )


def _check_end(checker: Checker, head: Head, newest: Head | None, expected: Head | None, *, bounded: bool) -> None:
    """Check what the run ended at: the head, with nothing beyond it, and the expected head if it was not passed."""
    if expected is not None and expected.sequence > checker.last.sequence:
        if bounded:
            raise InvalidRequest(
                f"The expected head {expected.sequence} lies beyond the range, which ends at {checker.last.sequence}.",
                reason="EXPECTED_HEAD_OUT_OF_RANGE",
                field="expected_sequence",
            )
        checker.expect_head(expected)
    if not bounded:
        checker.expect_head(head)
        if newest is not None and newest.sequence > head.sequence:
            checker.break_at_head(newest, head)


def _check_start(checker: Checker, previous: Head, expected: Head, *, resumed: bool) -> None:
    if expected.sequence == previous.sequence:
        checker.expect_head(expected)
    elif expected.sequence < previous.sequence and not resumed:
        raise InvalidRequest(
            f"The expected head {expected.sequence} lies before the range, which begins after {previous.sequence}.",
            reason="EXPECTED_HEAD_OUT_OF_RANGE",
            field="expected_sequence",
        )
