"""What matches a filter, read forward: in windows, and page by page."""

import pytest

from headgate_server.core.destinations import EventFilter
from headgate_server.core.model import Position
from headgate_server.delivery.pages import Pages
from headgate_server.store import Store
from headgate_server.store.matching import Kind, Window
from tests.support.drafts import append, draft

TYPES = ("document.created", "document", "Document.created", "order.paid", "documents.created")


async def places(store: Store, workspace: int) -> list[Position]:
    """Append an event of each type, and return their places: the place before the first is 0."""
    outcomes = await append(store, workspace, *(draft(type=name, source=name[:5]) for name in TYPES))
    links = [outcome.link for outcome in outcomes if outcome.link is not None]
    return [Position(), *(Position(link.sequence, link.id) for link in links)]


async def test_a_window_says_what_occurs_in_it(store: Store, workspace: int) -> None:
    found = await places(store, workspace)
    window = await store.matching.window(workspace, found[0], 2)
    assert window == Window(found[0], found[2], {Kind("native", name, name[:5]) for name in TYPES[:2]})
    assert (await store.matching.window(workspace, found[3], 10)).end == found[5]
    assert await store.matching.window(workspace, found[5], 10) == Window(found[5], found[5], frozenset())


@pytest.mark.parametrize(
    ("wanted", "sequences"),
    [
        (EventFilter(), [1, 2, 3, 4, 5]),
        (EventFilter(("document.*",)), [1]),
        (EventFilter(("document", "order.*")), [2, 4]),
        (EventFilter((), ("docum", "order")), [1, 2, 4, 5]),
        (EventFilter(("document.*",), ("order",)), []),
        (EventFilter((), (), ("scrip",)), []),
        (EventFilter((), (), ("native", "scrip")), [1, 2, 3, 4, 5]),
    ],
)
async def test_pages_hold_what_matches_and_nothing_else(
    store: Store, workspace: int, wanted: EventFilter, sequences: list[int]
) -> None:
    await places(store, workspace)
    pages, place, found = Pages(store.matching), Position(), []
    while (page := await pages.next(workspace, place, wanted, 2)).reached != place:
        found += [event.sequence for event in page.events]
        assert len(page.events) <= 2
        place = page.reached
    assert found == sequences
    assert place.sequence == 5
    assert all(wanted.matches("native", name, name[:5]) == (n in sequences) for n, name in enumerate(TYPES, 1))


async def test_a_page_holds_no_more_content_than_it_may(store: Store, workspace: int) -> None:
    large = {"text": "x" * (3 << 20)}
    await append(store, workspace, draft(data=large))
    await append(store, workspace, draft(data=large))
    found = await store.matching.page(workspace, Position(), None, EventFilter(), 10)
    assert [event.sequence for event in found] == [1]


async def test_one_look_serves_all_destinations_that_are_there(store: Store, workspace: int) -> None:
    await places(store, workspace)
    looks = 0
    look = store.matching.window

    async def counted(workspace_id: int, after: Position, limit: int) -> Window:
        nonlocal looks
        looks += 1
        return await look(workspace_id, after, limit)

    store.matching.window = counted  # type: ignore[method-assign, assignment]
    pages = Pages(store.matching)
    for number in range(5):
        page = await pages.next(workspace, Position(), EventFilter((f"nothing.{number}",)), 10)
        assert page.reached.sequence == 5
    assert looks == 1
