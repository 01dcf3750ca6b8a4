"""What `Store.append` promises about one caller at a time: order, links, durability, deduplication."""

import pytest

from headgate_server.core import ledger
from headgate_server.core.model import Draft, Mismatch, Status
from headgate_server.store import DataRefused, Store
from headgate_server.store.opening import open_store
from tests.support.drafts import BAD, append, draft, submission


async def test_accepted_events_are_linked_in_order(store: Store, workspace: int) -> None:
    outcomes = await append(store, workspace, *(draft(data={"n": n}) for n in range(5)))
    links = [outcome.link for outcome in outcomes if outcome.link]
    assert [outcome.status for outcome in outcomes] == [Status.ACCEPTED] * 5
    assert [link.sequence for link in links] == [1, 2, 3, 4, 5]
    assert [link.created_at - links[0].created_at for link in links] == [0, 1, 2, 3, 4]
    assert [link.id for link in links] == sorted(link.id for link in links)
    assert await store.ledgers.head(workspace) == (5, links[-1].event_hash, links[-1].created_at)


async def test_a_stored_event_holds_what_was_sent(store: Store, workspace: int) -> None:
    sent = draft("k", {"a": [1, None, "ü"]}, subject="s", occurred_at=-5, receiver="vendor")
    (outcome,) = await append(store, workspace, sent)
    assert outcome.link is not None
    (stored,) = await store.ledgers.fetch(workspace, [outcome.link.id])
    for name in (
        "receiver",
        "type",
        "source",
        "subject",
        "occurred_at",
        "data",
        "scope",
        "key",
        "dedupe",
        "salt",
        "commitment",
    ):
        assert getattr(stored, name) == getattr(sent, name), name
    assert (stored.id, stored.sequence, stored.created_at, stored.event_hash) == outcome.link[:4]


async def test_what_was_not_sent_stays_absent(store: Store, workspace: int) -> None:
    (outcome,) = await append(store, workspace, draft())
    assert outcome.link is not None
    (stored,) = await store.ledgers.fetch(workspace, [outcome.link.id])
    assert (stored.data, stored.occurred_at, stored.scope, stored.key, stored.dedupe) == (None,) * 5


async def test_another_store_object_sees_what_was_acknowledged(store: Store, store_url: str, workspace: int) -> None:
    (outcome,) = await append(store, workspace, draft("k", {"a": 1}))
    other = await open_store(store_url)
    try:
        assert outcome.link is not None
        assert len(await other.ledgers.fetch(workspace, [outcome.link.id])) == 1
        (again,) = await append(other, workspace, draft("k", {"a": 1}))
        assert (again.status, again.link) == (Status.DUPLICATE, outcome.link)
    finally:
        await other.close()


async def test_created_at_never_repeats_or_runs_back(store: Store, workspace: int) -> None:
    times = []
    for _ in range(20):
        outcomes = await append(store, workspace, draft(), draft(), draft())
        times += [outcome.link.created_at for outcome in outcomes if outcome.link]
    assert times == sorted(set(times))


@pytest.mark.parametrize(
    ("mismatch", "status"),
    [(Mismatch.CONFLICT, Status.CONFLICT), (Mismatch.DUPLICATE, Status.DUPLICATE), (Mismatch.REPLACE, Status.REPLACED)],
)
async def test_other_content_under_a_taken_key(
    store: Store, workspace: int, mismatch: Mismatch, status: Status
) -> None:
    (first,) = await append(store, workspace, draft("k", {"a": 1}))
    (second,) = await append(store, workspace, draft("k", {"a": 2}, on_mismatch=mismatch))
    assert second.status == status
    assert first.link is not None
    assert second.link is not None
    identity = ledger.identity("native", "test", "k")[:16]
    held = await store.ledgers.lookup(workspace, [identity])
    if status == Status.REPLACED:
        assert second.link.sequence == 2
        assert held == {identity: second.link}
        (old,) = await store.ledgers.fetch(workspace, [first.link.id])
        assert (old.dedupe, old.key) == (None, "k")
    else:
        assert second.link == first.link
        assert held == {identity: first.link}
        assert (await store.ledgers.head(workspace)).sequence == 1


async def test_a_chain_of_replacements_in_one_group(store: Store, workspace: int) -> None:
    def version(n: int) -> Draft:
        return draft("k", {"n": n}, on_mismatch=Mismatch.REPLACE)

    await append(store, workspace, version(0))
    outcomes = await append(store, workspace, version(1), version(2), version(2), version(3))
    assert [outcome.status for outcome in outcomes] == ["replaced", "replaced", "duplicate", "replaced"]
    held = await store.ledgers.lookup(workspace, [ledger.identity("native", "test", "k")[:16]])
    assert [link.sequence for link in held.values()] == [4]


async def test_the_first_of_a_key_wins_within_a_submission_and_a_group(store: Store, workspace: int) -> None:
    one = submission(workspace, draft("k", {"a": 1}), draft("k", {"a": 1.0}), draft("k", {"a": 2}))
    two = submission(workspace, draft("k", {"a": 1}), draft("other"))
    decisions = await store.database.append([one, two])
    statuses = [[outcome.status for outcome in decision.outcomes] for decision in decisions]  # type: ignore[union-attr]
    assert statuses == [["accepted", "duplicate", "conflict"], ["duplicate", "accepted"]]
    assert (await store.ledgers.head(workspace)).sequence == 2


async def test_events_without_a_key_are_never_duplicates(store: Store, workspace: int) -> None:
    outcomes = await append(store, workspace, draft(data={}), draft(data={}))
    assert [outcome.status for outcome in outcomes] == ["accepted", "accepted"]


async def test_keys_of_other_sources_and_receivers_do_not_collide(store: Store, workspace: int) -> None:
    outcomes = await append(
        store, workspace, draft("k", 1), draft("k", 2, source="other"), draft("k", 3, receiver="vendor")
    )
    assert [outcome.status for outcome in outcomes] == ["accepted"] * 3


async def test_a_problem_keeps_its_position_and_touches_nothing_else(store: Store, workspace: int) -> None:
    outcomes = await append(store, workspace, draft(), BAD, draft())
    assert [outcome.status for outcome in outcomes] == ["accepted", "rejected", "accepted"]
    assert (await store.ledgers.head(workspace)).sequence == 2


async def test_an_atomic_submission_is_stored_whole_or_not_at_all(store: Store, workspace: int) -> None:
    await append(store, workspace, draft("taken", 1))
    failing = await append(store, workspace, draft("a"), draft("taken", 2), BAD, atomic=True)
    assert [outcome.status for outcome in failing] == ["aborted", "conflict", "rejected"]
    assert (await store.ledgers.head(workspace)).sequence == 1
    # The key of an aborted event stays free.
    passing = await append(store, workspace, draft("a", {"now": "other"}), draft("taken", 1), atomic=True)
    assert [outcome.status for outcome in passing] == ["accepted", "duplicate"]


async def test_an_atomic_submission_aborts_alone_in_its_group(store: Store, workspace: int) -> None:
    decisions = await store.database.append(
        [
            submission(workspace, draft("a", 1), BAD, atomic=True),
            submission(workspace, draft("a", 2)),
            submission(workspace, draft("b"), atomic=True),
        ]
    )
    statuses = [[outcome.status for outcome in decision.outcomes] for decision in decisions]  # type: ignore[union-attr]
    assert statuses == [["aborted", "rejected"], ["accepted"], ["accepted"]]


async def test_several_workspaces_in_one_group_have_ledgers_of_their_own(store: Store, workspace: int) -> None:
    other = (await store.directory.create_workspace("other")).id
    decisions = await store.database.append(
        [
            submission(other, draft("k", 1)),
            submission(workspace, draft("k", 2), draft()),
            submission(other, draft("k", 1), draft()),
        ]
    )
    seen = [
        [(outcome.status, outcome.link.sequence) for outcome in decision.outcomes]  # type: ignore[union-attr]
        for decision in decisions
    ]
    assert seen == [[("accepted", 1)], [("accepted", 1), ("accepted", 2)], [("duplicate", 1), ("accepted", 2)]]
    assert (await store.ledgers.head(workspace)).hash != (await store.ledgers.head(other)).hash


async def test_the_genesis_of_a_ledger_is_its_workspaces_own(store: Store, workspace: int) -> None:
    assert await store.ledgers.head(workspace) == ledger.genesis("acme")


async def test_poison_is_stored_or_refused_whole_and_spoils_nothing_after_it(store: Store, workspace: int) -> None:
    poison = [{"text": "\0"}, {"k" * 1_000_000: 1}, {"text": "x" * 1_000_000}, {"emoji": "\U0001f4a5"}]
    outcomes = await append(store, workspace, *(draft(data=data) for data in poison))
    for outcome in outcomes:
        assert outcome.status == Status.ACCEPTED
        assert outcome.link is not None
        assert len(await store.ledgers.fetch(workspace, [outcome.link.id])) == 1


@pytest.mark.parametrize("value", [{"subject": "\ud800"}, {"occurred_at": 2**63}])
async def test_a_value_that_the_database_refuses_leaves_nothing(
    store: Store, workspace: int, value: dict[str, object]
) -> None:
    # No validated draft is like this: it represents a value that validation overlooks.
    with pytest.raises(DataRefused):
        await append(store, workspace, draft("k"), draft()._replace(**value), draft())  # type: ignore[arg-type]
    assert (await store.ledgers.head(workspace)).sequence == 0
    assert [outcome.status for outcome in await append(store, workspace, draft("k"))] == ["accepted"]


async def test_an_unknown_workspace_is_refused(store: Store) -> None:
    with pytest.raises(DataRefused):
        await append(store, 4711, draft())


async def test_nothing_to_append(store: Store, workspace: int) -> None:
    assert await store.database.append([]) == []
    assert await append(store, workspace) == []
