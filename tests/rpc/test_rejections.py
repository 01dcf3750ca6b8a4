"""RejectionService: refused events are shown as they were sent, and a replay stores each once."""

import asyncio
import uuid
from collections.abc import Sequence
from typing import Any
from uuid import UUID

import grpc
import orjson
import pytest
from google.api.httpbody_pb2 import HttpBody
from google.protobuf.timestamp_pb2 import Timestamp

from headgate.v1.bridge_view_pb2 import (
    RawIngestRequest,
    RawReplayRejectionRequest,
    RawReplayRejectionsRequest,
)
from headgate.v1.event_pb2 import Event
from headgate.v1.event_service_pb2 import GetEventRequest
from headgate.v1.ingest_service_pb2 import EventResult
from headgate.v1.rejection_service_pb2 import (
    GetRejectionRequest,
    ListRejectionsRequest,
    ListRejectionsResponse,
    Rejection,
    ReplayRejectionRequest,
    ReplayRejectionsRequest,
    ReplayRejectionsResponse,
)
from headgate.v1.rejection_service_pb2_grpc import RejectionServiceStub
from headgate_server.access import admin
from headgate_server.core.model import Scope
from headgate_server.core.rejections import MOST_BYTES
from headgate_server.ingest.rejections import RejectionConfig
from tests.support import database
from tests.support.calls import Caller, Refusal, event, refused, statuses
from tests.support.inprocess import Service, serving
from tests.support.marks import on_sqlite
from tests.support.rejections import DAY, MINUTE, rejection
from tests.support.vendors import VENDORS, Vendor
from tests.support.waiting import until

BRIDGED = (("x-envoy-original-path", "/v1/x"), ("x-headgate-bridge", "1"))
SINGLE = "/headgate.v1.IngestService/Ingest"
REPLAY = "/headgate.v1.RejectionService/ReplayRejection"
REPLAY_ALL = "/headgate.v1.RejectionService/ReplayRejections"
BAD = b'{ "source":"shop",\t"data": {"n": 1.50, "u": "\\u00e9 \xc3\xa9"}}'


class Desk:
    """An operator's requests with a caller's key."""

    def __init__(self, caller: Caller):
        self.caller = caller
        self.stub = RejectionServiceStub(caller._channel)

    async def page(self, **request: Any) -> ListRejectionsResponse:
        """Return one page."""
        answer: ListRejectionsResponse = await self.stub.ListRejections(
            ListRejectionsRequest(**request), metadata=self.caller.metadata
        )
        return answer

    async def seen(self, count: int, **request: Any) -> Sequence[Rejection]:
        """Return so many rejections, the oldest first, as soon as they are written."""

        async def there() -> Sequence[Rejection]:
            page = await self.page(page_size=1_000, **request)
            return page.rejections if len(page.rejections) >= count else ()

        found = await until(there)
        assert len(found) == count
        return found[::-1]

    async def get(self, rejection_id: str) -> Rejection:
        """Return one rejection."""
        request = GetRejectionRequest(id=rejection_id)
        answer = await self.stub.GetRejection(request, metadata=self.caller.metadata)
        found: Rejection = answer.rejection
        return found

    async def replay(self, rejection_id: str, edited: Event | None = None, **options: bool) -> EventResult:
        """Replay one rejection."""
        request = ReplayRejectionRequest(id=rejection_id, event=edited, **options)
        answer = await self.stub.ReplayRejection(request, metadata=self.caller.metadata)
        result: EventResult = answer.result
        return result

    async def replay_json(self, rejection_id: str, body: bytes) -> Any:
        """Replay one rejection like the bridge."""
        request = RawReplayRejectionRequest(id=rejection_id, json=HttpBody(data=body))
        answer = await self.caller.send(request.SerializeToString(), HttpBody, method=REPLAY, metadata=BRIDGED)
        return orjson.loads(answer.data)

    async def replay_all(self, **request: Any) -> ReplayRejectionsResponse:
        """Replay all that match."""
        answer: ReplayRejectionsResponse = await self.stub.ReplayRejections(
            ReplayRejectionsRequest(**request), metadata=self.caller.metadata
        )
        return answer


@pytest.fixture
def desk(caller: Caller) -> Desk:
    """Return an operator's requests with a key that has every scope."""
    return Desk(caller)


async def _receive(caller: Caller, path: str, body: Any) -> None:
    """Send a vendor's request. The answer may be an error."""
    data = body if isinstance(body, bytes) else orjson.dumps(body)
    metadata = (*BRIDGED, ("x-headgate-method", "POST"), ("x-headgate-path", path))
    method = "/headgate.v1.CompatService/Receive"
    await caller.send(HttpBody(data=data).SerializeToString(), HttpBody, method=method, metadata=metadata)


async def _quota(service: Service, quota: int | None) -> None:
    workspace = await service.store.directory.workspace("acme")
    assert workspace is not None
    await service.store.limits.set_quota(workspace.id, quota)


async def test_an_event_of_a_json_batch_is_kept_as_its_exact_text(desk: Desk, caller: Caller) -> None:
    answer = await caller.json(b'{"events" : [{"type":"t"},\n ' + BAD + b' ,5, {"type":"\\ud800"}]}')
    assert [result["status"] for result in answer["results"]] == ["accepted", "rejected", "rejected", "rejected"]
    missing, number, surrogate = await desk.seen(3)
    assert missing.event.encode() == BAD
    assert (number.event, surrogate.event) == ("5", '{"type":"\\ud800"}')
    assert (missing.reason, missing.field, missing.message) == ("MISSING_FIELD", "type", "The type field is required.")
    assert (missing.receiver, missing.event_size, missing.cut) == ("native", len(BAD), False)
    (key,) = await _keys(desk)
    assert missing.key_id == key
    assert missing.request_id
    assert await desk.get(missing.id) == missing
    assert not missing.HasField("replayed_at")
    assert missing.received_at.ToNanoseconds() < number.received_at.ToNanoseconds()


async def _keys(desk: Desk) -> set[str]:
    return {rejection.key_id for rejection in (await desk.page()).rejections}


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
    await _receive(caller, VENDORS["flokit"].batch, {"events": [{"event": "x"}]})
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


async def test_all_that_match_are_replayed_in_their_order(service: Service, desk: Desk, caller: Caller) -> None:
    await caller.batch(event("first"))
    await _quota(service, 1)
    keyed = [event(f"k{number}") for number in range(3)]
    answer = await caller.batch(*keyed, event(), Event(source="hopeless"))
    assert {result.error.reason for result in answer.results} == {"QUOTA_EXCEEDED", "MISSING_FIELD"}
    vendor = VENDORS["scrip"]
    await _receive(caller, vendor.batch, {"events": [vendor.event(0)]})
    await desk.seen(6)
    await _quota(service, None)

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
    await _quota(service, 0)
    await caller.batch(*[event(data={"n": number}) for number in range(120)])
    await desk.seen(120)
    await _quota(service, None)
    answers = await asyncio.gather(*[desk.replay_all(page_size=200) for _ in range(4)])
    assert all(answer.error_count == 0 for answer in answers)
    assert await caller.stored() == 120
    assert len((await desk.page(replayed=True, page_size=200)).rejections) == 120


async def test_a_refusal_in_between_keeps_what_is_stored(service: Service, desk: Desk, caller: Caller) -> None:
    await caller.batch(event("first"))
    await _quota(service, 1)
    await caller.batch(event("k0"), event("k1"))
    await desk.seen(2)
    await _quota(service, 2)
    answer = await desk.replay_all()
    assert [each.result.status for each in answer.results] == ["accepted", "rejected"]
    assert len((await desk.page(replayed=True)).rejections) == 1


@pytest.mark.parametrize("vendor", VENDORS.values(), ids=VENDORS)
async def test_a_vendors_event_is_replayed_by_its_receiver_or_edited_natively(
    service: Service, desk: Desk, caller: Caller, vendor: Vendor
) -> None:
    lacking = {name: value for name, value in vendor.event(1).items() if name != vendor.text}
    text = orjson.dumps(lacking).replace(b":", b" : ", 1)
    await _receive(caller, vendor.batch, b'{"x":[1],"events":[' + orjson.dumps(vendor.event(0)) + b", " + text + b"]}")
    (rejection,) = await desk.seen(1)
    assert rejection.event.encode() == text
    assert (rejection.receiver, rejection.reason) == (vendor.name, "MISSING_FIELD")
    again = await desk.replay(rejection.id)
    assert (again.status, again.error.message) == ("rejected", rejection.message)

    await _quota(service, await caller.stored())
    single = vendor.batch.replace("/batch", "")
    await _receive(caller, single, vendor.event(2))
    kept = (await desk.seen(2))[1]
    assert (kept.event.encode(), kept.reason) == (orjson.dumps(vendor.event(2)), "QUOTA_EXCEEDED")
    await _quota(service, None)
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
    await _receive(caller, VENDORS["flokit"].batch, {"events": [{"event": "x"}]})
    (rejection,) = await desk.seen(1)
    for change in ("receiver = 'gone'", "receiver = 'scrip', endpoint = 'GET /v1/events'"):
        await database.execute(service.url, f"UPDATE rejections SET {change}")
        assert (await refused(desk.replay(rejection.id))).reason == "NOT_REPLAYABLE"
        assert (await desk.replay_all()).results[0].result.error.reason == "NOT_REPLAYABLE"


async def test_differences_are_shown_to_callers_that_may_read(service: Service, desk: Desk) -> None:
    await desk.caller.batch(event("k", {"n": 1}))
    await desk.caller.batch(event("k", {"n": 2}))
    (rejection,) = await desk.seen(1)
    assert list((await desk.replay(rejection.id)).error.differing_fields) == ["/data/n"]
    async with service.caller(Scope.EVENTS_WRITE) as writer:
        result = await Desk(writer).replay(rejection.id)
        assert (result.status, list(result.error.differing_fields)) == ("conflict", [])


async def test_a_dry_run_changes_nothing(desk: Desk, caller: Caller) -> None:
    await caller.batch(Event(source="s"))
    (rejection,) = await desk.seen(1)
    result = await desk.replay(rejection.id, event(), validate_only=True)
    assert (result.status, result.id) == ("accepted", "")
    answer = await desk.replay_json(rejection.id, b'{"event": {"type": "t"}, "validateOnly": true}')
    assert answer == {"index": 0, "status": "accepted"}
    assert await caller.stored() == 0
    assert await desk.get(rejection.id) == rejection


async def test_waiting_rejections_are_written_at_the_stop(store_url: str) -> None:
    async with serving(store_url) as service, service.caller() as caller:
        await caller.batch(*[Event(source="s")] * 300)
    async with serving(store_url) as service, service.caller() as caller:
        assert len((await Desk(caller).page(page_size=1_000)).rejections) == 300


async def test_only_the_newest_are_kept_and_a_flood_is_counted(store_url: str) -> None:
    config = RejectionConfig(most=5, burst=8, per_second=0.0)
    async with serving(store_url, rejections=config) as service, service.caller() as caller:
        desk = Desk(caller)
        await caller.batch(*[Event(source=f"s{number}") for number in range(20)])

        async def trimmed() -> bool:
            page = await desk.page()
            return (len(page.rejections), page.omitted) == (5, 12)

        await until(trimmed)
        found = await desk.seen(5)
        assert [Event.FromString(each.event_base64).source for each in found] == ["s3", "s4", "s5", "s6", "s7"]


async def test_old_rejections_are_purged(store_url: str) -> None:
    async with admin.opened(store_url) as store:
        workspace = (await store.directory.create_workspace("acme")).id
        now = await store.ledgers.now()
        old, young = rejection(workspace, now - 3 * DAY - MINUTE), rejection(workspace, now - 3 * DAY + 60 * MINUTE)
        await store.rejections.keep([old, young], {})
    async with serving(store_url, rejections=RejectionConfig(days=3)) as service, service.caller() as caller:
        desk = Desk(caller)

        async def purged() -> bool:
            return [UUID(each.id).bytes for each in (await desk.page()).rejections] == [young.id]

        await until(purged)


@on_sqlite
async def test_off(store_url: str) -> None:
    async with serving(store_url) as service, service.caller() as caller:
        await caller.batch(Event(source="before"))
        await Desk(caller).seen(1)
    async with serving(store_url, rejections=RejectionConfig(most=0)) as service, service.caller() as caller:
        await caller.batch(Event(source="s"))
    async with serving(store_url) as service, service.caller() as caller:
        # Earlier rejections stay until their days are over.
        (rejection,) = await Desk(caller).seen(1)
        assert Event.FromString(rejection.event_base64).source == "before"


async def test_an_answer_does_not_fail_with_the_rejections(store_url: str) -> None:
    async with serving(store_url) as service, service.caller() as caller:
        await database.execute(service.url, "ALTER TABLE rejections RENAME TO elsewhere")
        for _ in range(3):
            assert statuses(await caller.batch(event(), Event(source="s"))) == ["accepted", "rejected"]
