"""RejectionService: a replay of one rejection stores its event once."""

import asyncio
import uuid

import grpc
import orjson
import pytest
from google.api.httpbody_pb2 import HttpBody

from headgate.v1.bridge_view_pb2 import (
    RawReplayRejectionRequest,
)
from headgate.v1.event_pb2 import Event
from headgate.v1.event_service_pb2 import GetEventRequest
from headgate_server.core.rejections import MOST_BYTES
from tests.support import database
from tests.support.calls import Caller, event, refused
from tests.support.inprocess import Service
from tests.support.marks import on_sqlite
from tests.support.rejection_desk import BAD, BRIDGED, REPLAY, Desk, receive, set_quota
from tests.support.vendors import VENDORS, Vendor


async def test_an_edited_event_is_stored_once_and_the_rejection_marked(desk: Desk, caller: Caller) -> None:
    await caller.json(b'{"events": [' + BAD + b"]}")
    (rejection,) = await desk.seen(1)
    body = b'{"event": {"type": "mended", "data": {"n": 12345678901234567890.50}}}'
    first = await desk.replay_json(rejection.id, body)
    assert (first["index"], first["status"], first["sequence"]) == (0, "accepted", 1)
    again = await desk.replay_json(rejection.id, body)
    assert again == {**first, "status": "duplicate"}
    marked = await desk.get(rejection.id)
    assert marked.event_id == first["id"]
    assert marked.HasField("replayed_at")
    request = GetEventRequest(id=first["id"])
    stored = (await caller.events.GetEvent(request, metadata=caller.metadata)).event
    assert stored.data_json == b'{"n":12345678901234567890.5}'
    assert [each.id for each in (await desk.page(replayed=True)).rejections] == [rejection.id]
    assert not (await desk.page(replayed=False)).rejections
    assert (await desk.replay_all()).total == 0


async def test_a_second_replay_with_other_content_is_a_conflict(service: Service, desk: Desk, caller: Caller) -> None:
    await caller.batch(Event(source="s"))
    (rejection,) = await desk.seen(1)
    first = await desk.replay(rejection.id, event(data={"n": 1}))
    other = await desk.replay(rejection.id, event(data={"n": 2}))
    assert (other.status, other.id, other.error.reason) == ("conflict", first.id, "ALREADY_REPLAYED")
    assert list(other.error.differing_fields) == ["/data/n"]
    # If the mark is missing, the request key finds the earlier replay.
    await database.execute(service.url, "UPDATE rejections SET replayed_at = NULL, event_id = NULL")
    unseen = await desk.replay(rejection.id, event(data={"n": 2}))
    assert (unseen.status, unseen.error.reason) == ("conflict", "ALREADY_REPLAYED")
    assert await caller.stored() == 1


async def test_an_event_with_a_key_is_a_duplicate_wherever_it_was_stored(desk: Desk, caller: Caller) -> None:
    await caller.batch(Event(source="shop"))
    (rejection,) = await desk.seen(1)
    (sent,) = (await caller.batch(event("k"))).results
    assert (await desk.replay(rejection.id, event("k", {"n": 1}))).status == "conflict"
    assert not (await desk.get(rejection.id)).event_id
    result = await desk.replay(rejection.id, event("k"))
    assert (result.status, result.id) == ("duplicate", sent.id)
    assert (await desk.get(rejection.id)).event_id == sent.id
    assert await caller.stored() == 1


async def test_an_event_without_a_key_is_stored_once_however_a_replay_ended(
    service: Service, desk: Desk, caller: Caller
) -> None:
    """A replay is killed between commit and mark, and repeated after the request key has expired."""
    await caller.batch(Event(source="s"))
    (rejection,) = await desk.seen(1)
    first = await desk.replay(rejection.id, event())
    await database.execute(service.url, "UPDATE rejections SET replayed_at = NULL, event_id = NULL")
    second = await desk.replay(rejection.id, event())
    assert (second.status, second.id) == ("duplicate", first.id)
    assert (await desk.get(rejection.id)).event_id == first.id
    await database.execute(service.url, "DELETE FROM answers")
    third = await desk.replay(rejection.id, event())
    assert (third.status, third.id, third.event_hash) == ("duplicate", first.id, first.event_hash)
    assert await caller.stored() == 1


@pytest.mark.parametrize("key", [None, "k"], ids=["without a key", "with a key"])
async def test_concurrent_replays_store_once(service: Service, desk: Desk, caller: Caller, key: str | None) -> None:
    await caller.batch(Event(source="s"))
    (rejection,) = await desk.seen(1)
    results = await asyncio.gather(*[desk.replay(rejection.id, event(key)) for _ in range(12)])
    assert sorted(result.status for result in results) == ["accepted"] + ["duplicate"] * 11
    assert len({result.id for result in results}) == 1
    assert await caller.stored() == 1


async def test_a_replay_that_fails_again_leaves_the_rejection_as_it_is(desk: Desk, caller: Caller) -> None:
    await caller.json(b'{"events": [' + BAD + b"]}")
    await caller.batch(Event(source="s"))
    found = await desk.seen(2)
    for each in found:
        result = await desk.replay(each.id)
        assert (result.status, result.error.reason, result.error.field) == ("rejected", "MISSING_FIELD", "type")
    edited = await desk.replay_json(found[0].id, b'{"event": {"type": "t", "occurred_at": "soon"}}')
    assert edited["error"]["reason"] == "INVALID_TIMESTAMP"
    unreadable = await desk.replay_json(found[0].id, b'{"event": {"type": "t", "data": {"a": 1e9999999999}}}')
    assert unreadable["error"]["reason"] == "NUMBER_OUT_OF_RANGE"
    await caller.batch(Event(source="last"))
    assert (await desk.seen(3))[:2] == found
    assert await caller.stored() == 0


@on_sqlite
@pytest.mark.parametrize(
    ("body", "reason", "field"),
    [
        pytest.param(b"{", "MALFORMED_JSON", "", id="no JSON"),
        pytest.param(b'"\xff"', "MALFORMED_JSON", "", id="no UTF-8"),
        pytest.param(b"[]", "NOT_AN_OBJECT", "", id="no object"),
        pytest.param(b'{"evnt": {"type": "t"}}', "UNKNOWN_FIELD", "evnt", id="an unknown field"),
        pytest.param(b'{"validate_only": 1}', "WRONG_TYPE", "validate_only", id="no boolean"),
        pytest.param(b'{"validate_only": true, "validateOnly": true}', "DUPLICATE_FIELD", "validate_only", id="twice"),
    ],
)
async def test_bodies_that_are_refused(desk: Desk, caller: Caller, body: bytes, reason: str, field: str) -> None:
    refusal = await refused(desk.replay_json(str(uuid.uuid4()), body))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.INVALID_ARGUMENT, reason)
    assert refusal.fields == ([field] if field else [])


@on_sqlite
async def test_both_encodings_at_once(caller: Caller) -> None:
    request = RawReplayRejectionRequest(id=str(uuid.uuid4()), event=b"", json=HttpBody(data=b"{}"))
    refusal = await refused(caller.send(request.SerializeToString(), HttpBody, method=REPLAY, metadata=BRIDGED))
    assert refusal.reason == "TWO_ENCODINGS"


async def test_a_large_event_is_cut_and_replayed_only_with_its_content(desk: Desk, caller: Caller) -> None:
    large = b'{"data": {"text": "' + "é".encode() * MOST_BYTES + b'"}}'
    await caller.json(b'{"events": [' + large + b', {"source":"small"}]}')
    huge = Event(data_json=b'{"a":"' + b"x" * MOST_BYTES + b'"}').SerializeToString()
    await caller.batch(huge)
    text, small, binary = await desk.seen(3)
    assert (text.cut, text.event_size) == (True, len(large))
    assert large.decode().startswith(text.event)
    assert MOST_BYTES - 4 < len(text.event.encode()) <= MOST_BYTES
    assert (binary.cut, binary.event_size, binary.event_base64) == (True, len(huge), huge[:MOST_BYTES])
    for each in (text, binary):
        refusal = await refused(desk.replay(each.id))
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "NOT_REPLAYABLE")
        assert refusal.fields == ["event"]
    answer = await desk.replay_all()
    reasons = [(each.rejection_id, each.result.error.reason) for each in answer.results]
    assert reasons == [(text.id, "NOT_REPLAYABLE"), (small.id, "MISSING_FIELD"), (binary.id, "NOT_REPLAYABLE")]
    assert (await desk.replay(text.id, event())).status == "accepted"


@pytest.mark.parametrize("vendor", VENDORS.values(), ids=VENDORS)
async def test_a_vendors_event_is_replayed_by_its_receiver_or_edited_natively(
    service: Service, desk: Desk, caller: Caller, vendor: Vendor
) -> None:
    lacking = {name: value for name, value in vendor.event(1).items() if name != vendor.text}
    text = orjson.dumps(lacking).replace(b":", b" : ", 1)
    await receive(caller, vendor.batch, b'{"x":[1],"events":[' + orjson.dumps(vendor.event(0)) + b", " + text + b"]}")
    (rejection,) = await desk.seen(1)
    assert rejection.event.encode() == text
    assert (rejection.receiver, rejection.reason) == (vendor.name, "MISSING_FIELD")
    again = await desk.replay(rejection.id)
    assert (again.status, again.error.message) == ("rejected", rejection.message)

    await set_quota(service, await caller.stored())
    single = vendor.batch.replace("/batch", "")
    await receive(caller, single, vendor.event(2))
    kept = (await desk.seen(2))[1]
    assert (kept.event.encode(), kept.reason) == (orjson.dumps(vendor.event(2)), "QUOTA_EXCEEDED")
    await set_quota(service, None)
    before = await caller.stored()
    results = [await desk.replay(kept.id) for _ in range(2)]
    assert [result.status for result in results] == ["accepted", "duplicate"]
    assert await caller.stored() == before + 1
    assert (await caller.all_events())[-1].receiver == vendor.name
    mended = await desk.replay(rejection.id, event("mended"))
    assert mended.status == "accepted"
    assert (await caller.all_events())[-1].receiver == "native"


@on_sqlite
async def test_a_rejection_whose_receiver_is_gone(service: Service, desk: Desk, caller: Caller) -> None:
    await receive(caller, VENDORS["flokit"].batch, {"events": [{"event": "x"}]})
    (rejection,) = await desk.seen(1)
    for change in ("receiver = 'gone'", "receiver = 'scrip', endpoint = 'GET /v1/events'"):
        await database.execute(service.url, f"UPDATE rejections SET {change}")
        assert (await refused(desk.replay(rejection.id))).reason == "NOT_REPLAYABLE"
        assert (await desk.replay_all()).results[0].result.error.reason == "NOT_REPLAYABLE"


async def test_a_dry_run_changes_nothing(desk: Desk, caller: Caller) -> None:
    await caller.batch(Event(source="s"))
    (rejection,) = await desk.seen(1)
    result = await desk.replay(rejection.id, event(), validate_only=True)
    assert (result.status, result.id) == ("accepted", "")
    answer = await desk.replay_json(rejection.id, b'{"event": {"type": "t"}, "validateOnly": true}')
    assert answer == {"index": 0, "status": "accepted"}
    assert await caller.stored() == 0
    assert await desk.get(rejection.id) == rejection
