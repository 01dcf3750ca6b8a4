"""Heads of several ledgers, and places in one: of a sequence, of a time."""

from headgate_server.core.model import EventQuery, Position
from headgate_server.store import Store
from tests.support.drafts import append, draft

# More than one group of events, so that some are microseconds apart and some milliseconds.
GROUPS = (1, 40, 3, 1, 25)


async def _places(store: Store, workspace: int) -> tuple[list[Position], list[int]]:
    """Fill a ledger; return the places and the times of its events, in order."""
    for count in GROUPS:
        await append(store, workspace, *(draft() for _ in range(count)))
    page = await store.ledgers.events(EventQuery(workspace_id=workspace, limit=1_000))
    return [Position(event.sequence, event.id) for event in page.events], [event.created_at for event in page.events]


async def test_the_heads_of_several_ledgers(store: Store, workspace: int) -> None:
    other = (await store.directory.create_workspace("other")).id
    await append(store, workspace, draft(), draft())
    heads = await store.ledgers.heads([workspace, other, 12_345])
    assert heads == {each: await store.ledgers.head(each) for each in (workspace, other)}
    assert heads[workspace].sequence == 2
    assert await store.ledgers.heads([]) == {}


async def test_the_place_of_each_sequence(store: Store, workspace: int) -> None:
    places, _ = await _places(store, workspace)
    assert [await store.ledgers.place(workspace, place.sequence) for place in places] == places
    assert await store.ledgers.place(workspace, 0) == Position()
    assert await store.ledgers.place(workspace, len(places) + 7) == places[-1]


async def test_the_place_before_each_time(store: Store, workspace: int) -> None:
    places, times = await _places(store, workspace)
    before = [Position(), *places[:-1]]
    assert [await store.ledgers.place_before(workspace, time) for time in times] == before
    assert await store.ledgers.place_before(workspace, times[-1] + 1) == places[-1]
    assert await store.ledgers.place_before(workspace, 0) == Position()


async def test_an_empty_ledger_has_one_place(store: Store, workspace: int) -> None:
    other = (await store.directory.create_workspace("other")).id
    await append(store, other, draft())
    assert await store.ledgers.place(workspace, 1) == Position()
    assert await store.ledgers.place_before(workspace, 1 << 50) == Position()


async def test_a_query_bounds_the_bytes_of_its_pages(store: Store, workspace: int) -> None:
    await append(store, workspace, *(draft(data={"x": "y" * 1_000}) for _ in range(5)))
    for size, count in ((1, 1), (2_500, 2), (1 << 30, 5)):
        page = await store.ledgers.events(EventQuery(workspace_id=workspace, limit=10, size=size))
        assert len(page.events) == count
