"""The methods of both clients, on a real server."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from headgate_client import (
    AsyncClient,
    Client,
    Closed,
    Denied,
    Event,
    EventConflict,
    EventRejected,
    InvalidEvent,
    NotFound,
    PartialFailure,
    Retry,
    Unavailable,
)
from headgate_server.core.model import Scope

ORDER = {"type": "order.completed", "source": "shop", "data": {"amount": 49.99}}


def statuses(results):
    return [result.status for result in results]


def test_the_script_of_the_readme(served, key):
    with Client(served.address, api_key=key) as client:
        result = client.ingest({"type": "order.completed", "source": "shop", "data": {"amount": 49.99}})
        assert (result.status, result.sequence) == ("accepted", 1)
        assert result.id
        with client.buffered(max_size=100, max_age=5.0, spool=None) as buffer:
            ticket = buffer.emit("order.completed", {"amount": 49.99}, source="shop")
        assert ticket.result().status == "accepted"


async def test_an_event_is_stored_and_read_back(either):
    moment = datetime(2024, 1, 15, 10, 30, tzinfo=UTC)
    result = await either.ingest(Event(type="t", source="s", subject="u", occurred_at=moment, data={"n": 1.5}))
    assert (result.status, result.index, result.error, result.warnings) == ("accepted", 0, None, ())
    assert result.stored
    event = await either.get(result.id)
    assert (event.type, event.source, event.subject, event.occurred_at) == ("t", "s", "u", moment)
    assert (event.data, event.key, event.receiver) == ({"n": 1.5}, result.key, "native")
    assert (event.id, event.sequence, event.event_hash) == (result.id, result.sequence, result.event_hash)
    assert event.created_at == result.created_at
    assert (await either.get(result.id, view="FULL")).delivery == "none"


async def test_an_event_that_is_not_stored_says_why(either):
    with pytest.raises(EventRejected, match=r"type field is required.*MISSING_FIELD") as rejected:
        await either.ingest({"type": ""})
    assert (rejected.value.reason, rejected.value.result.error.field) == ("MISSING_FIELD", "type")
    assert not isinstance(rejected.value, EventConflict)
    first = await either.ingest({**ORDER, "key": "k"})
    assert (await either.ingest({**ORDER, "key": "k"})).status == "duplicate"
    with pytest.raises(EventConflict) as conflict:
        await either.ingest({**ORDER, "data": {"amount": 1}, "key": "k"})
    assert conflict.value.result.id == first.id
    assert conflict.value.result.error.differing_fields == ("/data/amount",)
    with pytest.raises(InvalidEvent):
        await either.ingest({"type": "t", "data": {"n": float("nan")}})
    assert (await either.head()).sequence == 1


async def test_a_batch_has_one_result_for_each_event(either):
    with pytest.raises(PartialFailure, match="1 of 3 events") as partial:
        await either.ingest_batch([ORDER, {"type": ""}, ORDER])
    assert statuses(partial.value.results) == ["accepted", "rejected", "accepted"]
    assert [result.index for result in partial.value.failed] == [1]
    results = await either.ingest_batch([ORDER, {"type": ""}], raise_partial=False)
    assert statuses(results) == ["accepted", "rejected"]
    assert await either.ingest_batch([]) == []


async def test_a_large_batch_is_several_calls_in_one_order(either):
    results = await either.ingest_batch({"type": "t", "data": {"n": n}} for n in range(2_100))
    assert [result.index for result in results] == list(range(2_100))
    assert [result.sequence for result in results] == list(range(1, 2_101))
    events = await either.events(page_size=1000)
    assert [event.data["n"] for event in events] == list(range(2_100))
    large = await either.ingest_batch([{"type": "t", "data": {"s": "x" * 1_000_000}}] * 10)
    assert statuses(large) == ["accepted"] * 10


async def test_an_atomic_batch_is_all_or_nothing(either):
    with pytest.raises(PartialFailure) as partial:
        await either.ingest_batch([ORDER, {"type": ""}], atomic=True)
    assert statuses(partial.value.results) == ["aborted", "rejected"]
    assert (await either.head()).sequence == 0
    assert statuses(await either.ingest_batch([ORDER, ORDER], atomic=True)) == ["accepted"] * 2


async def test_a_request_key_replays_the_first_answer(either):
    first = await either.ingest_batch([ORDER, ORDER], request_key="r")
    again = await either.ingest_batch([ORDER, ORDER], request_key="r")
    assert again == first
    assert (await either.head()).sequence == 2
    with pytest.raises(Exception, match="IDEMPOTENCY_KEY_REUSED"):
        await either.ingest_batch([ORDER], request_key="r")
    single = await either.ingest(ORDER, request_key="s")
    assert await either.ingest(ORDER, request_key="s") == single


async def test_validate_stores_nothing(either):
    assert statuses(await either.validate([ORDER, {"type": ""}])) == ["accepted", "rejected"]
    assert (await either.head()).sequence == 0


async def test_lists_are_read_page_by_page(either):
    await either.ingest_batch([{"type": f"t.{n % 2}", "source": "s", "key": str(n)} for n in range(5)])
    pages = await either.pages(page_size=2)
    assert [len(page.events) for page in pages] == [2, 2, 1]
    assert [event.key for event in await either.events(type="t.1")] == ["1", "3"]
    assert [event.key for event in await either.events(newest_first=True)] == ["4", "3", "2", "1", "0"]
    assert [event.sequence for event in await either.events(source="s", key="3")] == [4]
    later = datetime.now(UTC) + timedelta(hours=1)
    assert await either.events(start=later) == []
    assert len(await either.events(end=later)) == 5
    rest = await either.pages(page_size=2, page_token=pages[0].next_page_token)
    assert [event.key for page in rest for event in page.events] == ["2", "3", "4"]
    with pytest.raises(ValueError, match="time zone"):
        await either.events(start=datetime(2024, 1, 1))  # noqa: DTZ001


async def test_the_ledger_is_verified_against_a_head_that_was_kept(either):
    await either.ingest_batch([ORDER] * 3)
    head = await either.head()
    await either.ingest(ORDER)
    verification = await either.verify(expected=head)
    assert (verification.valid, verification.events_checked, verification.breaks) == (True, 4, ())
    wrong = await either.verify(expected=type(head)(head.sequence, "0" * 64, None))
    assert not wrong.valid
    assert wrong.breaks[0].type == "head_mismatch"


async def test_no_such_event(either):
    with pytest.raises(NotFound, match="EVENT_NOT_FOUND"):
        await either.get("0190a6f2-5a3c-7d21-8f00-3b1c5a7e9d42")


async def test_a_subscription_begins_continues_and_ends(either):
    await either.ingest_batch([{"type": "t", "key": str(n)} for n in range(3)])
    subscription = either.client.subscribe(after_sequence=1)
    assert [(await either.next(subscription)).key for _ in range(2)] == ["1", "2"]
    waiting = asyncio.ensure_future(either.next(subscription))
    await either.ingest({"type": "t", "key": "new"})
    assert (await waiting).key == "new"
    assert subscription.caught_up
    assert subscription.sequence == 4
    if isinstance(either.client, AsyncClient):
        await subscription.close()
    else:
        subscription.close()
    assert await either.next(subscription) is None


async def test_a_subscription_that_is_refused_raises(either):
    with pytest.raises(Exception, match="SEQUENCE_PAST_HEAD"):
        await either.next(either.client.subscribe(after_sequence=99))
    with pytest.raises(ValueError, match="after_sequence, after_id and start"):
        either.client.subscribe(after_sequence=1, after_id="x")


@pytest.mark.parametrize("kind", [Client, AsyncClient])
async def test_a_key_without_the_scope_is_denied(kind, served):
    from tests.client.conftest import Either

    denied = Either(kind(served.address, api_key=await asyncio.to_thread(served.key, Scope.EVENTS_READ)))
    with pytest.raises(Denied, match="MISSING_SCOPE"):
        await denied.ingest(ORDER)
    unknown = Either(kind(served.address, api_key="hg_unknown"))
    with pytest.raises(Denied, match="INVALID_API_KEY") as raised:
        await unknown.ingest_batch([ORDER])
    assert [event.type for event in raised.value.events] == ["order.completed"]
    await denied.close()
    await unknown.close()


@pytest.mark.parametrize("kind", [Client, AsyncClient])
async def test_without_a_server_the_events_come_back_with_their_keys(kind):
    from tests.client.conftest import Either

    client = Either(kind("127.0.0.1:1", api_key="hg_x", timeout=0.5, retry=Retry(first=0.05, most=0.1)))
    with pytest.raises(Unavailable) as raised:
        await client.ingest_batch([ORDER, ORDER])
    assert raised.value.code == "UNAVAILABLE"
    assert len({event.key for event in raised.value.events}) == 2
    await client.close()
    with pytest.raises(Closed):
        await client.ingest(ORDER)
