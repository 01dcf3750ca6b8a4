"""RejectionService: all rejections that match are replayed, in order."""

import asyncio

import grpc
import pytest
from google.api.httpbody_pb2 import HttpBody

from headgate.v1.bridge_view_pb2 import (
    RawReplayRejectionsRequest,
)
from headgate.v1.event_pb2 import Event
from tests.support.calls import Caller, Refusal, event, refused
from tests.support.inprocess import Service
from tests.support.marks import on_sqlite
from tests.support.rejection_desk import BRIDGED, REPLAY_ALL, Desk, receive, set_quota
from tests.support.vendors import VENDORS


async def _all_refused(caller: Caller, body: bytes) -> Refusal:
    request = RawReplayRejectionsRequest(json=HttpBody(data=body)).SerializeToString()
    return await refused(caller.send(request, HttpBody, method=REPLAY_ALL, metadata=BRIDGED))


@on_sqlite
@pytest.mark.parametrize(
    ("body", "reason", "field"),
    [
        pytest.param(b'{"reason": 5}', "WRONG_TYPE", "reason", id="no text"),
        pytest.param(b'{"reason": "NO"}', "INVALID_FILTER", "reason", id="no such reason"),
        pytest.param(b'{"receiver": "\\ud800"}', "INVALID_UNICODE", "receiver", id="a lone surrogate"),
        pytest.param(b'{"from": "soon"}', "INVALID_TIMESTAMP", "from", id="no time"),
        pytest.param(b'{"pageSize": 1.5}', "WRONG_TYPE", "page_size", id="no whole number"),
        pytest.param(b'{"page_size": 99999999999}', "WRONG_TYPE", "page_size", id="a number past 32 bits"),
        pytest.param(b'{"page_size": -1}', "NEGATIVE", "page_size", id="a negative number"),
        pytest.param(b'{"page_token": "x"}', "INVALID_PAGE_TOKEN", "page_token", id="no token"),
        pytest.param(b'{"filter": {}}', "UNKNOWN_FIELD", "filter", id="an unknown field"),
        pytest.param(b'{"a": {"b": 1, "b": 1}}', "DUPLICATE_FIELD", "", id="a name twice"),
        pytest.param(b"5", "NOT_AN_OBJECT", "", id="no object"),
    ],
)
async def test_filters_that_are_refused(caller: Caller, body: bytes, reason: str, field: str) -> None:
    refusal = await _all_refused(caller, body)
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.INVALID_ARGUMENT, reason)
    assert refusal.fields == ([field] if field else [])


async def test_all_that_match_are_replayed_in_their_order(service: Service, desk: Desk, caller: Caller) -> None:
    await caller.batch(event("first"))
    await set_quota(service, 1)
    keyed = [event(f"k{number}") for number in range(3)]
    answer = await caller.batch(*keyed, event(), Event(source="hopeless"))
    assert {result.error.reason for result in answer.results} == {"QUOTA_EXCEEDED", "MISSING_FIELD"}
    vendor = VENDORS["scrip"]
    await receive(caller, vendor.batch, {"events": [vendor.event(0)]})
    await desk.seen(6)
    await set_quota(service, None)

    dry = await desk.replay_all(reason="QUOTA_EXCEEDED", validate_only=True)
    assert (dry.total, dry.success_count, dry.error_count) == (5, 5, 0)
    assert await caller.stored() == 1
    assert not (await desk.page(replayed=True)).rejections

    first = await desk.replay_all(reason="QUOTA_EXCEEDED", page_size=2)
    assert [each.result.status for each in first.results] == ["accepted"] * 2
    rest = await desk.replay_all(reason="QUOTA_EXCEEDED", page_size=9, page_token=first.next_page_token)
    assert [(each.result.index, each.result.status) for each in rest.results] == [
        (0, "accepted"),
        (1, "accepted"),
        (2, "accepted"),
    ]
    assert rest.next_page_token == ""
    stored = [(one.receiver, one.idempotency_key) for one in await caller.all_events()]
    assert stored[1:] == [("native", "k0"), ("native", "k1"), ("native", "k2"), ("native", ""), ("scrip", "order-0")]
    left = await desk.replay_all()
    assert (left.total, left.success_count, left.error_count) == (1, 0, 1)


async def test_concurrent_replays_of_all_store_each_once(service: Service, desk: Desk, caller: Caller) -> None:
    await set_quota(service, 0)
    await caller.batch(*[event(data={"n": number}) for number in range(120)])
    await desk.seen(120)
    await set_quota(service, None)
    answers = await asyncio.gather(*[desk.replay_all(page_size=200) for _ in range(4)])
    assert all(answer.error_count == 0 for answer in answers)
    assert await caller.stored() == 120
    assert len((await desk.page(replayed=True, page_size=200)).rejections) == 120


async def test_a_refusal_in_between_keeps_what_is_stored(service: Service, desk: Desk, caller: Caller) -> None:
    await caller.batch(event("first"))
    await set_quota(service, 1)
    await caller.batch(event("k0"), event("k1"))
    await desk.seen(2)
    await set_quota(service, 2)
    answer = await desk.replay_all()
    assert [each.result.status for each in answer.results] == ["accepted", "rejected"]
    assert len((await desk.page(replayed=True)).rejections) == 1
