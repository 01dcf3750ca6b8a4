"""A vendor's reads over a long ledger: each page does bounded work, and all pages together show every event."""

import json
from collections.abc import Mapping
from typing import Any

import orjson
import pytest

from headgate_server.core.audit import NOBODY
from headgate_server.core.model import EventPage, EventQuery, Workspace
from headgate_server.ingest import compat as module
from headgate_server.ingest.committer import Committer
from headgate_server.ingest.compat import Compat
from headgate_server.receivers import HttpRequest
from headgate_server.receivers.scrip import Scrip
from headgate_server.store import Store, ledgers
from tests.support.drafts import append, draft
from tests.support.ingesting import admit, ingest_of

SCRIP = Scrip()
PROGRAM = "550e8400-e29b-41d4-a716-446655440000"


class Reader:
    """Uses Scrip's endpoints, and counts the events that they request from the store."""

    def __init__(self, store: Store, workspace: int):
        self.asked = 0
        self._compat = Compat(
            store.ledgers,
            store.proof,
            store.deliveries,
            store.destinations,
            ingest_of(store, Committer(store.database)),
        )
        self._workspace = Workspace(workspace, "acme")
        asking = store.ledgers.events

        async def events(query: EventQuery) -> EventPage:
            self.asked += 1
            return await asking(query)

        store.ledgers.events = events  # type: ignore[method-assign]

    async def send(self, key: str, participant: int, padding: int = 0) -> None:
        event = {
            "program_id": PROGRAM,
            "idempotency_key": key,
            "event_timestamp": "2024-01-15T10:30:00Z",
            "external_id": "user_1",
            "participant_id": PROGRAM[:-1] + str(participant),
            "event_data": {"padding": "x" * padding},
        }
        assert (await self._call("POST", "/v1/events", {}, json.dumps(event).encode()))["id"]

    async def page(self, cursor: str | None, **query: str) -> tuple[list[str], str | None]:
        """Return the keys of one page, and the cursor of the next."""
        asked = query if cursor is None else query | {"cursor": cursor}
        body = await self._call("GET", "/v1/events", asked)
        assert body["pagination"]["has_more"] is (body["pagination"]["next_cursor"] is not None)
        return [event["idempotency_key"] for event in body["data"]], body["pagination"]["next_cursor"]

    async def pages(self, **query: str) -> list[list[str]]:
        """Return the keys of all pages."""
        found, cursor = await self.page(None, **query)
        pages = [found]
        while cursor is not None:
            found, cursor = await self.page(cursor, **query)
            pages.append(found)
        return pages

    async def _call(self, method: str, path: str, query: Mapping[str, str], body: bytes = b"") -> Any:
        request = HttpRequest(method, path, query, body, 0)
        exchange = await self._compat(
            SCRIP, SCRIP.routes()[method, path], self._workspace, request, None, NOBODY, admit
        )
        assert exchange.reply.status == 200
        return json.loads(orjson.dumps(exchange.reply.body))


@pytest.fixture
async def reader(store: Store, workspace: int) -> Reader:
    return Reader(store, workspace)


async def test_a_filter_on_content_looks_at_a_bounded_number_of_events(
    reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_MATCH_PAGE", 2)
    monkeypatch.setattr(module, "_MATCH_PAGES", 2)
    for n in range(11):
        await reader.send(f"k{n}", participant=1 if n in (0, 5, 6) else 2)
    # Newest first, four events a page: 10-7, 6-3, 2-0.
    assert await reader.pages(participant_id=PROGRAM[:-1] + "1") == [[], ["k6", "k5"], ["k0"]]
    # A full page ends at its last event, at any place in the store's page.
    assert await reader.pages(participant_id=PROGRAM[:-1] + "1", limit="1") == [[], ["k6"], ["k5"], ["k0"]]
    assert await reader.pages(participant_id=PROGRAM[:-1] + "3") == [[], [], []]


async def test_other_receivers_events_between_are_bounded_work_too(
    reader: Reader, store: Store, workspace: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledgers, "SCAN_LIMIT", 5)
    monkeypatch.setattr(module, "_MATCH_PAGES", 2)
    await reader.send("old", participant=1)
    await append(store, workspace, *(draft() for _ in range(40)))
    await reader.send("new", participant=1)
    for query in ({"participant_id": PROGRAM[:-1] + "1"}, {}):
        found, cursor = await reader.page(None, **query)
        assert (found, cursor is None) == (["new"], False)
        reader.asked = 0
        pages = await reader.pages(**query)
        assert [key for page in pages for key in page] == ["new", "old"]
        assert reader.asked <= 2 * len(pages)


async def test_a_page_of_large_events_is_short(reader: Reader, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PAGE_BYTES", 2_000)
    monkeypatch.setattr(module, "_MATCH_PAGE", 1)
    for n in range(5):
        await reader.send(f"k{n}", participant=1, padding=900)
    assert await reader.pages(participant_id=PROGRAM[:-1] + "1") == [["k4", "k3"], ["k2", "k1"], ["k0"]]
