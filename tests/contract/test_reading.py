"""Pages, filters and look-ups."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from sqlalchemy import Connection, func, select

from headgate_server.core import ledger
from headgate_server.core.model import EventQuery, StoredEvent
from headgate_server.store import Store, ledgers
from headgate_server.store.schema import workspaces
from tests.support import database
from tests.support.drafts import append, draft


async def _all(store: Store, query: EventQuery) -> tuple[list[StoredEvent], int]:
    """Follow the pages to the end; return the events and the number of pages."""
    found: list[StoredEvent] = []
    after, pages = query.after, 0
    while True:
        page = await store.ledgers.events(_with(query, after))
        found += page.events
        pages += 1
        assert len(page.events) <= query.limit
        if page.resume is None:
            return found, pages
        after = page.resume


def _with(query: EventQuery, after: bytes | None) -> EventQuery:
    return replace(query, after=after)


@pytest.mark.parametrize("newest_first", [False, True])
@pytest.mark.parametrize(("limit", "pages"), [(1, 7), (3, 3), (7, 1), (100, 1)])
async def test_pages_of_every_size_in_both_directions(
    store: Store, workspace: int, newest_first: bool, limit: int, pages: int
) -> None:
    await append(store, workspace, *(draft() for _ in range(7)))
    found, count = await _all(store, EventQuery(workspace_id=workspace, limit=limit, newest_first=newest_first))
    assert [event.sequence for event in found] == sorted(range(1, 8), reverse=newest_first)
    assert count == pages


@pytest.mark.parametrize(
    ("filters", "sequences"),
    [
        ({"type": "document.created"}, [1, 4]),
        ({"type_prefix": "document."}, [1, 2, 4]),
        ({"type_prefix": "DOCUMENT."}, []),
        ({"type_prefix": "%"}, []),
        ({"type_prefix": "d_cument"}, []),
        ({"source": "b"}, [4]),
        ({"subject": "s"}, [2]),
        ({"receiver": "vendor"}, [3]),
        ({"type_prefix": "document.", "source": "a"}, [1, 2]),
    ],
)
@pytest.mark.parametrize("limit", [1, 10])
async def test_filters(store: Store, workspace: int, filters: dict[str, str], sequences: list[int], limit: int) -> None:
    await append(
        store,
        workspace,
        draft(source="a"),
        draft(type="document.signed", source="a", subject="s"),
        draft(type="documents", source="a", receiver="vendor"),
        draft(source="b"),
    )
    found, _ = await _all(store, EventQuery(workspace_id=workspace, limit=limit, **filters))  # type: ignore[arg-type]
    assert [event.sequence for event in found] == sequences


@pytest.mark.parametrize("newest_first", [False, True])
async def test_a_page_looks_at_a_bounded_number_of_rows(
    store: Store, workspace: int, newest_first: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledgers, "SCAN_LIMIT", 10)
    rare = {3, 12, 30}
    await append(store, workspace, *(draft(type="rare" if n in rare else "usual") for n in range(1, 31)))
    query = EventQuery(workspace_id=workspace, limit=5, type="rare", newest_first=newest_first)
    found, pages = await _all(store, query)
    assert [event.sequence for event in found] == sorted(rare, reverse=newest_first)
    assert pages == 4
    unfiltered, _ = await _all(store, EventQuery(workspace_id=workspace, limit=100, newest_first=newest_first))
    assert [event.sequence for event in unfiltered] == sorted(range(1, 31), reverse=newest_first)


@pytest.mark.parametrize("newest_first", [False, True])
async def test_a_page_holds_a_bounded_number_of_bytes(store: Store, workspace: int, newest_first: bool) -> None:
    sizes = [10, ledgers.PAGE_BYTES * 2, 10, ledgers.PAGE_BYTES // 2, ledgers.PAGE_BYTES // 2, 10]
    await append(store, workspace, *(draft(data={"x": "y" * size}) for size in sizes))
    found, pages = await _all(store, EventQuery(workspace_id=workspace, limit=100, newest_first=newest_first))
    assert [event.sequence for event in found] == sorted(range(1, 7), reverse=newest_first)
    assert pages in (4, 5)


async def test_a_range_of_time_is_a_range_of_ids(store: Store, workspace: int) -> None:
    outcomes = await append(store, workspace, *(draft() for _ in range(6)))
    times = [outcome.link.created_at for outcome in outcomes if outcome.link]
    query = EventQuery(workspace_id=workspace, limit=2, created_from=times[1], created_to=times[4])
    found, _ = await _all(store, query)
    assert [event.sequence for event in found] == [2, 3, 4]


async def test_an_event_is_found_by_its_identity(store: Store, workspace: int) -> None:
    await append(store, workspace, draft("a"), draft("b"), draft())
    identity = ledger.identity("native", "test", "b")[:16]
    page = await store.ledgers.events(EventQuery(workspace_id=workspace, limit=10, dedupe=identity))
    assert ([event.sequence for event in page.events], page.resume) == ([2], None)
    nowhere = await store.ledgers.events(EventQuery(workspace_id=workspace, limit=10, dedupe=identity, type="other"))
    assert nowhere == ([], None)


async def test_lookup_of_many_identities(store: Store, workspace: int) -> None:
    outcomes = await append(store, workspace, *(draft(str(n)) for n in range(2_500)))
    identities = [ledger.identity("native", "test", str(n))[:16] for n in range(2_600)]
    found = await store.ledgers.lookup(workspace, identities)
    assert found == {identity: outcome.link for identity, outcome in zip(identities, outcomes, strict=False)}
    assert await store.ledgers.lookup(workspace, []) == {}


async def test_events_are_fetched_by_id_in_order(store: Store, workspace: int) -> None:
    outcomes = await append(store, workspace, *(draft() for _ in range(5)))
    ids = [outcome.link.id for outcome in outcomes if outcome.link]
    found = await store.ledgers.fetch(workspace, [ids[3], ids[0], bytes(16)])
    assert [event.sequence for event in found] == [1, 4]
    assert await store.ledgers.fetch(workspace, []) == []


async def test_another_workspaces_events_are_never_seen(store: Store, workspace: int) -> None:
    (outcome,) = await append(store, workspace, draft("k", type="t"))
    other = (await store.directory.create_workspace("other")).id
    assert outcome.link is not None
    assert await store.ledgers.fetch(other, [outcome.link.id]) == []
    identity = ledger.identity("native", "test", "k")[:16]
    assert await store.ledgers.lookup(other, [identity]) == {}
    for query in ({}, {"type": "t"}, {"type_prefix": "t"}, {"dedupe": identity}, {"created_from": 0}):
        page = await store.ledgers.events(EventQuery(workspace_id=other, limit=10, **query))
        assert page == ([], None)


async def test_a_snapshot_is_one_state(store: Store, store_url: str) -> None:
    """Another connection commits between two statements of a read."""

    def count(connection: Connection) -> int:
        return int(connection.execute(select(func.count()).select_from(workspaces)).scalar_one())

    def twice(connection: Connection) -> tuple[int, int]:
        first = count(connection)
        insert = "INSERT INTO workspaces (name, created_at) VALUES ('another', 0)"
        with ThreadPoolExecutor() as pool:
            pool.submit(asyncio.run, database.execute(store_url, insert)).result()
        return first, count(connection)

    assert await store.database.read(twice, snapshot=True) == (0, 0)
    assert await store.database.read(count) == 1
