"""RejectionService: refused events are shown as they were sent."""

import uuid
from typing import Any

import grpc
from google.api.httpbody_pb2 import HttpBody
from google.protobuf.timestamp_pb2 import Timestamp

from headgate.v1.bridge_view_pb2 import (
    RawIngestRequest,
)
from headgate.v1.event_pb2 import Event
from headgate_server.core.model import Scope
from tests.support.calls import Caller, event, refused, statuses
from tests.support.inprocess import Service
from tests.support.marks import on_sqlite
from tests.support.rejection_desk import BAD, BRIDGED, SINGLE, Desk, keys_of, receive
from tests.support.vendors import VENDORS


async def test_an_event_of_a_json_batch_is_kept_as_its_exact_text(desk: Desk, caller: Caller) -> None:
    answer = await caller.json(b'{"events" : [{"type":"t"},\n ' + BAD + b' ,5, {"type":"\\ud800"}]}')
    assert [result["status"] for result in answer["results"]] == ["accepted", "rejected", "rejected", "rejected"]
    missing, number, surrogate = await desk.seen(3)
    assert missing.event.encode() == BAD
    assert (number.event, surrogate.event) == ("5", '{"type":"\\ud800"}')
    assert (missing.reason, missing.field, missing.message) == ("MISSING_FIELD", "type", "The type field is required.")
    assert (missing.receiver, missing.event_size, missing.cut) == ("native", len(BAD), False)
    (key,) = await keys_of(desk)
    assert missing.key_id == key
    assert missing.request_id
    assert await desk.get(missing.id) == missing
    assert not missing.HasField("replayed_at")
    assert missing.received_at.ToNanoseconds() < number.received_at.ToNanoseconds()


async def test_an_event_of_a_protobuf_batch_is_kept_as_its_bytes(desk: Desk, caller: Caller) -> None:
    bad, broken = Event(source="shop").SerializeToString(), b"\x0a\xff\xff"
    assert statuses(await caller.batch(event(), bad, broken)) == ["accepted", "rejected", "rejected"]
    first, second = await desk.seen(2)
    assert (first.event_base64, second.event_base64) == (bad, broken)
    assert first.WhichOneof("sent") == "event_base64"
    assert second.reason == "MALFORMED_EVENT"


@on_sqlite
async def test_a_single_event_is_kept_in_either_encoding(desk: Desk, caller: Caller) -> None:
    request = RawIngestRequest(json=HttpBody(data=b" " + BAD + b"\n"))
    await refused(caller.send(request.SerializeToString(), HttpBody, method=SINGLE, metadata=BRIDGED))
    await refused(caller.single(Event(source="shop")))
    await caller.single(event("k"))
    await refused(caller.single(event("k", {"n": 2})))
    as_json, as_bytes, conflict = await desk.seen(3)
    assert as_json.event.encode() == BAD
    assert as_bytes.event_base64 == Event(source="shop").SerializeToString()
    assert conflict.reason == "IDEMPOTENCY_CONFLICT"


async def test_other_outcomes_are_not_kept(desk: Desk, caller: Caller) -> None:
    """Refused requests, dry runs, aborted and stored events, and the same answer given again."""
    await refused(caller.send(b"\xff", HttpBody))
    await refused(caller.json(b'{"events": [{"type":}]}'))
    await refused(caller.batch())
    await caller.batch(Event(source="dry"), validate_only=True)
    await caller.batch(event("k"), event("k"))
    await caller.keyed("r", Event(source="once"), event())
    _, replayed = await caller.keyed("r", Event(source="once"), event())
    assert replayed
    await caller.batch(event(), Event(source="atomic"), atomic=True)
    once, atomic = await desk.seen(2)
    assert Event.FromString(once.event_base64).source == "once"
    assert Event.FromString(atomic.event_base64).source == "atomic"


async def test_filters_and_pages(desk: Desk, caller: Caller) -> None:
    await caller.batch(event("k"))
    await caller.batch(*[Event(source=f"s{number}") for number in range(5)], event("k", {"n": 1}))
    await receive(caller, VENDORS["flokit"].batch, {"events": [{"event": "x"}]})
    found = await desk.seen(7)
    by_reason = (await desk.page(reason="IDEMPOTENCY_CONFLICT")).rejections
    assert [each.id for each in by_reason] == [found[5].id]
    assert [each.id for each in (await desk.page(receiver="flokit")).rejections] == [found[6].id]
    assert len((await desk.page(key_id=found[0].key_id)).rejections) == 7
    assert not (await desk.page(key_id="key_0")).rejections
    bounds = {"from": found[1].received_at, "to": found[4].received_at}
    assert [each.id for each in (await desk.page(**bounds)).rejections] == [each.id for each in found[3:0:-1]]
    seen, token = [], ""
    while True:
        page = await desk.page(page_size=2, page_token=token, reason="MISSING_FIELD")
        assert len(page.rejections) <= 2
        seen += [each.id for each in page.rejections]
        token = page.next_page_token
        if not token:
            break
    assert seen == [each.id for each in (*found[:5], found[6])][::-1]


async def _why(desk: Desk, **request: Any) -> tuple[grpc.StatusCode, str, list[str]]:
    refusal = await refused(desk.page(**request))
    return refusal.code, refusal.reason, refusal.fields


@on_sqlite
async def test_queries_that_are_refused(desk: Desk, caller: Caller) -> None:
    bad = grpc.StatusCode.INVALID_ARGUMENT
    await caller.batch(*[Event(source="s")] * 3)
    await desk.seen(3)
    token = (await desk.page(page_size=1)).next_page_token
    assert await _why(desk, reason="NONSENSE") == (bad, "INVALID_FILTER", ["reason"])
    assert await _why(desk, receiver="nobody") == (bad, "INVALID_FILTER", ["receiver"])
    assert await _why(desk, key_id="a\0b") == (bad, "INVALID_CHARACTER", ["key_id"])
    assert await _why(desk, page_size=-1) == (bad, "NEGATIVE", ["page_size"])
    assert await _why(desk, page_token="x") == (bad, "INVALID_PAGE_TOKEN", ["page_token"])
    assert await _why(desk, page_token=token, reason="MISSING_FIELD") == (bad, "INVALID_PAGE_TOKEN", ["page_token"])
    never = Timestamp(seconds=-(10**12))
    assert await _why(desk, **{"from": never}) == (bad, "INVALID_TIMESTAMP", ["from"])
    for ask in (desk.get, desk.replay):
        assert (await refused(ask("nonsense"))).reason == "INVALID_ID"
        missing = await refused(ask(str(uuid.uuid4())))
        assert (missing.code, missing.reason) == (grpc.StatusCode.NOT_FOUND, "REJECTION_NOT_FOUND")


async def test_another_workspace_sees_and_replays_nothing(service: Service, desk: Desk, caller: Caller) -> None:
    await caller.batch(Event(source="s"))
    (rejection,) = await desk.seen(1)
    async with service.caller(workspace="other") as stranger:
        theirs = Desk(stranger)
        for ask in (theirs.get(rejection.id), theirs.replay(rejection.id), theirs.replay(rejection.id, event())):
            assert (await refused(ask)).reason == "REJECTION_NOT_FOUND"
        page = await theirs.page()
        assert (list(page.rejections), page.omitted) == ([], 0)
        assert (await theirs.replay_all()).total == 0
        token = (await desk.page(page_size=1)).next_page_token
        assert token == ""
        assert await stranger.stored() == 0


async def test_differences_are_shown_to_callers_that_may_read(service: Service, desk: Desk) -> None:
    await desk.caller.batch(event("k", {"n": 1}))
    await desk.caller.batch(event("k", {"n": 2}))
    (rejection,) = await desk.seen(1)
    assert list((await desk.replay(rejection.id)).error.differing_fields) == ["/data/n"]
    async with service.caller(Scope.EVENTS_WRITE) as writer:
        result = await Desk(writer).replay(rejection.id)
        assert (result.status, list(result.error.differing_fields)) == ("conflict", [])
