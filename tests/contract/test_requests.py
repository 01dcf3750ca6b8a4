"""Request keys: one answer per key, stored with the events, for its lifetime."""

from typing import Any

import pytest

from headgate_server.core.model import KeyReused, Replayed, Settled
from headgate_server.store import Store, answers
from headgate_server.store.answers import ANSWER_LIFETIME
from headgate_server.store.group import answer_key
from tests.support import database
from tests.support.drafts import BAD, append, draft, request, submission


async def test_a_repeated_request_is_answered_as_before(store: Store, workspace: int) -> None:
    (first,) = await store.database.append([request(workspace, "r", draft("a"), BAD, body=b"1")])
    assert isinstance(first, Settled)
    (second,) = await store.database.append([request(workspace, "r", draft("a"), BAD, body=b"1")])
    assert second == Replayed(b"accepted,rejected")
    assert (await store.ledgers.head(workspace)).sequence == 1


async def test_a_key_is_not_for_another_request(store: Store, workspace: int) -> None:
    await store.database.append([request(workspace, "r", draft(), body=b"1")])
    assert await store.database.append([request(workspace, "r", draft(), body=b"2")]) == [KeyReused()]
    assert (await store.ledgers.head(workspace)).sequence == 1


async def test_within_one_group_the_first_wins(store: Store, workspace: int) -> None:
    group = [
        request(workspace, "r", draft(), body=b"1"),
        request(workspace, "r", draft(), body=b"1"),
        request(workspace, "r", draft(), body=b"2"),
        submission(workspace, draft()),
    ]
    decisions = await store.database.append(group)
    assert [type(decision) for decision in decisions] == [Settled, Replayed, KeyReused, Settled]
    assert (await store.ledgers.head(workspace)).sequence == 2


async def test_scopes_and_workspaces_do_not_share_keys(store: Store, workspace: int) -> None:
    other = (await store.directory.create_workspace("other")).id
    group = [
        request(workspace, "r", draft()),
        request(workspace, "r", draft(), scope="single"),
        request(other, "r", draft()),
    ]
    assert [type(decision) for decision in await store.database.append(group)] == [Settled] * 3
    assert [type(decision) for decision in await store.database.append(group)] == [Replayed] * 3


async def test_a_wholly_rejected_request_is_stored_too(store: Store, workspace: int) -> None:
    await store.database.append([request(workspace, "r", BAD)])
    assert await store.database.append([request(workspace, "r", BAD)]) == [Replayed(b"rejected")]


async def test_an_answer_ends_with_its_lifetime(store: Store, store_url: str, workspace: int) -> None:
    await store.database.append(
        [request(workspace, "old", draft(), body=b"1"), request(workspace, "new", draft(), body=b"1")]
    )
    old = database.literal(store_url, answer_key("old"))
    await database.execute(
        store_url, f"UPDATE answers SET created_at = created_at - {ANSWER_LIFETIME} WHERE key = {old}"
    )
    # An expired answer counts as absent, purged or not, and the new answer replaces it.
    (again,) = await store.database.append([request(workspace, "old", draft(), draft(), body=b"2")])
    assert isinstance(again, Settled)
    assert await store.database.append([request(workspace, "old", draft(), body=b"2")]) == [
        Replayed(b"accepted,accepted")
    ]
    await database.execute(
        store_url, f"UPDATE answers SET created_at = created_at - {ANSWER_LIFETIME} WHERE key = {old}"
    )
    assert await store.answers.purge() == 1
    assert await store.answers.purge() == 0
    assert await store.database.append([request(workspace, "new", draft(), body=b"1")]) == [Replayed(b"accepted")]


async def test_all_answers_whose_time_is_over_are_purged_in_chunks(
    store: Store, store_url: str, workspace: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answers, "PURGE_CHUNK", 3)
    await store.database.append([request(workspace, f"old {n}", draft()) for n in range(7)])
    await database.execute(store_url, f"UPDATE answers SET created_at = created_at - {ANSWER_LIFETIME}")
    await store.database.append([request(workspace, "new", draft())])
    assert await store.answers.purge() == 7
    assert await store.database.append([request(workspace, "new", draft())]) == [Replayed(b"accepted")]


async def test_a_purge_goes_through_the_table_once_in_parts(
    store: Store, store_url: str, workspace: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Expired answers lie between others, of several scopes and workspaces."""
    monkeypatch.setattr(answers, "SCAN_CHUNK", 4)
    monkeypatch.setattr(answers, "PURGE_CHUNK", 3)
    other = (await store.directory.create_workspace("other")).id
    for space in (workspace, other):
        for scope in ("batch", "single"):
            await store.database.append([request(space, f"{n}", draft(), scope=scope) for n in range(6)])
    old = [database.literal(store_url, answer_key(f"{n}")) for n in (1, 2, 4)]
    await database.execute(
        store_url, f"UPDATE answers SET created_at = created_at - {ANSWER_LIFETIME} WHERE key IN ({', '.join(old)})"
    )
    looks, writes = await _counted(store, monkeypatch)
    assert await store.answers.purge() == 12
    assert len(looks) == 24 // 4 + 1
    assert len(writes) <= 6
    assert await database.execute(store_url, "SELECT count(*) FROM answers") == [(12,)]


async def _counted(store: Store, monkeypatch: pytest.MonkeyPatch) -> tuple[list[object], list[object]]:
    """Return lists to which each read and each write of the store's database is added from now on."""
    looks: list[object] = []
    writes: list[object] = []
    for name, calls in (("read", looks), ("write", writes)):
        usual = getattr(store.database, name)

        async def counting(work: Any, usual: Any = usual, calls: list[object] = calls, **options: Any) -> Any:
            calls.append(work)
            return await usual(work, **options)

        monkeypatch.setattr(store.database, name, counting)
    return looks, writes


async def test_an_answer_that_is_stored_anew_during_a_purge_stays(
    store: Store, store_url: str, workspace: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.database.append([request(workspace, "r", draft(), body=b"1")])
    await database.execute(store_url, f"UPDATE answers SET created_at = created_at - {ANSWER_LIFETIME}")
    usual = store.database.write

    async def after_a_retry(work: Any, **options: Any) -> Any:
        await store.database.append([request(workspace, "r", draft(), body=b"2")])
        return await usual(work, **options)

    monkeypatch.setattr(store.database, "write", after_a_retry)
    assert await store.answers.purge() == 0
    assert await store.database.append([request(workspace, "r", draft(), body=b"2")]) == [Replayed(b"accepted")]


async def test_answers_do_not_stand_in_the_way_of_events(store: Store, workspace: int) -> None:
    await store.database.append([request(workspace, "r", draft("a", 1))])
    (outcome,) = await append(store, workspace, draft("a", 1))
    assert outcome.status == "duplicate"
