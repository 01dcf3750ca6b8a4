"""GetEvent and ListEvents: the sent events, exact, in order, page by page."""

import asyncio
import json
from datetime import timedelta
from decimal import Decimal
from typing import Any

import grpc
import orjson
import pytest
from google.api.httpbody_pb2 import HttpBody
from google.protobuf.timestamp_pb2 import Timestamp

from headgate.v1.event_pb2 import StoredEvent
from headgate.v1.event_service_pb2 import GetEventRequest, GetEventResponse, ListEventsRequest, ListEventsResponse
from tests.support.calls import Caller, event, refused
from tests.support.inprocess import Service
from tests.support.marks import on_sqlite

GET = "/headgate.v1.EventService/GetEvent"
LIST = "/headgate.v1.EventService/ListEvents"


async def _get(caller: Caller, event_id: str) -> StoredEvent:
    answer: GetEventResponse = await caller.events.GetEvent(GetEventRequest(id=event_id), metadata=caller.metadata)
    return answer.event


async def _list(caller: Caller, **request: Any) -> ListEventsResponse:
    page: ListEventsResponse = await caller.events.ListEvents(ListEventsRequest(**request), metadata=caller.metadata)
    return page


async def _pages(caller: Caller, *, page_token: str = "", **request: Any) -> list[ListEventsResponse]:
    pages = [await _list(caller, page_token=page_token, **request)]
    while pages[-1].next_page_token:
        pages.append(await _list(caller, page_token=pages[-1].next_page_token, **request))
    return pages


def _exact(text: bytes) -> Any:
    """Return JSON with its numbers as decimals."""
    return json.loads(text, parse_int=Decimal, parse_float=Decimal)


def _keys(*pages: ListEventsResponse) -> list[str]:
    return [one.idempotency_key for page in pages for one in page.events]


async def _get_json(caller: Caller, event_id: str) -> bytes:
    """Return the JSON of one event as the bridge gets it, unparsed."""
    request = GetEventRequest(id=event_id).SerializeToString()
    bridged = (("x-envoy-original-path", f"/v1/events/{event_id}"), ("x-headgate-bridge", "1"))
    body = await caller.send(request, HttpBody, method=GET, metadata=bridged)
    data: bytes = body.data
    return data


async def test_every_field_reads_back(caller: Caller) -> None:
    payload = {"amount": 49.99, "n": [1, {"a": None}], "ok": True, "text": "é\0\U0001f600", "empty": {}}
    sent = event("k", payload, subject="user_1", occurred_at=Timestamp(seconds=1_705_314_600, nanos=123_456_000))
    (result,) = (await caller.batch(sent)).results
    assert await _get(caller, result.id) == StoredEvent(
        id=result.id,
        sequence=1,
        created_at=result.created_at,
        event_hash=result.event_hash,
        receiver="native",
        type="order.completed",
        source="shop",
        subject="user_1",
        occurred_at=sent.occurred_at,
        data=sent.data,
        idempotency_key="k",
    )


async def test_what_was_absent_stays_absent(caller: Caller) -> None:
    (result,) = (await caller.batch(event(source=""))).results
    stored = await _get(caller, result.id)
    assert not stored.HasField("occurred_at")
    assert not stored.HasField("idempotency_key")
    assert stored.WhichOneof("payload") is None
    assert (stored.source, stored.subject) == ("", "")
    assert orjson.loads(await _get_json(caller, result.id)).keys() == {
        *("id", "sequence", "created_at", "event_hash", "receiver", "type")
    }


@pytest.mark.parametrize(
    ("text", "as_struct"),
    [
        pytest.param(b'{"a":1}', True, id="a small integer"),
        pytest.param(b'{"a":49.99}', True, id="a decimal"),
        pytest.param(b"{}", True, id="an empty object"),
        pytest.param(b'{"a":[[],{},null,false,""]}', True, id="everything empty"),
        pytest.param(b'{"a":9007199254740993}', False, id="past 2^53"),
        pytest.param(b'{"a":18446744073709551617}', False, id="past 2^64"),
        pytest.param(b'{"a":-123456789012345678901234567890}', False, id="thirty digits"),
        pytest.param(b'{"a":0.12345678901234567890123}', False, id="more digits than a double has"),
        pytest.param(b'{"a":{"a":' * 15 + b"1" + b"}}" * 15, True, id="30 levels"),
        pytest.param(b'{"a":{"a":' * 15 + b'{"a":1}' + b"}}" * 15, False, id="31 levels"),
    ],
)
@on_sqlite
async def test_the_payload_is_exact(caller: Caller, text: bytes, as_struct: bool) -> None:
    (result,) = (await caller.batch(event(data=text))).results
    stored = await _get(caller, result.id)
    assert stored.WhichOneof("payload") == ("data" if as_struct else "data_json")
    if not as_struct:
        assert _exact(stored.data_json) == _exact(text)
    # In JSON it is always `data`, and exact.
    assert _exact(await _get_json(caller, result.id))["data"] == _exact(text)


@pytest.mark.parametrize(
    ("event_id", "code", "reason"),
    [
        pytest.param(
            "0190a6f2-5a3c-7d21-8f00-3b1c5a7e9d42", grpc.StatusCode.NOT_FOUND, "EVENT_NOT_FOUND", id="unknown"
        ),
        pytest.param("", grpc.StatusCode.INVALID_ARGUMENT, "INVALID_ID", id="empty"),
        pytest.param("x" * 10_000, grpc.StatusCode.INVALID_ARGUMENT, "INVALID_ID", id="long"),
        pytest.param("\0", grpc.StatusCode.INVALID_ARGUMENT, "INVALID_ID", id="NUL"),
    ],
)
@on_sqlite
async def test_no_such_event(caller: Caller, event_id: str, code: grpc.StatusCode, reason: str) -> None:
    refusal = await refused(_get(caller, event_id))
    assert (refusal.code, refusal.reason) == (code, reason)


@pytest.fixture
async def filled(caller: Caller) -> Caller:
    """Return the client of a workspace with ten events, 0 to 9: of two types, three sources and two subjects."""
    for first in (0, 5):
        await caller.batch(
            *(
                event(
                    f"k{n}",
                    type=("document.created", "documents.listed")[n % 2],
                    source=("", "a", "b")[n % 3],
                    subject=("", "user")[n // 5],
                )
                for n in range(first, first + 5)
            )
        )
    return caller


@pytest.mark.parametrize(
    ("filters", "wanted"),
    [
        pytest.param({}, range(10), id="none"),
        pytest.param({"newest_first": True}, range(9, -1, -1), id="newest first"),
        pytest.param({"type": "document.created"}, range(0, 10, 2), id="type"),
        pytest.param({"type": "document.*"}, range(0, 10, 2), id="types by prefix"),
        pytest.param({"type": "doc.*"}, [], id="not a prefix up to the dot"),
        pytest.param({"type": ".*"}, [], id="nothing before the star"),
        pytest.param({"type": "document.create"}, [], id="part of a type"),
        pytest.param({"type": "document_%"}, [], id="no wildcards of SQL"),
        pytest.param({"source": "a"}, [1, 4, 7], id="source"),
        pytest.param({"subject": "user"}, range(5, 10), id="subject"),
        pytest.param({"source": "a", "subject": "user", "newest_first": True}, [7], id="all of them"),
        pytest.param({"source": "a", "idempotency_key": "k4"}, [4], id="key"),
        pytest.param({"idempotency_key": "k3"}, [3], id="key without source"),
        pytest.param({"idempotency_key": "k4"}, [], id="key of another source"),
        pytest.param({"source": "a", "idempotency_key": "k4", "type": "documents.*"}, [], id="key of another type"),
    ],
)
async def test_filters(filled: Caller, filters: dict[str, object], wanted: list[int]) -> None:
    keys = [f"k{n}" for n in wanted]
    assert _keys(await _list(filled, **filters)) == keys
    # The same, one event a page.
    assert _keys(*await _pages(filled, page_size=1, **filters)) == keys


async def test_a_range_of_time(filled: Caller) -> None:
    times = [one.created_at for one in await filled.all_events()]
    later = Timestamp()
    later.FromDatetime(times[-1].ToDatetime() + timedelta(days=1))
    for request, wanted in (
        ({"from": times[3]}, range(3, 10)),
        ({"to": times[3]}, range(3)),
        ({"from": times[2], "to": times[5]}, range(2, 5)),
        ({"from": times[2], "to": times[5], "newest_first": True}, (4, 3, 2)),
        ({"from": times[5], "to": times[2]}, ()),
        ({"from": later}, ()),
        ({"to": Timestamp(seconds=-62_135_596_800)}, ()),
        ({"from": Timestamp(seconds=-1)}, range(10)),
        ({"to": Timestamp(seconds=253_402_300_799)}, range(10)),
    ):
        assert _keys(*await _pages(filled, page_size=2, **request)) == [f"k{n}" for n in wanted], request


@pytest.mark.parametrize("newest_first", [False, True])
async def test_paging_while_writing(filled: Caller, newest_first: bool) -> None:
    """No event is shown twice, and no event from the start is missed; new ones come at the end of oldest first."""
    first = await _list(filled, page_size=3, newest_first=newest_first)
    await filled.batch(*(event(f"late{n}") for n in range(3)))
    rest = await _pages(filled, page_size=3, newest_first=newest_first, page_token=first.next_page_token)
    assert not newest_first or rest[-1].next_page_token == ""
    there = [f"k{n}" for n in range(10)]
    late = [f"late{n}" for n in range(3)]
    assert _keys(first, *rest) == (there[::-1] if newest_first else there + late)


async def test_a_follower_misses_nothing(caller: Caller) -> None:
    """A reader of pages in order sees the whole ledger, each event once, while eight writers write."""
    done = asyncio.Event()

    async def follow() -> list[int]:
        seen: list[int] = []
        token = ""
        while True:
            last_round = done.is_set()
            page = await _list(caller, page_size=7, page_token=token)
            seen += [one.sequence for one in page.events]
            # At the end of the ledger there is no token: a follower reads its last page again.
            if page.next_page_token:
                token = page.next_page_token
            elif last_round:
                return seen
            else:
                seen = seen[: len(seen) - len(page.events)]

    following = asyncio.create_task(follow())
    await asyncio.gather(*(caller.batch(*(event() for _ in range(10))) for _ in range(8)))
    done.set()
    assert await following == list(range(1, 81))


@pytest.mark.parametrize(
    ("size", "returned"),
    [pytest.param(0, 50, id="absent"), (1, 1), (1_000, 1_000), pytest.param(5_000, 1_000, id="more")],
)
@on_sqlite
async def test_page_sizes(caller: Caller, size: int, returned: int) -> None:
    for _ in range(2):
        await caller.batch(*(event() for _ in range(501)))
    page = await _list(caller, page_size=size)
    assert len(page.events) == returned
    assert page.next_page_token


@pytest.mark.parametrize(
    ("request_", "reason", "field"),
    [
        pytest.param({"page_size": -1}, "NEGATIVE", "page_size", id="a negative size"),
        pytest.param({"page_token": "x"}, "INVALID_PAGE_TOKEN", "page_token", id="no token"),
        pytest.param({"page_token": "é"}, "INVALID_PAGE_TOKEN", "page_token", id="a token not in ASCII"),
        pytest.param({"page_token": "A" * 32}, "INVALID_PAGE_TOKEN", "page_token", id="a token of the right length"),
        pytest.param({"type": "a\0"}, "INVALID_CHARACTER", "type", id="NUL in type"),
        pytest.param({"type": "a\0.*"}, "INVALID_CHARACTER", "type", id="NUL in a prefix"),
        pytest.param({"source": "a\0"}, "INVALID_CHARACTER", "source", id="NUL in source"),
        pytest.param({"subject": "\0"}, "INVALID_CHARACTER", "subject", id="NUL in subject"),
        pytest.param({"idempotency_key": "\0"}, "INVALID_CHARACTER", "idempotency_key", id="NUL in the key"),
        pytest.param({"from": Timestamp(seconds=10**15)}, "INVALID_TIMESTAMP", "from", id="from past year 9999"),
        pytest.param({"to": Timestamp(nanos=-1)}, "INVALID_TIMESTAMP", "to", id="negative nanos"),
    ],
)
@on_sqlite
async def test_no_list(caller: Caller, request_: dict[str, object], reason: str, field: str) -> None:
    refusal = await refused(_list(caller, **request_))
    assert (refusal.code, refusal.reason, refusal.fields) == (grpc.StatusCode.INVALID_ARGUMENT, reason, [field])


@on_sqlite
async def test_a_token_belongs_to_its_request_and_workspace(filled: Caller, service: Service) -> None:
    token = (await _list(filled, page_size=2, type="document.*")).next_page_token
    assert _keys(await _list(filled, page_size=3, type="document.*", page_token=token)) == ["k4", "k6", "k8"]
    for misuse in ({}, {"type": "document.created"}, {"type": "document.*", "newest_first": True}):
        assert (await refused(_list(filled, page_token=token, **misuse))).reason == "INVALID_PAGE_TOKEN"
    async with service.caller(workspace="other") as other:
        assert (await refused(_list(other, page_token=token, type="document.*"))).reason == "INVALID_PAGE_TOKEN"


@on_sqlite
async def test_a_page_of_large_events_is_bounded(caller: Caller) -> None:
    large = b'{"a":"%s"}' % (b"x" * 1_000_000)
    for _ in range(2):
        await caller.batch(*(event(data=large) for _ in range(5)))
    pages = await _pages(caller, page_size=1000)
    assert len(pages) > 1
    assert [one.sequence for page in pages for one in page.events] == list(range(1, 11))
