"""Rejections are kept, found by filters page by page, marked once, and deleted past their bounds."""

import pytest

from headgate_server.core.rejections import Rejection, RejectionQuery
from headgate_server.store import Store, rejections
from tests.support.rejections import DAY, MINUTE, rejection


@pytest.fixture
async def now(store: Store) -> int:
    """Return the store's clock."""
    return await store.ledgers.now()


async def _all(store: Store, workspace_id: int, *, limit: int = 50, **query: object) -> list[Rejection]:
    found: list[Rejection] = []
    after: bytes | None = None
    while True:
        page = await store.rejections.page(
            RejectionQuery(workspace_id=workspace_id, limit=limit, after=after, **query)  # type: ignore[arg-type]
        )
        assert len(page.rejections) <= limit
        found += page.rejections
        if page.resume is None:
            return found
        after = page.resume


async def test_rejections_read_back_only_in_their_workspace(store: Store, workspace: int, now: int) -> None:
    other = (await store.directory.create_workspace("other")).id
    kept = rejection(
        workspace,
        now,
        bytes(range(256)),
        encoding="protobuf",
        size=999,
        receiver="scrip",
        endpoint="POST /v1/events",
        message="é\U0001f600",
    )
    await store.rejections.keep([kept], {})
    assert await store.rejections.get(workspace, kept.id) == kept
    assert kept.is_cut
    assert await store.rejections.get(other, kept.id) is None
    assert await store.rejections.get(workspace, bytes(16)) is None
    assert await _all(store, other) == []


async def test_a_rejection_that_is_stored_again_does_not_change(store: Store, workspace: int, now: int) -> None:
    first = rejection(workspace, now)
    await store.rejections.keep([first], {workspace: 1})
    await store.rejections.keep([first._replace(reason="OTHER"), rejection(workspace, now + 1)], {})
    assert await store.rejections.get(workspace, first.id) == first
    assert len(await _all(store, workspace)) == 2


async def test_pages_are_ordered_by_time_in_either_direction(store: Store, workspace: int, now: int) -> None:
    made = [rejection(workspace, now + number) for number in range(7)]
    await store.rejections.keep(made[::2], {})
    await store.rejections.keep(made[1::2], {})
    for limit in (1, 3, 7, 50):
        assert await _all(store, workspace, limit=limit) == made[::-1]
        assert await _all(store, workspace, limit=limit, newest_first=False) == made


async def test_filters_leave_the_others_out(store: Store, workspace: int, now: int) -> None:
    plain = rejection(workspace, now)
    conflict = rejection(workspace, now + MINUTE, reason="IDEMPOTENCY_CONFLICT")
    vendors = rejection(workspace, now + 2 * MINUTE, receiver="flokit")
    others_key = rejection(workspace, now + 3 * MINUTE, key_id="key_2")
    await store.rejections.keep([plain, conflict, vendors, others_key], {})
    assert await _all(store, workspace, reason="IDEMPOTENCY_CONFLICT") == [conflict]
    assert await _all(store, workspace, receiver="flokit") == [vendors]
    assert await _all(store, workspace, key_id="key_2") == [others_key]
    assert await _all(store, workspace, receiver="flokit", key_id="key_2") == []
    assert await _all(store, workspace, received_from=now + MINUTE, received_to=now + 3 * MINUTE) == [vendors, conflict]
    assert await _all(store, workspace, received_from=now + 9 * MINUTE) == []


async def test_the_size_of_a_page_is_bounded(store: Store, workspace: int, now: int) -> None:
    large = bytes(rejections.PAGE_BYTES // 2)
    await store.rejections.keep([rejection(workspace, now + number, large) for number in range(4)], {})
    page = await store.rejections.page(RejectionQuery(workspace_id=workspace, limit=50))
    assert len(page.rejections) == 2
    assert len(await _all(store, workspace)) == 4


async def test_the_first_replay_is_recorded(store: Store, workspace: int, now: int) -> None:
    one, two = rejection(workspace, now), rejection(workspace, now + 1)
    await store.rejections.keep([one, two], {})
    await store.rejections.mark(workspace, {one.id: b"e" * 16})
    await store.rejections.mark(workspace, {one.id: b"f" * 16, bytes(16): b"f" * 16})
    found = await store.rejections.get(workspace, one.id)
    assert found is not None
    assert found.event_id == b"e" * 16
    assert found.replayed_at is not None
    assert found.replayed_at >= now
    assert found._replace(replayed_at=None, event_id=None) == one
    assert await _all(store, workspace, replayed=False) == [two]
    assert [each.id for each in await _all(store, workspace, replayed=True)] == [one.id]


async def test_a_trim_keeps_the_newest(store: Store, workspace: int, now: int) -> None:
    other = (await store.directory.create_workspace("other")).id
    made = [rejection(workspace, now + number) for number in range(rejections.TRIM_CHUNK + 20)]
    await store.rejections.keep([*made, rejection(other, now)], {})
    assert await store.rejections.trim(workspace, len(made)) == 0
    assert await store.rejections.trim(workspace, 10) == len(made) - 10
    assert await _all(store, workspace) == made[:-11:-1]
    assert await store.rejections.trim(workspace, 10) == 0
    assert len(await _all(store, other)) == 1


async def test_old_rejections_are_purged_in_all_workspaces(store: Store, workspace: int, now: int) -> None:
    other = (await store.directory.create_workspace("other")).id
    old = [
        rejection(each, now - 7 * DAY - MINUTE + number)
        for each in (workspace, other)
        for number in range(rejections.TRIM_CHUNK)
    ]
    young = rejection(workspace, now - 7 * DAY + MINUTE)
    await store.rejections.keep([*old, young], {workspace: 3})
    assert await store.rejections.purge(7) == len(old)
    assert await _all(store, workspace) == [young]
    assert await _all(store, other) == []
    assert await store.rejections.omitted(workspace) == 3


async def test_left_out_rejections_are_counted_for_each_workspace_and_purged(store: Store, workspace: int) -> None:
    other = (await store.directory.create_workspace("other")).id
    await store.rejections.keep([], {workspace: 2, other: 5})
    await store.rejections.keep([], {workspace: 40})
    assert [await store.rejections.omitted(each) for each in (workspace, other, 99)] == [42, 5, 0]
    await store.rejections.purge(0)
    assert await store.rejections.omitted(workspace) == 42
    await store.rejections.purge(-1)
    assert await store.rejections.omitted(workspace) == 0
