"""Event types of workspaces, and the setting for unknown ones, on both stores."""

import asyncio

import pytest

from headgate_server.core.errors import InvalidRequest, NotFound
from headgate_server.core.event_types import EventType, Mode, TypeIndex, Unknown
from headgate_server.store import EventTypes, Store
from headgate_server.store.opening import open_store
from tests.support.database import execute

STRICT, PERMISSIVE = Mode.STRICT, Mode.PERMISSIVE


async def _names(store: Store, workspace: int, limit: int, after: str = "") -> tuple[list[str], bool]:
    page, more = await store.event_types.list(workspace, limit, after)
    return [each.type for each in page], more


async def test_an_event_type_is_put_replaced_and_deleted(store: Store, workspace: int) -> None:
    types = store.event_types
    assert await types.index(workspace) == TypeIndex(0, Unknown.ACCEPT, {})
    assert await types.get(workspace, "order") is None

    first = await types.put(workspace, "order", b'{"a":1}', STRICT)
    assert first == EventType("order", b'{"a":1}', STRICT, 1, first.created_at, first.created_at)
    assert await types.get(workspace, "order") == first
    assert await types.put(workspace, "order", b'{"a":1}', STRICT) == first  # nothing changes, also not the revision

    second = await types.put(workspace, "order", b'{"a":1}', PERMISSIVE)
    assert (second.mode, second.revision, second.created_at) == (PERMISSIVE, 2, first.created_at)
    assert second.updated_at >= first.updated_at
    assert await types.get(workspace, "order") == second
    assert await types.index(workspace) == TypeIndex(2, Unknown.ACCEPT, {"order": 2})

    assert await types.delete(workspace, "order") == 3
    assert await types.get(workspace, "order") is None
    assert await types.index(workspace) == TypeIndex(3, Unknown.ACCEPT, {})
    with pytest.raises(NotFound):
        await types.delete(workspace, "order")
    # A new one of the same name has a revision of its own.
    assert (await types.put(workspace, "order", b'{"a":1}', STRICT)).revision == 4


async def test_the_setting_and_the_revision_come_with_the_workspace(store: Store, workspace: int) -> None:
    assert await store.event_types.set_unknown(workspace, Unknown.ACCEPT) == 0
    assert await store.event_types.set_unknown(workspace, Unknown.REJECT) == 1
    assert await store.event_types.index(workspace) == TypeIndex(1, Unknown.REJECT, {})
    found = await store.directory.workspace("acme")
    assert found is not None
    assert (found.types_revision, found.unknown_types) == (1, "reject")
    other = await store.directory.create_workspace("other")
    assert (other.types_revision, other.unknown_types) == (0, "accept")


async def test_workspaces_share_nothing(store: Store, workspace: int) -> None:
    other = (await store.directory.create_workspace("other")).id
    await store.event_types.put(workspace, "order", b"true", STRICT)
    await store.event_types.set_unknown(workspace, Unknown.WARN)
    assert await store.event_types.index(other) == TypeIndex(0, Unknown.ACCEPT, {})
    assert await store.event_types.get(other, "order") is None
    assert await _names(store, other, 10) == ([], False)
    with pytest.raises(NotFound):
        await store.event_types.delete(other, "order")
    assert (await store.event_types.index(workspace)).revisions == {"order": 1}


async def test_a_workspace_that_does_not_exist(store: Store) -> None:
    with pytest.raises(NotFound):
        await store.event_types.put(999, "order", b"true", STRICT)
    with pytest.raises(NotFound):
        await store.event_types.set_unknown(999, Unknown.WARN)
    with pytest.raises(NotFound):
        await store.event_types.index(999)


async def test_a_list_is_in_the_order_of_code_points(store: Store, workspace: int) -> None:
    names = ["b", "a/b", "Z", "é", "a", "a b", "😀", "B.1", "a%", "_"]
    for name in names:
        await store.event_types.put(workspace, name, b"true", STRICT)
    listed: list[str] = []
    more = True
    while more:
        page, more = await _names(store, workspace, 3, listed[-1] if listed else "")
        listed += page
    assert listed == sorted(names)


async def test_several_at_once(store: Store, workspace: int) -> None:
    made = [await store.event_types.put(workspace, name, b"true", STRICT) for name in ("a", "b", "c")]
    other = (await store.directory.create_workspace("other")).id
    await store.event_types.put(other, "d", b"true", STRICT)
    assert sorted(await store.event_types.several(workspace, ["a", "c", "d", "e"])) == [made[0], made[2]]
    assert not await store.event_types.several(workspace, [])


async def test_a_page_has_a_bound_in_bytes(store: Store, workspace: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headgate_server.store.event_types.PAGE_BYTES", 100)
    for name in ("a", "b", "c"):
        await store.event_types.put(workspace, name, b'"%s"' % (b"x" * 60), STRICT)
    assert await _names(store, workspace, 10) == (["a"], True)
    assert await _names(store, workspace, 10, "b") == (["c"], False)


async def test_a_workspace_has_a_bounded_number(store: Store, workspace: int) -> None:
    types = EventTypes(store.database, most=2)
    await types.put(workspace, "a", b"true", STRICT)
    await types.put(workspace, "b", b"true", STRICT)
    with pytest.raises(InvalidRequest) as caught:
        await types.put(workspace, "c", b"true", STRICT)
    assert (caught.value.reason, caught.value.field) == ("TOO_MANY", "event_type")
    await types.put(workspace, "b", b"false", STRICT)  # a replacement is no further one
    assert (await types.index(workspace)).revisions == {"a": 1, "b": 3}


async def test_concurrent_changes_come_one_after_the_other(store: Store, store_url: str, workspace: int) -> None:
    """Two processes put the same and other event types: no revision is used twice, and the bound holds."""
    other = await open_store(store_url)
    try:
        topics = [EventTypes(each.database, most=12) for each in (store, other)]
        puts = [
            topics[number % 2].put(workspace, f"type {number % 15}", b'"%d"' % number, STRICT) for number in range(60)
        ]
        done = await asyncio.gather(*puts, return_exceptions=True)
    finally:
        await other.close()
    made = [each for each in done if isinstance(each, EventType)]
    assert all(isinstance(each, InvalidRequest) for each in done if not isinstance(each, EventType))
    assert sorted(each.revision for each in made) == list(range(1, len(made) + 1))
    index = await store.event_types.index(workspace)
    assert (index.revision, len(index.revisions)) == (len(made), 12)
    newest = {each.type: each.revision for each in sorted(made, key=lambda each: each.revision)}
    assert index.revisions == newest


async def test_a_store_of_the_version_before_has_no_event_types(store: Store, store_url: str, workspace: int) -> None:
    """The columns have defaults, which a row that another version wrote gets."""
    await execute(store_url, "INSERT INTO workspaces (name, created_at) VALUES ('old', 1)")
    old = await store.directory.workspace("old")
    assert old is not None
    assert await store.event_types.index(old.id) == TypeIndex(0, Unknown.ACCEPT, {})
