"""PostgreSQL: few events are inserted by the statement that moves the heads, many are copied. Both store the same."""

from collections.abc import Callable, Sequence

import pytest

from headgate_server.core import ledger
from headgate_server.core.errors import Unavailable
from headgate_server.core.ledger import Checker
from headgate_server.core.model import Draft, EventQuery, Mismatch, Replayed, Settled, StoredEvent
from headgate_server.store import Store
from headgate_server.store.postgres import append as postgres_append
from headgate_server.store.postgres.append import FEW_BYTES, FEW_EVENTS
from tests.support.drafts import append, draft, request, submission

pytestmark = pytest.mark.parametrize("store_url", ["postgres", "oldest_postgres"], indirect=True)

MANY = FEW_EVENTS + 1


@pytest.fixture
def copied(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return how many events each COPY of the test has stored."""
    counts, copy = list[int](), postgres_append.copy_events

    async def count(connection: object, rows: Sequence[StoredEvent]) -> None:
        counts.append(len(rows))
        await copy(connection, rows)

    monkeypatch.setattr(postgres_append, "copy_events", count)
    return counts


_SHAPES: Sequence[Callable[[int], Draft]] = (
    lambda n: draft(),
    lambda n: draft(f"k{n}", {"n": n, "text": "\u00e4\U0001f600"}, subject="s", occurred_at=1_700_000_000_000_000 + n),
    lambda n: draft(f"k{n}", attributes=b'{"extension":"x"}', source="other"),
)


@pytest.mark.parametrize("count", [1, 3, FEW_EVENTS, MANY, 3 * MANY])
async def test_every_column_is_stored(store: Store, workspace: int, copied: list[int], count: int) -> None:
    other = (await store.directory.create_workspace("other")).id
    drafts = [_SHAPES[n % len(_SHAPES)](n) for n in range(count)]
    half = count // 2
    decisions = await store.database.append([submission(workspace, *drafts[half:]), submission(other, *drafts[:half])])
    assert copied == ([count] if count > FEW_EVENTS else [])
    for space, name, sent, decision in zip(
        (workspace, other), ("acme", "other"), (drafts[half:], drafts[:half]), decisions, strict=True
    ):
        assert isinstance(decision, Settled)
        stored = (await store.ledgers.events(EventQuery(workspace_id=space, limit=1_000))).events
        assert [event.id for event in stored] == [one.link.id for one in decision.outcomes if one.link is not None]
        for event, one in zip(stored, sent, strict=True):
            for field in ("receiver", "type", "source", "subject", "occurred_at", "scope", "key", "dedupe"):
                assert getattr(event, field) == getattr(one, field), field
            assert (event.salt, event.commitment, event.attributes) == (one.salt, one.commitment, one.attributes)
        checker = Checker(ledger.genesis(name))
        checker.add(stored)
        checker.expect_head(await store.ledgers.head(space))
        assert (checker.breaks, checker.checked) == ([], len(sent))
    again = await append(store, workspace, *drafts[half:])
    assert [one.status for one in again] == ["accepted" if one.dedupe is None else "duplicate" for one in drafts[half:]]


async def test_few_large_events_are_copied(store: Store, workspace: int, copied: list[int]) -> None:
    outcomes = await append(store, workspace, *(draft(f"k{n}", {"text": "x" * (FEW_BYTES // 2)}) for n in range(2)))
    assert [one.status for one in outcomes] == ["accepted", "accepted"]
    assert copied == [2]
    await append(store, workspace, draft("small"))
    assert copied == [2]


@pytest.mark.parametrize("count", [2, MANY])
async def test_an_answer_and_a_replaced_event_are_stored_with_them(
    store: Store, workspace: int, copied: list[int], count: int
) -> None:
    await append(store, workspace, draft("k0", {"version": 1}))
    sent = request(
        workspace, "r", *(draft(f"k{n}", {"version": 2}, on_mismatch=Mismatch.REPLACE) for n in range(count))
    )
    (decision,) = await store.database.append([sent])
    assert isinstance(decision, Settled)
    assert [one.status for one in decision.outcomes] == ["replaced"] + ["accepted"] * (count - 1)
    (again,) = await store.database.append([sent])
    assert isinstance(again, Replayed)
    assert copied == ([count] if count == MANY else [])
    assert (await store.ledgers.head(workspace)).sequence == count + 1


@pytest.mark.parametrize("count", [2, MANY])
async def test_the_database_refuses_an_identity_that_the_look_up_did_not_find(
    store: Store, workspace: int, copied: list[int], monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    """The constraint is the last guard. Nothing of the group is stored, not even the answer."""
    drafts = [draft(f"k{n}") for n in range(count)]
    await append(store, workspace, drafts[-1])
    with monkeypatch.context() as blind:
        blind.setattr(postgres_append, "_PROBE", postgres_append._PROBE.replace("OFFSET 0", "AND FALSE OFFSET 0"))
        with pytest.raises(Unavailable):
            await store.database.append([request(workspace, "r", *drafts)])
    assert bool(copied) == (count == MANY)
    assert (await store.ledgers.head(workspace)).sequence == 1
    (decision,) = await store.database.append([request(workspace, "r", *drafts)])
    assert isinstance(decision, Settled)
    assert [one.status for one in decision.outcomes] == ["accepted"] * (count - 1) + ["duplicate"]
