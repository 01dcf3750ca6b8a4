"""What is changed behind the store's back is found by recomputing the ledger."""

import pytest

from headgate_server.core import ledger
from headgate_server.core.ledger import Checker
from headgate_server.core.model import EventQuery
from headgate_server.store import Store
from tests.support import database
from tests.support.drafts import append, draft


async def _check(store: Store, workspace: int) -> list[tuple[int, str]]:
    checker = Checker(ledger.genesis("acme"))
    checker.add((await store.events(EventQuery(workspace_id=workspace, limit=100))).events)
    checker.expect_head(await store.head(workspace))
    return [(found.sequence, found.type) for found in checker.breaks]


@pytest.fixture
async def filled(store: Store, workspace: int) -> int:
    """Return a workspace with five events."""
    await append(store, workspace, *(draft(f"k{n}", {"n": n}, occurred_at=n) for n in range(1, 6)))
    assert await _check(store, workspace) == []
    return workspace


@pytest.mark.parametrize(
    ("change", "breaks"),
    [
        ("type = 'other'", [(3, "content_mismatch")]),
        ("source = 'other'", [(3, "content_mismatch")]),
        ("subject = 'other'", [(3, "content_mismatch")]),
        ("occurred_at = 4", [(3, "content_mismatch")]),
        ("data = NULL", [(3, "content_mismatch")]),
        ("receiver = 'vendor'", [(3, "hash_mismatch")]),
        ("key = 'other'", [(3, "hash_mismatch")]),
        ("scope = 'other'", [(3, "hash_mismatch")]),
        ("created_at = created_at + 1", [(3, "hash_mismatch")]),
    ],
)
async def test_changed_content_and_metadata(
    store: Store, store_url: str, filled: int, change: str, breaks: list[tuple[int, str]]
) -> None:
    await database.execute(store_url, f"UPDATE events SET {change} WHERE sequence = 3")
    assert await _check(store, filled) == breaks


async def test_a_removed_event(store: Store, store_url: str, filled: int) -> None:
    await database.execute(store_url, "DELETE FROM events WHERE sequence = 3")
    assert await _check(store, filled) == [(4, "chain_break"), (4, "hash_mismatch")]


async def test_a_truncated_ledger(store: Store, store_url: str, filled: int) -> None:
    await database.execute(store_url, "DELETE FROM events WHERE sequence > 3")
    assert await _check(store, filled) == [(5, "head_mismatch")]


async def test_reordered_events(store: Store, store_url: str, filled: int) -> None:
    events = (await store.events(EventQuery(workspace_id=filled, limit=100))).events
    second, fourth = (database.id_literal(store_url, events[index].id) for index in (1, 3))
    spare = database.id_literal(store_url, bytes(16))
    for old, new in ((second, spare), (fourth, second), (spare, fourth)):
        await database.execute(store_url, f"UPDATE events SET id = {new} WHERE id = {old}")
    found = await _check(store, filled)
    assert {sequence for sequence, kind in found if kind == "chain_break"} >= {4, 2}
    assert {sequence for sequence, kind in found if kind == "hash_mismatch"} >= {4, 2}
